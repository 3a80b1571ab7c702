//! Counters and gauges of the agent.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::domain::{
    control::{Activity, Assignment, InstanceReport, Phase},
    segment::{Gap, Segment},
};

/// A reason as a label.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: String,
}

/// All metrics of the role.
#[derive(Debug, Default)]
pub struct Metrics {
    sealed: Counter<u64, AtomicU64>,
    sealed_bytes: Counter<u64, AtomicU64>,
    uploaded: Counter<u64, AtomicU64>,
    uploaded_bytes: Counter<u64, AtomicU64>,
    upload_failures: Family<Reason, Counter>,
    announced: Counter<u64, AtomicU64>,
    gaps: Family<Reason, Counter>,
    gap_seconds: Family<Reason, Counter<f64, AtomicU64>>,
    last_segment: Gauge<i64, AtomicI64>,
    unannounced: Gauge<i64, AtomicI64>,
    unstored: Gauge<i64, AtomicI64>,
    oldest_unstored: Gauge<i64, AtomicI64>,
    spool_bytes: Gauge<i64, AtomicI64>,
    spool_max_bytes: Gauge<i64, AtomicI64>,
    wanted: Gauge<i64, AtomicI64>,
    running: Gauge<i64, AtomicI64>,
    starts: Gauge<i64, AtomicI64>,
    broker: Gauge<i64, AtomicI64>,
}

impl Metrics {
    /// A registry that shows them.
    pub fn registry(&self) -> Registry {
        let mut all = Registry::with_prefix("dsn_agent");
        all.register("segments_sealed", "Segments numbered", self.sealed.clone());
        all.register("sealed_bytes", "Bytes of the segments numbered", self.sealed_bytes.clone());
        all.register("segments_uploaded", "Segments in IPFS", self.uploaded.clone());
        all.register("uploaded_bytes", "Bytes of the segments in IPFS", self.uploaded_bytes.clone());
        all.register("upload_failures", "Uploads that failed and are tried again", self.upload_failures.clone());
        all.register("segments_announced", "Announcements of segments, repetitions included", self.announced.clone());
        all.register("gaps", "Stretches without footage", self.gaps.clone());
        all.register("gap_seconds", "Length of the stretches without footage, by reason", self.gap_seconds.clone());
        all.register("last_segment_end_seconds", "End of the newest segment, Unix time", self.last_segment.clone());
        all.register(
            "segments_unannounced",
            "Segments of the source in the spool not yet announced",
            self.unannounced.clone(),
        );
        all.register("segments_unstored", "Segments of the source announced and not yet stored", self.unstored.clone());
        all.register(
            "oldest_unstored_seconds",
            "Begin of the oldest segment of the source not yet stored, Unix time; 0 = all is stored",
            self.oldest_unstored.clone(),
        );
        all.register("spool_bytes", "Bytes of segments in the spool", self.spool_bytes.clone());
        all.register(
            "spool_max_bytes",
            "Bytes the spool may take before footage is dropped",
            self.spool_max_bytes.clone(),
        );
        all.register("capture_wanted", "1 while the Pipeline is Running", self.wanted.clone());
        all.register("capturing", "1 while pictures arrive", self.running.clone());
        all.register("ffmpeg_starts", "Starts of ffmpeg by the present runner", self.starts.clone());
        all.register("broker_connected", "1 while connected to the broker", self.broker.clone());
        all
    }

    /// A segment was numbered.
    pub fn sealed(&self, segment: &Segment, gaps: &[Gap]) {
        self.sealed.inc();
        self.sealed_bytes.inc_by(segment.blob.bytes);
        self.last_segment.set(segment.end.as_second());
        for gap in gaps {
            self.missing(gap);
        }
    }

    /// Footage is missing; what only another rendition lacks is none.
    pub fn missing(&self, gap: &Gap) {
        if gap.rendition.is_some() {
            return;
        }
        let reason = Reason { reason: format!("{:?}", gap.reason) };
        self.gaps.get_or_create(&reason).inc();
        self.gap_seconds.get_or_create(&reason).inc_by(gap.to.duration_since(gap.from).as_secs_f64().max(0.0));
    }

    /// A segment is in IPFS.
    pub fn uploaded(&self, bytes: u64) {
        self.uploaded.inc();
        self.uploaded_bytes.inc_by(bytes);
    }

    /// An upload failed.
    pub fn upload_failed(&self, reason: &str) {
        self.upload_failures.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }

    /// A segment was announced.
    pub fn announced(&self) {
        self.announced.inc();
    }

    /// The broker is there or not.
    pub fn connected(&self, connected: bool) {
        self.broker.set(i64::from(connected));
    }

    /// What the instance shall do.
    pub fn assigned(&self, assignment: &Assignment) {
        self.wanted.set(i64::from(assignment.activity == Activity::Running));
        self.spool_max_bytes.set(i64::try_from(assignment.spool_bytes).unwrap_or(i64::MAX));
    }

    /// What the instance says of itself.
    pub fn reported(&self, report: &InstanceReport) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.unannounced.set(gauge(report.backlog.unannounced));
        self.unstored.set(gauge(report.backlog.unstored));
        self.oldest_unstored.set(report.backlog.oldest.map_or(0, jiff::Timestamp::as_second));
        self.spool_bytes.set(gauge(report.backlog.bytes));
        self.running.set(i64::from(report.phase == Phase::Running));
        self.starts.set(gauge(report.starts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_metric() {
        let metrics = Metrics::default();
        let reason = Reason { reason: "CameraHung".to_owned() };
        metrics.gaps.get_or_create(&reason).inc();
        metrics.gap_seconds.get_or_create(&reason).inc_by(1.0);
        metrics.upload_failed("StorageUnreachable");
        let registry = metrics.registry();
        crate::telemetry::documented::assert("dsn agent", &registry);
    }
}
