//! The loops against a storage group with the traps of the real one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{Metrics, Recorder, hear::Heard, roll::Rolling};
use crate::{
    catalogue::{Fact, fixture, fixture::*},
    clients::groups::Groups,
    domain::{
        control::{Envelope, InstanceReport, Phase, Readd, Stored, StreamConfig},
        id::{InstanceUid, Role},
        segment::GapReason,
        token::MasterKey,
    },
};

mod group;

use group::FakeGroup;

struct World {
    group: FakeGroup,
    recorder: Recorder,
    folder: tempfile::TempDir,
}

async fn world() -> World {
    let group = group::group().await;
    let Fixture { writer, reader, _folder: folder } = catalogue().await;
    let recorder = recorder(&group, writer, reader);
    let world = World { group, recorder, folder };
    world.record(configured()).await;
    world
}

fn recorder(group: &FakeGroup, writer: crate::catalogue::Writer, reader: crate::catalogue::Reader) -> Recorder {
    reaching(group.server.uri(), writer, reader)
}

fn reaching(groups: String, writer: crate::catalogue::Writer, reader: crate::catalogue::Reader) -> Recorder {
    let groups = Groups::new(MasterKey::new("k"), groups.clone(), groups);
    Recorder::new(writer, reader, Arc::new(groups), Metrics::default(), |_| {})
}

impl World {
    async fn record(&self, facts: Vec<Fact>) {
        // Long ago: every window is closed by the clock.
        self.recorder.writer.record(&facts, at(600)).await.expect("records");
    }

    /// Rounds with a memory of their own, so that no backoff is waited for.
    async fn rounds(&self, count: usize) {
        for _ in 0..count {
            self.recorder.round(&mut Rolling::default()).await.expect("the catalogue works");
        }
    }

    /// As after kill -9: the same file, nothing in memory.
    async fn killed(self) -> Self {
        let Self { group, recorder, folder } = self;
        drop(recorder);
        let (writer, reader) = crate::catalogue::open(folder.path()).await.expect("opens");
        let recorder = self::recorder(&group, writer, reader);
        Self { group, recorder, folder }
    }

    async fn told<T: serde::de::DeserializeOwned>(&self, word: &str) -> Vec<T> {
        let messages = self.recorder.reader.outgoing(100).await.expect("reads");
        messages
            .into_iter()
            .filter(|message| message.key.ends_with(word))
            .map(|message| serde_json::from_str::<Envelope<T>>(&message.body).expect("parses").data)
            .collect()
    }

    async fn stored_up_to(&self) -> Option<u64> {
        self.told::<Stored>("stored").await.last().map(|stored| stored.upto[0].seq)
    }

    async fn problem(&self) -> Option<String> {
        let summaries = self.recorder.summaries().await.expect("reads");
        summaries[0].streams[0].problem.as_ref().map(|problem| problem.reason.clone())
    }
}

#[tokio::test]
async fn footage_becomes_a_rollup_a_pin_and_stored() {
    let world = world().await;
    world.record(segments(1, 0..40, 0)).await;
    world.rounds(1).await;
    // 40 segments of 4 s lie in three minutes.
    assert_eq!(world.group.get(|state| (state.built, state.pins.len())), (3, 3));
    assert_eq!(world.stored_up_to().await, None);
    world.rounds(1).await;
    assert_eq!(world.stored_up_to().await, Some(39));
    let summary = world.recorder.summaries().await.expect("reads").remove(0);
    assert_eq!(summary.streams[0].stored_until, Some(at(160)));
    assert_eq!(summary.streams[0].catalogued_until, Some(at(160)));
    assert!(world.recorder.round(&mut Rolling::default()).await.expect("works").is_none(), "at rest no timer runs");
}

#[tokio::test]
async fn pins_are_spread_over_the_peers() {
    let world = world().await;
    world.record(segments(1, 0..90, 0)).await;
    world.rounds(1).await;
    let mut used: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    world.group.get(|state| {
        for (_, allocations) in &state.asked {
            allocations.split(',').for_each(|peer| *used.entry(peer.to_owned()).or_default() += 1);
        }
    });
    assert_eq!(used.values().copied().collect::<Vec<_>>(), [4, 4, 4]);
}

#[tokio::test]
async fn a_late_segment_forms_an_additional_part() {
    let world = world().await;
    world.record([segments(1, 0..3, 0), segments(1, 4..6, 0)].concat()).await;
    world.rounds(2).await;
    assert_eq!(world.stored_up_to().await, Some(2));
    world.record(segments(1, 3..4, 0)).await;
    world.rounds(2).await;
    assert_eq!(world.group.get(|state| state.built), 2);
    assert_eq!(world.stored_up_to().await, Some(5));
}

#[tokio::test]
async fn trap_a_refused_pin_that_was_made_as_asked_counts() {
    let world = world().await;
    world.group.set(|state| state.refuse_pin = Some(false));
    world.record(segments(1, 0..3, 0)).await;
    world.rounds(2).await;
    assert_eq!(world.stored_up_to().await, Some(2));
    assert_eq!(world.problem().await, None);
}

#[tokio::test]
async fn trap_a_refused_pin_made_with_half_its_options_is_asked_for_again() {
    let world = world().await;
    world.group.set(|state| state.refuse_pin = Some(true));
    world.record(segments(1, 0..3, 0)).await;
    world.rounds(1).await;
    assert_eq!(world.problem().await.as_deref(), Some("PinRefused"));
    world.rounds(2).await;
    assert_eq!(world.stored_up_to().await, Some(2));
    let whole =
        world.group.get(|state| state.pins.values().all(|record| record["metadata"]["camera"] == "demo/camera"));
    assert!(whole, "the pin carries all it was asked for");
}

#[tokio::test]
async fn trap_a_dead_kubo_delays_and_loses_nothing() {
    let world = world().await;
    world.group.set(|state| state.kubo_dead = true);
    world.record(segments(1, 0..3, 0)).await;
    world.rounds(3).await;
    assert_eq!((world.stored_up_to().await, world.problem().await.as_deref()), (None, Some("StorageRefused")));
    world.group.set(|state| state.kubo_dead = false);
    world.rounds(2).await;
    assert_eq!((world.stored_up_to().await, world.problem().await), (Some(2), None));
}

#[tokio::test]
async fn too_few_nodes_are_named() {
    let world = world().await;
    world.group.set(|state| state.peers = 1);
    world.record(segments(1, 0..3, 0)).await;
    world.rounds(1).await;
    assert_eq!(world.problem().await.as_deref(), Some("TooFewStorageNodes"));
    world.group.set(|state| state.peers = 2);
    world.rounds(2).await;
    assert_eq!(world.stored_up_to().await, Some(2));
}

#[tokio::test]
async fn a_pin_on_too_few_peers_is_not_stored_and_after_two_minutes_the_bytes_are_asked_for() {
    let world = world().await;
    world.group.set(|state| state.holders = 1);
    world.record(segments(1, 0..3, 0)).await;
    world.rounds(3).await;
    assert_eq!(world.stored_up_to().await, None);
    fixture::age_pins(&world.recorder.writer, 60).await;
    world.rounds(1).await;
    assert_eq!(world.problem().await.as_deref(), Some("PinPending"));
    fixture::age_pins(&world.recorder.writer, 61).await;
    world.rounds(2).await;
    let readds = world.told::<Readd>("readd").await;
    assert_eq!((readds.len(), readds[0].segments.len()), (1, 3), "once in two minutes");
    assert_eq!(world.group.get(|state| (state.built, state.asked.len())), (2, 2), "built and asked for anew");
    world.group.set(|state| state.holders = 2);
    world.rounds(1).await;
    assert_eq!(world.stored_up_to().await, Some(2));
}

#[tokio::test]
async fn trap_a_pin_on_a_node_whose_kubo_died_is_made_elsewhere() {
    let world = world().await;
    world.record(segments(1, 0..3, 0)).await;
    world.rounds(1).await;
    let chosen = world.group.get(|state| state.asked[0].1.clone());
    let victim = (1..=3).find(|n| chosen.starts_with(&group::peer(*n))).expect("one of the three");
    world.group.set(|state| state.dead.extend([victim]));
    world.rounds(1).await;
    assert_eq!(world.stored_up_to().await, None);
    fixture::age_pins(&world.recorder.writer, 121).await;
    world.rounds(1).await;
    assert_eq!(world.group.get(|state| state.pins.len()), 0, "taken off");
    world.rounds(1).await;
    assert_eq!(world.group.get(|state| state.pins.len()), 0, "not within the batch window");
    fixture::age_pins(&world.recorder.writer, 4).await;
    world.rounds(2).await;
    assert_eq!(world.stored_up_to().await, Some(2));
    assert_ne!(world.group.get(|state| state.asked[1].1.clone()), chosen);
}

#[tokio::test]
async fn a_slow_pin_does_not_hold_up_the_next_minute() {
    let world = world().await;
    world.group.set(|state| state.holders = 1);
    world.record(segments(1, 0..3, 0)).await;
    world.rounds(2).await;
    fixture::age_pins(&world.recorder.writer, 60).await;
    world.record(segments(1, 15..18, 0)).await;
    let mut rolling = Rolling::default();
    world.recorder.round(&mut rolling).await.expect("works");
    world.recorder.round(&mut rolling).await.expect("works");
    assert_eq!(world.group.get(|state| state.pins.len()), 2);
}

#[tokio::test]
async fn killed_at_any_step_the_loop_goes_on() {
    let mut world = world().await;
    world.record(segments(1, 0..3, 0)).await;
    world.group.set(|state| state.kubo_dead = true);
    world.rounds(1).await; // membership is committed, nothing is built
    world = world.killed().await;
    world.group.set(|state| (state.kubo_dead, state.peers) = (false, 0));
    world.rounds(1).await; // built, nobody to pin
    world = world.killed().await;
    assert_eq!(world.group.get(|state| (state.built, state.asked.len())), (1, 0));
    world.group.set(|state| state.peers = 3);
    world.rounds(1).await; // asked
    // The cluster forgot it, as a peer that is killed within its batch window does.
    world.group.set(|state| state.pins.clear());
    world = world.killed().await;
    world.rounds(1).await;
    assert_eq!(world.stored_up_to().await, None);
    fixture::age_pins(&world.recorder.writer, 11).await;
    world.rounds(2).await;
    world = world.killed().await;
    assert_eq!(world.stored_up_to().await, Some(2));
    assert_eq!(world.group.get(|state| (state.built, state.pins.len())), (1, 1));
}

#[tokio::test]
async fn a_lost_member_is_left_out_and_the_rest_is_pinned() {
    let world = world().await;
    world.group.set(|state| state.holders = 0);
    world.record(segments(1, 0..3, 0)).await;
    world.rounds(2).await;
    world.record(vec![lost(1, Some(1), 4, GapReason::SegmentLost)]).await;
    world.group.set(|state| state.holders = 2);
    world.rounds(2).await;
    assert_eq!(world.stored_up_to().await, Some(2));
    let now = Timestamp::now();
    // Its retention lies in the past of this machine's clock; the tombstone of the first directory is what counts.
    assert!(world.recorder.expiry_round(at(700)).await.expect("works").open);
    fixture::age_tombstones(&world.recorder.writer, now.as_second()).await;
    assert!(!world.recorder.expiry_round(at(700)).await.expect("works").open);
    assert_eq!(world.group.get(|state| state.pins.len()), 1);
}

/// With a hundred cameras there are news four times a second, and each asked the cluster about every pin on its way.
#[tokio::test]
async fn news_do_not_make_the_cluster_be_asked_more_often() {
    let world = world().await;
    world.group.set(|state| state.holders = 0);
    world.record(segments(1, 0..3, 0)).await;
    let mut rolling = Rolling::default();
    let mut round = async || world.recorder.round(&mut rolling).await.expect("works");
    let begun = Instant::now();
    round().await;
    for _ in 0..10 {
        assert!(round().await.is_some_and(|pause| pause <= Duration::from_secs(1)));
    }
    let looked = world.group.get(|state| state.looked);
    assert!(looked as u64 <= begun.elapsed().as_secs(), "once a second: {looked} in {:?}", begun.elapsed());
    world.record(segments(1, 15..18, 0)).await;
    round().await;
    assert_eq!(world.group.get(|state| state.pins.len()), 2, "what is new is pinned at once");
}

fn brief() -> Fact {
    Fact::Stream(2, Box::new(StreamConfig { retention_seconds: 1000, ..stream_config() }))
}

#[tokio::test]
async fn the_end_of_retention_unpins_and_forgets() {
    let world = world().await;
    world.record([vec![brief()], segments(1, 0..3, 0)].concat()).await;
    world.rounds(2).await;
    assert!(!world.recorder.expiry_round(at(1011)).await.expect("works").open);
    assert_eq!(world.group.get(|state| state.pins.len()), 1);
    let outcome = world.recorder.expiry_round(at(1012)).await.expect("works");
    assert!(outcome.open, "not believed before the cluster was looked at again");
    fixture::age_tombstones(&world.recorder.writer, Timestamp::now().as_second()).await;
    assert!(!world.recorder.expiry_round(at(1013)).await.expect("works").open);
    assert_eq!(world.group.get(|state| state.pins.len()), 0);
}

#[tokio::test]
async fn trap_a_deletion_within_the_batch_window_is_not_believed() {
    let world = world().await;
    world.record([vec![brief()], segments(1, 0..3, 0)].concat()).await;
    world.rounds(2).await;
    world.group.set(|state| state.deaf_deletions = 2);
    for _ in 0..4 {
        world.recorder.expiry_round(at(1012)).await.expect("works");
        fixture::age_tombstones(&world.recorder.writer, Timestamp::now().as_second()).await;
    }
    assert_eq!(world.group.get(|state| (state.deletions, state.pins.len())), (3, 0));
    assert!(!world.recorder.expiry_round(at(1012)).await.expect("works").open);
}

#[tokio::test]
async fn a_deleted_pipeline_takes_its_pins_along_when_told_so() {
    let world = world().await;
    world.record(segments(1, 0..40, 0)).await;
    world.rounds(2).await;
    let ended = StreamConfig { deleted: true, delete_with_pipeline: true, ..stream_config() };
    world.record(vec![Fact::Stream(2, Box::new(ended))]).await;
    for _ in 0..2 {
        world.recorder.expiry_round(at(700)).await.expect("works");
        fixture::age_tombstones(&world.recorder.writer, Timestamp::now().as_second()).await;
    }
    assert_eq!(world.group.get(|state| state.pins.len()), 0);
    assert!(world.recorder.reader.tombstone_groups().await.expect("reads").is_empty());
}

#[tokio::test]
async fn a_longer_retention_makes_pins_last_longer() {
    let world = world().await;
    world.record([vec![brief()], segments(1, 0..3, 0)].concat()).await;
    world.rounds(2).await;
    assert!(world.recorder.renew_round().await.expect("works"));
    assert_eq!(world.group.get(|state| state.asked.len()), 1);
    let longer = StreamConfig { retention_seconds: 10 * 365 * 24 * 3600, ..stream_config() };
    world.record(vec![Fact::Stream(3, Box::new(longer))]).await;
    assert!(world.recorder.renew_round().await.expect("works"));
    let (asked, expires) = world.group.get(|state| {
        (state.asked.clone(), state.pins.values().next().expect("one")["expire_at"].as_str().map(str::to_owned))
    });
    assert_eq!((asked.len(), &asked[0]), (2, &asked[1]), "nothing moves");
    assert!(expires.expect("a date").starts_with("2036-01"));
    assert!(world.recorder.renew_round().await.expect("works"));
    assert_eq!(world.group.get(|state| state.asked.len()), 2);
}

/// A world of groups whose names are ports: this stream's answers, group `9` is gone for good.
async fn beside_a_group_that_is_gone(retention_seconds: u64) -> (World, StreamConfig) {
    let group = group::group().await;
    let Fixture { writer, reader, _folder: folder } = catalogue().await;
    let config =
        StreamConfig { group: group.server.address().port().to_string(), retention_seconds, ..stream_config() };
    let recorder = reaching("http://127.0.0.1:{group}".to_owned(), writer, reader);
    let world = World { group, recorder, folder };
    world.record(vec![Fact::Camera(1, camera_config()), Fact::Stream(1, Box::new(config.clone()))]).await;
    (world, config)
}

/// Five hundred tombstones of a namespace that was deleted with its nodes once stood before everybody else's for ever.
#[tokio::test]
async fn a_group_that_is_gone_holds_up_nobody_elses_end() {
    let (world, _) = beside_a_group_that_is_gone(1000).await;
    fixture::bury_in(&world.recorder.writer, "9", 1200).await;
    world.record(segments(1, 0..3, 0)).await;
    world.rounds(2).await;
    assert_eq!(world.group.get(|state| state.pins.len()), 1);
    for _ in 0..2 {
        assert!(world.recorder.expiry_round(at(1012)).await.expect("works").open);
        fixture::age_tombstones(&world.recorder.writer, Timestamp::now().as_second()).await;
    }
    assert_eq!(world.group.get(|state| state.pins.len()), 0);
    let groups = world.recorder.reader.tombstone_groups().await.expect("reads");
    assert_eq!(groups, [("demo".to_owned(), "9".to_owned())]);
}

/// A lengthened retention was carried out up to the first group that did not answer.
#[tokio::test]
async fn a_group_that_is_gone_holds_up_nobody_elses_renewal() {
    let (world, config) = beside_a_group_that_is_gone(1000).await;
    world.record(segments(1, 0..40, 0)).await;
    world.rounds(2).await;
    assert_eq!(world.group.get(|state| state.asked.len()), 3);
    fixture::move_oldest_rollup(&world.recorder.writer, "9").await;
    let longer = StreamConfig { retention_seconds: 10 * 365 * 24 * 3600, ..config };
    world.record(vec![Fact::Stream(2, Box::new(longer))]).await;
    assert!(!world.recorder.renew_round().await.expect("works"), "one is left to do");
    assert_eq!(world.group.get(|state| state.asked.len()), 5);
}

/// Whoever holds a namespace's broker password could speak for every camera of the installation.
#[tokio::test]
async fn agents_speak_for_their_own_namespace_only() {
    let world = world().await;
    let say = async |user: &str, fact: Fact| {
        let heard = Heard { fact, user: (!user.is_empty()).then(|| user.to_owned()) };
        world.recorder.take_in(&[heard], at(600)).await.expect("works")
    };
    let segment = || segments(1, 0..1, 0).remove(0);
    for stranger in ["dsn-other", "dsn", "", "demo"] {
        assert_eq!(say(stranger, segment()).await.segments, 0, "{stranger:?}");
    }
    assert_eq!(say("dsn-demo", segment()).await.segments, 1);
    // A loss that another namespace claims takes nothing away.
    say("dsn-other", lost(1, Some(0), 0, GapReason::SegmentLost)).await;
    assert_eq!(say("dsn-demo", segment()).await.duplicates, 1);
    // Nor does a stream of one's own under a stranger's camera, or its name.
    let stolen = |change: fn(&mut crate::domain::segment::Segment)| {
        let Fact::Segment(mut segment) = segment() else { unreachable!("a segment") };
        segment.key.stream = crate::domain::id::StreamId(uuid::Uuid::from_u128(77));
        change(&mut segment);
        Fact::Segment(segment)
    };
    assert_eq!(say("dsn-other", stolen(|s| s.camera_name = "other/camera".into())).await.segments, 0);
    assert_eq!(say("dsn-other", stolen(|s| s.camera = "new-uid".into())).await.segments, 0);
}

fn reports(instance: InstanceUid, seconds: i64) -> Fact {
    let report = InstanceReport { phase: Phase::Running, session: Some(session(1)), ..InstanceReport::default() };
    Fact::State { instance, at: at(seconds), report: Box::new(report) }
}

/// An agent could let instances of its invention, or another's transcoder, start and stop in the ledger.
#[tokio::test]
async fn an_agent_reports_of_its_own_instances_only() {
    let world = world().await;
    let transcoder = InstanceUid::of("pipeline-uid", "camera-uid", Role::Transcoder, 0);
    let with_ladder = StreamConfig { transcoder: Some(transcoder), ..stream_config() };
    world.record(vec![Fact::Stream(2, Box::new(with_ladder))]).await;
    let invented = InstanceUid::of("nobody", "nowhere", Role::Capture, 0);
    let say = async |namespace: &str, instance: InstanceUid, seconds: i64| {
        let heard = Heard { fact: reports(instance, seconds), user: Some(format!("dsn-{namespace}")) };
        let recorded = world.recorder.take_in(&[heard], at(600)).await.expect("works");
        recorded.instances.len()
    };
    for (namespace, instance, told) in [
        ("other", instance(), 0),
        ("other", transcoder, 0),
        ("other", invented, 0),
        ("demo", invented, 0),
        ("demo", instance(), 1),
        ("demo", transcoder, 1),
    ] {
        assert_eq!(say(namespace, instance, 1).await, told, "{namespace} of {instance}");
    }
    assert_eq!(world.recorder.reader.ledger(0, 10).await.expect("reads").len(), 2);
}

/// After an outage an agent may be back at the broker before the operator has told of its camera.
#[tokio::test]
async fn what_an_instance_says_before_it_is_known_is_in_the_ledger_once_it_is() {
    let group = group::group().await;
    let Fixture { writer, reader, _folder: folder } = catalogue().await;
    let recorder = recorder(&group, writer, reader);
    let world = World { group, recorder, folder };
    let heard = |namespace: &str, seconds: i64| Heard {
        fact: reports(instance(), seconds),
        user: Some(format!("dsn-{namespace}")),
    };
    let take_in = async |heard: Vec<Heard>| world.recorder.take_in(&heard, at(600)).await.expect("works");
    assert!(take_in(vec![heard("demo", 1)]).await.instances.is_empty());
    assert!(take_in(vec![heard("demo", 2)]).await.instances.is_empty());
    let told: Vec<Heard> = configured().into_iter().map(|fact| Heard { fact, user: None }).collect();
    assert_eq!(take_in(told).await.instances.len(), 1);
    let rows = world.recorder.reader.ledger(0, 10).await.expect("reads");
    assert_eq!(rows.iter().map(|row| row.kind.as_str()).collect::<Vec<_>>(), ["start"]);
    assert!(rows[0].body.contains(&at(2).to_string()), "its newest word: {}", rows[0].body);
}
