use jiff::{SignedDuration, Timestamp};

use super::fixture::*;
use super::*;
use crate::domain::{
    control::{Envelope, InstanceReport, Phase, Readd, Stored, StreamConfig},
    id::{InstanceUid, Role, StreamId},
    playlist::{Rates, Variant},
    segment::{Blob, Gap, GapReason, Segment, SegmentKey},
};

fn key(n: u128, seq: u64) -> SegmentKey {
    segment(n, seq, 0).key
}

async fn record(fixture: &Fixture, facts: Vec<Fact>, now: i64) -> Recorded {
    fixture.writer.record(&facts, at(now)).await.expect("records")
}

/// Takes every waiting message; the `stored` ones as (session, highest number).
async fn told(fixture: &Fixture) -> Vec<(String, u64)> {
    let mut told = Vec::new();
    for message in fixture.reader.outgoing(1000).await.expect("reads") {
        if message.key.ends_with(".stored") {
            let stored: Envelope<Stored> = serde_json::from_str(&message.body).expect("parses");
            told.extend(stored.data.upto.iter().map(|key| (key.session.to_string(), key.seq)));
        }
        fixture.writer.sent(message.id).await.expect("removes");
    }
    told
}

/// Closes everything that is open as one roll-up and brings it up to `pinning`.
async fn roll_up(fixture: &Fixture, now: i64) -> i64 {
    let streams = fixture.reader.open_streams().await.expect("reads");
    let rows: Vec<i64> = streams[0].segments.iter().map(|open| open.row).collect();
    fixture.writer.commit_rollup(&streams[0], streams[0].segments[0].start, &rows).await.expect("commits");
    let id = fixture.reader.unstored_rollups().await.expect("reads").last().expect("one").id;
    fixture.writer.rollup_built(id, &format!("cid-of-{id}")).await.expect("notes");
    fixture.writer.pin_requested(id, 2, &["a".into(), "b".into()], at(now + 1000), at(now)).await.expect("notes");
    fixture.writer.pin_accepted(id).await.expect("notes");
    id
}

#[tokio::test]
async fn a_segment_announced_twice_is_catalogued_once() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    let twice = [segments(1, 0..3, 0), segments(1, 0..3, 0)].concat();
    let recorded = record(&fixture, twice, 20).await;
    assert_eq!((recorded.segments, recorded.duplicates), (3, 3));
    assert_eq!(told(&fixture).await, []);
}

#[tokio::test]
async fn a_segment_may_come_before_its_configuration() {
    let fixture = catalogue().await;
    record(&fixture, segments(1, 0..3, 0), 20).await;
    assert!(fixture.reader.open_streams().await.expect("reads").is_empty());
    let camera = fixture.reader.camera("demo", "camera").await.expect("reads").expect("known");
    assert_eq!(fixture.reader.entries(&camera, "source", at(0), at(60)).await.expect("reads").len(), 3);
    record(&fixture, configured(), 21).await;
    assert_eq!(fixture.reader.open_streams().await.expect("reads")[0].segments.len(), 3);
}

#[tokio::test]
async fn stored_is_said_up_to_the_first_number_that_is_not() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    record(&fixture, [segments(1, 0..3, 0), segments(1, 4..6, 0)].concat(), 30).await;
    let id = roll_up(&fixture, 30).await;
    fixture.writer.rollup_stored(id, at(31)).await.expect("stores");
    assert_eq!(told(&fixture).await, [(session(1).to_string(), 2)]);
    // The late one forms a further part; then the mark jumps over what was stored before.
    record(&fixture, segments(1, 3..4, 0), 32).await;
    let late = roll_up(&fixture, 33).await;
    fixture.writer.rollup_stored(late, at(34)).await.expect("stores");
    assert_eq!(told(&fixture).await, [(session(1).to_string(), 5)]);
}

#[tokio::test]
async fn a_declared_loss_no_longer_holds_up_what_follows() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    record(&fixture, [segments(1, 0..1, 0), segments(1, 2..4, 0)].concat(), 30).await;
    let id = roll_up(&fixture, 30).await;
    fixture.writer.rollup_stored(id, at(31)).await.expect("stores");
    assert_eq!(told(&fixture).await, [(session(1).to_string(), 0)]);
    record(&fixture, vec![lost(1, Some(1), 4, GapReason::SegmentLost)], 32).await;
    assert_eq!(told(&fixture).await, [(session(1).to_string(), 3)]);
}

#[tokio::test]
async fn an_agent_that_missed_the_answer_is_told_again() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    record(&fixture, segments(1, 0..3, 0), 30).await;
    let id = roll_up(&fixture, 30).await;
    fixture.writer.rollup_stored(id, at(31)).await.expect("stores");
    told(&fixture).await;
    record(&fixture, segments(1, 1..2, 0), 400).await;
    assert_eq!(told(&fixture).await, [(session(1).to_string(), 2)]);
}

#[tokio::test]
async fn a_member_lost_before_it_was_pinned_lets_the_others_be_pinned_anew() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    record(&fixture, segments(1, 0..3, 0), 30).await;
    let id = roll_up(&fixture, 30).await;
    record(&fixture, vec![lost(1, Some(1), 4, GapReason::SegmentLost)], 200).await;
    let graves = graves(&fixture).await;
    assert_eq!(graves.iter().map(|grave| grave.cid.clone()).collect::<Vec<_>>(), [Some(format!("cid-of-{id}"))]);
    let open = fixture.reader.open_streams().await.expect("reads");
    assert_eq!(open[0].segments.len(), 2);
    let again = roll_up(&fixture, 201).await;
    fixture.writer.rollup_stored(again, at(202)).await.expect("stores");
    assert_eq!(told(&fixture).await, [(session(1).to_string(), 2)]);
    // An answer about the old directory that comes late changes nothing.
    fixture.writer.rollup_stored(id, at(203)).await.expect("ignores");
}

#[tokio::test]
async fn readd_names_every_member() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    record(&fixture, segments(1, 0..3, 0), 30).await;
    roll_up(&fixture, 30).await;
    let rollup = fixture.reader.unstored_rollups().await.expect("reads").remove(0);
    fixture.writer.rollup_readd(&rollup, at(150)).await.expect("asks");
    let message = fixture.reader.outgoing(10).await.expect("reads").remove(0);
    assert_eq!(message.key, format!("inst.{}.readd", instance()));
    let readd: Envelope<Readd> = serde_json::from_str(&message.body).expect("parses");
    let keys: Vec<_> = readd.data.segments.iter().map(|wanted| wanted.key.clone()).collect();
    assert_eq!(keys, [key(1, 0), key(1, 1), key(1, 2)]);
    let (last, said) = (&readd.data.segments[2], segment(1, 2, 0));
    assert_eq!(
        (&last.cids, last.start, last.end),
        (&vec![said.blob.cid, said.init.expect("an init section").cid], said.start, said.end)
    );
}

#[tokio::test]
async fn a_rollup_carries_the_init_sections_its_members_need() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    record(&fixture, [segments(1, 0..2, 0), segments(2, 0..1, 20)].concat(), 30).await;
    let id = roll_up(&fixture, 30).await;
    let members = fixture.reader.members(id).await.expect("reads");
    let inits = members.iter().filter(|member| member.name.contains("-init-")).count();
    assert_eq!((members.len(), inits), (5, 2));
    assert_eq!(members[2].name, format!("{}-source-00000000.m4s", session(1)));
}

#[tokio::test]
async fn a_rollup_of_transport_streams_holds_nothing_but_segments() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    let facts = (0..2).map(|seq| Fact::Segment(Box::new(transport_stream(1, seq, 0)))).collect();
    record(&fixture, facts, 30).await;
    let id = roll_up(&fixture, 30).await;
    let members = fixture.reader.members(id).await.expect("reads");
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, [0, 1].map(|seq| format!("{}-source-{seq:08}.ts", session(1))));
    let camera = fixture.reader.camera("demo", "camera").await.expect("reads").expect("known");
    let entries = fixture.reader.entries(&camera, "source", at(0), at(60)).await.expect("reads");
    assert!(entries.iter().all(|entry| entry.init.is_none()));
    let variant = variant(&fixture, "source", at(0), at(60)).await.expect("footage");
    assert_eq!((variant.codecs.as_str(), variant.width, variant.height), ("avc1.64001f,mp4a.40.2", 1280, 720));
}

#[tokio::test]
async fn the_highest_revision_wins() {
    let fixture = catalogue().await;
    let newer = StreamConfig { replicas: 3, ..stream_config() };
    record(&fixture, vec![Fact::Stream(5, Box::new(newer.clone()))], 0).await;
    let recorded = record(&fixture, vec![Fact::Stream(4, Box::new(stream_config()))], 1).await;
    assert!(recorded.streams.is_empty());
    assert_eq!(fixture.reader.streams().await.expect("reads"), [newer]);
}

/// The operator says everything again whenever it or the recorder begins anew; all loops once woke for each stream.
#[tokio::test]
async fn what_is_told_again_is_no_change() {
    let fixture = catalogue().await;
    let told = |revision: u64, config: StreamConfig| {
        vec![Fact::Camera(revision, camera_config()), Fact::Stream(revision, Box::new(config))]
    };
    let changed = async |facts: Vec<Fact>| {
        let recorded = record(&fixture, facts, 0).await;
        (recorded.cameras.len(), recorded.streams.len(), recorded.lengthened)
    };
    assert_eq!(changed(told(1, stream_config())).await, (1, 1, false));
    assert_eq!(changed(told(1, stream_config())).await, (0, 0, false));
    // A revision that says the same counts nonetheless.
    assert_eq!(changed(told(3, stream_config())).await, (0, 0, false));
    let more = StreamConfig { replicas: 3, ..stream_config() };
    assert_eq!(changed(told(2, more)).await, (0, 0, false));
    let longer = StreamConfig { retention_seconds: stream_config().retention_seconds + 1, ..stream_config() };
    assert_eq!(changed(told(3, longer)).await, (0, 1, true));
    assert_eq!(changed(told(4, stream_config())).await, (0, 1, false));
    // A camera that a segment spoke of is news when it is told of.
    let fixture = catalogue().await;
    record(&fixture, segments(1, 0..1, 0), 0).await;
    assert_eq!(record(&fixture, configured(), 1).await.cameras, [camera_config()]);
}

#[tokio::test]
async fn pins_for_ever_are_never_made_to_last_longer() {
    let fixture = catalogue().await;
    let for_ever = StreamConfig { retention_seconds: u64::MAX, ..stream_config() };
    record(&fixture, vec![Fact::Stream(1, Box::new(for_ever))], 0).await;
    record(&fixture, segments(1, 0..3, 0), 30).await;
    let id = roll_up(&fixture, 30).await;
    fixture.writer.rollup_stored(id, at(31)).await.expect("stores");
    let to_renew = async || fixture.reader.rollups_to_renew(&[], 10).await.expect("reads").len();
    assert_eq!(to_renew().await, 1);
    fixture.writer.pin_renewed(id, Timestamp::MAX).await.expect("notes");
    assert_eq!(to_renew().await, 0);
}

/// All streams' expiry was one transaction: a fleet's backlog of it kept announcements waiting for minutes.
#[tokio::test]
async fn what_is_heard_while_much_expires_gets_its_turn() {
    let fixture = catalogue().await;
    let streams = 8;
    for number in 0..streams {
        let stream = StreamId(uuid::Uuid::from_u128(number));
        let brief = StreamConfig { stream, retention_seconds: 100, ..stream_config() };
        record(&fixture, vec![Fact::Stream(1, Box::new(brief))], 0).await;
        expired_rollups(&fixture.writer, stream, 150).await;
    }
    let (expired, (heard, gone)) =
        tokio::join!(async { fixture.writer.expire(at(1000)).await.expect("expires") }, async {
            let heard = record(&fixture, segments(1, 0..1, 0), 0).await.segments;
            (heard, graves_in_all(&fixture.reader).await)
        });
    assert_eq!((heard, expired), (1, 150 * u64::try_from(streams).expect("small")));
    assert!(gone < expired, "it was heard only after {gone} of {expired}");
}

#[tokio::test]
async fn what_retention_removes_is_unpinned_and_says_so() {
    let fixture = catalogue().await;
    let brief = StreamConfig { retention_seconds: 100, ..stream_config() };
    record(&fixture, vec![Fact::Stream(1, Box::new(brief))], 0).await;
    record(&fixture, segments(1, 0..3, 0), 30).await;
    let id = roll_up(&fixture, 30).await;
    fixture.writer.rollup_stored(id, at(31)).await.expect("stores");
    assert_eq!(fixture.reader.next_expiry().await.expect("reads"), Some(at(112)));
    assert_eq!(fixture.writer.expire(at(111)).await.expect("expires"), 0);
    assert_eq!(fixture.writer.expire(at(112)).await.expect("expires"), 1);
    assert_eq!(fixture.reader.segment(&key(1, 1)).await.expect("reads"), Media::Removed);
    assert_eq!(fixture.reader.segment(&key(1, 7)).await.expect("reads"), Media::Unknown);
    let camera = fixture.reader.camera("demo", "camera").await.expect("reads").expect("known");
    assert_eq!(fixture.reader.removed_until(&camera).await.expect("reads"), Some(at(12)));
    // A repetition does not bring it back.
    record(&fixture, segments(1, 0..3, 0), 120).await;
    assert!(fixture.reader.entries(&camera, "source", at(0), at(60)).await.expect("reads").is_empty());
    let grave = graves(&fixture).await.remove(0);
    fixture.writer.unpinned(grave.id, at(121)).await.expect("notes");
    assert!(graves(&fixture).await.is_empty());
}

/// Pins that have to go.
async fn graves(fixture: &Fixture) -> Vec<Tombstone> {
    let StreamConfig { pipeline, group, .. } = stream_config();
    fixture.reader.tombstones(&pipeline.namespace, &group, 0, 10).await.expect("reads")
}

/// The sweep knows the name of a stream only. Zeros in place of what it does not know once ended a month of retention.
#[tokio::test]
async fn an_orphaned_stream_keeps_its_footage_and_settings_or_goes_as_its_pipeline_said() {
    for (delete, left) in [(true, 0), (false, 3)] {
        let fixture = catalogue().await;
        let told = StreamConfig { delete_with_pipeline: delete, ..stream_config() };
        record(&fixture, vec![Fact::Stream(1_800_000_000, Box::new(told.clone()))], 0).await;
        record(&fixture, segments(1, 0..3, 0), 30).await;
        let id = roll_up(&fixture, 30).await;
        fixture.writer.rollup_stored(id, at(31)).await.expect("stores");
        let recorded = record(&fixture, vec![Fact::Orphan(told.stream)], 40).await;
        let ended = StreamConfig { deleted: true, ..told.clone() };
        assert_eq!(recorded.streams, std::slice::from_ref(&ended));
        assert_eq!(fixture.reader.streams().await.expect("reads"), [ended]);
        fixture.writer.expire(at(100)).await.expect("expires");
        let camera = fixture.reader.camera("demo", "camera").await.expect("reads");
        let entries = match &camera {
            Some(camera) => fixture.reader.entries(camera, "source", at(0), at(60)).await.expect("reads").len(),
            None => 0,
        };
        assert_eq!(entries, left);
        // Said twice, it is not news.
        assert!(record(&fixture, vec![Fact::Orphan(told.stream)], 41).await.streams.is_empty());
    }
}

/// The last word about a stream comes from somebody who may not know how its footage is kept.
#[tokio::test]
async fn the_end_of_a_stream_changes_nothing_of_its_retention() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    let ended = StreamConfig { deleted: true, retention_seconds: 0, group: String::new(), ..stream_config() };
    record(&fixture, vec![Fact::Stream(7, Box::new(ended))], 1).await;
    assert_eq!(fixture.reader.streams().await.expect("reads"), [StreamConfig { deleted: true, ..stream_config() }]);
}

#[tokio::test]
async fn a_deleted_pipeline_takes_its_footage_along_or_leaves_it() {
    for (delete, left) in [(true, 0), (false, 3)] {
        let fixture = catalogue().await;
        record(&fixture, configured(), 0).await;
        record(&fixture, segments(1, 0..3, 0), 30).await;
        roll_up(&fixture, 30).await;
        let ended = StreamConfig { deleted: true, delete_with_pipeline: delete, ..stream_config() };
        record(&fixture, vec![Fact::Stream(2, Box::new(ended))], 40).await;
        let camera = fixture.reader.camera("demo", "camera").await.expect("reads").expect("known");
        assert_eq!(fixture.reader.entries(&camera, "source", at(0), at(60)).await.expect("reads").len(), left);
        assert_eq!(graves(&fixture).await.len(), usize::from(delete));
        // Its last words come late.
        let late = record(&fixture, segments(1, 3..4, 0), 41).await;
        assert_eq!(late.unwanted, u64::from(delete));
    }
}

/// The answer to the one was written down after the other had removed what it is about: no batch with both was ever taken,
/// and nothing behind it.
#[tokio::test]
async fn a_segment_repeated_just_before_its_pipeline_takes_all_footage_along_stops_nothing() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    record(&fixture, segments(1, 0..3, 0), 30).await;
    let ended = StreamConfig { deleted: true, delete_with_pipeline: true, ..stream_config() };
    let last_words = [segments(1, 2..3, 0), vec![rung(1, 2), rung(1, 2)], vec![Fact::Stream(2, Box::new(ended))]];
    assert_eq!(record(&fixture, last_words.concat(), 40).await.streams.len(), 1);
}

#[tokio::test]
async fn a_recreated_camera_brings_the_footage_of_its_name_along() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    record(&fixture, segments(1, 0..3, 0), 30).await;
    let mut reborn = camera_config();
    reborn.camera.uid = "another-uid".into();
    record(&fixture, vec![Fact::Camera(1, reborn)], 50).await;
    let camera = fixture.reader.camera("demo", "camera").await.expect("reads").expect("known");
    assert_eq!(camera.rows.len(), 2);
    assert_eq!(fixture.reader.entries(&camera, "source", at(0), at(60)).await.expect("reads").len(), 3);
}

fn report(phase: Phase, session: Option<u128>) -> InstanceReport {
    InstanceReport { phase, session: session.map(super::fixture::session), ..InstanceReport::default() }
}

async fn state(fixture: &Fixture, report: InstanceReport, seconds: i64) {
    record(fixture, vec![Fact::State { instance: instance(), at: at(seconds), report: Box::new(report) }], seconds)
        .await;
}

#[tokio::test]
async fn every_start_and_stop_is_in_the_ledger_once() {
    let fixture = catalogue().await;
    state(&fixture, report(Phase::Starting, None), 1).await;
    state(&fixture, report(Phase::Running, Some(1)), 2).await;
    state(&fixture, report(Phase::Running, Some(1)), 3).await;
    state(&fixture, report(Phase::Running, Some(1)), 3).await;
    state(&fixture, report(Phase::Paused, None), 4).await;
    // Overtaken on the way.
    state(&fixture, report(Phase::Running, Some(1)), 3).await;
    state(&fixture, report(Phase::Running, Some(2)), 5).await;
    state(&fixture, report(Phase::Running, Some(3)), 6).await;
    let kinds: Vec<_> = fixture.reader.ledger(0, 100).await.expect("reads").into_iter().map(|row| row.kind).collect();
    assert_eq!(kinds, ["start", "stop", "start", "stop", "start"]);
    assert_eq!(fixture.reader.verify_ledger().await.expect("reads"), (5, None));
}

#[tokio::test]
async fn an_instance_that_was_removed_has_stopped() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    state(&fixture, report(Phase::Running, Some(1)), 2).await;
    let ended = StreamConfig { deleted: true, ..stream_config() };
    record(&fixture, vec![Fact::Stream(2, Box::new(ended))], 40).await;
    assert_eq!(fixture.reader.ledger(0, 100).await.expect("reads")[1].kind, "stop");
    assert!(fixture.reader.instances().await.expect("reads").is_empty());
}

#[tokio::test]
async fn a_transcoder_has_stopped_when_its_ladder_or_its_pipeline_goes() {
    let transcoder = InstanceUid::of("pipeline-uid", "camera-uid", Role::Transcoder, 0);
    let with = StreamConfig { transcoder: Some(transcoder), ..stream_config() };
    for end in [stream_config(), StreamConfig { deleted: true, ..stream_config() }] {
        let fixture = catalogue().await;
        record(&fixture, vec![Fact::Stream(1, Box::new(with.clone()))], 0).await;
        let running = Box::new(report(Phase::Running, None));
        record(&fixture, vec![Fact::State { instance: transcoder, at: at(1), report: running }], 1).await;
        // What is no news of the ladder stops nothing.
        let edited = StreamConfig { replicas: 3, ..with.clone() };
        record(&fixture, vec![Fact::Stream(2, Box::new(edited))], 2).await;
        assert_eq!(fixture.reader.ledger(0, 100).await.expect("reads").len(), 1);
        record(&fixture, vec![Fact::Stream(3, Box::new(end))], 3).await;
        let rows = fixture.reader.ledger(0, 100).await.expect("reads");
        assert_eq!((rows.len(), rows[1].kind.as_str()), (2, "stop"));
        assert!(rows[1].body.contains(&transcoder.to_string()), "{}", rows[1].body);
    }
}

#[tokio::test]
async fn what_was_checked_of_the_ledger_is_not_read_again_for_each_page() {
    let fixture = catalogue().await;
    for (second, phase) in [(1, Phase::Running), (2, Phase::Paused)] {
        state(&fixture, report(phase, Some(1)), second).await;
    }
    assert_eq!(fixture.reader.verify_ledger().await.expect("reads"), (2, None));
    let pool = &fixture.writer.pool;
    sqlx::query("DROP TRIGGER ledger_is_append_only_update").execute(pool).await.expect("drops");
    sqlx::query("UPDATE ledger SET body = '{}' WHERE id = 1").execute(pool).await.expect("alters");
    state(&fixture, report(Phase::Running, Some(2)), 3).await;
    assert_eq!(fixture.reader.verify_ledger().await.expect("reads"), (3, None), "only what is new");
    state(&fixture, report(Phase::Paused, None), 4).await;
    sqlx::query("UPDATE ledger SET body = '{}' WHERE id = 4").execute(pool).await.expect("alters");
    assert_eq!(fixture.reader.verify_ledger().await.expect("reads"), (3, Some(4)));
}

#[tokio::test]
async fn a_master_playlist_says_what_the_newest_part_needs() {
    let fixture = catalogue().await;
    let lean = Segment { blob: Blob { bytes: 1, ..blob(b"lean") }, width: 426, height: 240, ..segment(1, 1, 0) };
    record(&fixture, [segments(1, 0..1, 0), vec![Fact::Segment(Box::new(lean))]].concat(), 20).await;
    let newest = variant(&fixture, "source", at(0), at(60)).await.expect("some");
    assert_eq!((newest.width, newest.height, newest.rates.peak), (426, 240, segment(1, 0, 0).blob.bytes * 2));
}

/// What a master playlist says of the range, in a rendition.
async fn variant(fixture: &Fixture, rendition: &str, from: Timestamp, to: Timestamp) -> Option<Variant> {
    let camera = fixture.reader.camera("demo", "camera").await.expect("reads").expect("known");
    fixture.reader.variant(&camera, rendition, from, to, "uri".to_owned()).await.expect("reads")
}

#[tokio::test]
async fn the_bit_rates_of_a_master_playlist_are_those_of_the_whole_range() {
    let fixture = catalogue().await;
    let sized = |seq, bytes| Segment { blob: Blob { bytes, ..blob(b"sized") }, ..segment(1, seq, 0) };
    let facts = [sized(0, 8_000)].into_iter().chain((1..1_200).map(|seq| sized(seq, 2_000)));
    record(&fixture, facts.map(|segment| Fact::Segment(Box::new(segment))).collect(), 5_000).await;
    let whole = variant(&fixture, "source", at(0), at(4_800)).await.expect("some");
    assert_eq!(whole.rates, Rates { peak: 16_000, mean: 4_010 });
}

#[tokio::test]
async fn sessions_and_init_sections_without_footage_go_long_after_it() {
    let fixture = catalogue().await;
    let brief = StreamConfig { retention_seconds: 100, ..stream_config() };
    record(&fixture, vec![Fact::Camera(1, camera_config()), Fact::Stream(1, Box::new(brief))], 0).await;
    // The first is older than any that a player or an agent could still ask about; the second is the newest.
    record(&fixture, [segments(1, 0..3, 0), segments(2, 0..1, 20)].concat(), 30).await;
    roll_up(&fixture, 30).await;
    let count = async |table: &str| -> i64 {
        let query = format!("SELECT count(*) FROM {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&fixture.writer.pool).await.expect("counts")
    };
    assert_eq!((count("sessions").await, count("inits").await), (2, 2));
    assert_eq!(fixture.writer.expire(at(200)).await.expect("expires"), 1);
    assert_eq!((count("segments").await, count("sessions").await, count("tracks").await), (0, 1, 1));
    assert_eq!(count("inits").await, 0);
}

#[tokio::test]
async fn the_ledger_refuses_to_be_altered_and_shows_it_when_forced() {
    let fixture = catalogue().await;
    state(&fixture, report(Phase::Running, Some(1)), 2).await;
    state(&fixture, report(Phase::Paused, None), 3).await;
    let pool = &fixture.writer.pool;
    assert!(sqlx::query("UPDATE ledger SET kind = 'x'").execute(pool).await.is_err());
    assert!(sqlx::query("DELETE FROM ledger").execute(pool).await.is_err());
    sqlx::query("DROP TRIGGER ledger_is_append_only_update").execute(pool).await.expect("drops");
    sqlx::query("UPDATE ledger SET body = '{}' WHERE id = 2").execute(pool).await.expect("alters");
    assert_eq!(fixture.reader.verify_ledger().await.expect("reads").1, Some(2));
}

#[tokio::test]
async fn only_the_writer_can_write() {
    let fixture = catalogue().await;
    assert!(sqlx::query("DELETE FROM segments").execute(&fixture.reader.pool).await.is_err());
}

#[tokio::test]
async fn a_day_is_read_quickly() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    record(&fixture, segments(1, 0..21_600, 0), 0).await;
    let camera = fixture.reader.camera("demo", "camera").await.expect("reads").expect("known");
    let began = std::time::Instant::now();
    let entries = fixture.reader.entries(&camera, "source", at(0), at(86_400)).await.expect("reads");
    assert_eq!(entries.len(), 21_600);
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    let mark: Timestamp = entries.last().expect("some").end;
    assert_eq!(mark, at(86_400) + SignedDuration::ZERO);
}

/// A segment of another rendition with the numbers and times of the source's.
fn rung(n: u128, seq: u64) -> Fact {
    let source = segment(n, seq, 0);
    let key = SegmentKey { rendition: "480p".into(), ..source.key.clone() };
    let blob = blob(format!("rung {n}/{seq}").as_bytes());
    Fact::Segment(Box::new(Segment { key, blob, height: 480, width: 854, ..source }))
}

fn lost_rung(n: u128, seq: u64) -> Fact {
    let Fact::Gap(gap) = lost(n, Some(seq), 4, GapReason::SegmentLost) else { unreachable!("a gap") };
    Fact::Gap(Gap { rendition: Some("480p".into()), ..gap })
}

#[tokio::test]
async fn renditions_are_catalogued_beside_the_source_and_told_one_by_one() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    // The newest first, and number 0 never.
    record(&fixture, [segments(1, 0..3, 0), vec![rung(1, 2), rung(1, 1)]].concat(), 20).await;
    let camera = fixture.reader.camera("demo", "camera").await.expect("reads").expect("known");
    assert_eq!(fixture.reader.renditions(&camera).await.expect("reads"), ["source", "480p"]);
    assert_eq!(fixture.reader.entries(&camera, "480p", at(0), at(60)).await.expect("reads").len(), 2);
    let said = variant(&fixture, "480p", at(0), at(60)).await.expect("some");
    assert_eq!((said.height, said.frame_rate), (480, 25_000));
    assert_eq!(variant(&fixture, "480p", at(4000), at(5000)).await, None);

    let id = roll_up(&fixture, 30).await;
    assert_eq!(fixture.reader.members(id).await.expect("reads").len(), 5 + 2, "one pin for all of them");
    fixture.writer.rollup_stored(id, at(40)).await.expect("notes");
    let mut exactly = Vec::new();
    for message in fixture.reader.outgoing(1000).await.expect("reads") {
        if message.key.ends_with(".stored") {
            let stored: Envelope<Stored> = serde_json::from_str(&message.body).expect("parses");
            exactly.extend(stored.data.exactly.into_iter().map(|key| (key.rendition, key.seq)));
        }
    }
    assert_eq!(exactly, [("480p".to_owned(), 1), ("480p".to_owned(), 2)]);
    assert_eq!(told(&fixture).await, [(session(1).to_string(), 2)], "the source by its mark");
    let stored = async || fixture.reader.progress().await.expect("reads")[0].stored_until;
    assert_eq!(stored().await, Some(at(12)));

    // An agent that missed the answer asks again.
    assert!(record(&fixture, vec![rung(1, 1)], 50).await.outgoing);
    assert!(!record(&fixture, vec![rung(1, 0)], 50).await.outgoing, "that one is new");
    assert_eq!(stored().await, Some(at(12)), "a slow ladder is no footage that waits");
}

#[tokio::test]
async fn a_lost_rung_costs_neither_the_source_nor_the_coverage() {
    let fixture = catalogue().await;
    record(&fixture, configured(), 0).await;
    record(&fixture, [segments(1, 0..2, 0), vec![rung(1, 1)]].concat(), 20).await;
    record(&fixture, vec![lost_rung(1, 1)], 30).await;
    let camera = fixture.reader.camera("demo", "camera").await.expect("reads").expect("known");
    assert_eq!(fixture.reader.entries(&camera, "source", at(0), at(60)).await.expect("reads").len(), 2);
    assert!(fixture.reader.entries(&camera, "480p", at(0), at(60)).await.expect("reads").is_empty());
    assert!(fixture.reader.gaps(&camera, at(0), at(60)).await.expect("reads").is_empty());
}
