//! What the operator counts; served as OpenMetrics on `/metrics`.
//!
//! Not here: names of objects as labels (unbounded). Called by the controllers, [`super::apply`] and the broker's
//! supervisor.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::error::Verb;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Failure {
    controller: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Write {
    verb: &'static str,
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// Handles of all metrics; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    reconciles: Family<Controller, Counter>,
    failures: Family<Failure, Counter>,
    durations: Family<Controller, Histogram>,
    requests: Family<Write, Counter>,
    messages: Family<Kind, Counter>,
    /// 1 while this process leads.
    pub leader: Gauge,
    /// 1 while connected to the broker.
    pub broker_connected: Gauge,
    /// Instances that report pictures (row C4's counter).
    pub instances_running: Gauge,
    /// Instances that shall capture.
    pub instances_wanted: Gauge,
    /// Instances that shall exist.
    pub instances: Gauge,
    /// Messages in the queue of dead letters.
    pub dead_letters: Gauge,
}

impl Metrics {
    /// Registers everything.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            failures: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0])),
            requests: Family::default(),
            messages: Family::default(),
            leader: Gauge::default(),
            broker_connected: Gauge::default(),
            instances_running: Gauge::default(),
            instances_wanted: Gauge::default(),
            instances: Gauge::default(),
            dead_letters: Gauge::default(),
        };
        registry.register("dsn_reconciles", "Reconciles begun", metrics.reconciles.clone());
        registry.register("dsn_reconcile_errors", "Reconciles failed, by reason", metrics.failures.clone());
        registry.register("dsn_reconcile_seconds", "Time of a reconcile", metrics.durations.clone());
        registry.register(
            "dsn_api_requests",
            "Requests to the API server by controllers (watches and lease excepted)",
            metrics.requests.clone(),
        );
        registry.register("dsn_broker_published", "Messages published, by kind", metrics.messages.clone());
        registry.register("dsn_leader", "1 while this replica leads", metrics.leader.clone());
        registry.register("dsn_broker_connected", "1 while connected to the broker", metrics.broker_connected.clone());
        registry.register("dsn_instances_running", "Instances that capture", metrics.instances_running.clone());
        registry.register("dsn_instances_wanted", "Instances that shall capture", metrics.instances_wanted.clone());
        registry.register("dsn_instances", "Instances that exist", metrics.instances.clone());
        registry.register(
            "dsn_broker_dead_letters",
            "Messages in the queue of dead letters",
            metrics.dead_letters.clone(),
        );
        metrics
    }

    /// A reconcile begins.
    pub fn reconcile_begins(&self, controller: &'static str) {
        self.reconciles.get_or_create(&Controller { controller }).inc();
    }

    /// A reconcile ended, well or not.
    pub fn reconcile_ended(&self, controller: &'static str, took: Duration, failure: Option<&'static str>) {
        self.durations.get_or_create(&Controller { controller }).observe(took.as_secs_f64());
        if let Some(reason) = failure {
            self.failures.get_or_create(&Failure { controller, reason }).inc();
        }
    }

    /// A request goes to the API server.
    pub fn api_request(&self, verb: Verb, kind: &str) {
        self.requests.get_or_create(&Write { verb: verb.label(), kind: kind.to_owned() }).inc();
    }

    /// A message was confirmed by the broker.
    pub fn published(&self, kind: &'static str) {
        self.messages.get_or_create(&Kind { kind }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_metric() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        metrics.reconcile_begins("camera");
        metrics.reconcile_ended("camera", Duration::ZERO, Some("Forbidden"));
        metrics.api_request(Verb::Get, "Secret");
        metrics.published("user");
        crate::telemetry::documented::assert("dsn operator", &registry);
    }
}
