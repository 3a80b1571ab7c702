//! What the storage agent counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// One kind of request and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// `upload`, `have`, `publish`, `rollup`, `read`, `status`.
    pub operation: &'static str,
    /// HTTP status.
    pub status: u16,
}

/// All metrics of the role.
#[derive(Clone, Default)]
pub struct Metrics {
    /// Requests by kind and status.
    pub requests: Family<Request, Counter>,
    /// Bytes of files taken in.
    pub received: Counter,
    /// Bytes of files given out.
    pub sent: Counter,
    /// Bytes in the repo.
    pub repo_bytes: Gauge,
    /// Bytes the repo may have.
    pub repo_max_bytes: Gauge,
    /// Peers of the group that kubo should be connected to and is not.
    pub missing_peers: Gauge,
    /// 1 while kubo and ipfs-cluster work.
    pub ready: Gauge,
    /// Garbage collections.
    pub collections: Counter,
}

impl Metrics {
    /// The metrics and the registry that shows them.
    pub fn new() -> (Self, Registry) {
        let metrics = Self::default();
        let mut registry = Registry::with_prefix("dsn_storage");
        registry.register("requests", "Requests by operation and status", metrics.requests.clone());
        registry.register("received_bytes", "Bytes of files taken in", metrics.received.clone());
        registry.register("sent_bytes", "Bytes of files given out", metrics.sent.clone());
        registry.register("repo_bytes", "Bytes in kubo's repo", metrics.repo_bytes.clone());
        registry.register("repo_max_bytes", "Bytes that kubo's repo may have", metrics.repo_max_bytes.clone());
        registry.register("missing_peers", "Peers of the group without a connection", metrics.missing_peers.clone());
        registry.register("ready", "1 while kubo and ipfs-cluster work", metrics.ready.clone());
        registry.register("garbage_collections", "Garbage collections of kubo's repo", metrics.collections.clone());
        (metrics, registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_metric() {
        let (metrics, registry) = Metrics::new();
        metrics.requests.get_or_create(&Request { operation: "read", status: 200 }).inc();
        crate::telemetry::documented::assert("dsn storage", &registry);
    }
}
