//! What stands in the spool, as far as the ladder is concerned: finished segments of the source that lack renditions.
//!
//! A rendition's segment is there once its file has its name; a mark beside it says that it never will be. Nothing is
//! remembered elsewhere, so a restart needs no memory.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use crate::{
    domain::{
        container::Container,
        id::SessionId,
        ladder::{Rendition, Waiting},
        segment::SOURCE,
        spool,
    },
    files,
};

/// Folder of a rendition of a session.
pub fn folder(spool: &Path, session: SessionId, rendition: &str) -> PathBuf {
    spool.join(session.to_string()).join(rendition)
}

/// Removes what a transcoder before us left half.
pub fn clean(spool: &Path) -> io::Result<()> {
    for session in sessions(spool)? {
        remove(&spool.join(session.to_string()).join(spool::LADDER_FOLDER))?;
    }
    Ok(())
}

/// Removes a folder that may not be there.
pub fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a file that may not be there.
pub fn forget(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sessions(spool: &Path) -> io::Result<Vec<SessionId>> {
    Ok(fs::read_dir(spool)?.flatten().filter_map(|e| e.file_name().to_str().and_then(spool::session_of)).collect())
}

/// Every finished segment that lacks a rendition.
pub fn waiting(
    spool: &Path,
    renditions: &[Rendition],
    tries: impl Fn(SessionId, u64) -> u32,
) -> io::Result<Vec<Waiting>> {
    let mut waiting = Vec::new();
    if renditions.is_empty() {
        return Ok(waiting);
    }
    for session in sessions(spool)? {
        let source = folder(spool, session, SOURCE);
        let mut finished = named(&source, spool::segment_of)?;
        finished.retain(|_, container| container.init_file().is_none_or(|init| source.join(init).exists()));
        let mut settled = Vec::new();
        for rendition in renditions {
            let seq = |file: &str| Some((spool::segment_seq(file).or_else(|| spool::given_up_seq(file))?, ()));
            settled.push(named(&folder(spool, session, &rendition.name), seq)?);
        }
        finished.retain(|seq, _| !settled.iter().all(|there| there.contains_key(seq)));
        for (seq, container) in finished {
            // Gone since it was listed: the agent has let go of it.
            let Ok(metadata) = fs::metadata(source.join(spool::segment_file(seq, container))) else { continue };
            let age = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let finished_us = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
            waiting.push(Waiting { session, seq, container, finished_us, tries: tries(session, seq) });
        }
    }
    Ok(waiting)
}

fn tries_file(spool: &Path, session: SessionId, seq: u64) -> PathBuf {
    spool.join(session.to_string()).join(spool::TRIES_FOLDER).join(format!("{seq:08}"))
}

/// How often a segment was begun with and not finished.
pub fn tries(spool: &Path, session: SessionId, seq: u64) -> u32 {
    fs::read_to_string(tries_file(spool, session, seq)).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Notes it before ffmpeg runs, because that may take us along (memory): a memory of ours would not survive it. 0 forgets.
pub fn note_tries(spool: &Path, session: SessionId, seq: u64, tries: u32) -> io::Result<()> {
    let file = tries_file(spool, session, seq);
    if tries == 0 {
        return forget(&file);
    }
    make(&spool.join(session.to_string()).join(spool::TRIES_FOLDER))?;
    files::replace(&file, tries.to_string().as_bytes(), false)
}

/// Does this rendition lack the segment?
pub fn lacks(spool: &Path, session: SessionId, seq: u64, rendition: &str) -> bool {
    let folder = folder(spool, session, rendition);
    let made = Container::ALL.iter().any(|container| folder.join(spool::segment_file(seq, *container)).exists());
    !made && !folder.join(spool::given_up_file(seq)).exists()
}

/// Marks that a segment's missing renditions will not be made.
pub fn give_up(spool: &Path, segment: &Waiting, renditions: &[Rendition], why: &str) -> io::Result<()> {
    for rendition in renditions.iter().filter(|r| lacks(spool, segment.session, segment.seq, &r.name)) {
        let folder = folder(spool, segment.session, &rendition.name);
        make(&folder)?;
        files::replace(&folder.join(spool::given_up_file(segment.seq)), why.as_bytes(), false)?;
    }
    note_tries(spool, segment.session, segment.seq, 0)
}

/// Makes the folder of a rendition in a session that is still there.
pub fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// What names of files in a folder mean, by number.
fn named<T>(folder: &Path, meaning: impl Fn(&str) -> Option<(u64, T)>) -> io::Result<BTreeMap<u64, T>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
        entries => Ok(entries?.flatten().filter_map(|entry| meaning(entry.file_name().to_str()?)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung(name: &str) -> Rendition {
        Rendition { name: name.into(), height: 240, video_bitrate_kbps: 300 }
    }

    #[test]
    fn what_lacks_a_rendition_waits_until_it_is_made_or_given_up() {
        let spool = tempfile::tempdir().expect("a folder");
        let session = SessionId::new();
        let source = folder(spool.path(), session, SOURCE);
        fs::create_dir_all(&source).expect("a folder");
        for file in ["00000000.m4s", "00000001.m4s", "00000002.m4s.tmp", "init.mp4"] {
            fs::write(source.join(file), "x").expect("writes");
        }
        let renditions = [rung("low"), rung("mid")];
        let seqs = || -> Vec<u64> {
            waiting(spool.path(), &renditions, |_, _| 0).expect("lists").iter().map(|w| w.seq).collect()
        };
        assert_eq!(seqs(), [0, 1]);
        fs::create_dir(folder(spool.path(), session, "low")).expect("a folder");
        fs::write(folder(spool.path(), session, "low").join("00000001.m4s"), "x").expect("writes");
        assert_eq!(seqs(), [0, 1], "one of two");
        assert!(!lacks(spool.path(), session, 1, "low") && lacks(spool.path(), session, 1, "mid"));
        let one = Waiting { session, seq: 1, container: Container::Fmp4, finished_us: 0, tries: 3 };
        give_up(spool.path(), &one, &renditions, "ffmpeg died").expect("marks");
        assert_eq!(seqs(), [0]);
        assert!(!folder(spool.path(), session, "low").join("00000001.given-up").exists(), "that one was made");
    }

    #[test]
    fn a_transport_stream_waits_without_an_init_section() {
        let spool = tempfile::tempdir().expect("a folder");
        let session = SessionId::new();
        let source = folder(spool.path(), session, SOURCE);
        fs::create_dir_all(&source).expect("a folder");
        for file in ["00000000.ts", "00000001.ts", "00000002.m4s"] {
            fs::write(source.join(file), "x").expect("writes");
        }
        fs::create_dir(folder(spool.path(), session, "low")).expect("a folder");
        fs::write(folder(spool.path(), session, "low").join("00000000.ts"), "x").expect("writes");
        let waiting = waiting(spool.path(), &[rung("low")], |_, _| 0).expect("lists");
        let seen: Vec<_> = waiting.iter().map(|waiting| (waiting.seq, waiting.container)).collect();
        assert_eq!(seen, [(1, Container::MpegTs)], "the other has no init section yet");
        assert!(!lacks(spool.path(), session, 0, "low") && lacks(spool.path(), session, 1, "low"));
    }

    #[test]
    fn what_a_killed_transcoder_left_is_removed_and_nothing_else() {
        let spool = tempfile::tempdir().expect("a folder");
        let session = spool.path().join(SessionId::new().to_string());
        fs::create_dir_all(session.join(spool::LADDER_FOLDER).join("low")).expect("a folder");
        fs::create_dir_all(session.join("low")).expect("a folder");
        clean(spool.path()).expect("cleans");
        assert!(!session.join(spool::LADDER_FOLDER).exists());
        assert!(session.join("low").exists());
    }
}
