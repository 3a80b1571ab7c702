//! Master playlists against what they speak of (RFC 8216 §4.3.4.2): bit rates are measured in the bytes of the listed
//! segments, codecs and picture are those that ffmpeg's own readers find in an init section and a segment.

use std::{collections::BTreeSet, process::Command};

use m3u8_rs::{MediaPlaylist, MediaSegment, VariantStream};
use serde_json::Value;

use crate::{
    footage::media,
    kube::{run, text},
    world::{USER, http_get},
};

/// What a live master playlist says of bit rates may differ by this part from what is measured: it spans some more segments
/// than the media playlist, and that has moved on since. Of a replay it must be true: lengths of segments are listed to the µs.
const LIVE: f64 = 0.2;
const REPLAY: f64 = 0.000_1;

/// Reads a master playlist of a camera (its name and query), compares each variant with its segments, and returns them.
pub fn variants_that_are_true(camera: &str, file: &str) -> Vec<VariantStream> {
    let folder = format!("/hls/{USER}/{camera}");
    let (status, body) = http_get(&format!("{folder}/{file}"));
    assert_eq!(status, 200, "{file} of {camera}: {}", String::from_utf8_lossy(&body));
    let master = m3u8_rs::parse_master_playlist_res(&body).expect("a master playlist");
    for variant in &master.variants {
        let (status, body) = http_get(&format!("{folder}/{}", variant.uri));
        assert_eq!(status, 200, "{}: {}", variant.uri, String::from_utf8_lossy(&body));
        let list = m3u8_rs::parse_media_playlist_res(&body).expect("a media playlist");
        has_these_rates(variant, &list);
        has_these_streams(variant, &list);
    }
    master.variants
}

/// `BANDWIDTH` is the peak of the playlist's bit rates, `AVERAGE-BANDWIDTH` their mean (RFC 8216 §4.1).
fn has_these_rates(variant: &VariantStream, list: &MediaPlaylist) {
    // (bits, seconds) of each.
    let size = |segment: &MediaSegment| (media(&segment.uri).len() as f64 * 8.0, f64::from(segment.duration));
    let sizes: Vec<(f64, f64)> = list.segments.iter().filter(|segment| !is_gap(segment)).map(size).collect();
    let target = list.target_duration as f64;
    let sum = |run: &[(f64, f64)]| run.iter().fold((0.0, 0.0), |(a, b), (bits, seconds)| (a + bits, b + seconds));
    let runs = (0..sizes.len()).flat_map(|from| (from + 1..=sizes.len()).map(move |to| (from, to)));
    let runs = runs.map(|(from, to)| sum(&sizes[from..to]));
    let counted = runs.filter(|(_, seconds)| (0.5 * target..=1.5 * target).contains(seconds));
    let peak = counted.map(|(bits, seconds)| bits / seconds).fold(0.0, f64::max);
    let (bits, seconds) = sum(&sizes);
    let within = if list.end_list { REPLAY } else { LIVE };
    let average = variant.average_bandwidth.expect("an AVERAGE-BANDWIDTH");
    for (what, said, measured) in
        [("BANDWIDTH", variant.bandwidth, peak), ("AVERAGE-BANDWIDTH", average, bits / seconds)]
    {
        eprintln!("{}: {what} {said}, measured {measured:.0} in {} segments", variant.uri, sizes.len());
        let off = (said as f64 / measured - 1.0).abs();
        assert!(off <= within, "{}: {what} is {said}, not {measured}: {sizes:?}", variant.uri);
    }
}

fn is_gap(segment: &MediaSegment) -> bool {
    segment.unknown_tags.iter().any(|tag| tag.tag == "X-GAP")
}

/// `CODECS`, `RESOLUTION` and `FRAME-RATE` are those of the newest segment.
fn has_these_streams(variant: &VariantStream, list: &MediaPlaylist) {
    let newest = list.segments.iter().rposition(|segment| !is_gap(segment)).expect("a segment");
    let map = list.segments[..=newest].iter().rev().find_map(|segment| segment.map.as_ref());
    let init = map.map(|map| media(&map.uri)).unwrap_or_default();
    let file = std::env::temp_dir().join(format!("dsn-e2e-{}.media", std::process::id()));
    std::fs::write(&file, [init, media(&list.segments[newest].uri)].concat()).expect("writes");
    let file = file.to_str().expect("UTF-8");

    let fields = "stream=codec_type,codec_name,codec_tag_string,profile,width,height,avg_frame_rate";
    let printed = run(Command::new("ffprobe").args(["-v", "error", "-show_entries", fields, "-of", "json", file]));
    let probed: Value = serde_json::from_slice(&printed).expect("JSON");
    let streams = probed["streams"].as_array().expect("streams");
    let of = |kind: &str| streams.iter().find(|stream| stream["codec_type"] == kind);
    let picture = of("video").expect("a picture");
    // A transport stream has no sample entry: then it is called what it would be in MP4.
    let entry = |own: &str| if map.is_some() { text(picture, "/codec_tag_string") } else { own.to_owned() };
    let mut codecs = match text(picture, "/codec_name").as_str() {
        "h264" => avc(&entry("avc1"), file),
        "hevc" => hevc(&entry("hvc1"), file),
        other => panic!("{other}: {streams:?}"),
    };
    if let Some(sound) = of("audio") {
        assert_eq!((text(sound, "/codec_name"), text(sound, "/profile")), ("aac".to_owned(), "LC".to_owned()));
        codecs += ",mp4a.40.2";
    }
    assert_eq!(variant.codecs.as_deref(), Some(&*codecs), "{}", variant.uri);
    eprintln!("{}: CODECS {codecs}", variant.uri);
    let size = |of: &str| picture[of].as_u64().expect("a number");
    assert_eq!(variant.resolution.map(|size| (size.width, size.height)), Some((size("width"), size("height"))));
    let rate = text(picture, "/avg_frame_rate");
    let (frames, seconds) = rate.split_once('/').expect("a fraction");
    let rate: f64 = frames.parse::<f64>().expect("a number") / seconds.parse::<f64>().expect("a number");
    let said = variant.frame_rate.expect("a FRAME-RATE");
    // ffprobe's is that of one segment, whose last frame it takes to be of no length now and then.
    assert!((said / rate - 1.0).abs() < 0.03, "{}: {said} frames a second, not {rate}", variant.uri);
    std::fs::remove_file(file).expect("it is there");
}

/// RFC 6381 and ISO/IEC 14496-15 annex E.1: profile, constraints, level.
fn avc(entry: &str, file: &str) -> String {
    let [profile, constraints, level] = parameters(file, "profile_idc", "level_idc");
    format!("{entry}.{profile:02x}{constraints:02x}{level:02x}")
}

/// The same, annex E.3: the profile, which profiles may decode it (from the last to the first), tier and level, constraints
/// without the zeros at their end.
fn hevc(entry: &str, file: &str) -> String {
    let [first, a, b, c, d, constraints @ .., level]: [u8; 12] =
        parameters(file, "general_profile_space", "general_level_idc");
    assert_eq!(first >> 6, 0, "profile space 0 has no letter");
    let tier = if first & 0x20 == 0 { 'L' } else { 'H' };
    let compatible = u32::from_be_bytes([a, b, c, d]).reverse_bits();
    let constraints: String = constraints.iter().map(|byte: &u8| format!(".{byte:X}")).collect();
    let constraints = constraints.trim_end_matches(".0");
    format!("{entry}.{}.{compatible:X}.{tier}{level}{constraints}", first & 0x1f)
}

/// Bytes of the parameter sets between two fields, both counted in, as ffmpeg takes them apart; the same in all of them:
/// those of the init section and those before each keyframe.
fn parameters<const N: usize>(file: &str, first: &str, last: &str) -> [u8; N] {
    let traced = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-i", file, "-map", "0:v", "-c", "copy", "-bsf:v", "trace_headers"])
        .args(["-f", "null", "-"])
        .output()
        .expect("ffmpeg starts");
    let traced = String::from_utf8_lossy(&traced.stderr);
    let mut found = BTreeSet::new();
    let mut bits: Option<String> = None;
    // "[trace_headers @ 0x55…] 8           profile_idc                          01100100 = 100"
    for line in traced.lines().filter_map(|line| line.strip_prefix("[trace_headers")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, name, value, "=", _] = words.as_slice() else { continue };
        if *name == first {
            bits = Some(String::new());
        }
        let Some(begun) = bits.as_mut() else { continue };
        *begun += value;
        if *name == last {
            let whole = bits.take().unwrap_or_default();
            let byte = |at: usize| u8::from_str_radix(&whole[8 * at..8 * at + 8], 2).expect("bits");
            assert_eq!(whole.len(), 8 * N, "{whole}");
            found.insert(std::array::from_fn::<u8, N, _>(byte));
        }
    }
    assert_eq!(found.len(), 1, "{found:?} in {traced}");
    found.pop_first().expect("one")
}
