//! The voice of whoever shares a spool with the agent and speaks to nobody else: a file, rewritten on coarse change and
//! touched in between. Not here: what stands in it ([`crate::domain::spool`]).

use std::{
    fs::{self, FileTimes},
    path::PathBuf,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::{domain::spool, files};

/// Holds what was last said.
pub struct Reporter<T> {
    path: PathBuf,
    said: Mutex<T>,
    differs: fn(&T, &T) -> bool,
}

impl<T: Clone + Default + Serialize> Reporter<T> {
    /// Says that there is nothing to say yet. `differs`: is a change worth a rewrite?
    pub fn new(path: PathBuf, differs: fn(&T, &T) -> bool) -> Self {
        let reporter = Self { path, said: Mutex::new(T::default()), differs };
        reporter.write(&T::default());
        reporter
    }

    /// Changes the report; the file is rewritten when the change is worth it.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut next = said.clone();
        change(&mut next);
        let worth = (self.differs)(&next, &said);
        *said = next;
        if worth {
            self.write(&said);
        }
    }

    fn write(&self, report: &T) {
        let written = serde_json::to_vec(report)
            .map_err(std::io::Error::other)
            .and_then(|text| files::replace(&self.path, &text, false));
        if let Err(error) = written {
            tracing::warn!("failed to write {}: {error}", self.path.display());
        }
    }

    /// A cheap sign of life: the file's time, not its content.
    pub async fn keep_fresh(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(spool::REPORT_TOUCH_SECONDS));
        loop {
            ticks.tick().await;
            let touched = fs::File::options()
                .write(true)
                .open(&self.path)
                .and_then(|file| file.set_times(FileTimes::new().set_modified(SystemTime::now())));
            if touched.is_err() {
                // Somebody removed it.
                let said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                self.write(&said);
            }
        }
    }
}
