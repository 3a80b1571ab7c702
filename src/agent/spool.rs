//! The spool as the agent sees it: written by a process that reads hostile input, so nothing in it is trusted.
//!
//! Files are opened beneath the spool's root without following any link (openat2) and must be regular; names that are
//! not ours are not looked at. Not here: what the files mean (`domain::spool`, `domain::container`).

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, unlinkat};

use crate::domain::{
    container::Container,
    id::SessionId,
    ladder::is_rendition,
    segment::{SOURCE, SegmentKey},
    spool::{self, RunnerReport, SessionFile, TranscoderReport},
};

/// Folders and files beyond these numbers are nonsense; reading on would only cost time.
const MAX_ENTRIES: usize = 200_000;
/// No Pipeline ever had more renditions in one session.
const MAX_RENDITIONS: usize = 32;
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

    /// Renditions of a session beside the source.
    pub fn renditions(&self, session: SessionId) -> io::Result<Vec<String>> {
        let folder = Path::new(&session.to_string()).to_owned();
        let mut names = match self.names(&folder, |name| is_rendition(name).then(|| name.to_owned())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        names.sort_unstable();
        names.truncate(MAX_RENDITIONS);
        Ok(names)
    }

    /// Numbers and containers of the finished segments of a rendition, in order, each number once.
    pub fn segments(&self, session: SessionId, rendition: &str) -> io::Result<Vec<(u64, Container)>> {
        let mut segments = match self.names(&folder_path(session, rendition), spool::segment_of) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        segments.sort_unstable_by_key(|(seq, _)| *seq);
        segments.dedup_by_key(|(seq, _)| *seq);
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

    /// An init section of a rendition.
    pub fn init(&self, session: SessionId, rendition: &str, file: &str) -> io::Result<Vec<u8>> {
        self.small(&folder_path(session, rendition).join(file), MAX_INIT)
    }

    /// Name of the init section that a segment needs, if it needs one: its own where it has one.
    pub fn init_file(&self, key: &SegmentKey, container: Container) -> Option<String> {
        let common = container.init_file()?;
        let own = spool::own_init_file(key.seq);
        let has_own = self.file(&folder_path(key.session, &key.rendition).join(&own)).is_ok();
        Some(if has_own { own } else { common.to_owned() })
    }

    /// Has the transcoder said that it will not make this one?
    pub fn is_given_up(&self, session: SessionId, rendition: &str, seq: u64) -> bool {
        self.file(&folder_path(session, rendition).join(spool::given_up_file(seq))).is_ok()
    }

    /// Says so ourselves, or the transcoder would make again what had to go.
    pub fn give_up(&self, session: SessionId, rendition: &str, seq: u64) -> io::Result<()> {
        let folder = match self.folder(&folder_path(session, rendition)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&folder, spool::given_up_file(seq), flags, Mode::RUSR | Mode::WUSR | Mode::RGRP)?;
        Ok(())
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

    /// The transcoder's report and its last sign of life.
    pub fn transcoder_report(&self) -> Option<(TranscoderReport, SystemTime)> {
        let path = Path::new(spool::TRANSCODER_REPORT_FILE);
        let text = self.small(path, MAX_JSON).ok()?;
        let (_, _, modified) = self.file(path).ok()?;
        Some((serde_json::from_slice(&text).ok()?, modified))
    }

    /// Makes a finished segment and its name survive a power cut.
    pub fn sync(&self, folder: &Path, file: &File) -> io::Result<()> {
        file.sync_all()?;
        rustix::fs::fsync(self.folder(folder)?)?;
        Ok(())
    }

    /// Removes a segment with what belongs to it alone; one that is not there is removed already.
    pub fn remove_segment(&self, key: &SegmentKey) -> io::Result<()> {
        let segments = Container::ALL.map(|container| spool::segment_file(key.seq, container));
        let files: Vec<String> = segments.into_iter().chain([spool::own_init_file(key.seq)]).collect();
        self.unlink(&folder_path(key.session, &key.rendition), &files)
    }

    /// Removes a source segment that was refused, but none that only we may not read.
    pub fn remove_refused(&self, session: SessionId, seq: u64) -> io::Result<()> {
        let folder = folder_path(session, SOURCE);
        for file in Container::ALL.map(|container| spool::segment_file(seq, container)) {
            match self.file(&folder.join(&file)) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
                _ => self.unlink(&folder, &[file])?,
            }
        }
        Ok(())
    }

    /// Removes the mark of a segment that will not be made.
    pub fn forget_given_up(&self, session: SessionId, rendition: &str, seq: u64) -> io::Result<()> {
        self.unlink(&folder_path(session, rendition), &[spool::given_up_file(seq)])
    }

    fn unlink(&self, folder: &Path, files: &[String]) -> io::Result<()> {
        let folder = match self.folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for file in files {
            match unlinkat(&folder, file, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
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

/// Folder of a rendition below the spool.
pub fn folder_path(session: SessionId, rendition: &str) -> PathBuf {
    Path::new(&session.to_string()).join(rendition)
}

/// Path of a segment below the spool.
pub fn segment_path(key: &SegmentKey, container: Container) -> PathBuf {
    folder_path(key.session, &key.rendition).join(spool::segment_file(key.seq, container))
}

/// Path of an init section below the spool.
pub fn init_path(key: &SegmentKey, file: &str) -> PathBuf {
    folder_path(key.session, &key.rendition).join(file)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::domain::id::StreamId;

    fn key(session: SessionId, seq: u64) -> SegmentKey {
        SegmentKey { stream: StreamId::of("p", "c"), rendition: SOURCE.into(), session, seq }
    }

    #[test]
    fn links_fifos_and_folders_are_no_segments() {
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("secret"), "s").expect("writes");
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(folder.path()).expect("opens");
        let session = SessionId::new();
        let rendition = folder.path().join(folder_path(session, SOURCE));
        fs::create_dir_all(&rendition).expect("a folder");
        fs::write(rendition.join("00000000.m4s"), "x").expect("writes");
        symlink(outside.path().join("secret"), rendition.join("00000001.m4s")).expect("a link");
        fs::create_dir(rendition.join("00000002.m4s")).expect("a folder");
        rustix::fs::mknodat(CWD, rendition.join("00000003.m4s"), rustix::fs::FileType::Fifo, Mode::RWXU, 0)
            .expect("a FIFO");
        let found = spool.segments(session, SOURCE).expect("lists");
        assert_eq!(found, [0, 1, 2, 3].map(|seq| (seq, Container::Fmp4)));
        let path = |seq| segment_path(&key(session, seq), Container::Fmp4);
        assert!(spool.file(&path(0)).is_ok());
        for seq in 1..4 {
            assert!(spool.file(&path(seq)).is_err(), "{seq}");
        }
        assert!(spool.file(Path::new("../secret")).is_err());
        assert!(spool.small(&path(0), 0).is_err(), "larger than allowed");
    }

    #[test]
    fn a_number_is_one_segment_in_whatever_container() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(folder.path()).expect("opens");
        let session = SessionId::new();
        let rendition = folder.path().join(folder_path(session, SOURCE));
        fs::create_dir_all(&rendition).expect("a folder");
        for file in ["00000003.ts", "00000001.ts", "00000002.ts.tmp", "00000001.m4s", "init.mp4"] {
            fs::write(rendition.join(file), "x").expect("writes");
        }
        let seqs: Vec<u64> = spool.segments(session, SOURCE).expect("lists").iter().map(|(seq, _)| *seq).collect();
        assert_eq!(seqs, [1, 3]);
        assert_eq!(spool.init_file(&key(session, 1), Container::MpegTs), None);
        assert_eq!(spool.init_file(&key(session, 1), Container::Fmp4).as_deref(), Some("init.mp4"));
        spool.remove_segment(&key(session, 1)).expect("goes");
        assert_eq!(spool.segments(session, SOURCE).expect("lists"), [(3, Container::MpegTs)]);
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
        assert!(spool.segments(session, SOURCE).is_err());
        assert!(spool.remove_segment(&key(session, 0)).is_err());
        spool.remove_session(session).expect("the link goes");
        assert!(outside.path().join("source/00000000.m4s").exists());
    }

    #[test]
    fn a_mark_is_made_once_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(folder.path()).expect("opens");
        let session = SessionId::new();
        spool.give_up(session, "low", 3).expect("no folder, no mark");
        fs::create_dir_all(folder.path().join(folder_path(session, "low"))).expect("a folder");
        fs::create_dir_all(folder.path().join(folder_path(session, spool::LADDER_FOLDER))).expect("a folder");
        for _ in 0..2 {
            spool.give_up(session, "low", 3).expect("marks");
            assert!(spool.is_given_up(session, "low", 3));
        }
        assert_eq!(spool.renditions(session).expect("lists"), ["low"]);
        spool.forget_given_up(session, "low", 3).expect("removes");
        assert!(!spool.is_given_up(session, "low", 3));
    }
}
