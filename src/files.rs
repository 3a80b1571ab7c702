//! How processes of a pod exchange files: replaced whole by rename, with inotify as a hint and a rescan as the truth.
//!
//! Not here: what stands in them ([`crate::domain::spool`]), or reading what a hostile process wrote (the agent's
//! spool does that with its own care).

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::ModifyKind};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio::sync::Notify;

/// How often a lock that another process holds is tried again.
const LOCK_RETRY: Duration = Duration::from_secs(1);

/// Holds `path` alone for as long as the returned file lives; waits while another process does. The kernel lets go when
/// the process ends, however it ends.
///
/// For what two pods may have in their hands at once: a Deployment that somebody scaled by hand, a pod that is going while
/// the next one comes.
pub async fn alone(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    let mut said = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::AGAIN) => {
                if !said {
                    tracing::warn!(path = %path.display(), "another pod works on this volume: waiting until it is gone");
                    said = true;
                }
                tokio::time::sleep(LOCK_RETRY).await;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Replaces a file in one step: a reader sees the old content or the new, never a part.
///
/// `durable`: content and name survive a power cut once this returns.
pub fn replace(path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file needs a folder and a name"));
    };
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = folder.join(temporary);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    if durable { sync_folder(folder) } else { Ok(()) }
}

/// Writes over a small file where it stands, for want of room for another. What was longer is filled up with spaces.
pub fn write_over(path: &Path, mut content: Vec<u8>) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    content.resize(content.len().max(length), b' ');
    file.write_all(&content)
}

/// Makes the names in a folder survive a power cut.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Wakes up when something in watched folders may have changed, and at least once per interval.
///
/// inotify loses events on overflow and does not exist for folders that are not there yet: whoever is woken looks at
/// everything.
///
/// Trap: by default a user may have 128 inotify instances on a node, and the pods of a node are one user. Where there is
/// none left, the interval alone has to do.
pub struct Hints {
    make: Box<dyn Fn() -> notify::Result<RecommendedWatcher> + Send>,
    watcher: Option<RecommendedWatcher>,
    woken: Arc<Notify>,
    missing: Vec<(PathBuf, RecursiveMode)>,
    interval: Duration,
}

impl Hints {
    /// `relevant` decides by path which changes matter; it must not let through what the woken one writes itself.
    pub fn new(interval: Duration, relevant: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Self {
        let woken = Arc::new(Notify::new());
        let (wake, relevant) = (woken.clone(), Arc::new(relevant));
        let make = move || {
            let (wake, relevant) = (wake.clone(), relevant.clone());
            let handler = move |event: notify::Result<Event>| match event {
                // Reading changes nothing; a touched file has the same content.
                Ok(event)
                    if matches!(event.kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_))) => {}
                Ok(event) if !event.need_rescan() && !event.paths.iter().any(|path| relevant(path)) => {}
                _ => wake.notify_one(),
            };
            // A hostile folder may hold links to anywhere.
            RecommendedWatcher::new(handler, Config::default().with_follow_symlinks(false))
        };
        Self::made_by(interval, woken, Box::new(make))
    }

    fn made_by(
        interval: Duration,
        woken: Arc<Notify>,
        make: Box<dyn Fn() -> notify::Result<RecommendedWatcher> + Send>,
    ) -> Self {
        let watcher = make()
            .inspect_err(|error| {
                tracing::warn!(
                    "no inotify, looking every {interval:?} instead (fs.inotify.max_user_instances): {error}"
                );
            })
            .ok();
        Self { make, watcher, woken, missing: Vec::new(), interval }
    }

    /// Adds a folder; one that does not exist is tried again at each interval.
    #[must_use]
    pub fn folder(mut self, folder: &Path, recursive: bool) -> Self {
        let mode = if recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        self.missing.push((folder.to_owned(), mode));
        self.watch_missing();
        self
    }

    fn watch_missing(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            self.missing.retain(|(folder, mode)| watcher.watch(folder, *mode).is_err());
        }
    }

    /// Waits for a hint or for the interval to pass.
    pub async fn wait(&mut self) {
        if tokio::time::timeout(self.interval, self.woken.notified()).await.is_err() {
            // Another pod may have let go of its own.
            self.watcher = self.watcher.take().or_else(|| (self.make)().ok());
            self.watch_missing();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        replace(&path, b"one", true).expect("writes");
        replace(&path, b"two", false).expect("writes");
        assert_eq!(fs::read(&path).expect("reads"), b"two");
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
    }

    #[test]
    fn a_file_that_is_written_over_shows_nothing_of_what_was_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        fs::write(&path, b"1234").expect("writes");
        for (content, want) in [("56", "56  "), ("123456", "123456")] {
            write_over(&path, content.into()).expect("writes");
            assert_eq!(fs::read_to_string(&path).expect("reads"), want);
        }
    }

    #[tokio::test]
    async fn a_change_wakes_long_before_the_interval_and_an_irrelevant_one_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut hints = Hints::new(Duration::from_secs(60), |path| path.extension().is_some_and(|e| e == "json"))
            .folder(folder.path(), true);
        fs::write(folder.path().join("a.tmp"), "x").expect("writes");
        assert!(tokio::time::timeout(Duration::from_millis(200), hints.wait()).await.is_err());
        replace(&folder.path().join("a.json"), b"x", false).expect("writes");
        tokio::time::timeout(Duration::from_secs(5), hints.wait()).await.expect("woken");
    }

    #[tokio::test]
    async fn without_inotify_the_interval_wakes_and_inotify_is_taken_up_when_there_is_some() {
        let folder = tempfile::tempdir().expect("a folder");
        let left = std::sync::atomic::AtomicBool::new(false);
        let woken = Arc::new(Notify::new());
        let wake = woken.clone();
        let make = move || {
            if !left.swap(true, std::sync::atomic::Ordering::Relaxed) {
                return Err(notify::Error::io(Errno::MFILE.into()));
            }
            let wake = wake.clone();
            RecommendedWatcher::new(move |_| wake.notify_one(), Config::default())
        };
        let mut hints = Hints::made_by(Duration::from_millis(50), woken, Box::new(make)).folder(folder.path(), false);
        tokio::time::timeout(Duration::from_secs(5), hints.wait()).await.expect("the interval passes");
        hints.interval = Duration::from_secs(60);
        fs::write(folder.path().join("a"), "x").expect("writes");
        tokio::time::timeout(Duration::from_secs(5), hints.wait()).await.expect("woken");
    }
}
