//! What the instances and the recorder last said, and which of it is worth a reconcile.
//!
//! Pure: messages and times go in, triggers come out. Numbers that move all the time (bytes, counts) never trigger;
//! phase, problem, picture format, silence and lag do. Called by the broker's supervisor (writes) and by `observe`
//! (reads).

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::domain::{
    control::{HEARTBEAT_SECONDS, InstanceReport, Phase, Problem, StreamSummary, Summary, VideoInfo},
    id::{InstanceUid, StreamId},
};

/// An instance that said nothing for this long is silent: three heartbeats and a half.
pub const SILENCE: SignedDuration = SignedDuration::from_secs((HEARTBEAT_SECONDS * 7 / 2).cast_signed());
/// The recorder is silent when it said nothing about a pipeline for this long (it speaks every 30 s).
pub const RECORDER_SILENCE: SignedDuration = SignedDuration::from_secs(180);
/// Footage that waits longer than this to be stored is worth a word.
pub const LAG: SignedDuration = SignedDuration::from_mins(5);

/// What is known of an instance by its own word.
#[derive(Clone, Debug, PartialEq)]
pub enum View {
    /// It reported lately.
    Fresh(Box<InstanceReport>),
    /// It did not, but could not have yet: the operator, the broker or the instance is new.
    Awaiting,
    /// It should have.
    Silent,
}

/// The broker's link, as far as silence is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Connected since.
    Up(Timestamp),
    /// Not connected since.
    Down(Timestamp),
}

impl Link {
    /// When the present state began.
    pub fn since(self) -> Timestamp {
        match self {
            Self::Up(since) | Self::Down(since) => since,
        }
    }
}

/// A summary with the time it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSummary {
    /// What the recorder said.
    pub summary: Summary,
    /// When.
    pub received_at: Timestamp,
}

impl SeenSummary {
    /// Has the recorder been silent since?
    pub fn is_stale(&self, now: Timestamp) -> bool {
        now.duration_since(self.received_at) > RECORDER_SILENCE
    }
}

/// Is footage of this stream catalogued and not stored for too long?
pub fn lags(stream: &StreamSummary) -> bool {
    match (stream.catalogued_until, stream.stored_until) {
        (Some(catalogued), Some(stored)) => catalogued.duration_since(stored) > LAG,
        _ => false,
    }
}

/// Everything the instances and the recorder said.
#[derive(Debug, Default)]
pub struct Fleet {
    instances: HashMap<InstanceUid, Instance>,
    summaries: HashMap<String, Recorded>,
}

#[derive(Debug)]
struct Instance {
    expected_since: Timestamp,
    report: Option<Box<(InstanceReport, Timestamp)>>,
    acknowledged: u64,
    told: Option<Box<Coarse>>,
}

#[derive(Debug)]
struct Recorded {
    seen: SeenSummary,
    told: Option<CoarseSummary>,
}

/// The part of an instance's state that people and other controllers see; a change of it triggers.
#[derive(Clone, Debug, PartialEq)]
enum Coarse {
    Fresh { phase: Phase, problem: Option<Problem>, video: Option<VideoInfo>, lagging: bool, revision: u64 },
    Awaiting,
    Silent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct CoarseSummary {
    stale: bool,
    streams: Vec<(StreamId, bool, bool, Option<Problem>)>,
}

impl Fleet {
    /// From now on reports of this instance are of interest.
    pub fn expect(&mut self, uid: InstanceUid, now: Timestamp) {
        self.instances.entry(uid).or_insert_with(|| Instance {
            expected_since: now,
            report: None,
            acknowledged: 0,
            told: None,
        });
    }

    /// The instance is no longer of interest.
    pub fn forget(&mut self, uid: InstanceUid) {
        self.instances.remove(&uid);
    }

    /// The pipeline is no longer of interest.
    pub fn forget_pipeline(&mut self, pipeline_uid: &str) {
        self.summaries.remove(pipeline_uid);
    }

    /// Takes in a report; one of an instance nobody expects is dropped (the next comes in ten seconds).
    pub fn reported(&mut self, uid: InstanceUid, mut report: InstanceReport, now: Timestamp) {
        if let Some(instance) = self.instances.get_mut(&uid) {
            // Frame rate and GOP are measured and jitter; what is shown changes only when the picture really does.
            if let Some((previous, _)) = instance.report.as_deref()
                && let (Some(shown), Some(seen)) = (&previous.video, &report.video)
                && same_picture(shown, seen)
            {
                report.video = Some(shown.clone());
            }
            instance.report = Some(Box::new((report, now)));
        }
    }

    /// Takes in an acknowledgement.
    pub fn acknowledged(&mut self, uid: InstanceUid, revision: u64) {
        if let Some(instance) = self.instances.get_mut(&uid) {
            instance.acknowledged = instance.acknowledged.max(revision);
        }
    }

    /// Takes in what the recorder says of a pipeline.
    pub fn summarised(&mut self, summary: Summary, now: Timestamp) {
        let uid = summary.pipeline.uid.clone();
        let seen = SeenSummary { summary, received_at: now };
        match self.summaries.get_mut(&uid) {
            Some(recorded) => recorded.seen = seen,
            None => {
                self.summaries.insert(uid, Recorded { seen, told: None });
            }
        }
    }

    /// What is known of an instance.
    pub fn view(&self, uid: InstanceUid, link: Link, now: Timestamp) -> View {
        let Some(instance) = self.instances.get(&uid) else { return View::Awaiting };
        match instance.report.as_deref() {
            Some((report, received_at)) if now.duration_since(*received_at) <= SILENCE => {
                View::Fresh(Box::new(report.clone()))
            }
            _ => {
                let since = instance.expected_since.max(link.since());
                if now.duration_since(since) <= SILENCE { View::Awaiting } else { View::Silent }
            }
        }
    }

    /// Highest revision the instance said it applied.
    pub fn applied_revision(&self, uid: InstanceUid) -> u64 {
        self.instances.get(&uid).map_or(0, |instance| {
            let reported = instance.report.as_deref().map_or(0, |(report, _)| report.revision);
            instance.acknowledged.max(reported)
        })
    }

    /// What the recorder said of a pipeline.
    pub fn summary(&self, pipeline_uid: &str) -> Option<&SeenSummary> {
        self.summaries.get(pipeline_uid).map(|recorded| &recorded.seen)
    }

    /// Every pipeline and stream the recorder speaks about, for the sweep.
    pub fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.summaries.values().map(|recorded| &recorded.seen.summary)
    }

    /// How many instances report pictures.
    pub fn running(&self, link: Link, now: Timestamp) -> usize {
        self.instances
            .keys()
            .filter(|uid| matches!(self.view(**uid, link, now), View::Fresh(report) if report.phase == Phase::Running))
            .count()
    }

    /// Is the coarse state of this instance another than when last asked?
    pub fn changed(&mut self, uid: InstanceUid, link: Link, now: Timestamp) -> bool {
        let coarse = match self.view(uid, link, now) {
            View::Awaiting => Coarse::Awaiting,
            View::Silent => Coarse::Silent,
            View::Fresh(report) => Coarse::Fresh {
                phase: report.phase,
                lagging: backlog_lags(&report, now),
                revision: self.applied_revision(uid),
                problem: report.problem,
                video: report.video,
            },
        };
        self.instances.get_mut(&uid).is_some_and(|instance| {
            let changed = instance.told.as_deref() != Some(&coarse);
            instance.told = Some(Box::new(coarse));
            changed
        })
    }

    /// Every instance that [`Self::changed`].
    pub fn changed_instances(&mut self, link: Link, now: Timestamp) -> Vec<InstanceUid> {
        let uids: Vec<_> = self.instances.keys().copied().collect();
        uids.into_iter().filter(|uid| self.changed(*uid, link, now)).collect()
    }

    /// Pipelines of which the recorder's coarse word is another than when last asked.
    pub fn changed_pipelines(&mut self, now: Timestamp) -> Vec<String> {
        self.summaries
            .iter_mut()
            .filter_map(|(uid, recorded)| {
                let coarse = CoarseSummary {
                    stale: recorded.seen.is_stale(now),
                    streams: recorded
                        .seen
                        .summary
                        .streams
                        .iter()
                        .map(|s| (s.stream, lags(s), s.stored_until.is_some(), s.problem.clone()))
                        .collect(),
                };
                let changed = recorded.told.as_ref() != Some(&coarse);
                recorded.told = Some(coarse);
                changed.then(|| uid.clone())
            })
            .collect()
    }
}

/// Does footage wait in the spool for too long?
pub fn backlog_lags(report: &InstanceReport, now: Timestamp) -> bool {
    report.backlog.oldest.is_some_and(|oldest| now.duration_since(oldest) > LAG)
}

fn same_picture(a: &VideoInfo, b: &VideoInfo) -> bool {
    let gop_known = a.gop_seconds.is_some() || b.gop_seconds.is_none();
    let gop_close = match (a.gop_seconds, b.gop_seconds) {
        (Some(a), Some(b)) => (a - b).abs() <= 0.25 * a.max(b) + 0.1,
        _ => true,
    };
    (&a.codec, a.width, a.height, &a.audio) == (&b.codec, b.width, b.height, &b.audio)
        && (a.fps - b.fps).abs() <= 1.0
        && gop_known
        && gop_close
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::control::{Backlog, ObjectRef};

    const UID: InstanceUid = InstanceUid(Uuid::from_u128(1));

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("in range")
    }

    fn running() -> InstanceReport {
        InstanceReport { phase: Phase::Running, ..InstanceReport::default() }
    }

    #[test]
    fn a_healthy_instance_triggers_once_and_then_rests() {
        let (mut fleet, link) = (Fleet::default(), Link::Up(at(0)));
        fleet.expect(UID, at(0));
        fleet.reported(UID, running(), at(1));
        assert_eq!(fleet.changed_instances(link, at(1)), [UID]);
        for heartbeat in 1..10 {
            let mut report = running();
            report.backlog = Backlog { unstored: heartbeat, bytes: heartbeat * 1000, ..Backlog::default() };
            fleet.reported(UID, report, at(1 + 10 * heartbeat.cast_signed()));
            assert!(fleet.changed_instances(link, at(1 + 10 * heartbeat.cast_signed())).is_empty());
        }
        assert_eq!(fleet.running(link, at(95)), 1);
    }

    #[test]
    fn silence_is_seen_and_triggers() {
        let (mut fleet, link) = (Fleet::default(), Link::Up(at(0)));
        fleet.expect(UID, at(0));
        fleet.reported(UID, running(), at(1));
        fleet.changed_instances(link, at(1));
        assert!(matches!(fleet.view(UID, link, at(36)), View::Fresh(_)));
        assert_eq!(fleet.view(UID, link, at(37)), View::Silent);
        assert_eq!(fleet.changed_instances(link, at(37)), [UID]);
    }

    #[test]
    fn an_operator_that_just_started_waits_before_it_calls_an_instance_silent() {
        let mut fleet = Fleet::default();
        fleet.expect(UID, at(0));
        assert_eq!(fleet.view(UID, Link::Up(at(0)), at(20)), View::Awaiting);
        // The broker came back only now.
        assert_eq!(fleet.view(UID, Link::Up(at(100)), at(120)), View::Awaiting);
        assert_eq!(fleet.view(UID, Link::Down(at(0)), at(120)), View::Silent);
    }

    #[test]
    fn a_measured_frame_rate_that_jitters_changes_nothing() {
        let (mut fleet, link) = (Fleet::default(), Link::Up(at(0)));
        fleet.expect(UID, at(0));
        for (second, fps, gop) in [(1, 25.0, 2.0), (11, 24.6, 2.1), (21, 25.3, 1.9)] {
            let video = VideoInfo { codec: "h264".into(), fps, gop_seconds: Some(gop), ..VideoInfo::default() };
            fleet.reported(UID, InstanceReport { video: Some(video), ..running() }, at(second));
            assert_eq!(fleet.changed_instances(link, at(second)).len(), usize::from(second == 1));
        }
        let video = VideoInfo { codec: "hevc".into(), fps: 25.0, gop_seconds: Some(2.0), ..VideoInfo::default() };
        fleet.reported(UID, InstanceReport { video: Some(video), ..running() }, at(31));
        assert_eq!(fleet.changed_instances(link, at(31)), [UID]);
    }

    #[test]
    fn an_old_backlog_triggers() {
        let (mut fleet, link) = (Fleet::default(), Link::Up(at(0)));
        fleet.expect(UID, at(0));
        let backlog = Backlog { oldest: Some(at(0)), ..Backlog::default() };
        for (second, expected) in [(290, 1), (299, 0), (301, 1), (310, 0)] {
            fleet.reported(UID, InstanceReport { backlog: backlog.clone(), ..running() }, at(second));
            assert_eq!(fleet.changed_instances(link, at(second)).len(), expected, "{second}");
        }
    }

    #[test]
    fn the_recorders_moving_times_trigger_only_when_storing_lags() {
        let mut fleet = Fleet::default();
        let summary = |catalogued: i64, stored: i64| Summary {
            pipeline: ObjectRef { namespace: "n".into(), name: "p".into(), uid: "u".into() },
            streams: vec![StreamSummary {
                stream: StreamId(Uuid::nil()),
                camera: ObjectRef { namespace: "n".into(), name: "c".into(), uid: "c".into() },
                catalogued_until: Some(at(catalogued)),
                stored_until: Some(at(stored)),
                problem: None,
            }],
        };
        for (now, catalogued, stored, expected) in
            [(100, 90, 30, 1), (160, 150, 90, 0), (460, 450, 100, 1), (520, 510, 500, 1)]
        {
            fleet.summarised(summary(catalogued, stored), at(now));
            assert_eq!(fleet.changed_pipelines(at(now)).len(), expected, "{now}");
        }
        assert_eq!(fleet.changed_pipelines(at(520 + 181)), ["u"]);
    }
}
