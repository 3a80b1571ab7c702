//! One job: a segment in, its missing renditions out, each by one rename.
//!
//! ffmpeg's word that all went well is not enough: as many frames must come out as went in, at the same times, or the
//! renditions would not line up and a player that switches would jump.

use std::{
    collections::VecDeque,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::time::timeout;

use super::{Args, look};
use crate::{
    child::{self, Lines},
    domain::{
        container::{Container, Layout, Malformed},
        id::SessionId,
        ladder::{self, Job, Rendition},
        media::Media,
        segment::SOURCE,
        spool,
    },
};

/// A segment that takes longer is not made in time by a long way.
const LIMIT: Duration = Duration::from_secs(60);
/// Complaints kept; the last one is told.
const KEPT_LINES: usize = 5;
/// ffmpeg's words for a full disk.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];
/// No segment is larger.
const MAX_SEGMENT: u64 = 256 << 20;

/// Why a job came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The segment is no longer there.
    #[error("the segment is gone")]
    Gone,
    /// The source is none.
    #[error("the segment can't be read: {0}")]
    Source(String),
    /// ffmpeg could not be run, or the file system failed: nothing that another segment would do better with.
    #[error("failed to run ffmpeg on the spool")]
    Io(#[from] io::Error),
    /// It ended badly; its last words.
    #[error("{0}")]
    Ffmpeg(String),
    /// It did not come to an end.
    #[error("ffmpeg took longer than {} s for one segment", LIMIT.as_secs())]
    TooSlow,
    /// What came out is not what went in.
    #[error("the rendition {name} has other frames than the source: {found} instead of {wanted}")]
    Frames {
        /// The rendition.
        name: String,
        /// What came out.
        found: String,
        /// What went in.
        wanted: String,
    },
}

impl Failed {
    /// In a sentence that is the same each time: whoever reads the report is woken by every change of it.
    pub fn sentence(&self) -> &'static str {
        match self {
            Self::Gone => "the segment is gone",
            Self::Source(_) => "a segment of the source can't be read",
            Self::Io(error) if is_full(error) => "the spool is full",
            Self::Io(_) => "ffmpeg can't be run, or the spool can't be read or written",
            Self::Ffmpeg(_) => "ffmpeg fails: its words are in the log of the container transcoder",
            Self::TooSlow => "ffmpeg took longer than a minute for one segment",
            Self::Frames { .. } => "a rendition has other frames than the source",
        }
    }
}

/// Makes the renditions that a segment lacks. Dropping the future kills ffmpeg.
pub async fn transcode(
    args: &Args,
    (session, seq, container): (SessionId, u64, Container),
    renditions: &[Rendition],
) -> Result<(), Failed> {
    let source = look::folder(&args.spool, session, SOURCE);
    let init = container.init_file().map(|file| source.join(file));
    let segment = source.join(spool::segment_file(seq, container));
    let init_bytes = init.as_deref().map(read).transpose().map_err(of_source)?;
    let no_source = |why: Malformed| Failed::Source(why.to_string());
    let layout = Layout::read(init_bytes.as_deref(), None).map_err(no_source)?;
    let (wanted, description) = layout.scan(&read(&segment).map_err(of_source)?).map_err(no_source)?;
    let missing: Vec<Rendition> =
        renditions.iter().filter(|r| look::lacks(&args.spool, session, seq, &r.name)).cloned().collect();
    let temporary = args.spool.join(session.to_string()).join(spool::LADDER_FOLDER);
    look::remove(&temporary)?;
    fs::create_dir(&temporary)?;
    let job = Job {
        init: init.map(|file| file.to_string_lossy().into_owned()),
        segment: segment.to_string_lossy().into_owned(),
        seq,
        audio: description.sound,
        folder: temporary.to_string_lossy().into_owned(),
        renditions: missing,
    };
    let made = make(args, &job, session, container, &wanted).await;
    // Also where it came to nothing: a full disk must not stay full by what we left on it.
    look::remove(&temporary)?;
    made
}

async fn make(args: &Args, job: &Job, session: SessionId, container: Container, wanted: &Media) -> Result<(), Failed> {
    run(args, job).await?;
    for rendition in &job.renditions {
        let made = PathBuf::from(ladder::folder_of(&job.folder, &rendition.name));
        take(&made, &look::folder(&args.spool, session, &rendition.name), rendition, (job.seq, container), wanted)?;
    }
    Ok(())
}

async fn run(args: &Args, job: &Job) -> Result<(), Failed> {
    let mut child = child::spawn(&args.ffmpeg, &ladder::arguments(job))?;
    let mut lines = Lines::new(child.stderr.take());
    let mut last: VecDeque<String> = VecDeque::new();
    // Nothing is expected there; closed, so that it can't block.
    drop(child.stdout.take());
    let running = async {
        while let Some(line) = lines.next().await {
            if last.len() == KEPT_LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
        child.wait().await
    };
    match timeout(LIMIT, running).await {
        Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
        Ok(status) => {
            let status = status?;
            if last.iter().any(|line| FULL.iter().any(|full| line.contains(full))) {
                return Err(full());
            }
            let words = last.iter().rev().find(|line| line.contains("[error]") || line.contains("[fatal]"));
            let words = words.or(last.back()).map_or_else(|| status.to_string(), |line| plain(line));
            Err(Failed::Ffmpeg(words))
        }
        Err(_) => {
            child::stop(&mut child, child::READING).await?;
            Err(Failed::TooSlow)
        }
    }
}

/// A complaint without the addresses of memory before it: said twice it must be the same words.
fn plain(line: &str) -> String {
    line.rsplit("] ").next().unwrap_or(line).chars().take(200).collect()
}

/// Checks what was made and gives it its name.
fn take(
    made: &Path,
    folder: &Path,
    rendition: &Rendition,
    (seq, container): (u64, Container),
    wanted: &Media,
) -> Result<(), Failed> {
    let words =
        |media: &Media| format!("{} frames from {} to {} µs", media.frames, media.first_shown_us, media.last_shown_us);
    let other = |found: String| Failed::Frames { name: rendition.name.clone(), found, wanted: words(wanted) };
    let unreadable = |why: Malformed| other(why.to_string());
    // Trap: on a full disk ffmpeg ends well and says nothing, and its files are cut off. It writes the playlist last.
    let playlist = read(&made.join(ladder::PLAYLIST)).map_err(of_product)?;
    if spool::newest_segment(&String::from_utf8_lossy(&playlist)).is_none() {
        return Err(full());
    }
    let name = spool::segment_file(seq, container);
    let init = container.init_file().map(|file| Ok::<_, Failed>((init_of(made)?, file))).transpose()?;
    let init_bytes = init.as_ref().map(|(file, _)| read(file)).transpose().map_err(of_product)?;
    let layout = Layout::read(init_bytes.as_deref(), None).map_err(unreadable)?;
    let (found, _) = layout.scan(&read(&made.join(&name)).map_err(of_product)?).map_err(unreadable)?;
    if !ladder::lines_up(&wanted.into(), &found) {
        return Err(other(words(&found)));
    }
    look::make(folder)?;
    if let Some((init, file)) = init {
        take_init(&init, &layout, folder, file, seq)?;
    }
    // The segment last: with its name it counts as finished.
    match renameat_with(CWD, made.join(&name), CWD, folder.join(&name), RenameFlags::NOREPLACE) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// The session's rendition keeps its first init section: two jobs differ in what the encoder noted of its bit rates.
fn take_init(made: &Path, layout: &Layout, folder: &Path, name: &str, seq: u64) -> io::Result<()> {
    let (first, own) = (folder.join(name), folder.join(spool::own_init_file(seq)));
    // That of a job that was killed between its two files; of another decoder, perhaps, for there may be an edit between.
    look::forget(&own)?;
    match fs::read(&first) {
        Ok(bytes) if is_like(&bytes, layout) => Ok(()),
        // After an edit: the bytes of the one before, where they fit, or every segment would bring a new EXT-X-MAP.
        Ok(_) => match newest_like(folder, layout)? {
            Some(known) => fs::hard_link(known, own),
            None => fs::rename(made, own),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => fs::rename(made, &first),
        Err(error) => Err(error),
    }
}

/// Does this init section need the same decoder?
fn is_like(bytes: &[u8], layout: &Layout) -> bool {
    Layout::read(Some(bytes), None).is_ok_and(|known| known.decodes_like(layout))
}

/// The newest init section of a single segment that needs the same decoder.
fn newest_like(folder: &Path, layout: &Layout) -> io::Result<Option<PathBuf>> {
    let number = |entry: fs::DirEntry| spool::own_init_seq(entry.file_name().to_str()?);
    let mut numbers: Vec<u64> = fs::read_dir(folder)?.flatten().filter_map(number).collect();
    numbers.sort_unstable();
    let mut files = numbers.into_iter().rev().map(|seq| folder.join(spool::own_init_file(seq)));
    // The agent may have let go of one since.
    Ok(files.find(|file| fs::read(file).is_ok_and(|bytes| is_like(&bytes, layout))))
}

/// The init section that ffmpeg wrote: it numbers them when there are several.
fn init_of(made: &Path) -> Result<PathBuf, Failed> {
    let is_init = |name: &str| name.starts_with("init") && Path::new(name).extension().is_some_and(|e| e == "mp4");
    fs::read_dir(made)?
        .flatten()
        .find(|entry| entry.file_name().to_str().is_some_and(is_init))
        .map(|entry| entry.path())
        .ok_or_else(|| Failed::Ffmpeg("it wrote no init section".to_owned()))
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(file)?;
    if !metadata.is_file() || metadata.len() > MAX_SEGMENT {
        return Err(io::Error::new(ErrorKind::InvalidData, "no file of a size that can be"));
    }
    fs::read(file)
}

/// Why a file of the source could not be read.
fn of_source(error: io::Error) -> Failed {
    match error.kind() {
        ErrorKind::NotFound => Failed::Gone,
        ErrorKind::InvalidData => Failed::Source(error.to_string()),
        _ => Failed::Io(error),
    }
}

/// Why a file that ffmpeg should have written could not be read.
fn of_product(error: io::Error) -> Failed {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::InvalidData => Failed::Ffmpeg(format!("it left no rendition: {error}")),
        _ => Failed::Io(error),
    }
}

fn full() -> Failed {
    Failed::Io(ErrorKind::StorageFull.into())
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
