//! Runner, agent and transcoder of one pod: renditions take the way of the source, under its numbers, and the transcoder
//! is a participant of its own (rows K2, C1, C3).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use dsn::{
    clients::broker::{Broker, Publish},
    domain::{
        container::Container,
        control::{Activity, CONTROL_EXCHANGE, Command as Op, Envelope, InstanceReport, Phase, Stored, instance_key},
        id::{InstanceUid, Role, SessionId},
        ladder::{LadderAssignment, Rendition},
        segment::{SOURCE, Segment, SegmentKey},
        spool,
    },
};
use futures::StreamExt;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    agent_container::{Agent, START, log, operators_end, pod_of},
    broker::RabbitMq,
    camera::{Camera, Clip, free_port},
    capture_pod::CapturePod,
    storage,
    wait::eventually,
};

/// The transcoder's container.
pub struct Transcoder(Child);

impl Transcoder {
    pub fn start(pod: &CapturePod) -> Self {
        Self::with_ffmpeg(pod, "ffmpeg")
    }

    fn with_ffmpeg(pod: &CapturePod, ffmpeg: &str) -> Self {
        let log = fs::File::options().create(true).append(true).open(pod.path("transcoder.log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_dsn"))
            .arg("transcoder")
            .env("DSN_SPOOL", pod.path("spool"))
            .env("DSN_ASSIGNMENT", pod.path("assignment"))
            .env("DSN_FFMPEG", ffmpeg)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the transcoder starts");
        Self(child)
    }
}

impl Drop for Transcoder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One rendition, of 120 lines.
pub fn told(pod: &CapturePod, revision: u64, kbps: u32) -> Envelope<LadderAssignment> {
    let capture = &pod.assignment;
    let assignment = LadderAssignment {
        instance: InstanceUid::of(&capture.pipeline.uid, &capture.camera.uid, Role::Transcoder, 0),
        stream: capture.stream,
        activity: Activity::Running,
        pipeline: capture.pipeline.clone(),
        camera: capture.camera.clone(),
        renditions: vec![Rendition { name: "low".into(), height: 120, video_bitrate_kbps: kbps }],
    };
    let mut envelope = Envelope::unordered(assignment.instance.to_string(), "apply", Timestamp::now(), assignment);
    envelope.revision = revision;
    envelope
}

/// What the kubelet mounts.
pub fn mount_ladder(pod: &CapturePod, told: &Envelope<LadderAssignment>) {
    let text = serde_json::to_vec(told).expect("JSON");
    dsn::files::replace(&pod.path("config").join(spool::LADDER_FILE), &text, false).expect("writes");
}

/// What is heard on the events exchange.
#[derive(Default)]
struct Ear {
    segments: BTreeMap<(String, SessionId, u64), Segment>,
    words: BTreeSet<(String, String)>,
    acked: BTreeMap<String, u64>,
    reports: BTreeMap<String, InstanceReport>,
}

type Deliveries =
    futures::stream::BoxStream<'static, Result<dsn::clients::broker::Delivery, dsn::clients::broker::Error>>;

impl Ear {
    async fn until(&mut self, pod: &CapturePod, heard: &mut Deliveries, what: &str, wanted: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + 2 * START;
        while !wanted(self) {
            let Ok(Some(delivery)) = tokio::time::timeout_at(deadline, heard.next()).await else {
                let transcoder = fs::read_to_string(pod.path("transcoder.log")).unwrap_or_default();
                panic!("{what}: not heard; {:?}\n{}\n{transcoder}", self.words, log(pod));
            };
            let delivery = delivery.expect("a delivery");
            let envelope: Envelope<serde_json::Value> = serde_json::from_slice(&delivery.body).expect("an envelope");
            self.words.insert((envelope.uid.clone(), envelope.op.clone()));
            match envelope.op.as_str() {
                "segment" => {
                    let segment: Segment = serde_json::from_value(envelope.data).expect("a segment");
                    let SegmentKey { rendition, session, seq, .. } = segment.key.clone();
                    self.segments.insert((rendition, session, seq), segment);
                }
                "ack" => {
                    self.acked.insert(envelope.uid, envelope.data["revision"].as_u64().expect("a revision"));
                }
                "state" | "heartbeat" => {
                    self.reports.insert(envelope.uid, serde_json::from_value(envelope.data).expect("a report"));
                }
                _ => {}
            }
            delivery.ack().await.expect("acknowledged");
        }
    }

    /// Numbers of what was announced of a rendition.
    fn numbers(&self, rendition: &str) -> Vec<u64> {
        self.segments.keys().filter(|(name, ..)| name == rendition).map(|(.., seq)| *seq).collect()
    }

    fn count(&self, rendition: &str) -> usize {
        self.numbers(rendition).len()
    }

    fn has(&self, rendition: &str, seq: u64) -> bool {
        self.numbers(rendition).contains(&seq)
    }

    /// Lengths of some segments of a rendition.
    fn bytes(&self, rendition: &str, of: impl Fn(u64) -> bool) -> Vec<u64> {
        let all = self.segments.values().filter(|segment| segment.key.rendition == rendition && of(segment.key.seq));
        all.map(|segment| segment.blob.bytes).collect()
    }

    /// What an instance says that is wrong.
    fn problem_of(&self, uid: InstanceUid) -> Option<&str> {
        Some(&self.reports.get(&uid.to_string())?.problem.as_ref()?.reason)
    }
}

fn key(pod: &CapturePod, rendition: &str, session: SessionId, seq: u64) -> SegmentKey {
    SegmentKey { stream: pod.assignment.stream, rendition: rendition.into(), session, seq }
}

/// Publishes something for an instance, as operator and recorder do.
async fn publish<T: Serialize>(broker: &Broker, to: InstanceUid, op: Op, message: &Envelope<T>) {
    broker.publish(CONTROL_EXCHANGE, &instance_key(to, op), message, Publish::mandatory()).await.expect("told");
}

async fn tell_stored(broker: &Broker, pod: &CapturePod, stored: Stored) {
    let capture = pod.assignment.instance;
    let message = Envelope::unordered(capture.to_string(), "stored", Timestamp::now(), stored);
    publish(broker, capture, Op::Stored, &message).await;
}

/// Rungs are what their sources are, in time and number.
fn line_up(ear: &Ear) {
    for ((rendition, session, seq), rung) in ear.segments.iter().filter(|((rendition, ..), _)| rendition == "low") {
        let source = &ear.segments[&(SOURCE.to_owned(), *session, *seq)];
        assert_eq!(
            (rung.playlist_seq, rung.discontinuity_seq, rung.start, rung.end, rung.media_us, rung.frames),
            (source.playlist_seq, source.discontinuity_seq, source.start, source.end, source.media_us, source.frames),
            "{rendition} {session} {seq}"
        );
    }
}

/// K2: a ladder that is slower than the camera delays nothing: the source is announced as it comes, the newest segment is
/// transcoded first, and what was left out is made up for by one that is fast enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k2_a_ladder_slower_than_the_camera_takes_the_newest_and_makes_up_for_the_rest_later() {
    let rabbit = RabbitMq::start();
    let camera = Camera::start(Clip::H264WithSound);
    let storage_port = free_port();
    let (_server, _uploads) = storage::serve(storage_port).await;
    let mut pod = pod_of(&camera, storage_port);
    fs::write(pod.path("agent/amqp-url"), rabbit.url()).expect("writes");
    let ladder = told(&pod, 1, 300);
    mount_ladder(&pod, &ladder);
    let (_broker, mut heard) = operators_end(&rabbit, &[pod.assignment.instance, ladder.data.instance]).await;
    let mut ear = Ear::default();
    // Five seconds for a segment of one.
    let slow = pod.path("slow-ffmpeg");
    fs::write(&slow, "#!/bin/sh\nsleep 5\nexec ffmpeg \"$@\"\n").expect("writes");
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).expect("set");

    pod.start_runner();
    let _agent = Agent::start(&pod);
    let transcoder = Transcoder::with_ffmpeg(&pod, &slow.to_string_lossy());
    ear.until(&pod, &mut heard, "three rungs", |ear| ear.count("low") >= 3).await;
    let rungs = ear.numbers("low");
    assert!(rungs.windows(2).all(|pair| pair[1] >= pair[0] + 3), "not the newest: {rungs:?}");
    let newest = *ear.numbers(SOURCE).last().expect("segments");
    // The job takes five seconds and is of the newest at its begin: nobody waited for it.
    assert!(newest <= rungs[2] + 15, "{rungs:?}, the source is at {newest}");
    assert_eq!(ear.count(SOURCE) as u64, newest + 1, "the source has holes");
    let uid = ladder.data.instance;
    ear.until(&pod, &mut heard, "that it is behind", |ear| ear.problem_of(uid) == Some("Behind")).await;

    drop(transcoder);
    let _fast = Transcoder::start(&pod);
    ear.until(&pod, &mut heard, "all of it", |ear| (0..=newest).all(|seq| ear.has("low", seq))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k2_renditions_take_the_way_of_the_source_and_never_hold_it_up() {
    let rabbit = RabbitMq::start();
    let camera = Camera::start(Clip::H264WithSound);
    let storage_port = free_port();
    let (_server, uploads) = storage::serve(storage_port).await;
    let mut pod = pod_of(&camera, storage_port);
    fs::write(pod.path("agent/amqp-url"), rabbit.url()).expect("writes");
    let first = told(&pod, 1, 300);
    mount_ladder(&pod, &first);

    let (capture, transcoder) = (pod.assignment.instance, first.data.instance);
    let (broker, mut heard) = operators_end(&rabbit, &[capture, transcoder]).await;
    let mut ear = Ear::default();

    pod.start_runner();
    let agent = Agent::start(&pod);
    let ladder = Transcoder::start(&pod);
    ear.until(&pod, &mut heard, "four rungs", |ear| ear.count("low") >= 4).await;
    line_up(&ear);
    for rung in ear.segments.values().filter(|segment| segment.key.rendition == "low") {
        assert_eq!(rung.height, 120);
        assert_eq!(uploads.counts().get(&rung.file).map(|(cid, _)| cid), Some(&rung.blob.cid), "announced = uploaded");
    }
    let window =
        agent.await_live(&pod, "a live rung", |window| window.segments.iter().any(|s| s.key.rendition == "low")).await;
    assert!(window.segments.windows(2).all(|pair| pair[0].playlist_seq <= pair[1].playlist_seq));

    // A participant of its own: greeted, told and answered on its own queue.
    let uid = transcoder.to_string();
    ear.until(&pod, &mut heard, "its words", |ear| {
        ear.words.contains(&(uid.clone(), "hello".into())) && ear.acked.get(&uid) == Some(&1)
    })
    .await;
    let before = ear.bytes("low", |_| true);
    publish(&broker, transcoder, Op::Apply, &told(&pod, 2, 60)).await;
    ear.until(&pod, &mut heard, "the edit in effect", |ear| {
        ear.acked.get(&uid) == Some(&2)
            && ear.reports.get(&uid).is_some_and(|report| report.revision == 2 && report.phase == Phase::Running)
    })
    .await;

    // By the message alone: what is mounted still says 300 kbit/s.
    let session = *pod.sessions().last().expect("a session");
    let rungs = pod.path("spool").join(session.to_string()).join("low");
    let made = fs::read_dir(&rungs).expect("a folder").flatten();
    let edited_at = made.filter_map(|file| spool::segment_seq(file.file_name().to_str()?)).max().expect("rungs");
    ear.until(&pod, &mut heard, "a rung of the edit", |ear| ear.numbers("low").iter().any(|seq| *seq > edited_at))
        .await;
    let after = ear.bytes("low", |seq| seq > edited_at);
    let (least, most) = (before.iter().min().expect("rungs"), after.iter().max().expect("a rung"));
    assert!(most * 2 < *least, "{before:?} {after:?}");

    // Stored: the source by its mark, the rungs one by one, and the rung only after its source.
    ear.until(&pod, &mut heard, "fifteen", |ear| ear.count(SOURCE) >= 15 && ear.count("low") >= 14).await;
    let rung = |seq: u64| rungs.join(spool::segment_file(seq, Container::Fmp4));
    let key = |rendition: &str, seq| key(&pod, rendition, session, seq);
    let tell = async |stored: Stored| tell_stored(&broker, &pod, stored).await;
    tell(Stored { upto: vec![key(SOURCE, 2)], exactly: vec![key("low", 1)] }).await;
    eventually("the source trimmed", START, || log(&pod), || (!pod.segments(session).contains_key(&2)).then_some(()));
    eventually("the rung trimmed", START, || log(&pod), || (!rung(1).exists()).then_some(()));
    assert!(rung(2).exists(), "of that nobody said that it is stored");

    // Without a transcoder everything else goes on, and what it has not made is kept for it.
    drop(ladder);
    let newest = *ear.numbers(SOURCE).last().expect("segments");
    ear.until(&pod, &mut heard, "the source goes on", |ear| ear.has(SOURCE, newest + 14)).await;
    tell(Stored { upto: vec![key(SOURCE, newest + 3)], exactly: vec![] }).await;
    eventually(
        "what has its rung is trimmed",
        START,
        || log(&pod),
        || (!pod.segments(session).contains_key(&(newest - 4))).then_some(()),
    );
    assert!(pod.segments(session).contains_key(&(newest + 3)), "that one waits for its rung");
    let _again = Transcoder::start(&pod);
    ear.until(&pod, &mut heard, "it is made up for", |ear| ear.has("low", newest + 3)).await;
    eventually(
        "and then trimmed",
        START,
        || log(&pod),
        || (!pod.segments(session).contains_key(&(newest + 3))).then_some(()),
    );
}

/// K2: one that fails all the time hinders nothing either: not the capture, not the trimming, not the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k2_a_ladder_that_fails_is_told_and_hinders_nothing() {
    let rabbit = RabbitMq::start();
    let camera = Camera::start(Clip::H264WithSound);
    let storage_port = free_port();
    let (_server, _uploads) = storage::serve(storage_port).await;
    let mut pod = pod_of(&camera, storage_port);
    fs::write(pod.path("agent/amqp-url"), rabbit.url()).expect("writes");
    let mut ladder = told(&pod, 1, 300);
    mount_ladder(&pod, &ladder);
    let (capture, transcoder) = (pod.assignment.instance, ladder.data.instance);
    let (broker, mut heard) = operators_end(&rabbit, &[capture, transcoder]).await;
    let mut ear = Ear::default();

    pod.start_runner();
    let _agent = Agent::start(&pod);
    let _transcoder = Transcoder::with_ffmpeg(&pod, "/bin/false");
    ear.until(&pod, &mut heard, "that it fails", |ear| ear.problem_of(transcoder) == Some("Failing")).await;
    assert_eq!(ear.reports[&transcoder.to_string()].phase, Phase::Failing);
    ear.until(&pod, &mut heard, "fifteen", |ear| ear.count(SOURCE) >= 15).await;
    let source: Vec<&Segment> = ear.segments.values().collect();
    assert!(source.iter().all(|segment| segment.end <= Timestamp::now()), "{source:?}");
    assert!(source.iter().enumerate().all(|(n, segment)| segment.key.seq == n as u64), "the source has holes");
    assert!(source.windows(2).all(|pair| pair[0].end == pair[1].start && pair[0].key.session == pair[1].key.session));
    assert_eq!((ear.count("low"), ear.problem_of(capture)), (0, None), "{:?}\n{}", ear.reports, log(&pod));
    assert!(!ear.words.iter().any(|(_, op)| op == "gap"), "{:?}", ear.words);

    // Nobody waits six minutes for what is given up.
    let session = source[0].key.session;
    tell_stored(&broker, &pod, Stored { upto: vec![key(&pod, SOURCE, session, 2)], exactly: vec![] }).await;
    let trimmed = || (!pod.segments(session).contains_key(&2)).then_some(());
    eventually("the source trimmed", START, || log(&pod), trimmed);

    // The end: the last segment sealed, announced and stored, and that is all there is to wait for.
    ladder.revision = 2;
    ladder.data.activity = Activity::Draining;
    publish(&broker, transcoder, Op::Apply, &ladder).await;
    let drain = pod.envelope(|assignment| assignment.activity = Activity::Draining);
    publish(&broker, capture, Op::Apply, &drain).await;
    pod.await_phase(Phase::Paused, START);
    let last = *pod.segments(session).keys().last().expect("segments");
    ear.until(&pod, &mut heard, "the last segment", |ear| ear.has(SOURCE, last)).await;
    tell_stored(&broker, &pod, Stored { upto: vec![key(&pod, SOURCE, session, last)], exactly: vec![] }).await;
    for uid in [transcoder, capture].map(|uid| uid.to_string()) {
        ear.until(&pod, &mut heard, "that all is drained", |ear| ear.reports[&uid].phase == Phase::Drained).await;
    }
    assert_eq!(ear.numbers(SOURCE), (0..=last).collect::<Vec<_>>());
}

/// K2, B4: a camera that changes its picture and goes on in the same connection. Until the runner is certain, segments of
/// the new picture lie under the old init section.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k2_b4_a_camera_that_changes_its_picture_has_a_rung_for_each_segment_before_and_after() {
    let rabbit = RabbitMq::start();
    let camera = Camera::start(Clip::ChangesSize);
    let storage_port = free_port();
    let (_server, _uploads) = storage::serve(storage_port).await;
    let mut pod = pod_of(&camera, storage_port);
    fs::write(pod.path("agent/amqp-url"), rabbit.url()).expect("writes");
    let ladder = told(&pod, 1, 300);
    mount_ladder(&pod, &ladder);
    let (_broker, mut heard) = operators_end(&rabbit, &[pod.assignment.instance, ladder.data.instance]).await;
    let mut ear = Ear::default();

    pod.start_runner();
    let _agent = Agent::start(&pod);
    let _transcoder = Transcoder::start(&pod);
    let rungs = |ear: &Ear, session: SessionId| -> Vec<u64> {
        ear.segments.keys().filter(|(name, of, _)| name == "low" && *of == session).map(|(.., seq)| *seq).collect()
    };
    ear.until(&pod, &mut heard, "rungs of a second session", |ear| {
        let sessions = pod.sessions();
        sessions.len() == 2 && rungs(ear, sessions[1]).len() >= 3
    })
    .await;
    let first = pod.sessions()[0];
    let source: Vec<u64> = pod.segments(first).into_keys().collect();
    ear.until(&pod, &mut heard, "a rung for each segment", |ear| rungs(ear, first) == source).await;
    line_up(&ear);
    assert_eq!(ear.problem_of(ladder.data.instance), None);
    let sizes: BTreeSet<(u32, u32)> =
        ear.segments.values().filter(|s| s.key.rendition == "low").map(|s| (s.width, s.height)).collect();
    assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [(214, 120)]);
}
