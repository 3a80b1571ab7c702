//! Runner, agent and transcoder of one pod: renditions take the way of the source, under its numbers, and the transcoder
//! is a participant of its own (rows K2, C1, C3).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use dsn::{
    clients::broker::Publish,
    domain::{
        container::Container,
        control::{Activity, CONTROL_EXCHANGE, Command as Op, Envelope, InstanceReport, Phase, Stored, instance_key},
        id::{InstanceUid, Role},
        ladder::{LadderAssignment, Rendition},
        segment::{SOURCE, Segment, SegmentKey},
        spool,
    },
};
use futures::StreamExt;
use jiff::Timestamp;

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
    segments: BTreeMap<(String, u64), Segment>,
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
                    self.segments.insert((segment.key.rendition.clone(), segment.key.seq), segment);
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

    fn count(&self, rendition: &str) -> usize {
        self.segments.keys().filter(|(name, _)| name == rendition).count()
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
    let rungs: Vec<u64> = ear.segments.keys().filter(|(name, _)| name == "low").map(|(_, seq)| *seq).collect();
    assert!(rungs.windows(2).all(|pair| pair[1] >= pair[0] + 3), "not the newest: {rungs:?}");
    let source = ear.segments.keys().filter(|(name, _)| name == SOURCE).map(|(_, seq)| *seq);
    let newest = source.max().expect("segments");
    // The job takes five seconds and is of the newest at its begin: nobody waited for it.
    assert!(newest <= rungs[2] + 15, "{rungs:?}, the source is at {newest}");
    assert_eq!(ear.count(SOURCE) as u64, newest + 1, "the source has holes");
    let uid = ladder.data.instance.to_string();
    ear.until(&pod, &mut heard, "that it is behind", |ear| {
        ear.reports
            .get(&uid)
            .and_then(|report| report.problem.as_ref())
            .is_some_and(|problem| problem.reason == "Behind")
    })
    .await;

    drop(transcoder);
    let _fast = Transcoder::start(&pod);
    ear.until(&pod, &mut heard, "all of it", |ear| {
        (0..=newest).all(|seq| ear.segments.contains_key(&("low".to_owned(), seq)))
    })
    .await;
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
    for ((rendition, seq), rung) in ear.segments.iter().filter(|((rendition, _), _)| rendition == "low") {
        let source = &ear.segments[&(SOURCE.to_owned(), *seq)];
        assert_eq!(
            (rung.playlist_seq, rung.discontinuity_seq, rung.start, rung.end, rung.media_us, rung.frames),
            (source.playlist_seq, source.discontinuity_seq, source.start, source.end, source.media_us, source.frames),
            "{rendition} {seq}"
        );
        assert_eq!((rung.height, source.height), (120, 180));
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
    let edited = told(&pod, 2, 60);
    let key = instance_key(transcoder, Op::Apply);
    broker.publish(CONTROL_EXCHANGE, &key, &edited, Publish::mandatory()).await.expect("told");
    ear.until(&pod, &mut heard, "the edit in effect", |ear| {
        ear.acked.get(&uid) == Some(&2)
            && ear.reports.get(&uid).is_some_and(|report| report.revision == 2 && report.phase == Phase::Running)
    })
    .await;

    // Stored: the source by its mark, the rungs one by one, and the rung only after its source.
    ear.until(&pod, &mut heard, "fifteen", |ear| ear.count(SOURCE) >= 15 && ear.count("low") >= 14).await;
    let session = *pod.sessions().last().expect("a session");
    let rung = |seq: u64| {
        pod.path("spool").join(session.to_string()).join("low").join(spool::segment_file(seq, Container::Fmp4))
    };
    let key =
        |rendition: &str, seq| SegmentKey { stream: pod.assignment.stream, rendition: rendition.into(), session, seq };
    let tell = async |stored: Stored| {
        let message = Envelope::unordered(capture.to_string(), "stored", Timestamp::now(), stored);
        let how = Publish::mandatory();
        broker.publish(CONTROL_EXCHANGE, &instance_key(capture, Op::Stored), &message, how).await.expect("told");
    };
    tell(Stored { upto: vec![key(SOURCE, 2)], exactly: vec![key("low", 1)] }).await;
    eventually("the source trimmed", START, || log(&pod), || (!pod.segments(session).contains_key(&2)).then_some(()));
    eventually("the rung trimmed", START, || log(&pod), || (!rung(1).exists()).then_some(()));
    assert!(rung(2).exists(), "of that nobody said that it is stored");

    // Without a transcoder everything else goes on, and what it has not made is kept for it.
    drop(ladder);
    let newest = ear.segments.keys().filter(|(name, _)| name == SOURCE).map(|(_, seq)| *seq).max().expect("segments");
    ear.until(&pod, &mut heard, "the source goes on", |ear| {
        ear.segments.contains_key(&(SOURCE.to_owned(), newest + 14))
    })
    .await;
    tell(Stored { upto: vec![key(SOURCE, newest + 3)], exactly: vec![] }).await;
    eventually(
        "what has its rung is trimmed",
        START,
        || log(&pod),
        || (!pod.segments(session).contains_key(&(newest - 4))).then_some(()),
    );
    assert!(pod.segments(session).contains_key(&(newest + 3)), "that one waits for its rung");
    let _again = Transcoder::start(&pod);
    ear.until(&pod, &mut heard, "it is made up for", |ear| ear.segments.contains_key(&("low".to_owned(), newest + 3)))
        .await;
    eventually(
        "and then trimmed",
        START,
        || log(&pod),
        || (!pod.segments(session).contains_key(&(newest + 3))).then_some(()),
    );
}
