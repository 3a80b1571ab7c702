//! A media segment, read while its bytes stream by: only the `moof` boxes are kept, the media data is skipped.

use super::{Cursor, Init, Malformed, Track, find, next_box};
use crate::domain::media::Media;

/// A minute of 100 fps has 6,000 samples of 16 bytes; no honest `moof` comes near.
const MAX_MOOF: u64 = 4 << 20;
/// Bounds the work that sample counts without sample data could ask for.
const MAX_SAMPLES: u64 = 1_000_000;

/// Takes a segment piece by piece.
#[derive(Debug)]
pub struct Scanner {
    track: Track,
    state: State,
    found: Found,
    error: Option<Malformed>,
}

#[derive(Debug)]
enum State {
    Header(Vec<u8>),
    Skip(u64),
    /// `mdat` of size 0 reaches to the end of the file.
    SkipAll,
    Moof {
        missing: u64,
        bytes: Vec<u8>,
    },
}

/// Sums over all fragments, in ticks of the track.
#[derive(Debug, Default)]
struct Found {
    start: Option<u64>,
    ticks: u64,
    /// Earliest and latest time of showing, from the begin.
    shown: Option<(i64, i64)>,
    longest_step: u64,
    last_duration: u64,
    frames: u64,
    last_keyframe: Option<u64>,
    longest_gop: u64,
    starts_with_keyframe: bool,
}

impl Scanner {
    /// For segments of this init section.
    pub fn new(init: &Init) -> Result<Self, Malformed> {
        let track = init.video().ok_or(Malformed::Missing("video track"))?.clone();
        Ok(Self { track, state: State::Header(Vec::with_capacity(16)), found: Found::default(), error: None })
    }

    /// Takes the next bytes, however they are cut.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.error.is_none() {
            match self.step(bytes) {
                Ok(rest) => bytes = rest,
                Err(malformed) => self.error = Some(malformed),
            }
        }
    }

    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
        match &mut self.state {
            State::SkipAll => Ok(&[]),
            State::Skip(missing) => {
                let (skipped, rest) = split(bytes, *missing);
                *missing -= skipped.len() as u64;
                if *missing == 0 {
                    self.state = State::Header(Vec::with_capacity(16));
                }
                Ok(rest)
            }
            State::Moof { missing, bytes: moof } => {
                let (taken, rest) = split(bytes, *missing);
                moof.extend_from_slice(taken);
                *missing -= taken.len() as u64;
                if *missing == 0 {
                    let moof = std::mem::take(moof);
                    self.state = State::Header(Vec::with_capacity(16));
                    self.found.moof(&self.track, &moof)?;
                }
                Ok(rest)
            }
            State::Header(header) => {
                let needed = if header.len() >= 8 { 16 } else { 8 };
                let (taken, rest) = split(bytes, needed - header.len() as u64);
                header.extend_from_slice(taken);
                if (header.len() as u64) < needed {
                    return Ok(rest);
                }
                let mut cursor = Cursor::new("segment", header);
                let (size, kind) = (cursor.u32()?, cursor.array::<4>()?);
                let content = match (size, needed) {
                    (1, 8) => return Ok(rest),
                    (1, _) => cursor.u64()?.checked_sub(16).ok_or(Malformed::Short("segment"))?,
                    (0, _) if kind == *b"mdat" => {
                        self.state = State::SkipAll;
                        return Ok(rest);
                    }
                    _ => u64::from(size).checked_sub(8).ok_or(Malformed::Short("segment"))?,
                };
                self.state = match kind {
                    _ if content == 0 => State::Header(Vec::with_capacity(16)),
                    [b'm', b'o', b'o', b'f'] if content > MAX_MOOF => return Err(Malformed::Excessive("moof")),
                    [b'm', b'o', b'o', b'f'] => State::Moof { missing: content, bytes: Vec::new() },
                    _ => State::Skip(content),
                };
                Ok(rest)
            }
        }
    }

    /// After the last byte.
    pub fn finish(self) -> Result<Media, Malformed> {
        if let Some(malformed) = self.error {
            return Err(malformed);
        }
        match &self.state {
            State::Header(header) if header.is_empty() => {}
            State::SkipAll => {}
            _ => return Err(Malformed::Short("segment")),
        }
        let Found {
            start, ticks, shown, longest_step, frames, last_keyframe, longest_gop, starts_with_keyframe, ..
        } = self.found;
        let start = start.ok_or(Malformed::Missing("moof"))?;
        let (first, last) = shown.ok_or(Malformed::Missing("video samples"))?;
        let longest_gop = last_keyframe.map_or(longest_gop, |last| longest_gop.max(ticks.saturating_sub(last)));
        let exact = |ticks: i128| {
            let us = (ticks * 1_000_000).div_euclid(i128::from(self.track.timescale));
            i64::try_from(us).map_err(|_| Malformed::Excessive("ticks"))
        };
        let us = |ticks: u64| exact(i128::from(ticks));
        let shown = |ticks: i64| exact(i128::from(start) + i128::from(ticks));
        // End minus begin, each rounded the same way: lengths add up without a rest over a whole session.
        let begin = us(start)?;
        let end = us(start.checked_add(ticks).ok_or(Malformed::Excessive("ticks"))?)?;
        Ok(Media {
            start_us: begin,
            media_us: end - begin,
            first_shown_us: shown(first)?,
            last_shown_us: shown(last)?,
            frames,
            longest_step_us: us(longest_step)?,
            gop_us: us(longest_gop)?,
            starts_with_keyframe,
        })
    }
}

fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len()))
}

impl Found {
    fn moof(&mut self, track: &Track, moof: &[u8]) -> Result<(), Malformed> {
        let mut cursor = Cursor::new("moof", moof);
        while let Some((kind, traf)) = next_box(&mut cursor)? {
            if kind == *b"traf" {
                self.traf(track, traf)?;
            }
        }
        Ok(())
    }

    fn traf(&mut self, track: &Track, traf: &[u8]) -> Result<(), Malformed> {
        let mut tfhd = Cursor::new("tfhd", find("tfhd", *b"tfhd", traf)?);
        let (_, flags) = tfhd.version_and_flags()?;
        if tfhd.u32()? != track.id {
            return Ok(());
        }
        let mut optional = |flag: u32, size: usize| -> Result<Option<u32>, Malformed> {
            if flags & flag == 0 {
                return Ok(None);
            }
            let field = tfhd.take(size)?;
            Ok(field.try_into().ok().map(u32::from_be_bytes))
        };
        optional(0x1, 8)?;
        optional(0x2, 4)?;
        let duration = optional(0x8, 4)?.unwrap_or(track.default_duration);
        optional(0x10, 4)?;
        let sample_flags = optional(0x20, 4)?.unwrap_or(track.default_flags);

        if self.start.is_none() {
            let mut tfdt = Cursor::new("tfdt", find("tfdt", *b"tfdt", traf)?);
            let (version, _) = tfdt.version_and_flags()?;
            self.start = Some(if version == 1 { tfdt.u64()? } else { u64::from(tfdt.u32()?) });
        }
        let mut cursor = Cursor::new("traf", traf);
        while let Some((kind, trun)) = next_box(&mut cursor)? {
            if kind == *b"trun" {
                self.trun(trun, duration, sample_flags)?;
            }
        }
        Ok(())
    }

    fn trun(&mut self, trun: &[u8], default_duration: u32, default_flags: u32) -> Result<(), Malformed> {
        let mut cursor = Cursor::new("trun", trun);
        let (version, flags) = cursor.version_and_flags()?;
        let samples = cursor.u32()?;
        if self.frames + u64::from(samples) > MAX_SAMPLES {
            return Err(Malformed::Excessive("samples"));
        }
        if flags & 0x1 != 0 {
            cursor.u32()?;
        }
        let first_flags = if flags & 0x4 != 0 { Some(cursor.u32()?) } else { None };
        for sample in 0..samples {
            let duration = if flags & 0x100 != 0 { cursor.u32()? } else { default_duration };
            if flags & 0x200 != 0 {
                cursor.u32()?;
            }
            let own_flags = if flags & 0x400 != 0 { Some(cursor.u32()?) } else { None };
            let offset = if flags & 0x800 != 0 { cursor.u32()? } else { 0 };
            // Signed from version 1 on.
            let offset = if version == 0 { i64::from(offset) } else { i64::from(offset.cast_signed()) };
            let sample_flags = first_flags.filter(|_| sample == 0).or(own_flags).unwrap_or(default_flags);
            // sample_is_non_sync_sample, ISO/IEC 14496-12 §8.8.3.1.
            if sample_flags & 0x0001_0000 == 0 {
                if self.frames == 0 {
                    self.starts_with_keyframe = true;
                }
                if let Some(last) = self.last_keyframe.replace(self.ticks) {
                    self.longest_gop = self.longest_gop.max(self.ticks - last);
                }
            }
            self.frames += 1;
            // At most 10^6 samples of at most 2^32 ticks: no overflow, nor does the sign.
            let at = self.ticks.cast_signed() + offset;
            self.shown = Some(self.shown.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
            self.longest_step = self.longest_step.max(self.last_duration);
            self.last_duration = u64::from(duration);
            self.ticks += u64::from(duration);
        }
        Ok(())
    }
}
