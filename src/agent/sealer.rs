//! From finished files to numbered segments: parse, hash, fsync, number durably, show live, wake the upload.
//!
//! A hint wakes it (`watch`), the scan is the truth, so a restart finds everything that was left. Each file is read once. Not
//! here: the numbers themselves (`domain::session`), or what happens to a sealed segment next.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;

use super::{
    assignment::Applied,
    context::{Context, Part, Seen, now},
    outbox::{self, SessionRow},
    reading::{self, Failing, Format, Inspected, Unusable, blob},
    rungs,
    spool::{folder_path, segment_path},
};
use crate::{
    domain::{
        container::Container,
        control::Problem,
        id::{SessionId, StreamId},
        segment::{Gap, GapReason, SOURCE, Segment, SegmentKey},
        session::{Found, Numbered, SessionBook, StreamBook, break_reason},
        spool,
    },
    telemetry,
};

/// So many finished segments anchor a session at most.
const ANCHORS: usize = 3;
/// A session is anchored by the segments of so much media, µs, as long as it goes on.
///
/// Trap: ffmpeg looks at a stream for about three seconds before it writes what came meanwhile, all at once. Short segments
/// of that time are finished late, and the first of them alone would date all that follow: up to two seconds into the
/// future, as a drift of the camera's clock.
const ANALYSED_US: i64 = 3_000_000;

/// Why a scan ended early; the next one goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system failed.
    #[error("failed to read the spool")]
    Spool(#[from] io::Error),
    /// The memory failed.
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
}

/// Seals what is finished, until the end.
pub async fn run(context: Arc<Context>) {
    let mut asked = context.to_scan.listen();
    let mut sealer = Sealer::new(&context);
    loop {
        let problem = match sealer.scan().await {
            Ok(()) => None,
            Err(error) => Some(Problem { reason: "SpoolFailed".to_owned(), message: telemetry::chain(&error) }),
        };
        // After the source, whose numbers they take.
        if let Err(error) = rungs::seal(&context, &mut sealer.failing).await {
            tracing::warn!("the renditions wait: {}", telemetry::chain(&error));
        }
        if context.ladder.applied().is_some() {
            // What was given up, or has waited long enough, raises no signal.
            context.to_trim.raise();
        }
        context.problem(Part::Spool, problem);
        context.to_report.raise();
        tokio::select! {
            _ = asked.changed() => {}
            () = context.finished.cancelled() => return,
        }
    }
}

struct Sealer<'a> {
    context: &'a Arc<Context>,
    /// Files that were no segments, with the reason, until their gap is told.
    damaged: HashMap<(SessionId, u64), String>,
    /// What can't be read at the moment.
    failing: Failing,
}

impl<'a> Sealer<'a> {
    fn new(context: &'a Arc<Context>) -> Self {
        Self { context, damaged: HashMap::new(), failing: Failing::default() }
    }

    /// Looks at every session that is not closed, oldest first. What can't be read now holds up what comes after it, whose
    /// numbers are higher, until it can be or is given up.
    async fn scan(&mut self) -> Result<(), Error> {
        // Without an assignment nobody knows whose footage this is.
        let Some(applied) = self.context.applied() else { return Ok(()) };
        let (outbox, spool) = (&self.context.outbox, &self.context.spool);
        let mut stream = outbox.stream().await?.unwrap_or_else(|| StreamBook::new(now()));
        let sessions = spool.sessions()?;
        for session in &sessions {
            let row = outbox.session(*session).await?;
            if row.as_ref().is_some_and(|row| row.closed) {
                continue;
            }
            // Read before the list of segments: once a session has ended, that list is complete.
            let file = spool.session_file(*session);
            let is_late = row.is_none() && stream.last.is_some_and(|(newest, _)| *session < newest);
            if is_late && file.is_none() {
                self.remove(*session, "a session that is no runner's");
                continue;
            }
            let is_open = file.as_ref().is_some_and(|file| file.ended.is_none());
            let ended = file.and_then(|file| file.ended);
            let listed = spool.segments(*session, SOURCE).map_err(Unusable::from);
            let segments = match self.failing.settle(&folder_path(*session, SOURCE), listed)? {
                Ok(segments) => segments,
                // It holds up nobody, and is perhaps what the camera shows now.
                Err(why) if sessions.last() == Some(session) => return Err(io::Error::other(why).into()),
                Err(why) => {
                    tracing::warn!(%session, "the segments of a session can't be listed: {why}");
                    Vec::new()
                }
            };
            let goes_on = is_open && sessions.last() == Some(session);
            self.session(&applied, *session, segments, goes_on, row, &mut stream).await?;
            // Trap: after a clock was set back, the session that is being written need not be the last by name.
            let is_current = is_open && (is_late || stream.last.is_some_and(|(newest, _)| newest == *session));
            let is_newest = is_current || sessions.last() == Some(session);
            if ended.is_some() || !is_newest {
                self.damaged.retain(|(of, _), _| of != session);
                if outbox.session(*session).await?.is_some() {
                    outbox.close(*session, ended.as_ref()).await?;
                    self.context.to_trim.raise();
                } else {
                    self.remove(*session, "a session without a usable segment");
                }
            }
        }
        Ok(())
    }

    /// Removes a session without footage. One that stays holds up no other.
    fn remove(&self, session: SessionId, what: &str) {
        match self.context.spool.remove_session(session) {
            Ok(()) => tracing::warn!(%session, "removed {what}"),
            Err(error) => tracing::warn!(%session, "failed to remove {what}: {error}"),
        }
    }

    /// Seals what is new in a session; `goes_on`: more is to come.
    async fn session(
        &mut self,
        applied: &Applied,
        session: SessionId,
        mut new: Vec<(u64, Container)>,
        goes_on: bool,
        mut row: Option<SessionRow>,
        stream: &mut StreamBook,
    ) -> Result<(), Error> {
        let next = row.as_ref().map_or(0, |row| row.book.next_seq);
        new.retain(|(seq, _)| *seq >= next);
        let Some((_, container)) = new.first() else { return Ok(()) };
        // A session has one container, that of its first segment: a file of the other is none of its segments.
        let container = row.as_ref().map_or(*container, |row| Container::of_init(row.init.as_ref()));
        let format = self.format(session, container, row.as_ref());
        let format = match self.failing.settle(&folder_path(session, SOURCE).join(spool::INIT_FILE), format)? {
            Ok(format) => format,
            Err(why) => {
                for (seq, _) in new {
                    self.damage(session, seq, &why);
                }
                return Ok(());
            }
        };
        let mut rest = new.into_iter();
        let mut ahead = VecDeque::new();
        loop {
            while ahead.len() < if row.is_none() { ANCHORS } else { 1 } {
                let Some((seq, _)) = rest.next() else { break };
                let key = source(applied.assignment.stream, session, seq);
                ahead.extend(self.inspect(key, container, &format).await?);
            }
            let Some(Inspected { found, .. }) = ahead.front() else { return Ok(()) };
            if row.is_none() {
                let first: Vec<Found> = ahead.iter().map(|inspected| inspected.found).collect();
                let media_us: i64 = first.iter().map(|found| found.media.media_us).sum();
                if goes_on && first.len() < ANCHORS && media_us < ANALYSED_US {
                    return Ok(());
                }
                let target = self.segment_seconds(session, applied);
                let book = SessionBook::open(stream, session, target, &first);
                row = book.map(|book| SessionRow { book, init: format.init.clone(), closed: false, ended: None });
            }
            let Some(row) = row.as_mut() else { return Ok(()) };
            let before = stream.last;
            let seq = found.seq;
            if let Some(numbered) = row.book.number(stream, found) {
                let gaps = self.gaps(applied, session, before.map(|(session, _)| session), &numbered).await?;
                if let Some(inspected) = ahead.pop_front() {
                    self.seal(applied, row, stream, &inspected, &numbered, &gaps).await?;
                    self.damaged.retain(|(of, number), _| *of != session || *number > seq);
                }
            } else {
                self.damage(session, seq, "its number makes no sense");
                ahead.pop_front();
            }
        }
    }

    /// How the session's segments are read: by the init section, where there is one, as it was when the session began.
    fn format(&self, session: SessionId, container: Container, row: Option<&SessionRow>) -> Result<Format, Unusable> {
        let format = Format::of(self.context, session, SOURCE, container.init_file())?;
        match row {
            Some(row) if row.init != format.init => Err(Unusable::Damaged("its init section was changed".to_owned())),
            _ => Ok(format),
        }
    }

    /// Reads, parses and hashes a file once, and makes it durable. `None`: it is no segment.
    async fn inspect(
        &mut self,
        key: SegmentKey,
        container: Container,
        format: &Format,
    ) -> Result<Option<Inspected>, Error> {
        let (session, seq) = (key.session, key.seq);
        if self.damaged.contains_key(&(session, seq)) {
            return Ok(None);
        }
        let path = segment_path(&key, container);
        let read = reading::read(self.context, key, container, &format.layout).await;
        match self.failing.settle(&path, read)? {
            Ok(inspected) => Ok(Some(inspected)),
            Err(why) => {
                self.damage(session, seq, &why);
                Ok(None)
            }
        }
    }

    /// Refuses a file for good. It goes at once: one refused file after the other would fill the disk and be in nobody's
    /// count. Its gap is told with the next usable segment, whose number shows that this one is missing.
    fn damage(&mut self, session: SessionId, seq: u64, why: &str) {
        if self.damaged.insert((session, seq), why.to_owned()).is_none() {
            tracing::warn!(%session, seq, "no usable segment: {why}");
        }
        if let Err(error) = self.context.spool.remove_refused(session, seq) {
            tracing::debug!(%session, seq, "it stays: {error}");
        }
    }

    fn segment_seconds(&self, session: SessionId, applied: &Applied) -> u32 {
        let said = self.context.spool.session_file(session).map(|file| file.segment_seconds);
        said.unwrap_or(applied.assignment.segment_seconds).clamp(1, 60)
    }

    async fn gaps(
        &self,
        applied: &Applied,
        session: SessionId,
        before: Option<SessionId>,
        numbered: &Numbered,
    ) -> Result<Vec<Gap>, Error> {
        let mut gaps = Vec::new();
        for (seq, from, to) in &numbered.missing {
            let (reason, detail) = if let Some(seq) = seq {
                let why = self.damaged.get(&(session, *seq)).cloned();
                (GapReason::SegmentLost, why.unwrap_or_else(|| "the file was never there".to_owned()))
            } else {
                let ended = self.how_it_ended(before).await?;
                let file = self.context.spool.session_file(session);
                let hindrances = file.map_or_else(Vec::new, |file| file.hindrances);
                let lasted_ms = u64::try_from(to.saturating_sub(*from) / 1_000).unwrap_or(0);
                break_reason(ended.as_ref(), &hindrances, lasted_ms)
            };
            gaps.push(Gap {
                stream: applied.assignment.stream,
                camera: applied.assignment.camera.uid.clone(),
                session,
                rendition: None,
                seq: *seq,
                from: at(*from),
                to: at(*to),
                reason,
                detail,
            });
        }
        Ok(gaps)
    }

    async fn how_it_ended(&self, session: Option<SessionId>) -> Result<Option<spool::SessionEnd>, Error> {
        let Some(session) = session else { return Ok(None) };
        let known = self.context.outbox.session(session).await?.and_then(|row| row.ended);
        Ok(known.or_else(|| self.context.spool.session_file(session).and_then(|file| file.ended)))
    }

    async fn seal(
        &self,
        applied: &Applied,
        row: &SessionRow,
        stream: &StreamBook,
        inspected: &Inspected,
        numbered: &Numbered,
        gaps: &[Gap],
    ) -> Result<(), Error> {
        let Inspected { found, description, digest } = inspected;
        let assignment = &applied.assignment;
        let key = source(assignment.stream, row.book.session, found.seq);
        let container = Container::of_init(row.init.as_ref());
        let segment = Segment {
            file: segment_path(&key, container).to_string_lossy().into_owned(),
            key,
            camera: assignment.camera.uid.clone(),
            camera_name: format!("{}/{}", assignment.camera.namespace, assignment.camera.name),
            site: assignment.site.clone(),
            blob: blob(digest),
            init: row.init.clone(),
            codecs: description.codecs.clone(),
            width: description.width,
            height: description.height,
            start: at(numbered.start_us),
            end: at(numbered.end_us),
            media_us: u64::try_from(found.media.media_us).unwrap_or(0),
            frames: found.media.frames,
            playlist_seq: numbered.playlist_seq,
            discontinuity_seq: numbered.discontinuity_seq,
            target_seconds: numbered.target_seconds,
        };
        self.context.outbox.seal(&segment, stream, row, gaps).await?;
        for gap in gaps {
            tracing::warn!(session = %gap.session, seq = gap.seq, reason = ?gap.reason, "footage is missing from {} to {}: {}", gap.from, gap.to, gap.detail);
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let fps = found.media.frames as f64 * 1e6 / found.media.media_us.max(1) as f64;
        let before = self.context.seen().drifted;
        let drifted = if numbered.drifts { Some(Instant::now()) } else { before };
        self.context.set_seen(Seen { gop_us: row.book.gop_us, fps, drifted });
        self.context.metrics.sealed(&segment, gaps);
        self.context.live.push(&segment, container.init_file());
        for signal in [&self.context.to_add, &self.context.to_announce, &self.context.to_trim] {
            signal.raise();
        }
        Ok(())
    }
}

fn source(stream: StreamId, session: SessionId, seq: u64) -> SegmentKey {
    SegmentKey { stream, rendition: SOURCE.to_owned(), session, seq }
}

fn at(us: i64) -> Timestamp {
    Timestamp::from_microsecond(us).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener, path::Path, time::Duration};

    use super::*;
    use crate::{
        agent::{fixture, outbox::tests::sealed},
        domain::control::Activity,
    };

    /// A segment that is whole.
    fn finish(source: &Path, seq: u64) {
        let bytes = include_bytes!("../domain/mpegts/testdata/h264-aac.ts");
        fs::write(source.join(spool::segment_file(seq, Container::MpegTs)), bytes).expect("writes");
    }

    async fn numbers(context: &Context, session: SessionId) -> Vec<u64> {
        let mut known: Vec<u64> = context.outbox.numbers(session, SOURCE).await.expect("reads").into_iter().collect();
        known.sort_unstable();
        known
    }

    #[tokio::test]
    async fn what_is_refused_goes_at_once_and_a_session_without_anything_else_when_it_has_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Running, "http://127.0.0.1:1").await;
        let session = SessionId::new();
        let source = fixture::session(&context, session, false);
        fs::write(source.join(spool::INIT_FILE), "no init section").expect("writes");
        fs::write(source.join(spool::segment_file(0, Container::Fmp4)), "no segment").expect("writes");
        // What is no file stays, and holds nobody up.
        fs::create_dir(source.join(spool::segment_file(1, Container::Fmp4))).expect("a folder");
        let mut sealer = Sealer::new(&context);
        sealer.scan().await.expect("scans");
        assert_eq!(context.spool.segments(session, SOURCE).expect("lists"), [(1, Container::Fmp4)]);
        fixture::session(&context, session, true);
        sealer.scan().await.expect("scans");
        assert_eq!(context.spool.sessions().expect("lists"), []);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_holds_up_the_camera_for_a_while_and_is_a_gap_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Running, "http://127.0.0.1:1").await;
        let (first, second) = (SessionId::new(), SessionId::new());
        let source = fixture::session(&context, first, true);
        for seq in [0, 2] {
            finish(&source, seq);
        }
        // Like a bad sector: opening it fails, and says nothing of what it is.
        let bad = UnixListener::bind(source.join(spool::segment_file(1, Container::MpegTs))).expect("a socket");
        finish(&fixture::session(&context, second, true), 0);
        let mut sealer = Sealer::new(&context);
        assert!(sealer.scan().await.is_err(), "told as long as it may still be read");
        assert_eq!(numbers(&context, second).await, Vec::<u64>::new(), "its numbers come after those of the first");
        sealer.failing = Failing::with_patience(Duration::ZERO);
        sealer.scan().await.expect("scans");
        assert_eq!((numbers(&context, first).await, numbers(&context, second).await), (vec![0, 2], vec![0]));
        let (_, gap) = context.outbox.gaps(1).await.expect("reads").remove(0);
        assert_eq!((gap.session, gap.seq, gap.reason), (first, Some(1), GapReason::SegmentLost));
        assert!(gap.detail.contains("could not be read"), "{}", gap.detail);
        drop(bad);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_listed_holds_up_the_camera_for_a_while() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Running, "http://127.0.0.1:1").await;
        let (first, second) = (SessionId::new(), SessionId::new());
        let source = fixture::session(&context, first, true);
        fs::remove_dir(&source).expect("removed");
        fs::write(&source, "no folder").expect("writes");
        finish(&fixture::session(&context, second, true), 0);
        let mut sealer = Sealer::new(&context);
        assert!(sealer.scan().await.is_err(), "told as long as it may still be listed");
        sealer.failing = Failing::with_patience(Duration::ZERO);
        sealer.scan().await.expect("scans");
        assert_eq!(numbers(&context, second).await, [0]);
    }

    #[tokio::test]
    async fn short_segments_that_come_all_at_once_are_dated_by_the_one_after() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Running, "http://127.0.0.1:1").await;
        let session = SessionId::new();
        let source = fixture::session(&context, session, false);
        let mut sealer = Sealer::new(&context);
        for seq in 0..3 {
            assert_eq!(numbers(&context, session).await, Vec::<u64>::new());
            finish(&source, seq);
            sealer.scan().await.expect("scans");
        }
        assert_eq!(numbers(&context, session).await, [0, 1, 2]);
        // One that has ended has no more to wait for, nor one that another follows.
        for ended in [true, false] {
            let short = SessionId::new();
            finish(&fixture::session(&context, short, ended), 0);
            if !ended {
                fixture::session(&context, SessionId::new(), false);
            }
            sealer.scan().await.expect("scans");
            assert_eq!(numbers(&context, short).await, [0]);
        }
    }

    #[tokio::test]
    async fn a_session_that_is_being_written_is_not_removed_because_the_clock_was_set_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Running, "http://127.0.0.1:1").await;
        let early: SessionId = "01800000-0000-7000-8000-000000000000".parse().expect("a session");
        let stray: SessionId = "01800000-0000-7000-8000-000000000001".parse().expect("a session");
        sealed(&context.outbox, 1).await;
        fixture::session(&context, early, false);
        fs::create_dir(context.spool.path().join(stray.to_string())).expect("a folder");
        Sealer::new(&context).scan().await.expect("scans");
        assert_eq!(context.spool.sessions().expect("lists"), [early], "the one without a runner's word goes");
    }
}
