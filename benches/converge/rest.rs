//! What the operator costs: calls for each Pipeline it brings about, for a reconcile that changes nothing, for a restart
//! and for time that passes; memory with nothing to look after and with a thousand Pipelines.
//!
//! Counted by the API server's audit log, not by the operator. Pods are made and never run, for there is no kubelet;
//! what their agents and the recorder would say is said by [`fleet`].

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use dsn::api::Pipeline;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    CREATING, PATIENCE, converge, fleet,
    harness::{self, report::Report, row, usage},
    operator::Operator,
    seen::Seen,
    tools::broker::RabbitMq,
    world::{NAMESPACE, SYSTEM, World, kubectl},
};

/// The operator's ServiceAccount.
const ACCOUNT: &str = "dsn-operator";
/// How long nothing may happen until the operator counts as at rest.
const QUIET: Duration = Duration::from_secs(6);
/// How long it is watched at rest, in minutes: two of the sweeps that come every five fall into it.
const IDLE: usize = 10;

/// Calls by verb and resource.
type Calls = BTreeMap<(String, String), usize>;

/// Measures with so many Pipelines.
pub async fn measure(part: &'static str, count: usize) {
    let rabbit = RabbitMq::start();
    // Pods come at once and not for ten minutes: memory is asked for with all of them.
    let world = World::start(200).await;
    kubectl(&world.api, &["create", "serviceaccount", ACCOUNT, "-n", SYSTEM], "");
    let subject = format!("--serviceaccount={SYSTEM}:{ACCOUNT}");
    kubectl(&world.api, &["create", "clusterrolebinding", "bench", "--clusterrole=cluster-admin", &subject], "");
    let kubeconfig = world.api.kubeconfig_of_service_account(SYSTEM, ACCOUNT);
    let pods = Seen::pods(&world).await;

    let operator = Operator::start_as(&world, &rabbit, part, &kubeconfig).await;
    quiet(&world).await;
    let empty = usage::memory(operator.pid());
    let start = calls(&world);
    let (seconds, _) = converge(&world, count).await;
    eprintln!("{count} by the operator: {seconds:.1} s");
    pods.until(count, PATIENCE).await;
    eprintln!("{count} pods");
    quiet(&world).await;
    let converged = calls(&world);
    eprintln!("at rest: {full}", full = usage::memory(operator.pid()));
    let fleet = fleet::Fleet::start(&world, &rabbit, part).await;
    quiet(&world).await;
    let reported = calls(&world);
    let full = usage::memory(operator.pid());

    let minutes = harness::minutes(IDLE);
    let meter = usage::Meter::start(operator.pid());
    tokio::time::sleep(Duration::from_secs(60 * minutes as u64)).await;
    let idle_processor = meter.percent();
    let idle = calls(&world);
    assert!(fleet.lives(), "a fleet that has fallen silent is no rest");
    eprintln!("idle: {full}");

    let before = operator.sum("dsn_reconciles_total", "pipeline").await;
    touch_all(&world, count).await;
    quiet(&world).await;
    let reconciles = operator.sum("dsn_reconciles_total", "pipeline").await - before;
    assert!(reconciles >= count as f64, "{reconciles} reconciles");
    let touched = calls(&world);

    eprintln!("touched");
    operator.terminate();
    let operator = Operator::start_as(&world, &rabbit, part, &kubeconfig).await;
    quiet(&world).await;
    let restarted = calls(&world);
    let after_restart = usage::memory(operator.pid());
    drop(fleet);

    let mut report = Report::new(part);
    let since = |now: &Calls, then: &Calls| -> Calls {
        let less = |(key, number): (&(String, String), &usize)| (key.clone(), number - then.get(key).unwrap_or(&0));
        now.iter().map(less).filter(|(_, number)| *number > 0).collect()
    };
    let line = |what: String, calls: Calls| {
        let (reads, writes) = (total(&calls, true), total(&calls, false));
        row![what, reads, writes, format!("{:.1}", (reads + writes) as f64 / count as f64), said(&calls)]
    };
    report.table(&[
        row!["what", "reads", "writes", "calls a Pipeline", "which"],
        line(format!("{count} Pipelines and Cameras created, all children made"), since(&converged, &start)),
        line(format!("{count} agents and the recorder report for the first time"), since(&reported, &converged)),
        line(format!("{minutes} minutes of rest, {count} heartbeats every 10 s"), since(&idle, &reported)),
        line(format!("{count} Pipelines touched, {reconciles:.0} reconciles without a change"), since(&touched, &idle)),
        line("restart of the operator".to_owned(), since(&restarted, &touched)),
    ]);
    report.note(
        "Lease and watches excepted, as counted by the audit log of the API server; once, not in rounds. Pods stay pending, \
         for there is no kubelet: so the agents' Secret is looked at twice a minute where a Pipeline is looked at.",
    );
    report.table(&[
        row!["operator", "value"],
        row!["memory, nothing to look after", empty],
        row![format!("memory, {count} Pipelines and Cameras at rest"), full],
        row!["memory, the same after a restart", after_restart],
        row![format!("processor, {count} Pipelines at rest"), format!("{idle_processor:.1} % of a core")],
    ]);
    report.publish();
}

/// Every Pipeline gets an annotation: it is reconciled, and there is nothing to do.
async fn touch_all(world: &World, count: usize) {
    let client = world.client.clone();
    harness::each(count, CREATING, move |number| {
        let api: Api<Pipeline> = Api::namespaced(client.clone(), NAMESPACE);
        async move {
            let body = json!({"metadata": {"annotations": {"bench": "touched"}}});
            let name = format!("pipeline-{number:04}");
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&body)).await.expect("it is touched");
        }
    })
    .await;
}

/// Waits until the operator has asked for nothing for [`QUIET`].
async fn quiet(world: &World) {
    let began = Instant::now();
    let (mut last, mut since) = (Calls::new(), Instant::now());
    while since.elapsed() < QUIET {
        let now = calls(world);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        assert!(began.elapsed() < PATIENCE, "the operator does not come to rest: {last:?}");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// What the operator asked of the API server so far.
fn calls(world: &World) -> Calls {
    let mut calls = Calls::new();
    for event in world.api.audit(&format!("system:serviceaccount:{SYSTEM}:{ACCOUNT}")) {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let resource = object["resource"].as_str().unwrap_or("discovery").to_owned();
        let verb = text("verb");
        if verb == "watch" || resource == "leases" {
            continue;
        }
        let resource = object["subresource"].as_str().map_or(resource.clone(), |sub| format!("{resource}/{sub}"));
        *calls.entry((verb, resource)).or_default() += 1;
    }
    calls
}

fn is_read(verb: &str) -> bool {
    ["get", "list"].contains(&verb)
}

fn total(calls: &Calls, reads: bool) -> usize {
    calls.iter().filter(|((verb, _), _)| is_read(verb) == reads).map(|(_, number)| number).sum()
}

/// The most frequent ones in words.
fn said(calls: &Calls) -> String {
    let mut sorted: Vec<_> = calls.iter().collect();
    sorted.sort_by_key(|(_, number)| std::cmp::Reverse(**number));
    let words = sorted.into_iter().take(9).map(|((verb, resource), number)| format!("{verb} {resource} {number}"));
    words.collect::<Vec<_>>().join(", ")
}
