//! The init section: tracks, their clocks, RFC 6381 codecs, picture size.

use super::{Cursor, Malformed, find, next_box};
use crate::domain::{codec, media::Description};

/// No init section has more tracks.
const MAX_TRACKS: usize = 16;

/// What an init section says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Init {
    /// Picture and sound.
    pub tracks: Vec<Track>,
}

/// Picture or sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackKind {
    /// Picture.
    Video,
    /// Sound.
    Audio,
    /// Anything else.
    Other,
}

/// One track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Number the fragments refer to.
    pub id: u32,
    /// Picture or sound.
    pub kind: TrackKind,
    /// Ticks per second.
    pub timescale: u32,
    /// RFC 6381 element of the `CODECS` attribute; empty when unknown.
    pub codec: String,
    /// What a decoder is set up with: avcC, hvcC, or the `AudioSpecificConfig`.
    pub config: Vec<u8>,
    /// Picture width.
    pub width: u32,
    /// Picture height.
    pub height: u32,
    /// Duration of a sample that doesn't say its own, ticks.
    pub default_duration: u32,
    /// Flags of a sample that doesn't say its own.
    pub default_flags: u32,
}

impl Init {
    /// The picture's track.
    pub fn video(&self) -> Option<&Track> {
        self.tracks.iter().find(|track| track.kind == TrackKind::Video)
    }

    /// The sound's track.
    pub fn audio(&self) -> Option<&Track> {
        self.tracks.iter().find(|track| track.kind == TrackKind::Audio)
    }

    /// Can segments of one be decoded with the other? Their bytes may differ: an encoder notes the bit rates it has seen.
    pub fn decodes_like(&self, other: &Self) -> bool {
        let setup = |init: &Self| -> Vec<_> {
            let tracks = init.tracks.iter();
            tracks
                .map(|t| {
                    let defaults = (t.default_duration, t.default_flags);
                    (t.id, t.kind, t.timescale, t.codec.clone(), t.config.clone(), t.width, t.height, defaults)
                })
                .collect()
        };
        setup(self) == setup(other)
    }

    /// What players are told: codecs (e.g. `avc1.64001f,mp4a.40.2`) and picture size.
    pub fn description(&self) -> Description {
        let size = self.video().map_or((0, 0), |video| (video.width, video.height));
        let picture = self.video().map_or("", |video| &video.codec);
        Description::new(picture, size, self.audio().map(|audio| audio.codec.as_str()))
    }
}

/// Reads an init section (`ftyp`, `moov`).
pub fn parse_init(bytes: &[u8]) -> Result<Init, Malformed> {
    let moov = find("moov", *b"moov", bytes)?;
    let mut tracks = Vec::new();
    let mut cursor = Cursor::new("moov", moov);
    while let Some((kind, content)) = next_box(&mut cursor)? {
        if kind == *b"trak" {
            if tracks.len() == MAX_TRACKS {
                return Err(Malformed::Excessive("tracks"));
            }
            tracks.push(track(content)?);
        }
    }
    if let Ok(mvex) = find("mvex", *b"mvex", moov) {
        let mut cursor = Cursor::new("mvex", mvex);
        while let Some((kind, content)) = next_box(&mut cursor)? {
            if kind == *b"trex" {
                let mut trex = Cursor::new("trex", content);
                let (_, id) = (trex.version_and_flags()?, trex.u32()?);
                let (_description, duration, _size, flags) = (trex.u32()?, trex.u32()?, trex.u32()?, trex.u32()?);
                if let Some(track) = tracks.iter_mut().find(|track| track.id == id) {
                    track.default_duration = duration;
                    track.default_flags = flags;
                }
            }
        }
    }
    if tracks.is_empty() { Err(Malformed::Missing("trak")) } else { Ok(Init { tracks }) }
}

fn track(trak: &[u8]) -> Result<Track, Malformed> {
    let mut tkhd = Cursor::new("tkhd", find("tkhd", *b"tkhd", trak)?);
    let (version, _) = tkhd.version_and_flags()?;
    tkhd.take(if version == 1 { 16 } else { 8 })?;
    let id = tkhd.u32()?;

    let mdia = find("mdia", *b"mdia", trak)?;
    let mut mdhd = Cursor::new("mdhd", find("mdhd", *b"mdhd", mdia)?);
    let (version, _) = mdhd.version_and_flags()?;
    mdhd.take(if version == 1 { 16 } else { 8 })?;
    let timescale = mdhd.u32()?;
    if timescale == 0 {
        return Err(Malformed::Missing("timescale"));
    }

    let mut hdlr = Cursor::new("hdlr", find("hdlr", *b"hdlr", mdia)?);
    hdlr.take(8)?;
    let kind = match &hdlr.array::<4>()? {
        b"vide" => TrackKind::Video,
        b"soun" => TrackKind::Audio,
        _ => TrackKind::Other,
    };

    let stbl = find("stbl", *b"stbl", find("minf", *b"minf", mdia)?)?;
    let mut stsd = Cursor::new("stsd", find("stsd", *b"stsd", stbl)?);
    stsd.take(8)?;
    let (entry, content) = next_box(&mut stsd)?.ok_or(Malformed::Missing("sample entry"))?;
    let (codec, config, width, height) = match kind {
        TrackKind::Video => video_entry(entry, content)?,
        TrackKind::Audio => {
            let (codec, config) = audio_entry(entry, content)?;
            (codec, config, 0, 0)
        }
        TrackKind::Other => (String::new(), Vec::new(), 0, 0),
    };
    Ok(Track { id, kind, timescale, codec, config, width, height, default_duration: 0, default_flags: 0 })
}

fn video_entry(entry: [u8; 4], content: &[u8]) -> Result<(String, Vec<u8>, u32, u32), Malformed> {
    let mut cursor = Cursor::new("visual sample entry", content);
    cursor.take(24)?;
    let (width, height) = (u32::from(cursor.u16()?), u32::from(cursor.u16()?));
    cursor.take(50)?;
    let (codec, config) = match &entry {
        b"avc1" | b"avc3" => {
            let config = find("avcC", *b"avcC", cursor.rest)?;
            (avc(entry, config)?, config)
        }
        b"hvc1" | b"hev1" => {
            let config = find("hvcC", *b"hvcC", cursor.rest)?;
            (hevc(entry, config)?, config)
        }
        _ => (String::new(), &[][..]),
    };
    Ok((codec, config.to_vec(), width, height))
}

fn four_letters(entry: [u8; 4]) -> String {
    entry.iter().map(|b| char::from(*b)).collect()
}

fn avc(entry: [u8; 4], avcc: &[u8]) -> Result<String, Malformed> {
    let [_version, named @ ..] = Cursor::new("avcC", avcc).array::<4>()?;
    Ok(codec::avc(&four_letters(entry), named))
}

fn hevc(entry: [u8; 4], hvcc: &[u8]) -> Result<String, Malformed> {
    let [_version, named @ ..] = Cursor::new("hvcC", hvcc).array::<13>()?;
    Ok(codec::hevc(&four_letters(entry), named))
}

fn audio_entry(entry: [u8; 4], content: &[u8]) -> Result<(String, Vec<u8>), Malformed> {
    if !matches!(&entry, b"mp4a" | b"Opus") {
        return Ok((String::new(), Vec::new()));
    }
    let mut cursor = Cursor::new("audio sample entry", content);
    cursor.take(28)?;
    if entry == *b"Opus" {
        // In small letters: that is how browsers spell it, though the sample entry has a capital one.
        return Ok(("opus".to_owned(), find("dOps", *b"dOps", cursor.rest)?.to_vec()));
    }
    let mut esds = Cursor::new("esds", find("esds", *b"esds", cursor.rest)?);
    esds.take(4)?;
    let mut es = Cursor::new("esds", descriptor(&mut esds, 3)?);
    es.take(2)?;
    let flags = es.u8()?;
    if flags & 0x80 != 0 {
        es.take(2)?;
    }
    if flags & 0x40 != 0 {
        let length = es.u8()?;
        es.take(usize::from(length))?;
    }
    if flags & 0x20 != 0 {
        es.take(2)?;
    }
    let mut config = Cursor::new("esds", descriptor(&mut es, 4)?);
    let object_type = config.u8()?;
    config.take(12)?;
    if object_type != 0x40 {
        return Ok((format!("mp4a.{object_type:02x}"), Vec::new()));
    }
    // AudioSpecificConfig: five bits of audio object type, 31 escapes to six more.
    let setup = descriptor(&mut config, 5)?;
    let mut specific = Cursor::new("esds", setup);
    let first = specific.u8()?;
    let mut object = first >> 3;
    if object == 31 {
        object = 32 + (((first & 7) << 3) | (specific.u8()? >> 5));
    }
    Ok((codec::aac(object), setup.to_vec()))
}

/// An MPEG-4 descriptor with the wanted tag; its length takes one to four bytes of seven bits.
fn descriptor<'a>(cursor: &mut Cursor<'a>, tag: u8) -> Result<&'a [u8], Malformed> {
    if cursor.u8()? != tag {
        return Err(Malformed::Missing("esds descriptor"));
    }
    let mut length = 0_usize;
    for _ in 0..4 {
        let byte = cursor.u8()?;
        length = (length << 7) | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return cursor.take(length);
        }
    }
    Err(Malformed::Short("esds"))
}
