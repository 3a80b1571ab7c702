//! How fast, and with how much, the operator brings about what Pipelines ask for: against a bare client that writes the
//! same objects, and beside another operator, on a real API server with the controllers of Kubernetes.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../harness/mod.rs"]
mod harness;

#[path = "../../tests/tools/mod.rs"]
mod tools;

mod fleet;
mod floor;
mod operator;
mod peer;
mod rest;
mod seen;
mod world;

use std::time::{Duration, Instant};

use harness::{Samples, report::Report, rounds, row, usage};
use operator::Operator;
use seen::Seen;
use tools::broker::RabbitMq;
use world::{CHILDREN, World};

/// Calls at a time of the floor.
const AT_ONCE: [usize; 3] = [1, 8, 32];
/// How many calls at a time the person makes who creates Cameras and Pipelines for the operator.
const CREATING: usize = 32;
/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() {
    harness::choose_tls_provider();
    for part in harness::wanted(&["converge-200", "converge-1000", "converge-rest", "converge-peer"]) {
        match part {
            "converge-200" => throughput(part, 200).await,
            "converge-1000" => throughput(part, 1_000).await,
            "converge-rest" => rest::measure(part, harness::size(1_000)).await,
            _ => peer::measure(part, harness::size(100)).await,
        }
    }
}

/// From the first create to the last child, by a bare client and by the operator in turns, each on a fresh API server.
async fn throughput(part: &'static str, count: usize) {
    let rabbit = RabbitMq::start();
    let mut floor = AT_ONCE.map(|at_once| (at_once, Samples::default()));
    let (mut ours, mut created) = (Samples::default(), Samples::default());
    for round in 0..rounds(3) {
        for (at_once, samples) in &mut floor {
            let world = World::start(20).await;
            let seconds = floor::converge(&world, count, *at_once).await.as_secs_f64();
            eprintln!("round {round}: {count} by a bare client, {at_once} at a time: {seconds:.1} s");
            samples.push(seconds);
        }
        let world = World::start(20).await;
        let operator = Operator::start(&world, &rabbit, &format!("{part}-{round}")).await;
        let meter = usage::Meter::start(operator.pid());
        let (seconds, creating) = converge(&world, count).await;
        eprintln!("round {round}: {count} by the operator: {seconds:.1} s (created within {creating:.1} s)");
        eprintln!(
            "round {round}: {:.1} s of processor, {} reconciles, {} applies and {} other calls",
            meter.seconds(),
            operator.sum("dsn_reconciles_total", "").await,
            operator.sum("dsn_api_requests_total", "\"apply\"").await,
            operator.sum("dsn_api_requests_total", "").await
                - operator.sum("dsn_api_requests_total", "\"apply\"").await,
        );
        operator.keep_log();
        ours.push(seconds);
        created.push(creating);
    }

    let objects = (count * (2 + CHILDREN)) as f64;
    let rate = |seconds: &Samples| format!("{:.0}", objects / seconds.median());
    let mut rows = vec![row!["who", "seconds", "objects/s", "operator's share of it"]];
    for (at_once, samples) in &floor {
        let share = format!("{:.2}", samples.median() / ours.median());
        rows.push(row![format!("bare client, {at_once} at a time"), samples, rate(samples), share]);
    }
    rows.push(row!["operator", ours, rate(&ours), ""]);
    let mut report = Report::new(part);
    report.table(&rows);
    report.note(format!(
        "{count} Cameras and {count} Pipelines created → all of their {} children exist: {objects} objects. The \
         operator's were created {CREATING} at a time, within {created} s, the bare client's as many at a time as it \
         makes calls. {} rounds in turns, each on a fresh etcd, API server and controller-manager.",
        count * CHILDREN,
        ours.len(),
    ));
    report.publish();
}

/// Creates Cameras and Pipelines and waits for their children; seconds until the last one is there, and until the last
/// Pipeline was created.
async fn converge(world: &World, count: usize) -> (f64, f64) {
    let seen = Seen::children(world).await;
    let began = Instant::now();
    let client = world.client.clone();
    harness::each(count, CREATING, move |number| {
        let client = client.clone();
        async move { drop(world::create(&client, number).await) }
    })
    .await;
    let created = began.elapsed();
    let last = seen.until(count * CHILDREN, PATIENCE).await;
    (last.duration_since(began).as_secs_f64(), created.as_secs_f64())
}
