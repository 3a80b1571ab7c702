//! A segment, read while its bytes stream by: times and flags of each frame, and the first bytes of the first one.

use mpeg2ts_reader::{
    StreamType, mpegts_crc,
    packet::{ContinuityCounter, Packet, Pid},
    pes::{PesContents, PesHeader, PtsDts},
    psi::{pat, pmt::PmtSection},
};

use super::{Malformed, times::Times};
use crate::domain::{
    media::{Description, Media},
    parameters::{self, Codec, Picture, units},
};

/// Parameter sets stand before the picture; whoever puts more than this before them is not understood.
const MAX_HEAD: usize = 64 << 10;

/// Takes a segment piece by piece.
#[derive(Debug, Default)]
pub struct Scanner {
    frame_us: Option<i64>,
    /// Begin of a packet whose rest is still to come.
    partial: Vec<u8>,
    program: Option<Pid>,
    picture: Option<(Codec, Track)>,
    sound: Option<Track>,
    times: Times,
    error: Option<Malformed>,
}

/// Picture or sound.
#[derive(Debug)]
struct Track {
    pid: Pid,
    counter: Option<ContinuityCounter>,
    /// How many of its units have begun.
    units: u64,
    /// First bytes of the first one.
    head: Vec<u8>,
}

impl Track {
    fn new(pid: Pid) -> Self {
        Self { pid, counter: None, units: 0, head: Vec::new() }
    }

    /// Checks that nothing is missing before this packet.
    fn follows(&mut self, packet: &Packet<'_>) -> Result<(), Malformed> {
        let counter = packet.continuity_counter();
        match self.counter.replace(counter) {
            Some(before) if !counter.follows(before) => Err(Malformed::Torn),
            _ => Ok(()),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.units == 1 {
            let room = MAX_HEAD.saturating_sub(self.head.len());
            self.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
        }
    }
}

impl Scanner {
    /// `frame_us`: how long a frame is, if somebody knows; used where a segment has a single one.
    pub fn new(frame_us: Option<i64>) -> Self {
        Self { frame_us, ..Self::default() }
    }

    /// Takes the next bytes, however they are cut.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.error.is_none() {
            let missing = Packet::SIZE - self.partial.len();
            let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
            bytes = rest;
            let done = if taken.len() == Packet::SIZE {
                self.packet(taken)
            } else {
                self.partial.extend_from_slice(taken);
                if self.partial.len() < Packet::SIZE {
                    return;
                }
                let packet = std::mem::take(&mut self.partial);
                self.packet(&packet)
            };
            self.error = done.err();
        }
    }

    /// What is known so far: all of it once the first frame has gone by.
    pub fn description(&self) -> Description {
        let (codec, size) = self.parameters();
        // A track that is announced and of which nothing comes is none: a player would wait for it.
        let sound = self.sound.as_ref().and_then(|track| parameters::adts(&track.head));
        Description::new(&codec, size, sound.as_deref())
    }

    /// The picture alone, unless something is damaged.
    pub fn picture(&self) -> Option<Description> {
        let (codec, size) = self.parameters();
        (self.error.is_none() && !codec.is_empty()).then(|| Description::new(&codec, size, None))
    }

    fn parameters(&self) -> Picture {
        self.picture.as_ref().map_or_else(Default::default, |(codec, track)| codec.picture(units(&track.head)))
    }

    /// After the last byte.
    pub fn finish(self) -> Result<(Media, Description), Malformed> {
        if let Some(malformed) = self.error {
            return Err(malformed);
        }
        if !self.partial.is_empty() {
            return Err(Malformed::Packet);
        }
        Ok((self.times.media(self.frame_us)?, self.description()))
    }

    fn packet(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        // Trap: anything but 188 bytes panics here; `push` gives no other.
        let packet = Packet::try_new(bytes).ok_or(Malformed::Packet)?;
        if packet.transport_error_indicator() || packet.transport_scrambling_control().is_scrambled() {
            return Err(Malformed::Packet);
        }
        let pid = packet.pid();
        let Some(payload) = packet.payload() else { return Ok(()) };
        if pid == pat::PAT_PID && self.program.is_none() {
            self.program = first_program(table(&packet, payload, 0)?);
        } else if Some(pid) == self.program && self.picture.is_none() {
            self.streams(table(&packet, payload, 2)?);
        } else if self.picture.as_ref().is_some_and(|(_, track)| track.pid == pid) {
            return self.frame(&packet, payload);
        } else if let Some(track) = self.sound.as_mut().filter(|track| track.pid == pid) {
            track.follows(&packet)?;
            if packet.payload_unit_start_indicator() {
                track.units += 1;
                if let Some((_, content)) = unit(payload) {
                    track.keep(content);
                }
            } else {
                track.keep(payload);
            }
        }
        Ok(())
    }

    /// The program map table: which packets carry picture and sound.
    fn streams(&mut self, section: &[u8]) {
        let Ok(table) = PmtSection::from_bytes(section) else { return };
        for stream in table.streams() {
            let track = Track::new(stream.elementary_pid());
            match stream.stream_type() {
                StreamType::H264 if self.picture.is_none() => self.picture = Some((Codec::H264, track)),
                StreamType::H265 if self.picture.is_none() => self.picture = Some((Codec::Hevc, track)),
                StreamType::ADTS if self.sound.is_none() => self.sound = Some(track),
                _ => {}
            }
        }
    }

    fn frame(&mut self, packet: &Packet<'_>, payload: &[u8]) -> Result<(), Malformed> {
        let Some((_, track)) = &mut self.picture else { return Ok(()) };
        track.follows(packet)?;
        if !packet.payload_unit_start_indicator() {
            track.keep(payload);
            return Ok(());
        }
        let (times, content) = unit(payload).ok_or(Malformed::Missing("header of a frame"))?;
        track.units += 1;
        track.keep(content);
        // ffmpeg's own word of what is a keyframe, as in the other container's flags; a slice's type says less, for some
        // cameras refresh the picture without an IDR frame.
        let key = packet.adaptation_field().is_some_and(|field| field.random_access_indicator());
        let (decoded, shown) = times.ok_or(Malformed::Missing("time of a frame"))?;
        self.times.frame(decoded, shown, key)
    }
}

/// Content of a table's section that lies within one packet (those of a few streams do), between its header and its
/// checksum. A damaged one is no small matter, though the next keyframe brings another: the frames until then would be
/// left out of the count.
fn table<'a>(packet: &Packet<'_>, payload: &'a [u8], id: u8) -> Result<&'a [u8], Malformed> {
    let section = || {
        let (pointer, rest) = payload.split_first().filter(|_| packet.payload_unit_start_indicator())?;
        let section = rest.get(usize::from(*pointer)..)?;
        let [kind, high, low, ..] = *section else { return None };
        let length = 3 + usize::from(u16::from_be_bytes([high & 0x0f, low]));
        let section = section.get(..length).filter(|section| kind == id && mpegts_crc::sum32(section) == 0)?;
        section.get(8..length.checked_sub(4)?)
    };
    section().ok_or(Malformed::Table)
}

fn first_program(section: &[u8]) -> Option<Pid> {
    pat::PatSection::new(section).programs().find_map(|program| match program {
        pat::ProgramDescriptor::Program { pid, .. } => Some(pid),
        pat::ProgramDescriptor::Network { .. } => None,
    })
}

/// When a frame is decoded and when it is shown, in ticks.
type FrameTimes = (u64, u64);

/// Times of a packet of the elementary stream, and where its content begins. ffmpeg puts the
/// whole header into one packet.
fn unit(payload: &[u8]) -> Option<(Option<FrameTimes>, &[u8])> {
    let PesContents::Parsed(Some(contents)) = PesHeader::from_bytes(payload)?.contents() else { return None };
    let times = match contents.pts_dts() {
        // Without a decode time of its own a frame is decoded when it is shown.
        Ok(PtsDts::PtsOnly(Ok(shown))) => Some((shown.value(), shown.value())),
        Ok(PtsDts::Both { pts: Ok(shown), dts: Ok(decoded) }) => Some((decoded.value(), shown.value())),
        _ => None,
    };
    Some((times, contents.payload()))
}
