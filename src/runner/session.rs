//! The folder of a capture run: made before ffmpeg starts, told the end when it has ended (row V8: never reused).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{
    domain::{
        control::VideoInfo,
        id::SessionId,
        segment::{GapReason, SOURCE},
        spool::{self, SessionEnd, SessionFile},
    },
    files,
};

/// An open session.
pub struct Session {
    folder: PathBuf,
    file: SessionFile,
}

impl Session {
    /// Makes the folder of a new session. `hindered`: what kept us from footage before it.
    pub fn begin(
        spool: &Path,
        revision: u64,
        segment_seconds: u32,
        video: &VideoInfo,
        hindered: Option<SessionEnd>,
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
            hindered,
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

    /// When it began.
    pub fn started(&self) -> Timestamp {
        self.file.started
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
                hindered: None,
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
pub struct Hindered(Option<SessionEnd>);

impl Hindered {
    /// By this, since then. The same once more is nothing new.
    pub fn by(&mut self, since: Timestamp, reason: GapReason, detail: &str) {
        if self.0.as_ref().is_none_or(|known| known.reason != reason) {
            self.0 = Some(SessionEnd { at: since, reason, detail: detail.to_owned() });
        }
    }

    /// The newest thing.
    pub fn newest(&self) -> Option<SessionEnd> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hinders_first_is_what_counts_until_it_is_something_else() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let mut hindered = Hindered::default();
        let mut after = |second, reason, detail| {
            hindered.by(at(second), reason, detail);
            hindered.newest().map(|end| (end.at.as_second(), end.detail))
        };
        assert_eq!(after(1, GapReason::Unauthorized, "a"), Some((1, "a".to_owned())));
        assert_eq!(after(2, GapReason::Unauthorized, "b"), Some((1, "a".to_owned())));
        assert_eq!(after(3, GapReason::Paused, "c"), Some((3, "c".to_owned())));
    }

    #[test]
    fn a_session_follows_the_newest_in_the_spool_also_when_the_clock_was_set_back() {
        let spool = tempfile::tempdir().expect("a folder");
        let in_2100: SessionId = "03bb2cc3-d800-7000-8000-000000000000".parse().expect("a session");
        fs::create_dir(spool.path().join(in_2100.to_string())).expect("a folder");
        let session = Session::begin(spool.path(), 1, 4, &VideoInfo::default(), None).expect("begins");
        assert!(session.id() > in_2100, "{}", session.id());
    }
}
