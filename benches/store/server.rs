//! `dsn server` as a process, and the broker as the operator furnishes it.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
    time::Duration,
};

use dsn::{
    clients::{
        broker::{Broker, Publish},
        broker_admin::BrokerAdmin,
    },
    domain::control::{
        AGENT_USER_PREFIX, CONTROL_EXCHANGE, EVENTS_EXCHANGE, Envelope, Event, camera_config_key, event_key,
        instance_queue, stream_config_key,
    },
    domain::segment::Segment,
    operator::broker::topology,
};
use jiff::Timestamp;

use crate::{
    harness::{
        self,
        footage::{NAMESPACE, Recorded},
    },
    tools::{broker::RabbitMq, free_port},
};

/// Everything is derived from it.
pub const MASTER: &str = "bench";
const VHOST: &str = "dsn";

/// The broker with all exchanges and queues, as the operator and as an agent see it.
pub struct Furnished {
    pub rabbit: RabbitMq,
    pub operator: Broker,
    pub agent: Broker,
}

impl Furnished {
    pub async fn start() -> Self {
        let rabbit = RabbitMq::start();
        let url = rabbit.management();
        let admin = BrokerAdmin::new(&url, "guest", "guest", VHOST).expect("a client");
        harness::until("the management API answers", Duration::from_secs(30), async || {
            admin.ensure_vhost().await.map_err(|error| error.to_string())
        })
        .await;
        let user = format!("{AGENT_USER_PREFIX}{NAMESPACE}");
        let permissions = topology::agent_permissions();
        admin.ensure_user(&user, "secret", topology::AGENT_TAG, &permissions).await.expect("the agents' user");
        let connect = async |user: &str, password: &str| {
            let url = format!("amqp://{user}:{password}@127.0.0.1:{}/{VHOST}", rabbit.port());
            Broker::connect(&url, "bench").await.expect("connects")
        };
        let (operator, agent) = (connect("guest", "guest").await, connect(&user, "secret").await);
        topology::declare(&operator, topology::queue_type(1), "bench").await.expect("declared");
        Self { rabbit, operator, agent }
    }

    /// The recorder is told of a camera and its stream, and the instance has its queue.
    pub async fn configure(&self, recorded: &Recorded) {
        let (stream, camera) = (&recorded.stream, &recorded.camera);
        let keys = [format!("inst.{}.#", stream.instance)];
        self.operator
            .declare_queue(&instance_queue(stream.instance), &[].into(), CONTROL_EXCHANGE, &keys)
            .await
            .expect("declared");
        let now = Timestamp::now();
        let message = Envelope { revision: 1, ..Envelope::unordered(camera.camera.uid.clone(), "camera", now, camera) };
        let key = camera_config_key(&camera.camera.uid);
        self.operator.publish(EVENTS_EXCHANGE, &key, &message, Publish::mandatory()).await.expect("told");
        let message = Envelope { revision: 1, ..Envelope::unordered(stream.stream.to_string(), "stream", now, stream) };
        let key = stream_config_key(stream.stream);
        self.operator.publish(EVENTS_EXCHANGE, &key, &message, Publish::mandatory()).await.expect("told");
    }

    /// Announces a segment as its agent does.
    pub async fn announce(&self, recorded: &Recorded, segment: &Segment) {
        let uid = recorded.stream.instance;
        let message = Envelope::unordered(uid.to_string(), Event::Segment.as_str(), Timestamp::now(), segment);
        let key = event_key(uid, Event::Segment);
        self.agent.publish(EVENTS_EXCHANGE, &key, &message, Publish::mandatory()).await.expect("announced");
    }
}

/// The running server; it ends when dropped.
pub struct Server {
    process: Child,
    metrics: u16,
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts it over an empty catalogue; all storage groups are at these addresses.
    pub fn start(furnished: &Furnished, storage_url: &str, cluster_url: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        put("master-key", MASTER);
        for (file, broker, admin) in [("username", "guest", "admin"), ("password", "guest", "secret")] {
            put(&format!("broker/{file}"), broker);
            put(&format!("admin/{file}"), admin);
        }
        fs::create_dir(folder.path().join("data")).expect("a folder");
        let metrics = free_port();
        let log = File::create(folder.path().join("log")).expect("a log");
        let path = |name: &str| folder.path().join(name);
        let process = Command::new(env!("CARGO_BIN_EXE_dsn"))
            .args(["server", "--broker-host", "127.0.0.1", "--vhost", VHOST])
            .args(["--broker-port", &furnished.rabbit.port().to_string()])
            .args(["--storage-url-template", storage_url, "--cluster-url-template", cluster_url])
            .arg(format!("--listen=127.0.0.1:{}", free_port()))
            .arg(format!("--metrics-listen=127.0.0.1:{metrics}"))
            .arg("--data-dir")
            .arg(path("data"))
            .arg("--broker-dir")
            .arg(path("broker"))
            .arg("--master-key-file")
            .arg(path("master-key"))
            .arg("--admin-dir")
            .arg(path("admin"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        Self { process, metrics, folder }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A metric, 0 while there is none.
    pub async fn metric(&self, name: &str) -> f64 {
        let Ok(answer) = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.metrics)).await else { return 0.0 };
        let text = answer.text().await.unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0)
    }

    /// The end of its log.
    pub fn said(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        text.lines().rev().take(10).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
