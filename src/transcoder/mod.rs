//! Role `transcoder`: makes the other renditions of each finished segment in the spool, beside the capture and never in
//! its way.
//!
//! It reads hostile input through ffmpeg, so it holds nothing: no token, no credential, no broker. What it is told and
//! what it says are files; killed at any line it leaves nothing half, and goes on where it was.

mod look;
mod work;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::work::Failed;
use crate::{
    domain::{
        control::{Activity, Envelope, Phase, Problem},
        id::SessionId,
        ladder::{self, BEHIND_US, LadderAssignment, MAX_RENDITIONS, Rendition, Waiting, is_rendition},
        spool::{self, TranscoderReport},
    },
    files::{self, Hints},
    orphans,
    report::Reporter,
    telemetry::{self, Outcome},
};

/// The spool is looked at this often even without a hint.
const RESCAN: Duration = Duration::from_secs(5);
/// That something was left out stays said for this long.
const LEFT_OUT_STAYS: Duration = Duration::from_secs(120);
/// Our share of the processor where the capture wants it too.
const NICE: i32 = 10;

/// Arguments of the role.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Volume for footage, shared with runner and agent.
    #[arg(long, env = "DSN_SPOOL", default_value = "/spool")]
    pub spool: PathBuf,
    /// Folder in which the agent writes the assignment.
    #[arg(long, env = "DSN_ASSIGNMENT", default_value = "/assignment")]
    pub assignment: PathBuf,
    /// Program that transcodes.
    #[arg(long, env = "DSN_FFMPEG", default_value = "ffmpeg")]
    pub ffmpeg: PathBuf,
}

/// Runs the role until shutdown.
pub async fn run(args: Args) -> Outcome {
    let shutdown = telemetry::shutdown_token()?;
    // Inherited by ffmpeg. A system that forbids it has its own idea of who goes first.
    let _ = rustix::process::setpriority_process(None, NICE);
    // What is half belongs to a transcoder that died only if there is no other.
    let lock = args.spool.join(spool::TRANSCODER_LOCK);
    let Some(alone) = shutdown.run_until_cancelled(files::alone(&lock)).await else { return Ok(()) };
    let _alone = alone?;
    look::clean(&args.spool)?;
    let reporter = Reporter::new(args.spool.join(spool::TRANSCODER_REPORT_FILE), TranscoderReport::differs);
    let segments = |path: &Path| {
        let source = path.parent().and_then(Path::file_name).is_some_and(|name| name == crate::domain::segment::SOURCE);
        let name = path.file_name().and_then(|name| name.to_str());
        source && name.is_some_and(|name| spool::segment_seq(name).is_some())
    };
    let hints = Hints::new(RESCAN, move |path| segments(path) || path.ends_with(spool::LADDER_FILE))
        .folder(&args.spool, true)
        .folder(&args.assignment, false);
    let mut transcoder = Transcoder::new(&args, &reporter);
    tokio::select! {
        () = orphans::reap() => {}
        () = reporter.keep_fresh() => {}
        () = transcoder.work(hints, &shutdown) => {}
    }
    Ok(())
}

/// What is remembered of a segment that failed.
struct Tried {
    tries: u32,
    why: String,
}

struct Transcoder<'a> {
    args: &'a Args,
    reporter: &'a Reporter<TranscoderReport>,
    tried: HashMap<(SessionId, u64), Tried>,
    /// Why the last job came to nothing.
    failure: Option<&'static str>,
    left_out: Option<Instant>,
    /// Was there a segment to transcode?
    begun: bool,
}

impl<'a> Transcoder<'a> {
    fn new(args: &'a Args, reporter: &'a Reporter<TranscoderReport>) -> Self {
        Self { args, reporter, tried: HashMap::new(), failure: None, left_out: None, begun: false }
    }

    /// One job after the other, until shutdown.
    async fn work(&mut self, mut hints: Hints, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            let worked = match told(&self.args.assignment) {
                Some(told) => self.round(&told, shutdown).await,
                None => false,
            };
            if !worked {
                tokio::select! { () = hints.wait() => {}, () = shutdown.cancelled() => {} }
            }
        }
    }

    /// Looks at the spool and does one job; `false` when there is nothing to do at the moment.
    async fn round(&mut self, told: &Envelope<LadderAssignment>, shutdown: &CancellationToken) -> bool {
        let renditions = usable(&told.data.renditions);
        let tries = |session, seq| {
            let ours = self.tried.get(&(session, seq)).map_or(0, |tried| tried.tries);
            ours.max(look::tries(&self.args.spool, session, seq))
        };
        let waiting = match look::waiting(&self.args.spool, &renditions, tries) {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!("failed to read the spool: {error}");
                self.failure = Some("the spool can't be read");
                self.say(told, 0, false);
                return false;
            }
        };
        self.tried.retain(|(session, seq), _| waiting.iter().any(|w| (w.session, w.seq) == (*session, *seq)));
        let asked_us = told.issued_at.as_microsecond();
        let next = ladder::next(&waiting, asked_us, Timestamp::now().as_microsecond());
        for segment in &next.too_old {
            if segment.finished_us >= asked_us {
                self.left_out = Some(Instant::now());
            }
            self.give_up(segment, &renditions, "it waited for too long");
        }
        for segment in &next.failed {
            let why = self.tried.get(&(segment.session, segment.seq)).map(|tried| tried.why.clone());
            self.give_up(segment, &renditions, why.as_deref().unwrap_or("the transcoder ended while it was at it"));
        }
        self.begun |= next.job.is_some();
        self.say(told, next.behind_us, next.job.is_none());
        let Some(segment) = next.job else { return false };
        let (session, seq, container) = (segment.session, segment.seq, segment.container);
        let before = segment.tries;
        self.reporter.update(|report| report.starts += 1);
        let note = |tries| {
            if let Err(error) = look::note_tries(&self.args.spool, session, seq, tries) {
                tracing::warn!(%session, seq, "failed to note a try: {error}");
            }
        };
        note(before + 1);
        let done = tokio::select! {
            done = work::transcode(self.args, (session, seq, container), &renditions) => done,
            // That was no try.
            () = shutdown.cancelled() => {
                note(before);
                return false;
            }
        };
        match done {
            Ok(()) => {
                note(0);
                self.failure = None;
            }
            // The agent let go of it meanwhile.
            Err(Failed::Gone) => note(0),
            Err(failed) => {
                let why = telemetry::chain(&failed);
                tracing::warn!(%session, seq, "failed to transcode a segment: {why}");
                self.failure = Some(failed.sentence());
                // A spool that is full for a moment would cost every segment that waits: that was no try, and there is no
                // use in another one at once.
                if matches!(failed, Failed::Io(_)) {
                    note(before);
                    return false;
                }
                self.tried.insert((session, seq), Tried { tries: before + 1, why });
            }
        }
        true
    }

    fn give_up(&self, segment: &Waiting, renditions: &[Rendition], why: &str) {
        tracing::warn!(session = %segment.session, seq = segment.seq, "no renditions of a segment: {why}");
        if let Err(error) = look::give_up(&self.args.spool, segment, renditions, why) {
            tracing::warn!("failed to mark it: {error}");
        }
    }

    /// Says how it goes. Without numbers that move: who reads it is woken by every change.
    fn say(&self, told: &Envelope<LadderAssignment>, behind_us: i64, idle: bool) {
        let behind = behind_us > BEHIND_US || self.left_out.is_some_and(|at| at.elapsed() < LEFT_OUT_STAYS);
        let problem = match self.failure {
            Some(why) => Some(Problem { reason: "Failing".to_owned(), message: why.to_owned() }),
            None if behind => Some(Problem {
                reason: "Behind".to_owned(),
                message: "segments wait for more than 30 s, or are left out: too little processor time".to_owned(),
            }),
            None => None,
        };
        let phase = match (told.data.activity, idle) {
            (Activity::Paused, true) => Phase::Paused,
            (Activity::Draining, true) => Phase::Drained,
            (Activity::Draining, false) => Phase::Draining,
            _ if self.failure.is_some() => Phase::Failing,
            // "In time" is no word for a camera that never gave a picture.
            _ if !self.begun => Phase::Starting,
            _ => Phase::Running,
        };
        self.reporter.update(|report| {
            report.revision = told.revision;
            report.phase = phase;
            report.problem = problem;
        });
    }
}

/// The assignment in effect. A file that can't be read is none: the agent writes it whole, or it is not there yet.
fn told(folder: &Path) -> Option<Envelope<LadderAssignment>> {
    let text = fs::read(folder.join(spool::LADDER_FILE)).ok()?;
    serde_json::from_slice(&text).map_err(|error| tracing::warn!("failed to understand the assignment: {error}")).ok()
}

/// What the API server should have let through, and nothing else: names become folders.
fn usable(renditions: &[Rendition]) -> Vec<Rendition> {
    let sane = |r: &&Rendition| is_rendition(&r.name) && r.height >= 2 && r.video_bitrate_kbps > 0;
    renditions.iter().filter(sane).take(MAX_RENDITIONS).cloned().collect()
}
