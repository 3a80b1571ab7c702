//! The voice of whoever shares a spool with the agent and speaks to nobody else: a file, rewritten on coarse change and
//! touched in between. Not here: what stands in it ([`crate::domain::spool`]).

use std::{
    fs::{self, FileTimes},
    io::{self, ErrorKind},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::{domain::spool, files};

/// Holds what was last said.
pub struct Reporter<T> {
    path: PathBuf,
    said: Mutex<Said<T>>,
    differs: fn(&T, &T) -> bool,
}

struct Said<T> {
    report: T,
    /// Does the file say so, too?
    written: bool,
}

impl<T: Clone + Default + Serialize> Reporter<T> {
    /// Says that there is nothing to say yet. `differs`: is a change worth a rewrite?
    pub fn new(path: PathBuf, differs: fn(&T, &T) -> bool) -> Self {
        let said = Said { report: T::default(), written: true };
        let reporter = Self { path, said: Mutex::new(said), differs };
        reporter.write(&mut reporter.said());
        reporter
    }

    /// Changes the report; the file is rewritten when the change is worth it, or when it could not be before.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        let mut said = self.said();
        let mut next = said.report.clone();
        change(&mut next);
        let worth = (self.differs)(&next, &said.report);
        said.report = next;
        if worth || !said.written {
            self.write(&mut said);
        }
    }

    /// A cheap sign of life: the file's time, not its content.
    pub async fn keep_fresh(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(spool::REPORT_TOUCH_SECONDS));
        loop {
            ticks.tick().await;
            self.freshen();
        }
    }

    fn freshen(&self) {
        let mut said = self.said();
        // Trap: on a disk that is full, what stands in the file is what was said before, and must grow old.
        if !said.written || self.touch().is_err() {
            self.write(&mut said);
        }
    }

    /// Fails when somebody removed it.
    fn touch(&self) -> io::Result<()> {
        let file = fs::File::options().write(true).open(&self.path)?;
        file.set_times(FileTimes::new().set_modified(SystemTime::now()))
    }

    fn write(&self, said: &mut Said<T>) {
        let written = serde_json::to_vec(&said.report).map_err(io::Error::other).and_then(|text| self.replace(text));
        // Once, not at each try.
        if let (Err(error), true) = (&written, said.written) {
            tracing::warn!("failed to write {}: {error}", self.path.display());
        }
        said.written = written.is_ok();
    }

    fn replace(&self, text: Vec<u8>) -> io::Result<()> {
        match files::replace(&self.path, &text, false) {
            // That it is full is worth saying, and the old file has its block. A reader that meets half of it looks again.
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                files::write_over(&self.path, text)
            }
            other => other,
        }
    }

    fn said(&self) -> MutexGuard<'_, Said<T>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runner that could not say that the disk was full went on saying that it recorded: the old report was touched.
    #[test]
    fn b3_what_could_not_be_written_is_written_later_and_the_old_report_grows_old_meanwhile() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.json");
        let reporter = Reporter::new(path.clone(), |a: &u32, b| a != b);
        // Where the new file would be made there is something else.
        let hindrance = folder.path().join(format!(".report.json.{}", std::process::id()));
        fs::create_dir(&hindrance).expect("a folder");
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let file = fs::File::options().write(true).open(&path).expect("opens");
        file.set_times(FileTimes::new().set_modified(long_ago)).expect("touched");
        let seen = || {
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("is there");
            (fs::read_to_string(&path).expect("reads"), modified == long_ago)
        };
        reporter.update(|said| *said = 1);
        reporter.freshen();
        assert_eq!(seen(), ("0".to_owned(), true));
        fs::remove_dir(&hindrance).expect("removed");
        reporter.freshen();
        assert_eq!(seen(), ("1".to_owned(), false));
    }
}
