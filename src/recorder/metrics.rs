//! What the recorder counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Why {
    pub(super) reason: &'static str,
}

/// Counters and gauges of the recorder.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) segments: Counter,
    pub(super) duplicates: Counter,
    pub(super) refused: Counter,
    pub(super) stored: Counter,
    pub(super) readds: Counter,
    pub(super) unpinned: Counter,
    pub(super) waiting: Gauge,
    pub(super) broker: Gauge,
    pub(super) failures: Family<Why, Counter>,
}

impl Metrics {
    /// Registers them under `dsn_recorder_…`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("dsn_recorder");
        registry.register("segments", "Segments catalogued", metrics.segments.clone());
        registry.register("duplicates", "Announcements of segments already known", metrics.duplicates.clone());
        registry.register("refused_messages", "Messages that could not be understood", metrics.refused.clone());
        registry.register("rollups_stored", "Roll-ups pinned as often as asked for", metrics.stored.clone());
        registry.register("readds", "Times an instance was asked to upload again", metrics.readds.clone());
        registry.register("unpinned", "Roll-ups seen to be gone from their cluster", metrics.unpinned.clone());
        registry.register("rollups_waiting", "Roll-ups not yet stored", metrics.waiting.clone());
        registry.register("broker_connected", "1 while connected to the broker", metrics.broker.clone());
        registry.register("failures", "Failed steps by reason", metrics.failures.clone());
        metrics
    }

    pub(super) fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&Why { reason }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_metric() {
        let mut registry = Registry::default();
        Metrics::register(&mut registry).failed("CatalogueFailed");
        crate::telemetry::documented::assert("dsn server", &registry);
    }
}
