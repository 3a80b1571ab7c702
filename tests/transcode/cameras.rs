//! Sources as cameras send them: B-frames, frames that come irregularly, other codecs.
//!
//! ffprobe decodes source and rendition, and is asked when each frame is shown.

use dsn::domain::{
    container::{Container, Layout},
    ladder::{self, Extent},
    media::Media,
};

use crate::world::{World, ffprobe, microseconds};

/// What one does otherwise than others: filters of the picture, options of the encoder.
struct Camera {
    name: &'static str,
    picture: &'static str,
    codec: &'static [&'static str],
}

impl Camera {
    fn needs_file(&self) -> bool {
        self.picture == HOLES && self.codec == B_FRAMES
    }
}

const REGULAR: &str = "null";
/// Up to 20 ms late.
const JITTER: &str = "settb=1/90000,setpts=PTS+random(1)*1800";
/// 25 frames a second, 10 from the middle of the second segment on.
const DROP: &str = "settb=1/90000,select='lt(t\\,3)+not(mod(n\\,5))+not(mod(n-2\\,5))'";
/// The same with jitter.
const DROP_WITH_JITTER: &str =
    "settb=1/90000,select='lt(t\\,3)+not(mod(n\\,5))+not(mod(n-2\\,5))',setpts=PTS+random(1)*1800";
/// A second without pictures in the middle of the second segment, and one before the third.
const HOLES: &str = "settb=1/90000,setpts=PTS+gte(N\\,62)*90000+gte(N\\,75)*90000";

const PLAIN: &[&str] = &["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0"];
/// Three B-frames between two others, of which the middle one is referred to.
const B_FRAMES: &[&str] =
    &["-c:v", "libx264", "-preset", "ultrafast", "-bf", "3", "-b_strategy", "0", "-x264-params", "b-pyramid=normal"];
const H265_B_FRAMES: &[&str] = &[
    "-c:v",
    "libx265",
    "-preset",
    "ultrafast",
    "-tag:v",
    "hvc1",
    "-x265-params",
    "bframes=3:b-adapt=0:open-gop=0:log-level=error",
];

/// What ffprobe finds in a segment.
struct Seen {
    /// When each frame is shown, µs, in order.
    frames: Vec<i64>,
    starts_with_keyframe: bool,
    /// When each packet of the sound is heard, µs.
    sound: Vec<i64>,
}

impl Seen {
    fn new(world: &World, rendition: &str, seq: u64) -> Self {
        let entries = "packet=codec_type,pts_time:frame=media_type,key_frame,pts_time";
        let text = ffprobe(&["-of", "csv=p=1", "-show_entries", entries, &world.input(rendition, seq)]);
        let mut seen = Self { frames: Vec::new(), starts_with_keyframe: false, sound: Vec::new() };
        for line in text.lines() {
            let fields: Vec<&str> = line.split(',').collect();
            match fields[..] {
                ["frame", "video", key, time, ..] => {
                    seen.starts_with_keyframe |= seen.frames.is_empty() && key == "1";
                    seen.frames.push(microseconds(time).expect("a time"));
                }
                ["packet", "audio", time, ..] => seen.sound.push(microseconds(time).expect("a time")),
                _ => {}
            }
        }
        seen
    }

    /// Does each frame have its time, to a tick of the coarser clock?
    fn is_like(&self, source: &Self) -> bool {
        let moved = |(made, source): (&i64, &i64)| made.abs_diff(*source);
        self.frames.len() == source.frames.len() && self.frames.iter().zip(&source.frames).map(moved).all(|by| by < 80)
    }
}

/// What the agent reads of a segment.
fn media(world: &World, rendition: &str, seq: u64) -> Media {
    let read = |file| std::fs::read(file).expect("reads");
    let init = world.container.init_file().map(|file| read(world.rendition(rendition).join(file)));
    let layout = Layout::read(init.as_deref(), None).expect("well-formed");
    layout.scan(&read(world.segment(rendition, seq))).expect("well-formed").0
}

fn has_a_rendition_that_lines_up(camera: &Camera) {
    let encoder = [
        &["-f", "lavfi", "-i", "testsrc2=s=160x90:r=25", "-f", "lavfi", "-i", "sine=440:r=48000"],
        &["-c:a", "aac", "-ac", "1", "-b:a", "64k", "-t", "6", "-vf", camera.picture][..],
        // Times as they are, a keyframe each second.
        &["-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-video_track_timescale", "90000"],
        &["-sc_threshold", "0", "-force_key_frames", "expr:gte(t,n_forced)"],
        camera.codec,
    ]
    .concat();
    for container in Container::ALL {
        let mut world = World::filmed(container, &encoder, 2, &[]);
        let seqs = world.numbers("source");
        assert!(seqs.len() >= 3, "{} {seqs:?}", camera.name);
        world.tell(1, &[("low", 60, 100)]);
        world.start();
        world.await_that(camera.name, || world.numbers("low").len() + world.given_up("low").len() == seqs.len());
        assert_eq!(world.given_up("low"), [] as [u64; 0], "{}: {:?}", camera.name, world.log());
        for seq in seqs {
            let (made, source) = (Seen::new(&world, "low", seq), Seen::new(&world, "source", seq));
            let told = format!("{} {container:?} {seq}", camera.name);
            assert!(source.frames.len() > 9 && source.frames.is_sorted(), "{told}: {:?}", source.frames);
            assert!(made.is_like(&source), "{told}: {:?} instead of {:?}", made.frames, source.frames);
            assert!(made.starts_with_keyframe, "{told}");
            assert!(!made.sound.is_empty() && made.sound == source.sound, "{told}: {:?}", made.sound);
            // Browsers ignore edit lists, as our own reader does, and ffprobe does not: both see the same.
            let (first, last) = (source.frames[0], source.frames[source.frames.len() - 1]);
            let (made, source) = (media(&world, "low", seq), media(&world, "source", seq));
            for read in [made, source] {
                let apart = read.first_shown_us.abs_diff(first).max(read.last_shown_us.abs_diff(last));
                assert!(apart < 80, "{told}: {read:?} from {first} to {last}");
            }
            assert!(ladder::lines_up(&Extent::from(&source), &made), "{told}: {made:?} {source:?}");
            // The agent does not remember when the source's frames are shown, and needs its file only where B-frames meet
            // a hole.
            let sealed = Extent { shown_us: None, ..Extent::from(&source) };
            assert!(camera.needs_file() || ladder::lines_up(&sealed, &made), "{told}: {made:?} {source:?}");
        }
    }
}

#[test]
fn b_frames_are_shown_when_the_source_shows_them() {
    has_a_rendition_that_lines_up(&Camera { name: "B-frames", picture: REGULAR, codec: B_FRAMES });
}

#[test]
fn irregular_frames_are_shown_when_the_source_shows_them() {
    for (name, picture) in [("jitter", JITTER), ("holes", HOLES), ("another rate", DROP)] {
        has_a_rendition_that_lines_up(&Camera { name, picture, codec: PLAIN });
    }
}

#[test]
fn irregular_b_frames_are_shown_when_the_source_shows_them() {
    for (name, picture) in [("B-frames with holes", HOLES), ("B-frames of another rate", DROP_WITH_JITTER)] {
        has_a_rendition_that_lines_up(&Camera { name, picture, codec: B_FRAMES });
    }
}

#[test]
fn b_frames_of_h265_are_shown_when_the_source_shows_them() {
    has_a_rendition_that_lines_up(&Camera { name: "H.265", picture: REGULAR, codec: H265_B_FRAMES });
}
