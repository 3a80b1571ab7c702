//! A fresh etcd, API server and controller-manager with our kinds, and what a person creates there.

use std::path::Path;

use dsn::api::{Camera, Pipeline};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::tools::{self, apiserver::ApiServer, stderr};

/// Where Cameras and Pipelines are.
pub const NAMESPACE: &str = "cams";
/// Where the operator is.
pub const SYSTEM: &str = "dsn-system";
/// Children of a Pipeline with one Camera: Service, volume claim, assignment, Deployment.
pub const CHILDREN: usize = 4;

/// So that nothing is wrong: Pipelines want two nodes.
const STORAGE: &str = "
apiVersion: dsn.network/v1alpha1
kind: StorageNode
metadata: {name: disk-1}
spec: {managed: {capacity: 10Gi}}
---
apiVersion: dsn.network/v1alpha1
kind: StorageNode
metadata: {name: disk-2}
spec: {managed: {capacity: 10Gi}}
";

/// It ends when dropped.
pub struct World {
    pub api: ApiServer,
    pub client: Client,
}

impl World {
    /// Starts it; the controllers make at most so many requests a second.
    pub async fn start(requests_a_second: u32) -> Self {
        let api = ApiServer::with_controllers(requests_a_second);
        for kind in ["camera", "pipeline", "storagenode"] {
            let file = tools::repository().join(format!("crds/{kind}.yaml"));
            kubectl(&api, &["create", "-f", &file.to_string_lossy()], "");
        }
        kubectl(&api, &["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"], "");
        for namespace in [NAMESPACE, SYSTEM] {
            kubectl(&api, &["create", "namespace", namespace], "");
        }
        let login = ["--from-literal=username=guest", "--from-literal=password=guest"];
        kubectl(&api, &[&["create", "secret", "generic", "dsn-broker", "-n", SYSTEM], &login[..]].concat(), "");
        kubectl(&api, &["apply", "-n", NAMESPACE, "-f", "-"], STORAGE);
        let client = client(api.kubeconfig()).await;
        Self { api, client }
    }
}

/// kubectl, which must succeed.
pub fn kubectl(api: &ApiServer, arguments: &[&str], input: &str) {
    let done = api.kubectl(arguments, input);
    assert!(done.status.success(), "kubectl {arguments:?}: {}", stderr(&done));
}

async fn client(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config =
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("a usable kubeconfig");
    Client::try_from(config).expect("a client")
}

/// Creates Camera and Pipeline `number`.
pub async fn create(client: &Client, number: usize) -> (Camera, Pipeline) {
    let camera = serde_json::from_value(json!({
        "apiVersion": "dsn.network/v1alpha1", "kind": "Camera",
        "metadata": {"name": format!("camera-{number:04}"), "namespace": NAMESPACE},
        "spec": {"site": "hq", "source": {"url": "rtsp://10.0.0.8:554/Streaming/Channels/101"}},
    }));
    let pipeline = serde_json::from_value(json!({
        "apiVersion": "dsn.network/v1alpha1", "kind": "Pipeline",
        "metadata": {"name": format!("pipeline-{number:04}"), "namespace": NAMESPACE},
        "spec": {"cameras": {"names": [format!("camera-{number:04}")]}},
    }));
    let (camera, pipeline): (Camera, Pipeline) = (camera.expect("a Camera"), pipeline.expect("a Pipeline"));
    let (cameras, pipelines) = (Api::namespaced(client.clone(), NAMESPACE), Api::namespaced(client.clone(), NAMESPACE));
    let camera = cameras.create(&PostParams::default(), &camera).await.expect("the Camera is created");
    let pipeline = pipelines.create(&PostParams::default(), &pipeline).await.expect("the Pipeline is created");
    (camera, pipeline)
}
