//! The recorder against a real RabbitMQ, on loopback.

mod tools;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dsn::{
    catalogue,
    clients::{
        broker::{self, Broker, Publish},
        broker_address::BrokerAddress,
        broker_admin::BrokerAdmin,
        groups::Groups,
    },
    domain::{
        control::{
            CameraConfig, EVENTS_EXCHANGE, Envelope, OPERATOR_QUEUE, ObjectRef, RECORDER_HELLO_KEY, RECORDER_QUEUE,
            camera_config_key,
        },
        token::MasterKey,
    },
    operator::broker::topology,
    recorder::{BrokerLogin, Metrics, Recorder},
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::tools::broker::RabbitMq;

const CAMERAS: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// The queue of the recorder, filled with what it is told.
async fn fill(operator: &Broker) {
    for number in 0..CAMERAS {
        let uid = format!("camera-{number}");
        let camera = ObjectRef { namespace: "demo".into(), name: uid.clone(), uid: uid.clone() };
        let config = CameraConfig { camera, site: "hq".into(), deleted: false };
        let message = Envelope::unordered(uid.clone(), "camera", Timestamp::now(), config);
        operator
            .publish(EVENTS_EXCHANGE, &camera_config_key(&uid), &message, Publish::mandatory())
            .await
            .expect("published");
    }
}

/// Its own words once stopped its ears: who has published is no longer read from, and acknowledged nothing.
#[tokio::test]
async fn a_broker_short_of_memory_is_relieved_by_the_recorder_and_spoken_to_afterwards() {
    let rabbit = RabbitMq::start();
    let operator = Broker::connect(&rabbit.url(), "test").await.expect("connects");
    topology::declare(&operator, topology::queue_type(1), "test").await.expect("declared");
    fill(&operator).await;
    rabbit.alarm();

    let folder = tempfile::tempdir().expect("a folder");
    for file in ["username", "password"] {
        std::fs::write(folder.path().join(file), "guest").expect("writes");
    }
    let address = BrokerAddress { host: "127.0.0.1".into(), port: rabbit.port(), vhost: "/".into() };
    let login = BrokerLogin { address, credentials: folder.path().to_owned() };
    let (writer, reader) = catalogue::open(folder.path()).await.expect("opens");
    let nowhere = || "http://127.0.0.1:1".to_owned();
    let groups = Arc::new(Groups::new(MasterKey::new("k"), nowhere(), nowhere()));
    let recorder = Recorder::new(writer, reader.apart(), groups, Metrics::default(), |_| {});
    let shutdown = CancellationToken::new();
    let admin = BrokerAdmin::new(&rabbit.management(), "guest", "guest", "/").expect("a client");

    let seen = async {
        let left = async || {
            let queues = admin.queues().await.unwrap_or_default();
            let counts: BTreeMap<_, _> = queues.into_iter().map(|queue| (queue.name, queue.messages)).collect();
            counts.get(RECORDER_QUEUE).copied().flatten()
        };
        until("its queue is empty", async || {
            let (known, left) = (reader.cameras().await.expect("reads").len(), left().await);
            if (known, left) == (CAMERAS, Some(0)) { Ok(()) } else { Err(format!("{known} catalogued, {left:?} left")) }
        })
        .await;

        let mut heard = operator.consume(OPERATOR_QUEUE, 10).await.expect("consumes");
        rabbit.calm();
        let hello = async { while broker::next(&mut heard).await.expect("a delivery").key != RECORDER_HELLO_KEY {} };
        tokio::time::timeout(PATIENCE, hello).await.expect("the recorder asks for every configuration");
    };
    tokio::select! {
        () = Box::pin(recorder.run(&login, &shutdown)) => unreachable!("nobody shuts it down"),
        () = seen => {}
    }
}

/// Awaits a condition, which says on failure what it saw.
async fn until(what: &str, mut look: impl AsyncFnMut() -> Result<(), String>) {
    let begun = std::time::Instant::now();
    while let Err(saw) = look().await {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}: {saw}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
