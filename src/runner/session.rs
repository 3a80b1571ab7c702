//! The folder of a capture run: made before ffmpeg starts, told the end when it has ended (row V8: never reused).

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use jiff::Timestamp;

use crate::{
    domain::{
        control::VideoInfo,
        id::SessionId,
        segment::{GapReason, SOURCE},
        spool::{self, Hindrance, SessionEnd, SessionFile},
    },
    files,
};

/// An open session.
pub struct Session {
    folder: PathBuf,
    file: SessionFile,
}

impl Session {
    /// Makes the folder of a new session. `hindrances`: what kept us from footage before it.
    pub fn begin(
        spool: &Path,
        revision: u64,
        segment_seconds: u32,
        video: &VideoInfo,
        hindrances: Vec<Hindrance>,
    ) -> io::Result<Self> {
        // Trap: the agent takes sessions in the order of their names, and ours come from a clock that may have been ahead.
        let folders = fs::read_dir(spool)?.flatten();
        let newest = folders.filter_map(|folder| spool::session_of(folder.file_name().to_str()?)).max();
        let session = newest.map_or_else(SessionId::new, SessionId::after);
        let folder = spool.join(session.to_string());
        fs::create_dir(&folder)?;
        fs::create_dir(folder.join(SOURCE))?;
        files::sync_folder(spool)?;
        let file = SessionFile {
            session,
            revision,
            started: Timestamp::now(),
            segment_seconds,
            video: Some(video.clone()),
            hindrances,
            ended: None,
        };
        let open = Self { folder, file };
        open.write()?;
        Ok(open)
    }

    /// Its identity.
    pub fn id(&self) -> SessionId {
        self.file.session
    }

    /// Where ffmpeg writes.
    pub fn rendition(&self) -> PathBuf {
        self.folder.join(SOURCE)
    }

    /// Says why it ended. A session without a single segment never was: its folder goes. Is there one?
    pub fn end(mut self, reason: GapReason, detail: String) -> io::Result<bool> {
        self.file.ended = Some(SessionEnd { at: Timestamp::now(), reason, detail });
        self.close()
    }

    fn close(&self) -> io::Result<bool> {
        let whole = sweep(&self.rendition())?;
        if whole { self.write() } else { fs::remove_dir_all(&self.folder) }?;
        Ok(whole)
    }

    fn write(&self) -> io::Result<()> {
        files::replace(&self.folder.join(spool::SESSION_FILE), &serde_json::to_vec(&self.file)?, true)
    }
}

/// Removes what ffmpeg left half-written; is there a whole segment?
fn sweep(rendition: &Path) -> io::Result<bool> {
    let mut whole = false;
    for entry in fs::read_dir(rendition)?.flatten() {
        match entry.file_name().to_str() {
            Some(name) if spool::segment_seq(name).is_some() => whole = true,
            Some(name) if Path::new(name).extension().is_some_and(|kind| kind == "tmp") => {
                let _ = fs::remove_file(entry.path());
            }
            _ => {}
        }
    }
    Ok(whole)
}

/// Ends the sessions that a runner before us could not end: it was killed, or its node died.
pub fn close_left_open(spool: &Path) -> io::Result<()> {
    for entry in fs::read_dir(spool)?.flatten() {
        let Some(session) = entry.file_name().to_str().and_then(spool::session_of) else { continue };
        let folder = entry.path();
        let file = fs::read(folder.join(spool::SESSION_FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let file = match file {
            Some(SessionFile { ended: Some(_), .. }) => continue,
            Some(file) => file,
            None => SessionFile {
                session,
                revision: 0,
                started: Timestamp::now(),
                segment_seconds: 1,
                video: None,
                hindrances: Vec::new(),
                ended: None,
            },
        };
        let open = Session { folder: folder.clone(), file };
        if let Err(error) = open.end(GapReason::InstanceLost, "the runner was restarted".to_owned()) {
            tracing::warn!("failed to close the session {}: {error}", folder.display());
        }
    }
    Ok(())
}

/// What has kept us from footage since there was some, for the session that has some again.
#[derive(Debug, Default)]
pub struct Hindered {
    /// One of each reason, the one that lasts at the end.
    known: Vec<Hindrance>,
    /// Up to when the time is accounted for.
    until: Option<Instant>,
}

impl Hindered {
    /// By this, since then. The time before that, waiting for another try, is that of the reason before.
    pub fn by(&mut self, since: Instant, reason: GapReason, detail: &str) {
        let now = Instant::now();
        self.lasts(since.min(now));
        let since = self.until.replace(now).map_or(since, |until| until.max(since));
        let at = self.known.iter().position(|known| known.reason == reason);
        let before = at.map_or(0, |at| self.known.remove(at).lasted_ms);
        let lasted_ms = before.saturating_add(milliseconds(since, now));
        self.known.push(Hindrance { reason, lasted_ms, detail: detail.to_owned() });
    }

    /// Everything up to now.
    pub fn told(&mut self) -> Vec<Hindrance> {
        self.lasts(Instant::now());
        self.known.clone()
    }

    fn lasts(&mut self, until: Instant) {
        if let (Some(last), Some(since)) = (self.known.last_mut(), self.until) {
            last.lasted_ms = last.lasted_ms.saturating_add(milliseconds(since, until));
            self.until = Some(since.max(until));
        }
    }
}

fn milliseconds(since: Instant, until: Instant) -> u64 {
    u64::try_from(until.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_time_of_each_hindrance_is_added_up_and_the_newest_sentence_kept() {
        let now = Instant::now();
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).expect("up for minutes");
        let mut hindered = Hindered { known: Vec::new(), until: None };
        hindered.by(now, GapReason::CameraHung, "silent");
        hindered.until = Some(ago(60));
        // It waited for twenty seconds before it tried again.
        hindered.by(ago(40), GapReason::CameraUnreachable, "refuses");
        // What lies behind is accounted for, whatever is said of it.
        hindered.by(ago(60), GapReason::CameraHung, "silent again");
        let told: Vec<_> = hindered.told().into_iter().map(|h| (h.reason, h.lasted_ms / 1_000, h.detail)).collect();
        assert_eq!(
            told,
            [
                (GapReason::CameraUnreachable, 40, "refuses".to_owned()),
                (GapReason::CameraHung, 20, "silent again".to_owned())
            ]
        );
    }

    #[test]
    fn a_session_follows_the_newest_in_the_spool_also_when_the_clock_was_set_back() {
        let spool = tempfile::tempdir().expect("a folder");
        let in_2100: SessionId = "03bb2cc3-d800-7000-8000-000000000000".parse().expect("a session");
        fs::create_dir(spool.path().join(in_2100.to_string())).expect("a folder");
        let session = Session::begin(spool.path(), 1, 4, &VideoInfo::default(), Vec::new()).expect("begins");
        assert!(session.id() > in_2100, "{}", session.id());
    }
}
