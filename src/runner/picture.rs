//! Looks at what ffmpeg has finished: does the camera still send what was probed?
//!
//! Reads one small file each second, and the beginning of each finished segment once. The judgement is pure
//! (`domain::picture`); what follows from it is the run's matter.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::domain::{
    capture::Probe,
    container::{Container, Layout},
    picture::Pictures,
    spool,
};

/// No session ends for another picture within this time after one that did: what a camera that goes to and fro costs is
/// one restart a minute.
const CALM: Duration = Duration::from_secs(60);
/// Parameter sets stand in the first frame, and before it only the table of a segment's frames.
const BEGINNING: u64 = 256 << 10;

/// Watches one session.
pub struct PictureWatch {
    container: Container,
    rendition: PathBuf,
    probe: Probe,
    /// The probe is an older one: the first file that tells the picture is looked at as soon as it is there.
    unchecked: bool,
    /// How segments are read; once there is one.
    layout: Option<Layout>,
    /// The newest segment that was looked at.
    seen: String,
    pictures: Pictures,
    calm_until: Option<Instant>,
}

impl PictureWatch {
    /// Of a session whose files lie there. `remembered`: the probe was made before an earlier one; `changed`: when a session
    /// last ended for another picture.
    pub fn new(
        container: Container,
        rendition: PathBuf,
        probe: Probe,
        remembered: bool,
        changed: Option<Instant>,
    ) -> Self {
        Self {
            container,
            rendition,
            pictures: Pictures::new(probe.clone()),
            probe,
            unchecked: remembered,
            layout: None,
            seen: String::new(),
            calm_until: changed.map(|at| at + CALM),
        }
    }

    /// Is it time to begin anew, for the camera sends something else? What can't be read is looked at again, or is nothing.
    pub fn is_another(&mut self) -> bool {
        let differs = self.differs_from_the_probe().unwrap_or(false);
        differs || self.has_changed().unwrap_or(false)
    }

    /// Does the first file say something else than the probe? ffmpeg makes an init section long before it writes it.
    fn differs_from_the_probe(&mut self) -> Option<bool> {
        if !self.unchecked {
            return None;
        }
        let file = self.read(self.container.telling_file(), u64::MAX).ok()?;
        let written = self.container.describe(&file).ok()?;
        self.unchecked = false;
        Some(!self.probe.describes(&written))
    }

    /// Do the segments say something else than they used to?
    fn has_changed(&mut self) -> Option<bool> {
        let playlist = self.read(spool::FFMPEG_PLAYLIST, BEGINNING).ok()?;
        let newest = spool::newest_segment(std::str::from_utf8(&playlist).ok()?)?;
        if newest == self.seen {
            return None;
        }
        // Not again, whatever comes of it.
        newest.clone_into(&mut self.seen);
        if self.layout.is_none() {
            let init = self.container.init_file().map(|file| self.read(file, BEGINNING)).transpose().ok()?;
            self.layout = Layout::read(init.as_deref(), None).ok();
        }
        let told = self.layout.as_ref()?.picture(&self.read(newest, BEGINNING).ok()?);
        Some(self.pictures.are_others(told) && self.calm_until.is_none_or(|until| until <= Instant::now()))
    }

    fn read(&self, file: impl AsRef<Path>, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.rendition.join(file))?.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
