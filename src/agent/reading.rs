//! Reads a finished file of the spool once: parsed, hashed and made durable.
//!
//! Not here: which files, or the numbers they get. Called by the sealer for the source and by `rungs` for the others.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;

use super::{
    context::Context,
    spool::{folder_path, segment_path},
};
use crate::domain::{
    cid::{self, FileDigest, FileHasher},
    container::{Container, Layout, Malformed},
    id::SessionId,
    media::Description,
    segment::{Blob, SegmentKey},
    session::Found,
};

/// What can't be read for so long is damaged.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the segments of a rendition have in common.
#[derive(Clone)]
pub struct Format {
    /// How they are read.
    pub layout: Layout,
    /// The init section they need.
    pub init: Option<Blob>,
}

impl Format {
    /// By the init section in this file, where there is one.
    pub fn of(
        context: &Context,
        session: SessionId,
        rendition: &str,
        init_file: Option<&str>,
    ) -> Result<Self, Unusable> {
        let bytes = init_file.map(|file| context.spool.init(session, rendition, file)).transpose();
        let bytes = bytes.map_err(|error| Unusable::from(error).of("its init section"))?;
        let fps = context.spool.session_file(session).and_then(|file| file.video).map(|video| video.fps);
        let layout = Layout::read(bytes.as_deref(), fps);
        let layout = layout.map_err(|why| Unusable::from(why).of("its init section"))?;
        let init = bytes.map(|bytes| {
            let mut hasher = FileHasher::default();
            hasher.update(&bytes);
            blob(&hasher.finish())
        });
        Ok(Self { layout, init })
    }
}

/// A file that is whole and well-formed.
pub struct Inspected {
    /// What its bytes say, and when it was finished.
    pub found: Found,
    /// Codecs and picture.
    pub description: Description,
    /// Its hash.
    pub digest: FileDigest,
}

/// Why a file gave no segment.
pub enum Unusable {
    /// For good.
    Damaged(String),
    /// Perhaps not the next time.
    Failed(io::Error),
}

impl Unusable {
    /// Says which part it is about.
    fn of(self, part: &str) -> Self {
        match self {
            Self::Damaged(why) => Self::Damaged(format!("{part}: {why}")),
            failed @ Self::Failed(_) => failed,
        }
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
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

impl From<Malformed> for Unusable {
    fn from(why: Malformed) -> Self {
        Self::Damaged(why.to_string())
    }
}

/// Since when what can't be read could not: a disk that stumbles is no reason to give a segment up, and one bad sector is
/// none to wait for ever with all that comes after it.
pub struct Failing {
    since: HashMap<PathBuf, Instant>,
    patience: Duration,
}

impl Default for Failing {
    fn default() -> Self {
        Self::with_patience(PATIENCE)
    }
}

impl Failing {
    /// Gives up what can't be read for longer.
    pub fn with_patience(patience: Duration) -> Self {
        Self { since: HashMap::new(), patience }
    }

    /// What was read, or why it is damaged; an error as long as the next try may go otherwise.
    pub fn settle<T>(&mut self, path: &Path, read: Result<T, Unusable>) -> io::Result<Result<T, String>> {
        match read {
            Ok(read) => {
                self.since.remove(path);
                Ok(Ok(read))
            }
            Err(Unusable::Damaged(why)) => Ok(Err(why)),
            Err(Unusable::Failed(error)) => {
                let lasted = self.since.entry(path.to_owned()).or_insert_with(Instant::now).elapsed();
                if lasted < self.patience {
                    return Err(error);
                }
                Ok(Err(format!("it could not be read for {} s: {error}", lasted.as_secs())))
            }
        }
    }
}

/// Reads, parses and hashes a file, and makes it durable.
pub async fn read(
    context: &Arc<Context>,
    key: SegmentKey,
    container: Container,
    layout: &Layout,
) -> Result<Inspected, Unusable> {
    let (context, layout) = (context.clone(), layout.clone());
    let inspecting = tokio::task::spawn_blocking(move || inspect(&context, &key, container, &layout));
    inspecting.await.map_err(|_| io::Error::other("reading a segment was interrupted"))?
}

fn inspect(context: &Context, key: &SegmentKey, container: Container, layout: &Layout) -> Result<Inspected, Unusable> {
    let (mut file, length, modified) = context.spool.file(&segment_path(key, container))?;
    if length > cid::MAX_FILE {
        return Err(Unusable::Damaged(format!("{length} bytes: set a shorter keyframe interval at the camera")));
    }
    let (mut scanner, mut hasher) = (layout.scanner()?, FileHasher::default());
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
    let (media, description) = scanner.finish()?;
    context.spool.sync(&folder_path(key.session, &key.rendition), &file)?;
    let found = Found { seq: key.seq, media, sealed_us: sealed_us(key.session, modified) };
    Ok(Inspected { found, description, digest: hasher.finish() })
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

/// As segments name it.
pub fn blob(digest: &FileDigest) -> Blob {
    Blob { cid: digest.cid.to_string(), sha256: digest.sha256.clone(), bytes: digest.bytes }
}
