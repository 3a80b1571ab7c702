//! Another operator in the same place: rabbitmq/cluster-operator, which a well-known vendor ships, with a comparable
//! number of children for each of its resources.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};
use serde_json::json;

use crate::{
    CREATING, PATIENCE, converge,
    harness::{self, Samples, report::Report, rounds, row, usage},
    operator::Operator,
    seen::Seen,
    tools,
    tools::{broker::RabbitMq, free_port},
    world::{CHILDREN, NAMESPACE, SYSTEM, World, kubectl},
};

/// Children of a `RabbitmqCluster`: two Services, two Secrets, two ConfigMaps, ServiceAccount, Role, `RoleBinding`,
/// `StatefulSet`.
const PEER_CHILDREN: usize = 10;

struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both with `count` resources, in turns.
pub async fn measure(part: &'static str, count: usize) {
    let rabbit = RabbitMq::start();
    let [mut ours, mut theirs, mut our_memory, mut their_memory] = [const { Vec::new() }; 4].map(Samples::from_iter);
    for round in 0..rounds(3) {
        let world = World::start(20).await;
        let operator = Operator::start(&world, &rabbit, &format!("{part}-{round}")).await;
        let (seconds, _) = converge(&world, count).await;
        ours.push((count * (2 + CHILDREN)) as f64 / seconds);
        our_memory.push(usage::memory(operator.pid()).most);
        drop((operator, world));

        let world = World::start(20).await;
        let peer = start(&world).await;
        let seconds = converge_peer(&world, count).await;
        eprintln!("round {round}: {count} by rabbitmq/cluster-operator: {seconds:.1} s");
        theirs.push((count * (1 + PEER_CHILDREN)) as f64 / seconds);
        their_memory.push(usage::memory(peer.0.id()).most);
    }
    let mut report = Report::new(part);
    report.table(&[
        row!["operator", "objects a resource", "objects/s", "most memory, MB"],
        row!["dsn", 2 + CHILDREN, ours, our_memory],
        row![format!("rabbitmq/cluster-operator {}", version()), 1 + PEER_CHILDREN, theirs, their_memory],
    ]);
    report.note(format!(
        "{count} resources each (for dsn a Camera and a Pipeline), created {CREATING} at a time, until all children \
         exist; both as shipped. What a resource costs differs, so this is an order of magnitude and no race."
    ));
    report.publish();
}

async fn start(world: &World) -> Peer {
    kubectl(&world.api, &["create", "-f", &definition()], "");
    kubectl(&world.api, &["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"], "");
    let log = File::create(world.api.folder().join("peer.log")).expect("a log");
    let child = Command::new(tools::program("cluster-operator"))
        .arg(format!("--metrics-bind-address=127.0.0.1:{}", free_port()))
        .env("KUBECONFIG", world.api.kubeconfig())
        .env("OPERATOR_NAMESPACE", SYSTEM)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("the peer starts");
    let peer = Peer(child);
    let log = world.api.folder().join("peer.log");
    harness::until("the peer works", Duration::from_secs(60), async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains("Starting workers") { Ok(()) } else { Err(text) }
    })
    .await;
    peer
}

/// Its CustomResourceDefinition lies in its module.
fn definition() -> String {
    let file = "config/crd/bases/rabbitmq.com_rabbitmqclusters.yaml";
    let module = "github.com/rabbitmq/cluster-operator/v2";
    tools::module_file("rabbitmq-cluster-operator", module, file).display().to_string()
}

/// As it is pinned; the folder of a module is named by it.
fn version() -> String {
    let path = definition();
    let version = path.split_once('@').and_then(|(_, rest)| rest.split('/').next());
    version.unwrap_or_else(|| panic!("{path} names no version")).to_owned()
}

async fn converge_peer(world: &World, count: usize) -> f64 {
    let seen = Seen::of_the_peer(world).await;
    let began = Instant::now();
    let client = world.client.clone();
    harness::each(count, CREATING, move |number| {
        let client = client.clone();
        async move { create(&client, number).await }
    })
    .await;
    seen.until(count * PEER_CHILDREN, PATIENCE).await.duration_since(began).as_secs_f64()
}

async fn create(client: &Client, number: usize) {
    let kind = GroupVersionKind::gvk("rabbitmq.com", "v1beta1", "RabbitmqCluster");
    let resource = ApiResource::from_gvk_with_plural(&kind, "rabbitmqclusters");
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "rabbitmq.com/v1beta1", "kind": "RabbitmqCluster",
        "metadata": {"name": format!("cluster-{number:04}"), "namespace": NAMESPACE},
        "spec": {"replicas": 1},
    }))
    .expect("an object");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    api.create(&PostParams::default(), &object).await.expect("the RabbitmqCluster is created");
}
