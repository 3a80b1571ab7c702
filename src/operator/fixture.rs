//! Builders for tests: objects as the API server would hand them out.

#![allow(missing_docs, clippy::missing_panics_doc, clippy::return_self_not_must_use)]

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::api::ObjectMeta;

use crate::api::{
    Camera, CameraSpec, LocalRef, Pipeline, PipelineSpec, StorageNode, StorageNodeSpec,
    camera::Source,
    pipeline::{Audio, CameraSet, Container, PipelineState, Rendition, Sidecar, Spool, Storage, Transcode},
    storage_node::Managed,
};

/// Namespace of all fixtures.
pub const NAMESPACE: &str = "cams";

/// A time, in seconds after a fixed one.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        uid: Some(format!("uid-{name}")),
        generation: Some(1),
        resource_version: Some("100".to_owned()),
        creation_timestamp: Some(Time(at(0))),
        ..ObjectMeta::default()
    }
}

/// A camera with credentials.
pub fn camera(name: &str) -> Camera {
    let source = Source {
        url: format!("rtsp://10.0.0.8:554/{name}"),
        transport: None,
        credentials_secret_ref: Some(LocalRef { name: format!("{name}-login") }),
    };
    Camera { metadata: metadata(name), spec: CameraSpec { source, site: Some("hq".into()) }, status: None }
}

/// A storage node of the default group.
pub fn storage_node(name: &str) -> Arc<StorageNode> {
    let managed = Managed {
        capacity: k8s_openapi::apimachinery::pkg::api::resource::Quantity("10Gi".into()),
        storage_class_name: None,
        node_selector: None,
        tolerations: None,
        reclaim_policy: None,
    };
    Arc::new(StorageNode { metadata: metadata(name), spec: StorageNodeSpec { group: None, managed }, status: None })
}

/// A pipeline that selects nothing yet.
pub fn pipeline(name: &str) -> PipelineFixture {
    let spec = PipelineSpec {
        state: None,
        cameras: CameraSet::default(),
        capture: None,
        transcode: None,
        storage: None,
        spool: None,
        pod: None,
    };
    PipelineFixture(Pipeline { metadata: metadata(name), spec, status: None })
}

/// Builds a Pipeline.
#[derive(Clone)]
pub struct PipelineFixture(pub Pipeline);

impl PipelineFixture {
    pub fn arc(&self) -> Arc<Pipeline> {
        Arc::new(self.0.clone())
    }

    pub fn created(mut self, second: i64) -> Self {
        self.0.metadata.creation_timestamp = Some(Time(at(second)));
        self
    }

    pub fn deleted(mut self) -> Self {
        self.0.metadata.deletion_timestamp = Some(Time(at(0)));
        self
    }

    pub fn naming(mut self, names: &[&str]) -> Self {
        self.0.spec.cameras.names = Some(names.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    pub fn selecting_all(mut self) -> Self {
        self.0.spec.cameras.selector = Some(LabelSelector::default());
        self
    }

    pub fn matching(mut self, key: &str, value: &str) -> Self {
        let match_labels = Some([(key.to_owned(), value.to_owned())].into());
        self.0.spec.cameras.selector = Some(LabelSelector { match_labels, match_expressions: None });
        self
    }

    pub fn state(mut self, state: PipelineState) -> Self {
        self.0.spec.state = Some(state);
        self
    }

    pub fn segment_seconds(mut self, seconds: i32) -> Self {
        self.0.spec.capture.get_or_insert_default().segment_seconds = Some(seconds);
        self
    }

    pub fn packed(mut self, container: Container, audio: Audio) -> Self {
        let capture = self.0.spec.capture.get_or_insert_default();
        (capture.container, capture.audio) = (Some(container), Some(audio));
        self
    }

    /// With one rendition `480p` of this bit rate.
    pub fn transcoding(mut self, video_bitrate_kbps: i32) -> Self {
        let renditions = vec![Rendition { name: "480p".into(), height: 480, video_bitrate_kbps }];
        self.0.spec.transcode = Some(Transcode { sidecar: Some(Sidecar { renditions }) });
        self
    }

    pub fn storage(mut self, storage: Storage) -> Self {
        self.0.spec.storage = Some(storage);
        self
    }

    pub fn spool(mut self, spool: Spool) -> Self {
        self.0.spec.spool = Some(spool);
        self
    }
}
