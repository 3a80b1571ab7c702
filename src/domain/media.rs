//! What a segment holds, in the same words for every container.

/// What a segment holds of the picture. Begin and length are those of decoding, which count up without a rest over a
/// session; where frames are reordered (B-frames) the first one is shown later than it is decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Media {
    /// Begin by the media's own clock, µs.
    pub start_us: i64,
    /// Length by the media's own clock, µs.
    pub media_us: i64,
    /// When the first frame is shown, by the media's own clock, µs.
    pub first_shown_us: i64,
    /// When the last frame is shown, by the media's own clock, µs.
    pub last_shown_us: i64,
    /// Frames.
    pub frames: u64,
    /// Longest distance from one frame to the next, in the order of decoding, µs.
    pub longest_step_us: i64,
    /// Longest distance from one keyframe to the next or to the end, µs.
    pub gop_us: i64,
    /// Can playback begin here?
    pub starts_with_keyframe: bool,
}

/// What a player is told of a segment before it loads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Value of the `CODECS` attribute, the picture first; empty when unknown.
    pub codecs: String,
    /// Picture width; 0 when unknown.
    pub width: u32,
    /// Picture height; 0 when unknown.
    pub height: u32,
    /// Is there sound?
    pub sound: bool,
}

impl Description {
    /// Joins what is known of picture and sound.
    pub fn new(picture: &str, (width, height): (u32, u32), sound: Option<&str>) -> Self {
        let known: Vec<&str> = [Some(picture), sound].into_iter().flatten().filter(|codec| !codec.is_empty()).collect();
        Self { codecs: known.join(","), width, height, sound: sound.is_some() }
    }
}
