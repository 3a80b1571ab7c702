//! The spool as the agent sees it: written by a process that reads hostile input, so nothing in it is trusted.
//!
//! Files are opened beneath the spool's root without following any link (openat2) and must be regular; names that are
//! not ours are not looked at. Not here: what the files mean (`domain::spool`, `domain::fmp4`).

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, unlinkat};

use crate::domain::{
    id::SessionId,
    segment::SOURCE,
    spool::{self, RunnerReport, SessionFile},
};

/// Folders and files beyond these numbers are nonsense; reading on would only cost time.
const MAX_ENTRIES: usize = 200_000;
/// Reports and session files are some hundred bytes.
const MAX_JSON: u64 = 64 << 10;
/// Init sections are some kilobytes.
pub const MAX_INIT: u64 = 1 << 20;

/// The root of the spool.
pub struct Spool {
    root: OwnedFd,
    path: PathBuf,
}

impl Spool {
    /// Opens it once; everything later is beneath this very folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Its path, for watching.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sessions there are, oldest first.
    pub fn sessions(&self) -> io::Result<Vec<SessionId>> {
        let mut sessions = self.names(Path::new("."), spool::session_of)?;
        sessions.sort_unstable();
        Ok(sessions)
    }

    /// Numbers of the finished segments of a session, in order.
    pub fn segments(&self, session: SessionId) -> io::Result<Vec<u64>> {
        let mut segments = match self.names(&rendition(session), spool::segment_seq) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        segments.sort_unstable();
        Ok(segments)
    }

    fn names<T>(&self, folder: &Path, ours: impl Fn(&str) -> Option<T>) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(self.folder(folder)?)?.take(MAX_ENTRIES) {
            if let Some(name) = entry?.file_name().to_str().ok().and_then(&ours) {
                found.push(name);
            }
        }
        Ok(found)
    }

    fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        self.beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn beneath(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(&self.root, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)?)
    }

    /// Opens a regular file; its length and when it was written last.
    pub fn file(&self, path: &Path) -> io::Result<(File, u64, SystemTime)> {
        // NONBLOCK: opening a FIFO must not wait for a writer.
        let file = File::from(self.beneath(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        let modified = metadata.modified()?;
        Ok((file, metadata.len(), modified))
    }

    /// A small file whole.
    pub fn small(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let (file, length, _) = self.file(path)?;
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes)?;
        if length > most || bytes.len() as u64 > most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than it can be"));
        }
        Ok(bytes)
    }

    /// The init section of a session.
    pub fn init(&self, session: SessionId) -> io::Result<Vec<u8>> {
        self.small(&rendition(session).join(spool::INIT_FILE), MAX_INIT)
    }

    /// What the runner says of a session; `None` when it says nothing readable.
    pub fn session_file(&self, session: SessionId) -> Option<SessionFile> {
        let text = self.small(&Path::new(&session.to_string()).join(spool::SESSION_FILE), MAX_JSON).ok()?;
        serde_json::from_slice(&text).ok().filter(|file: &SessionFile| file.session == session)
    }

    /// The runner's report and its last sign of life.
    pub fn report(&self) -> Option<(RunnerReport, SystemTime)> {
        let path = Path::new(spool::REPORT_FILE);
        let text = self.small(path, MAX_JSON).ok()?;
        let (_, _, modified) = self.file(path).ok()?;
        Some((serde_json::from_slice(&text).ok()?, modified))
    }

    /// Makes a finished segment and its name survive a power cut.
    pub fn sync(&self, session: SessionId, file: &File) -> io::Result<()> {
        file.sync_all()?;
        rustix::fs::fsync(self.folder(&rendition(session))?)?;
        Ok(())
    }

    /// Removes a segment; one that is not there is removed already.
    pub fn remove_segment(&self, session: SessionId, seq: u64) -> io::Result<()> {
        let folder = match self.folder(&rendition(session)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        match unlinkat(&folder, spool::segment_file(seq), AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Removes the folder of a session with all that is in it.
    pub fn remove_session(&self, session: SessionId) -> io::Result<()> {
        // std walks with open folders and never through a link.
        match std::fs::remove_dir_all(self.path.join(session.to_string())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Folder of the source rendition.
fn rendition(session: SessionId) -> PathBuf {
    Path::new(&session.to_string()).join(SOURCE)
}

/// Path of a segment below the spool.
pub fn segment_path(session: SessionId, seq: u64) -> PathBuf {
    rendition(session).join(spool::segment_file(seq))
}

/// Path of an init section below the spool.
pub fn init_path(session: SessionId) -> PathBuf {
    rendition(session).join(spool::INIT_FILE)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_fifos_and_folders_are_no_segments() {
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("secret"), "s").expect("writes");
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(folder.path()).expect("opens");
        let session = SessionId::new();
        let rendition = folder.path().join(rendition(session));
        fs::create_dir_all(&rendition).expect("a folder");
        fs::write(rendition.join("00000000.m4s"), "x").expect("writes");
        symlink(outside.path().join("secret"), rendition.join("00000001.m4s")).expect("a link");
        fs::create_dir(rendition.join("00000002.m4s")).expect("a folder");
        rustix::fs::mknodat(CWD, rendition.join("00000003.m4s"), rustix::fs::FileType::Fifo, Mode::RWXU, 0)
            .expect("a FIFO");
        assert_eq!(spool.segments(session).expect("lists"), [0, 1, 2, 3]);
        assert!(spool.file(&segment_path(session, 0)).is_ok());
        for seq in 1..4 {
            assert!(spool.file(&segment_path(session, seq)).is_err(), "{seq}");
        }
        assert!(spool.file(Path::new("../secret")).is_err());
        assert!(spool.small(&segment_path(session, 0), 0).is_err(), "larger than allowed");
    }

    #[test]
    fn a_session_that_is_a_link_leads_nowhere() {
        let outside = tempfile::tempdir().expect("a folder");
        fs::create_dir(outside.path().join("source")).expect("a folder");
        fs::write(outside.path().join("source/00000000.m4s"), "x").expect("writes");
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(folder.path()).expect("opens");
        let session = SessionId::new();
        symlink(outside.path(), folder.path().join(session.to_string())).expect("a link");
        assert!(spool.segments(session).is_err());
        assert!(spool.remove_segment(session, 0).is_err());
        spool.remove_session(session).expect("the link goes");
        assert!(outside.path().join("source/00000000.m4s").exists());
    }
}
