use m3u8_rs::{MediaPlaylist, MediaPlaylistType, Playlist};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::{live::AWAITED, segment::GapReason};

fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

fn stream() -> StreamId {
    StreamId(Uuid::from_u128(7))
}

/// 2026-01-02T03:04:05Z plus milliseconds.
fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_767_323_045_000 + ms).expect("in range")
}

/// Segment `seq` of session `n`, `from..to` in ms, with the stored numbers.
fn entry(n: u128, seq: u64, from: i64, to: i64, numbers: (u64, u64)) -> Entry {
    Entry {
        key: SegmentKey { stream: stream(), rendition: "source".into(), session: session(n), seq },
        folder: format!("/media/s/{n}/source").into(),
        init: Some("init.mp4".into()),
        start: at(from),
        end: at(to),
        media_us: u64::try_from(to - from).expect("forward") * 1000,
        playlist_seq: numbers.0,
        discontinuity_seq: numbers.1,
        target_seconds: 4,
        lacking: false,
    }
}

/// The address of an entry in playlists.
fn uri(entry: &Entry) -> String {
    format!("{}/{:08}.m4s", entry.folder, entry.key.seq)
}

/// `count` contiguous segments of 4 s.
fn run(n: u128, from_seq: u64, count: u64, begin: i64, numbers: (u64, u64)) -> Vec<Entry> {
    (0..count)
        .map(|i| {
            let from = begin + i64::try_from(i).expect("small") * 4000;
            entry(n, from_seq + i, from, from + 4000, (numbers.0 + i, numbers.1))
        })
        .collect()
}

fn gap(n: u128, seq: Option<u64>, from: i64) -> Gap {
    Gap {
        stream: stream(),
        camera: "c".into(),
        session: session(n),
        rendition: None,
        seq,
        from: at(from),
        to: at(from),
        reason: GapReason::SegmentLost,
        detail: String::new(),
    }
}

fn parsed(text: &str) -> MediaPlaylist {
    match m3u8_rs::parse_playlist_res(text.as_bytes()) {
        Ok(Playlist::MediaPlaylist(playlist)) => playlist,
        other => panic!("not a media playlist: {other:?}\n{text}"),
    }
}

#[test]
fn replay_over_a_restart_shows_one_discontinuity_a_new_map_and_the_date() {
    let mut entries = run(1, 0, 2, 0, (10, 3));
    entries.extend(run(2, 0, 2, 9500, (12, 4)));
    insta::assert_snapshot!(replay(entries, &Declared::default()).expect("entries"));
}

#[test]
fn a_lost_number_is_a_gap_and_an_outage_is_not() {
    let entries = vec![entry(1, 0, 0, 4000, (0, 0)), entry(1, 2, 8000, 12_000, (2, 0))];
    let text = replay(entries, &Declared::default()).expect("entries");
    assert_eq!(text.matches("#EXT-X-GAP").count(), 1);
    assert!(text.contains("#EXT-X-VERSION:8\n"));
    assert!(text.contains("/media/s/1/source/00000001.m4s"));
    assert!(!text.contains("#EXT-X-DISCONTINUITY\n"));
}

#[test]
fn dvr_waits_for_a_hole_and_goes_on_when_it_is_declared() {
    let mut entries = run(1, 0, 3, 0, (0, 0));
    entries.extend(run(1, 4, 3, 16_000, (4, 0)));
    let waiting = parsed(&dvr(entries.clone(), &Declared::default()).expect("entries"));
    assert_eq!(waiting.segments.len(), 3);
    let declared = Declared::new(&[gap(1, Some(3), 12_000)]);
    let declared = parsed(&dvr(entries, &declared).expect("entries"));
    assert_eq!(declared.segments.len(), 7);
}

#[test]
fn the_numbers_given_after_a_damaged_segment_keep_the_window() {
    use crate::domain::{
        media::Media,
        session::{Found, SessionBook, StreamBook},
    };
    let found = |seq: u64| {
        let start_us = i64::try_from(seq).expect("small") * 4_000_000;
        let media = Media {
            start_us,
            media_us: 4_000_000,
            frames: 100,
            gop_us: 1_000_000,
            starts_with_keyframe: true,
            ..Media::default()
        };
        Found { seq, media, sealed_us: at(0).as_microsecond() + start_us + 4_000_000 }
    };
    let mut stream = StreamBook::new(at(0));
    let (mut entries, mut gaps) = (Vec::new(), Vec::new());
    // The first segment of the second session is damaged too.
    for (n, seqs) in [(1, vec![0, 1, 3, 4]), (2, vec![1, 2])] {
        let later = |seq| Found { sealed_us: found(seq).sealed_us + i64::from(n == 2) * 60_000_000, ..found(seq) };
        let mut book = SessionBook::open(&stream, session(n), 4, &[later(seqs[0])]).expect("a segment");
        for seq in seqs {
            let numbered = book.number(&mut stream, &later(seq)).expect("new");
            gaps.extend(numbered.missing.iter().map(|(lost, from, _)| Gap {
                from: Timestamp::from_microsecond(*from).expect("in range"),
                ..gap(n, *lost, 0)
            }));
            entries.push(Entry {
                start: Timestamp::from_microsecond(numbered.start_us).expect("in range"),
                end: Timestamp::from_microsecond(numbered.end_us).expect("in range"),
                ..entry(n, seq, 0, 4000, (numbered.playlist_seq, numbered.discontinuity_seq))
            });
        }
    }
    let first = entries[0].playlist_seq;
    let list = parsed(&dvr(entries, &Declared::new(&gaps)).expect("entries"));
    assert_eq!((list.media_sequence, list.segments.len()), (first, 7), "six segments and a gap");
}

#[test]
fn dvr_waits_for_the_tail_of_the_session_before() {
    let mut entries = run(1, 0, 3, 0, (0, 0));
    entries.extend(run(2, 0, 3, 20_000, (5, 1)));
    assert_eq!(parsed(&dvr(entries.clone(), &Declared::default()).expect("entries")).segments.len(), 3);
    // The spool was lost: numbering resumed above a floor, and the break begins where our footage ends.
    let declared = Declared::new(&[gap(2, None, 12_000)]);
    let after = parsed(&dvr(entries, &declared).expect("entries"));
    assert_eq!((after.media_sequence, after.segments.len()), (5, 3));
}

#[test]
fn dvr_does_not_wait_for_ever() {
    let mut entries = run(1, 0, 3, 0, (0, 0));
    entries.extend(run(1, 4, 300, 16_000, (4, 0)));
    let text = dvr(entries, &Declared::default()).expect("entries");
    assert_eq!(parsed(&text).segments.len(), 304);
    assert_eq!(text.matches("#EXT-X-GAP").count(), 1);
}

#[test]
fn dvr_slides_over_two_hours() {
    let playlist = parsed(&dvr(run(1, 0, 2000, 0, (100, 0)), &Declared::default()).expect("entries"));
    assert_eq!(playlist.segments.len(), 1800);
    assert_eq!(playlist.media_sequence, 300);
    assert!(!playlist.end_list);
}

#[test]
fn live_holds_at_least_three_target_durations() {
    let playlist = parsed(&live(run(1, 0, 8, 0, (40, 2))).expect("entries"));
    assert_eq!(playlist.segments.len(), 5);
    assert_eq!((playlist.media_sequence, playlist.discontinuity_sequence), (43, 2));
    assert!(playlist.segments[0].program_date_time.is_some());
}

#[test]
fn where_sessions_overlap_the_newer_one_is_shown() {
    let mut entries = run(1, 0, 5, 0, (0, 0));
    entries.extend(run(2, 0, 3, 8100, (5, 1)));
    let kept = newest_wins(entries);
    let shown: Vec<_> = kept.iter().map(|e| (e.key.session, e.key.seq)).collect();
    assert_eq!(shown, [(session(1), 0), (session(1), 1), (session(2), 0), (session(2), 1), (session(2), 2)],);
}

#[test]
fn a_little_overlap_at_a_restart_loses_nothing() {
    let mut entries = run(1, 0, 2, 0, (0, 0));
    entries.extend(run(2, 0, 2, 7700, (2, 1)));
    assert_eq!(newest_wins(entries).len(), 4);
}

#[test]
fn a_start_that_moved_forward_is_dated() {
    let entries = vec![entry(1, 0, 0, 4000, (0, 0)), entry(1, 1, 5200, 9200, (1, 0))];
    let text = replay(entries, &Declared::default()).expect("entries");
    assert_eq!(text.matches("PROGRAM-DATE-TIME").count(), 2);
}

#[test]
fn mpeg_ts_has_no_map() {
    let entries = vec![Entry { init: None, ..entry(1, 0, 0, 4000, (0, 0)) }];
    let text = replay(entries, &Declared::default()).expect("entries");
    assert!(!text.contains("EXT-X-MAP"));
    assert!(text.contains("00000000.ts"));
}

#[test]
fn a_change_of_container_is_a_discontinuity_and_mp4_gets_its_map_back() {
    let packed = |entry: Entry| Entry { init: None, ..entry };
    let entries = [
        run(1, 0, 2, 0, (0, 0)),
        run(2, 0, 2, 9000, (2, 1)).into_iter().map(packed).collect(),
        run(3, 0, 1, 20_000, (4, 2)),
    ]
    .concat();
    insta::assert_snapshot!(replay(entries, &Declared::default()).expect("entries"));
}

#[test]
fn a_missing_number_of_a_transport_stream_is_called_as_its_neighbours() {
    let mut entries: Vec<Entry> = run(1, 0, 3, 0, (0, 0));
    entries.remove(1);
    let entries = entries.into_iter().map(|entry| Entry { init: None, ..entry }).collect();
    let text = replay(entries, &Declared::new(&[gap(1, Some(1), 4000)])).expect("entries");
    assert!(text.contains("00000001.ts") && !text.contains("m4s") && !text.contains("EXT-X-MAP"), "{text}");
}

#[test]
fn no_rows_no_playlist() {
    assert_eq!(
        (live(vec![]), dvr(vec![], &Declared::default()), replay(vec![], &Declared::default())),
        (None, None, None)
    );
}

#[test]
fn a_master_playlist_names_codecs_and_resolution() {
    let text = master(&[Variant {
        uri: "live.m3u8".into(),
        rates: Rates { peak: 1_200_000, mean: 1_000_000 },
        frame_rate: 15_000,
        codecs: "avc1.64001f,mp4a.40.2".into(),
        width: 1280,
        height: 720,
    }]);
    let Ok(Playlist::MasterPlaylist(playlist)) = m3u8_rs::parse_playlist_res(text.as_bytes()) else { panic!("{text}") };
    assert_eq!(playlist.variants[0].codecs.as_deref(), Some("avc1.64001f,mp4a.40.2"));
    assert_eq!(playlist.variants[0].resolution.map(|r| (r.width, r.height)), Some((1280, 720)));
}

/// Sessions of a few segments each with some numbers lost, pauses between, and the numbers an agent would give.
fn footage() -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::vec(
        (prop::collection::vec((500i64..12_000, prop::bool::weighted(0.9)), 1..12), 0i64..60_000),
        1..5,
    )
    .prop_map(|sessions| {
        let (mut clock, mut number, mut entries) = (0, 0, Vec::new());
        for (n, (lengths, pause)) in sessions.into_iter().enumerate() {
            for (seq, (length, kept)) in lengths.into_iter().enumerate() {
                let numbers = (number, n as u64);
                if kept {
                    entries.push(entry(n as u128 + 1, seq as u64, clock, clock + length, numbers));
                }
                clock += length;
                number += 1;
            }
            clock += pause;
        }
        entries
    })
}

proptest! {
    #[test]
    fn replay_plays_every_segment_once_in_order(entries in footage().prop_shuffle()) {
        let mut expected: Vec<_> = entries.iter().map(|e| (e.start, uri(e))).collect();
        expected.sort();
        prop_assume!(!entries.is_empty());
        let text = replay(entries, &Declared::default()).expect("entries");
        let playlist = parsed(&text);
        prop_assert!(playlist.end_list);
        prop_assert_eq!(playlist.playlist_type, Some(MediaPlaylistType::Vod));
        let gaps = text.matches("#EXT-X-GAP\n").count();
        prop_assert_eq!(playlist.segments.len() - gaps, expected.len());
        let played: Vec<_> = playlist.segments.iter().map(|s| s.uri.clone()).filter(|uri| expected.iter().any(|e| &e.1 == uri)).collect();
        prop_assert_eq!(played, expected.into_iter().map(|e| e.1).collect::<Vec<_>>());
    }

    #[test]
    fn no_length_exceeds_the_target(entries in footage()) {
        prop_assume!(!entries.is_empty());
        for text in [live(entries.clone()), dvr(entries.clone(), &Declared::default()), replay(entries.clone(), &Declared::default())].into_iter().flatten() {
            let playlist = parsed(&text);
            for segment in &playlist.segments {
                prop_assert!(f64::from(segment.duration).round() <= f64::from(u32::try_from(playlist.target_duration).expect("small")));
            }
        }
    }

    #[test]
    fn numbers_of_a_sliding_window_are_the_stored_ones(entries in footage()) {
        for text in [live(entries.clone()), dvr(entries.clone(), &Declared::default())].into_iter().flatten() {
            let playlist = parsed(&text);
            let mut breaks = playlist.discontinuity_sequence;
            for (i, segment) in playlist.segments.iter().enumerate() {
                breaks += u64::from(segment.discontinuity);
                if let Some(row) = entries.iter().find(|e| uri(e) == segment.uri) {
                    prop_assert_eq!(row.playlist_seq, playlist.media_sequence + i as u64);
                    prop_assert_eq!(row.discontinuity_seq, breaks);
                }
            }
        }
    }

    #[test]
    fn dvr_never_shows_what_lies_behind_an_open_hole(entries in footage()) {
        if let Some(text) = dvr(entries, &Declared::default()) {
            prop_assert!(!text.contains("#EXT-X-GAP") || text.matches("#EXTINF").count() > 60);
        }
    }
}

/// The same entries as another rendition has them, but for some numbers.
fn rungs(source: &[Entry], without: &[u64]) -> Vec<Entry> {
    source
        .iter()
        .filter(|entry| !without.contains(&entry.playlist_seq))
        .map(|entry| {
            let mut rung = entry.clone();
            rung.key.rendition = "480p".into();
            rung.folder = rung.folder.replace("/source", "/480p").into();
            rung
        })
        .collect()
}

#[test]
fn a_rendition_lists_what_the_source_lists_and_says_what_it_lacks() {
    let mut source = run(1, 0, 3, 0, (10, 3));
    source.extend(run(2, 0, 3, 13_500, (13, 4)));
    let found = rungs(&source, &[10, 13]);
    let text = replay(rendition(source, "480p", found, Lacking::Replay), &Declared::default()).expect("entries");
    insta::assert_snapshot!(text);
}

#[test]
fn a_live_rendition_waits_for_its_newest_segments_and_keeps_the_numbers_of_the_source() {
    let source = run(1, 0, 7, 0, (10, 3));
    let shaped = |without: &[u64]| rendition(source.clone(), "480p", rungs(&source, without), Lacking::Live);
    let text = live(shaped(&[13, 16])).expect("entries");
    let playlist = parsed(&text);
    assert_eq!((playlist.media_sequence, playlist.segments.len()), (11, 5));
    assert_eq!(text.matches("#EXT-X-GAP").count(), 1);
    assert!(
        text.contains("/480p/00000005.m4s") && !text.contains("00000006.m4s") && !text.contains("/source/"),
        "{text}"
    );
    // One that is on its way is no gap, though a newer one is there.
    assert_eq!(shaped(&[15]).len(), 5);
    assert!(rendition(source.clone(), "480p", vec![], Lacking::Live).is_empty());
    assert_eq!((shaped(&[15, 16]).len(), shaped(&[14, 15, 16]).len()), (5, 0), "it is over");
}

#[test]
fn a_dvr_rendition_waits_for_what_may_still_be_made() {
    let source = run(1, 0, 200, 0, (0, 0));
    // One given up long ago, one that may still come.
    let found = rungs(&source, &[20, 180]);
    let shaped = rendition(source, "480p", found, Lacking::Dvr);
    assert_eq!(shaped.len(), 180);
    assert_eq!(shaped.iter().filter(|entry| entry.lacking).count(), 1);
}

#[test]
fn a_master_playlist_names_every_rendition_with_what_a_player_chooses_by() {
    let variant = |uri: &str, peak, codecs: &str, height: u32, frame_rate| Variant {
        uri: in_rendition("replay.m3u8?start=a&end=b", uri),
        rates: Rates { peak, mean: peak / 2 },
        frame_rate,
        codecs: codecs.into(),
        width: height * 16 / 9,
        height,
    };
    insta::assert_snapshot!(master(&[
        variant("source", 4_000_000, "hvc1.1.6.L93.B0,mp4a.40.2", 1080, 14_985),
        variant("480p", 900_000, "avc1.64001e,mp4a.40.2", 480, 15_000),
        variant("240p", 300_000, "avc1.64000d", 240, 0),
    ]));
}

proptest! {
    /// Whatever a rendition has, it lists numbers, times and breaks of the source and no others.
    #[test]
    fn renditions_line_up(have in prop::collection::vec(any::<bool>(), 12), kind in 0..3_usize) {
        let mut source = run(1, 0, 6, 0, (10, 3));
        source.extend(run(2, 0, 6, 30_000, (16, 4)));
        let without: Vec<u64> = (10..22).filter(|n| !have[usize::try_from(n - 10).expect("small")]).collect();
        let kind = [Lacking::Live, Lacking::Dvr, Lacking::Replay][kind];
        let shaped = rendition(source.clone(), "480p", rungs(&source, &without), kind);
        prop_assert!(shaped.len() <= source.len());
        for (rung, entry) in shaped.iter().zip(&source) {
            prop_assert_eq!((rung.start, rung.end, rung.playlist_seq), (entry.start, entry.end, entry.playlist_seq));
            prop_assert_eq!(rung.lacking, without.contains(&entry.playlist_seq));
        }
        prop_assert!(shaped.is_empty() || shaped.iter().any(|entry| !entry.lacking));
    }

    /// What a live list has said of a segment it says again: neither is a gap taken back, nor does the list get shorter.
    #[test]
    fn a_live_gap_stays_a_gap(delays in prop::collection::vec(0..6_usize, 12)) {
        let source = run(1, 0, 12, 0, (10, 3));
        let mut before: Vec<Entry> = Vec::new();
        for now in 1..=source.len() {
            // As the agent takes them in: what comes too late it keeps to itself.
            let found = (0..now).filter(|n| delays[*n] < now - n && delays[*n] <= AWAITED);
            let without: Vec<u64> = (0..12).filter(|n| !found.clone().any(|f| f == *n)).map(|n| n as u64 + 10).collect();
            let shaped = rendition(source[..now].to_vec(), "480p", rungs(&source[..now], &without), Lacking::Live);
            if shaped.is_empty() { continue }
            prop_assert!(shaped.len() >= before.len());
            prop_assert_eq!(&shaped[..before.len()], &before[..]);
            before = shaped;
        }
    }
}
