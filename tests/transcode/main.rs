//! The ladder against the real ffmpeg: `dsn transcoder` beside a spool as a camera with an odd keyframe distance fills it
//! (rows K2, V4, V5).
//!
//! Needs ffmpeg and ffprobe (Debian packages); fails without them, on purpose. Every test has a spool and a process of its
//! own.

mod cameras;
mod world;

use std::fs;

use dsn::domain::{container::Container, control::Phase, spool};
use world::{H264, World, numbers};

#[test]
fn every_rendition_has_the_frames_and_the_cuts_of_the_source_and_its_sound() {
    let mut world = World::h264();
    let seqs = world.numbers("source");
    assert!(seqs.len() >= 3, "{seqs:?}");
    world.tell(1, &[("240p", 240, 300), ("120p", 120, 100)]);
    world.start();
    world.await_that("all renditions", || world.numbers("240p") == seqs && world.numbers("120p") == seqs);
    let frames: Vec<usize> = seqs.iter().map(|seq| world.packets("source", *seq, "v").len()).collect();
    assert_eq!(frames[..3], [74, 74, 37], "the keyframes are where no whole second is");
    let mut sound_end: Option<i64> = None;
    for seq in &seqs {
        let source = world.packets("source", *seq, "v");
        for rendition in ["240p", "120p"] {
            let video = world.packets(rendition, *seq, "v");
            assert_eq!(video.len(), source.len(), "{rendition} {seq}");
            // To a tick of the encoder's clock.
            let moved: Vec<i64> = source.iter().zip(&video).map(|(source, made)| made - source).collect();
            assert!(moved.iter().all(|by| by.abs() < 12), "{rendition} {seq}: {moved:?}");
            assert_eq!(world.packets("240p", *seq, "v"), video, "both renditions to the microsecond");
            assert_eq!(world.packets(rendition, *seq, "a"), world.packets("source", *seq, "a"), "{rendition} {seq}");
        }
        let sound = world.packets("240p", *seq, "a");
        let (first, last) = (sound[0], sound[sound.len() - 1]);
        assert!(sound_end.is_none_or(|end| (first - end - 21_333).abs() < 50), "a hole in the sound before {seq}");
        sound_end = Some(last);
    }
    assert_eq!(world.stream("240p", 1, "v"), "h264,240");
    assert_eq!(world.stream("120p", 1, "v"), "h264,120");
    assert_eq!(world.stream("240p", 1, "a"), "aac");
    world.await_that("rest", || world.report().phase == Phase::Running && world.report().problem.is_none());
    assert!(!world.rendition(spool::LADDER_FOLDER).exists(), "nothing temporary stays");
    assert_eq!(numbers(&world.rendition("240p"), |name| name.strip_prefix("init-").map(|_| 1)), [] as [u64; 0]);
}

/// Every frame and every piece of sound at the source's time, to the tick.
fn is_like_its_source(world: &World, rendition: &str, seqs: &[u64]) {
    for seq in seqs {
        for kind in ["v", "a"] {
            let (made, source) = (world.packets(rendition, *seq, kind), world.packets("source", *seq, kind));
            assert_eq!(made, source, "{rendition} {seq} {kind}");
        }
    }
}

#[test]
fn a_transport_stream_gets_renditions_of_its_kind_at_the_same_times() {
    let mut world = World::packed(Container::MpegTs, &H264, true, &[]);
    let seqs = world.numbers("source");
    world.tell(1, &[("240p", 240, 300), ("120p", 120, 100)]);
    world.start();
    world.await_that("all renditions", || world.numbers("240p") == seqs && world.numbers("120p") == seqs);
    assert_eq!(world.packets("source", 0, "v").len(), 74);
    assert!(!world.packets("source", 0, "a").is_empty());
    is_like_its_source(&world, "240p", &seqs);
    is_like_its_source(&world, "120p", &seqs);
    // ffprobe says it once for the program and once for the stream.
    assert!(world.stream("240p", 1, "v").starts_with("h264,240") && world.stream("120p", 1, "a").starts_with("aac"));
    let init = |folder: &str| world.rendition(folder).join(spool::INIT_FILE).exists();
    assert!(!init("240p") && !init("source"), "a transport stream has no init section");
    // An edited height is no other kind of segment.
    world.tell(2, &[("240p", 180, 300), ("120p", 120, 100)]);
    world.await_that("the revision", || world.report().revision == 2 && world.report().problem.is_none());
}

/// The clock of a transport stream comes round after 26.5 hours; ffmpeg reads times shortly before as negative ones.
#[test]
fn renditions_line_up_where_the_clock_of_a_transport_stream_comes_round() {
    // In the middle of the second of the segments.
    let offset = ((1_u64 << 33) / 90_000 - 8).to_string();
    let mut world = World::packed(Container::MpegTs, &H264, true, &["-output_ts_offset", &offset]);
    let seqs = world.numbers("source");
    world.tell(1, &[("120p", 120, 100)]);
    world.start();
    world.await_that("the rendition", || world.numbers("120p") == seqs);
    let first = world.packets("source", 0, "v")[0];
    assert!(first < 0, "ffprobe sees it before the turn: {first}");
    is_like_its_source(&world, "120p", &seqs);
}

/// Cameras stamp their pictures by a clock of their own: no two distances are the same.
#[test]
fn pictures_of_a_camera_that_is_not_exact_keep_their_times() {
    for container in Container::ALL {
        // Up to 13 ms late.
        let mut world = World::packed(container, &H264, true, &["-bsf:v", "setts=ts=TS+mod(N*179\\,200)"]);
        let seqs = world.numbers("source");
        world.tell(1, &[("120p", 120, 100)]);
        world.start();
        world.await_that("the rendition", || world.numbers("120p") == seqs);
        for seq in &seqs {
            let (made, source) = (world.packets("120p", *seq, "v"), world.packets("source", *seq, "v"));
            let moved: Vec<i64> = made.iter().zip(&source).map(|(made, source)| made - source).collect();
            // All of them alike: to a tick of the coarser clock.
            assert!(moved.iter().all(|by| (by - moved[0]).abs() < 80), "{container:?} {seq}: {moved:?}");
        }
    }
}

#[test]
fn h265_without_sound_becomes_h264_that_every_browser_plays() {
    let x265 = "keyint=37:min-keyint=37:scenecut=0:bframes=0:log-level=error";
    let mut world =
        World::new(&["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", x265, "-tag:v", "hvc1"], false);
    let seqs = world.numbers("source");
    // A picture is not enlarged.
    world.tell(1, &[("tall", 720, 800)]);
    world.start();
    world.await_that("the rendition", || world.numbers("tall") == seqs);
    for seq in &seqs {
        assert_eq!(world.packets("tall", *seq, "v"), world.packets("source", *seq, "v"), "{seq}");
        assert!(world.packets("tall", *seq, "a").is_empty());
    }
    assert_eq!(world.stream("tall", 0, "v"), "h264,360");
}

#[test]
fn a_transcoder_killed_at_work_leaves_nothing_half_and_the_source_alone() {
    let mut world = World::h264();
    let (seqs, before) = (world.numbers("source"), world.source_bytes());
    world.tell(1, &[("240p", 240, 300), ("120p", 120, 100)]);
    for _ in 0..3 {
        world.start();
        world.await_that("a job", || world.rendition(spool::LADDER_FOLDER).join("240p").exists());
        world.kill();
        for rendition in ["240p", "120p"] {
            for seq in world.numbers(rendition) {
                let frames = world.packets(rendition, seq, "v").len();
                assert_eq!(frames, world.packets("source", seq, "v").len(), "{rendition} {seq}");
            }
        }
    }
    world.start();
    world.await_that("all renditions", || world.numbers("240p") == seqs && world.numbers("120p") == seqs);
    world.await_that("an empty desk", || !world.rendition(spool::LADDER_FOLDER).exists());
    assert_eq!(world.source_bytes(), before);
}

#[test]
fn a_second_transcoder_on_the_same_volume_waits_and_leaves_the_work_of_the_first_alone() {
    let mut world = World::h264();
    let seqs = world.numbers("source");
    let lock = fs::File::create(world.spool().join(spool::TRANSCODER_LOCK)).expect("a lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("held by the first");
    fs::create_dir(world.rendition(spool::LADDER_FOLDER)).expect("the first is at work");
    world.tell(1, &[("120p", 120, 100)]);
    world.start();
    let waits = || fs::read_to_string(world.spool().join("log")).is_ok_and(|log| log.contains("another pod works on"));
    world.await_that("the second one's word", waits);
    assert!(world.rendition(spool::LADDER_FOLDER).exists());
    drop(lock);
    world.await_that("its turn", || world.numbers("120p") == seqs);
}

#[test]
fn a_damaged_segment_is_given_up_and_holds_nobody_up() {
    let mut world = World::h264();
    let seqs = world.numbers("source");
    let damaged = world.segment("source", 1);
    let bytes = fs::read(&damaged).expect("reads");
    fs::write(&damaged, &bytes[..bytes.len() / 2]).expect("writes");
    world.tell(1, &[("120p", 120, 100)]);
    world.start();
    let others: Vec<u64> = seqs.iter().copied().filter(|seq| *seq != 1).collect();
    world.await_that("the others", || world.numbers("120p") == others && world.given_up("120p") == [1]);
    let mark = world.rendition("120p").join(spool::given_up_file(1));
    assert!(!fs::read_to_string(mark).expect("reads").is_empty(), "it says why");
}

#[test]
fn a_segment_that_takes_the_transcoder_along_is_given_up_after_three_times() {
    let mut world = World::h264();
    let seqs = world.numbers("source");
    for seq in &seqs[..seqs.len() - 1] {
        fs::remove_file(world.rendition("source").join(spool::segment_file(*seq, world.container))).expect("removed");
    }
    let last = *seqs.last().expect("segments");
    world.tell(1, &[("120p", 120, 100)]);
    world.pretend("exec sleep 60");
    for _ in 0..3 {
        world.start();
        world.await_that("a job", || world.rendition(spool::LADDER_FOLDER).exists());
        world.kill();
        fs::remove_dir_all(world.rendition(spool::LADDER_FOLDER)).expect("removed");
    }
    world.start();
    world.await_that("the mark", || world.given_up("120p") == [last]);
}

/// What waited while the spool was full for a moment was given up for good: three tries take milliseconds then.
#[test]
fn a_spool_that_is_full_for_a_moment_costs_no_rendition() {
    for container in Container::ALL {
        let mut world = World::packed(container, &H264, true, &[]);
        let seqs = world.numbers("source");
        // As ffmpeg leaves it then: all is well, by its word, and the playlist is empty.
        let full = world.spool().join("full");
        fs::write(&full, "").expect("writes");
        world.pretend(&format!(
            "[ -e {} ] || exec ffmpeg \"$@\"\nfor last; do :; done\nfolder=${{last%/%v/*}}/120p\nmkdir \"$folder\"\n\
             : >\"$folder/index.m3u8\"; echo cut off >\"$folder/init.mp4\"",
            full.display()
        ));
        world.start();
        let failures = |world: &World| world.log().matches("failed to transcode a segment").count();
        // Each word of the agent is a reason to look again, as each new segment would be.
        for revision in 1..=4 {
            world.tell(revision, &[("120p", 120, 100)]);
            let before = failures(&world);
            world.await_that("another failure", || failures(&world) > before || !world.given_up("120p").is_empty());
        }
        assert_eq!(world.given_up("120p"), [] as [u64; 0], "{container:?}: {}", world.log());
        assert!(failures(&world) < 8, "it does not wait: {}", world.log());
        world.tell(5, &[("120p", 120, 100)]);
        world.await_that("its word", || world.report().problem.is_some_and(|said| said.message == "the spool is full"));
        let folder = world.rendition(spool::LADDER_FOLDER);
        world.await_that("what was cut off is gone", || !folder.exists());
        fs::remove_file(full).expect("removed");
        world.await_that("all renditions", || world.numbers("120p") == seqs);
        world.await_that("all is well", || world.report().problem.is_none());
    }
}

#[test]
fn a_file_system_that_refuses_for_a_moment_costs_no_rendition() {
    let mut world = World::h264();
    let seqs = world.numbers("source");
    world.start();
    world.await_that("its first word", || world.spool().join(spool::TRANSCODER_REPORT_FILE).exists());
    // Where its folder should be; not before it has swept.
    let in_the_way = world.rendition(spool::LADDER_FOLDER);
    fs::write(&in_the_way, "").expect("writes");
    world.tell(1, &[("120p", 120, 100)]);
    world.await_that("a failure", || world.report().phase == Phase::Failing || !world.given_up("120p").is_empty());
    assert_eq!(world.given_up("120p"), [] as [u64; 0], "{}", world.log());
    fs::remove_file(in_the_way).expect("removed");
    world.await_that("the rendition", || world.numbers("120p") == seqs);
}

/// An ffmpeg that makes nothing, and says that all is well, fails like any other.
#[test]
fn a_segment_of_which_nothing_comes_is_given_up_after_three_times() {
    for container in Container::ALL {
        let mut world = World::packed(container, &H264, false, &[]);
        let seqs = world.numbers("source");
        world.pretend("exit 0");
        world.tell(1, &[("120p", 120, 100)]);
        world.start();
        world.await_that("the marks", || world.given_up("120p") == seqs);
        let failures = world.log().matches("failed to transcode a segment").count();
        assert_eq!(failures, 3 * seqs.len(), "{}", world.log());
        let mark = fs::read_to_string(world.rendition("120p").join(spool::given_up_file(0))).expect("reads");
        assert!(mark.starts_with("it left no rendition"), "{mark}");
    }
}

#[test]
fn an_edit_holds_from_the_next_segment_on_without_a_restart() {
    let mut world = World::h264();
    let seqs = world.numbers("source");
    let last = *seqs.last().expect("segments");
    // The last two are still being recorded.
    let later = [world.segment("source", last - 1), world.segment("source", last)];
    let aside = [last - 1, last].map(|seq| world.spool().join(format!("aside-{seq}")));
    for (later, aside) in later.iter().zip(&aside) {
        fs::rename(later, aside).expect("moves");
    }
    world.tell(1, &[("low", 240, 400)]);
    world.start();
    world.await_that("the first ones", || world.numbers("low").len() == seqs.len() - 2);
    let first = world.segment("low", 0);
    let before = fs::read(&first).expect("reads");
    world.tell(2, &[("low", 120, 60)]);
    world.await_that("the revision", || world.report().revision == 2);
    for (later, aside) in later.iter().zip(&aside) {
        fs::rename(aside, later).expect("moves");
    }
    world.await_that("the last ones", || world.numbers("low") == seqs);
    assert_eq!(fs::read(&first).expect("reads"), before, "nothing is made twice");
    // Another picture needs another decoder: its init section lies beside it, the session keeps its first one.
    let own = |seq: u64| fs::read(world.rendition("low").join(spool::own_init_file(seq))).expect("its init section");
    assert!(own(last) == own(last - 1), "one EXT-X-MAP for all that follow");
    let inode = |seq: u64| {
        let file = world.rendition("low").join(spool::own_init_file(seq));
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(file).expect("there"))
    };
    assert_eq!(inode(last), inode(last - 1));
    assert_eq!(world.packets("low", last, "v").len(), world.packets("source", last, "v").len());
    let size = |seq: u64| fs::metadata(world.segment("low", seq)).expect("there").len();
    assert!(size(last) * 2 < size(0), "{} {}", size(last), size(0));
}

/// Killed between the two files of a segment, with an edit before and one after it: the init section that was left is that
/// of a picture which nobody makes any more.
#[test]
fn an_init_section_that_a_killed_transcoder_left_is_not_taken_for_that_of_the_next_try() {
    let mut world = World::h264();
    let last = *world.numbers("source").last().expect("segments");
    let (later, aside) = (world.segment("source", last), world.spool().join("aside"));
    fs::rename(&later, &aside).expect("moves");
    world.tell(1, &[("low", 240, 400)]);
    world.start();
    world.await_that("the first ones", || world.numbers("low").len() as u64 == last);
    world.tell(2, &[("low", 120, 60)]);
    world.await_that("the revision", || world.report().revision == 2);
    fs::rename(aside, later).expect("moves");
    world.await_that("the last one", || world.numbers("low").contains(&last));
    let own = world.rendition("low").join(spool::own_init_file(last));
    assert!(own.exists() && world.stream("low", last, "v") == "h264,120");

    world.kill();
    fs::remove_file(world.segment("low", last)).expect("not yet named");
    world.tell(3, &[("low", 240, 400)]);
    world.start();
    world.await_that("the last one", || world.numbers("low").contains(&last));
    assert_eq!(world.stream("low", last, "v"), "h264,240");
    assert!(!own.exists(), "the session's first one fits");
}
