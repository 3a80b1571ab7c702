//! From finished files to numbered segments: parse, hash, fsync, number durably, show live, wake the upload.
//!
//! A hint wakes it (`watch`), the scan is the truth, so a restart finds everything that was left. Each file is read once. Not
//! here: the numbers themselves (`domain::session`), or what happens to a sealed segment next.

use std::{
    collections::{HashMap, VecDeque},
    io::{ErrorKind, Read},
    sync::Arc,
    time::{Instant, SystemTime},
};

use jiff::Timestamp;

use super::{
    assignment::Applied,
    context::{Context, Part, Seen, now},
    outbox::{self, InitSection, SessionRow},
    rungs,
    spool::{folder_path, segment_path},
};
use crate::{
    domain::{
        cid::{self, FileDigest, FileHasher},
        control::Problem,
        fmp4::{Init, Scanner, parse_init},
        id::SessionId,
        segment::{Blob, Gap, GapReason, SOURCE, Segment, SegmentKey},
        session::{Found, Numbered, SessionBook, StreamBook, break_reason},
        spool,
    },
    telemetry,
};

/// So many finished segments anchor a session when they are there at once.
const ANCHORS: usize = 3;

/// Why a scan ended early; the next one goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system failed.
    #[error("failed to read the spool")]
    Spool(#[from] std::io::Error),
    /// The memory failed.
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
}

/// A file that is whole and well-formed.
pub(super) struct Inspected {
    pub(super) found: Found,
    pub(super) digest: FileDigest,
}

/// Seals what is finished, until the end.
pub async fn run(context: Arc<Context>) {
    let mut asked = context.to_scan.listen();
    let mut sealer = Sealer { context: &context, damaged: HashMap::new() };
    loop {
        let problem = match sealer.scan().await {
            Ok(()) => None,
            Err(error) => Some(Problem { reason: "SpoolFailed".to_owned(), message: telemetry::chain(&error) }),
        };
        // After the source, whose numbers they take.
        if let Err(error) = rungs::seal(&context).await {
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
}

impl Sealer<'_> {
    /// Looks at every session that is not closed, oldest first.
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
                tracing::warn!(%session, "removed a session that is no runner's");
                spool.remove_session(*session)?;
                continue;
            }
            let is_open = file.as_ref().is_some_and(|file| file.ended.is_none());
            let ended = file.and_then(|file| file.ended);
            self.session(&applied, *session, row, &mut stream).await?;
            // Trap: after a clock was set back, the session that is being written need not be the last by name.
            let is_current = is_open && (is_late || stream.last.is_some_and(|(newest, _)| newest == *session));
            let is_newest = is_current || sessions.last() == Some(session);
            if ended.is_some() || !is_newest {
                self.damaged.retain(|(of, _), _| of != session);
                if outbox.session(*session).await?.is_some() {
                    outbox.close(*session, ended.as_ref()).await?;
                    self.context.to_trim.raise();
                } else {
                    tracing::warn!(%session, "a session without a usable segment");
                    spool.remove_session(*session)?;
                }
            }
        }
        Ok(())
    }

    /// Seals what is new in a session.
    async fn session(
        &mut self,
        applied: &Applied,
        session: SessionId,
        mut row: Option<SessionRow>,
        stream: &mut StreamBook,
    ) -> Result<(), Error> {
        let next = row.as_ref().map_or(0, |row| row.book.next_seq);
        let new: Vec<u64> =
            self.context.spool.segments(session, SOURCE)?.into_iter().filter(|seq| *seq >= next).collect();
        if new.is_empty() {
            return Ok(());
        }
        let (init, section) = match self.init(session, row.as_ref()) {
            Ok(init) => init,
            Err(Unusable::Failed(error)) => return Err(error.into()),
            Err(Unusable::Damaged(why)) => {
                for seq in new {
                    self.damage(session, seq, &why);
                }
                return Ok(());
            }
        };
        let mut rest = new.into_iter();
        let mut ahead = VecDeque::new();
        loop {
            while ahead.len() < if row.is_none() { ANCHORS } else { 1 } {
                let Some(seq) = rest.next() else { break };
                ahead.extend(self.inspect(session, seq, &init).await?);
            }
            let Some(Inspected { found, .. }) = ahead.front() else { return Ok(()) };
            if row.is_none() {
                let first: Vec<Found> = ahead.iter().map(|inspected| inspected.found).collect();
                let target = self.segment_seconds(session, applied);
                let book = SessionBook::open(stream, session, target, &first);
                row = book.map(|book| SessionRow { book, init: section.clone(), closed: false, ended: None });
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

    /// The init section, as it was when the session began.
    fn init(&self, session: SessionId, row: Option<&SessionRow>) -> Result<(Init, InitSection), Unusable> {
        let bytes = self.context.spool.init(session, SOURCE, spool::INIT_FILE).map_err(|error| match error.into() {
            Unusable::Damaged(why) => Unusable::Damaged(format!("its init section: {why}")),
            failed @ Unusable::Failed(_) => failed,
        })?;
        let (init, section) = init_section(&bytes).map_err(Unusable::Damaged)?;
        match row {
            Some(row) if row.init.blob != section.blob => {
                Err(Unusable::Damaged("its init section was changed".to_owned()))
            }
            _ => Ok((init, section)),
        }
    }

    /// Reads, parses and hashes a file once, and makes it durable. `None`: it is no segment.
    async fn inspect(&mut self, session: SessionId, seq: u64, init: &Init) -> Result<Option<Inspected>, Error> {
        if self.damaged.contains_key(&(session, seq)) {
            return Ok(None);
        }
        match read(self.context, session, SOURCE, seq, init).await {
            Ok(inspected) => Ok(Some(inspected)),
            Err(Unusable::Damaged(why)) => {
                self.damage(session, seq, &why);
                Ok(None)
            }
            Err(Unusable::Failed(error)) => Err(error.into()),
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
            let (reason, detail) = match seq {
                Some(seq) => {
                    let why = self.damaged.get(&(session, *seq)).cloned();
                    (GapReason::SegmentLost, why.unwrap_or_else(|| "the file was never there".to_owned()))
                }
                None => break_reason(self.how_it_ended(before).await?.as_ref()),
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
        let Inspected { found, digest } = inspected;
        let assignment = &applied.assignment;
        let key = SegmentKey {
            stream: assignment.stream,
            rendition: SOURCE.to_owned(),
            session: row.book.session,
            seq: found.seq,
        };
        let segment = Segment {
            file: segment_path(&key).to_string_lossy().into_owned(),
            key,
            camera: assignment.camera.uid.clone(),
            camera_name: format!("{}/{}", assignment.camera.namespace, assignment.camera.name),
            site: assignment.site.clone(),
            blob: blob(digest),
            init: row.init.blob.clone(),
            codecs: row.init.codecs.clone(),
            width: row.init.width,
            height: row.init.height,
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
        self.context.live.push(&segment, spool::INIT_FILE);
        for signal in [&self.context.to_add, &self.context.to_announce, &self.context.to_trim] {
            signal.raise();
        }
        Ok(())
    }
}

/// What an init section says, and what it is.
pub(super) fn init_section(bytes: &[u8]) -> Result<(Init, InitSection), String> {
    let init = parse_init(bytes).map_err(|error| format!("its init section: {error}"))?;
    let video = init.video().ok_or("its init section has no picture")?;
    let mut hasher = FileHasher::default();
    hasher.update(bytes);
    let section =
        InitSection { blob: blob(&hasher.finish()), codecs: init.codecs(), width: video.width, height: video.height };
    Ok((init, section))
}

/// Reads, parses and hashes a file, and makes it durable.
pub(super) async fn read(
    context: &Arc<Context>,
    session: SessionId,
    rendition: &str,
    seq: u64,
    init: &Init,
) -> Result<Inspected, Unusable> {
    let (context, init, rendition) = (context.clone(), init.clone(), rendition.to_owned());
    let inspecting = tokio::task::spawn_blocking(move || inspect(&context, session, &rendition, seq, &init));
    inspecting.await.map_err(|_| std::io::Error::other("reading a segment was interrupted"))?
}

/// Why a file gave no segment.
pub(super) enum Unusable {
    /// For good.
    Damaged(String),
    /// Perhaps not the next time.
    Failed(std::io::Error),
}

impl From<std::io::Error> for Unusable {
    fn from(error: std::io::Error) -> Self {
        let links = rustix::io::Errno::LOOP.raw_os_error();
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::InvalidData | ErrorKind::PermissionDenied => {
                Self::Damaged(error.to_string())
            }
            // openat2 met a link, or a way out of the spool.
            _ if error.raw_os_error().is_some_and(|code| code == links) => Self::Damaged(error.to_string()),
            _ => Self::Failed(error),
        }
    }
}

fn inspect(
    context: &Context,
    session: SessionId,
    rendition: &str,
    seq: u64,
    init: &Init,
) -> Result<Inspected, Unusable> {
    let path = folder_path(session, rendition).join(spool::segment_file(seq));
    let (mut file, length, modified) = context.spool.file(&path)?;
    if length > cid::MAX_FILE {
        return Err(Unusable::Damaged(format!("{length} bytes: set a shorter keyframe interval at the camera")));
    }
    let malformed = |why: crate::domain::fmp4::Malformed| Unusable::Damaged(why.to_string());
    let (mut scanner, mut hasher) = (Scanner::new(init).map_err(malformed)?, FileHasher::default());
    let mut chunk = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        // A file that grows while it is read was not finished.
        if hasher.bytes() + count as u64 > length {
            return Err(Unusable::Damaged("it grows".to_owned()));
        }
        scanner.push(&chunk[..count]);
        hasher.update(&chunk[..count]);
    }
    let media = scanner.finish().map_err(malformed)?;
    context.spool.sync(session, rendition, &file)?;
    Ok(Inspected { found: Found { seq, media, sealed_us: sealed_us(session, modified) }, digest: hasher.finish() })
}

/// When the file was finished: its own time, as far as it is possible (not in the future, not before its session).
fn sealed_us(session: SessionId, modified: SystemTime) -> i64 {
    let now = Timestamp::now().as_microsecond();
    let modified = Timestamp::try_from(modified).map_or(now, Timestamp::as_microsecond);
    let begun = session.0.get_timestamp().map_or(0, |time| {
        let (seconds, nanos) = time.to_unix();
        i64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000) + i64::from(nanos / 1_000)
    });
    // A session may be named after a clock that was ahead of ours.
    if begun > now { modified.min(now) } else { modified.max(begun).min(now) }
}

pub(super) fn blob(digest: &FileDigest) -> Blob {
    Blob { cid: digest.cid.to_string(), sha256: digest.sha256.clone(), bytes: digest.bytes }
}

fn at(us: i64) -> Timestamp {
    Timestamp::from_microsecond(us).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::{fixture, outbox::tests::sealed},
        domain::control::{Activity, VideoInfo},
    };

    #[tokio::test]
    async fn what_is_refused_goes_at_once_and_a_session_without_anything_else_when_it_has_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Running, "http://127.0.0.1:1").await;
        let session = SessionId::new();
        let source = context.spool.path().join(folder_path(session, SOURCE));
        std::fs::create_dir_all(&source).expect("a folder");
        let mut file = spool::SessionFile {
            session,
            revision: 3,
            started: now(),
            segment_seconds: 4,
            video: Some(VideoInfo::default()),
            ended: None,
        };
        let say = |file: &spool::SessionFile| {
            let path = context.spool.path().join(session.to_string()).join(spool::SESSION_FILE);
            std::fs::write(path, serde_json::to_vec(file).expect("JSON")).expect("writes");
        };
        say(&file);
        std::fs::write(source.join(spool::INIT_FILE), "no init section").expect("writes");
        std::fs::write(source.join(spool::segment_file(0)), "no segment").expect("writes");
        // What is no file stays, and holds nobody up.
        std::fs::create_dir(source.join(spool::segment_file(1))).expect("a folder");
        let mut sealer = Sealer { context: &context, damaged: HashMap::new() };
        sealer.scan().await.expect("scans");
        assert_eq!(context.spool.segments(session, SOURCE).expect("lists"), [1]);
        let (at, reason) = (now(), GapReason::CaptureDied);
        file.ended = Some(spool::SessionEnd { at, reason, detail: String::new() });
        say(&file);
        sealer.scan().await.expect("scans");
        assert_eq!(context.spool.sessions().expect("lists"), []);
    }

    #[tokio::test]
    async fn a_session_that_is_being_written_is_not_removed_because_the_clock_was_set_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Running, "http://127.0.0.1:1").await;
        let early: SessionId = "01800000-0000-7000-8000-000000000000".parse().expect("a session");
        let stray: SessionId = "01800000-0000-7000-8000-000000000001".parse().expect("a session");
        sealed(&context.outbox, 1).await;
        for session in [early, stray] {
            std::fs::create_dir_all(context.spool.path().join(session.to_string()).join(SOURCE)).expect("a folder");
        }
        let file = spool::SessionFile {
            session: early,
            revision: 3,
            started: now(),
            segment_seconds: 4,
            video: Some(VideoInfo::default()),
            ended: None,
        };
        let path = context.spool.path().join(early.to_string()).join(spool::SESSION_FILE);
        std::fs::write(path, serde_json::to_vec(&file).expect("JSON")).expect("writes");
        Sealer { context: &context, damaged: HashMap::new() }.scan().await.expect("scans");
        assert_eq!(context.spool.sessions().expect("lists"), [early], "the one without a runner's word goes");
    }
}
