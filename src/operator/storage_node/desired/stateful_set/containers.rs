//! The containers of a storage node's pod.

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector, Probe,
        ResourceRequirements, SecurityContext, TCPSocketAction,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use super::{super::Plan, volumes};
use crate::domain::name::{CLUSTER_REST_PORT, CLUSTER_SWARM_PORT, KUBO_SWARM_PORT, METRICS_PORT, STORAGE_PORT};

/// Renders the configuration of the other two, then ends.
pub fn init(plan: &Plan) -> Container {
    Container {
        name: "init".to_owned(),
        args: Some(["storage", "init"].map(str::to_owned).into()),
        env: Some(vec![
            variable("DSN_NODE", &plan.node),
            // Where the pod landed: the cluster spreads copies over these.
            from_pod("DSN_HOST", "spec.nodeName"),
            variable("DSN_STORAGE_MAX", &plan.storage_max.to_string()),
        ]),
        volume_mounts: Some(volumes::of_init()),
        resources: Some(resources("10m", "32Mi", "64Mi")),
        security_context: Some(unprivileged()),
        ..Container::default()
    }
}

/// The blocks. Its RPC is a socket in a folder that only this pod has.
pub fn kubo() -> Container {
    Container {
        name: "kubo".to_owned(),
        command: Some(["ipfs", "daemon", "--migrate=false", "--enable-gc=false"].map(str::to_owned).into()),
        env: Some(vec![
            variable("IPFS_PATH", volumes::REPO),
            variable("HOME", volumes::TMP),
            // Without its swarm key it must not start: it would join the public network.
            variable("LIBP2P_FORCE_PNET", "1"),
            variable("IPFS_TELEMETRY", "off"),
            variable("GOMEMLIMIT", "512MiB"),
        ]),
        ports: Some(vec![port("kubo", KUBO_SWARM_PORT)]),
        // Not its RPC: a kubo that collects garbage is slow, not dead.
        liveness_probe: Some(Probe {
            tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(i32::from(KUBO_SWARM_PORT)), host: None }),
            initial_delay_seconds: Some(30),
            ..patient()
        }),
        volume_mounts: Some(volumes::of_kubo()),
        resources: Some(resources("50m", "128Mi", "768Mi")),
        security_context: Some(unprivileged()),
        ..Container::default()
    }
}

/// The pins.
pub fn cluster() -> Container {
    Container {
        name: "cluster".to_owned(),
        // At its usual level it logs every request.
        command: Some(["ipfs-cluster-service", "--loglevel", "warn", "daemon"].map(str::to_owned).into()),
        env: Some(vec![
            variable("IPFS_CLUSTER_PATH", volumes::CLUSTER),
            variable("HOME", volumes::TMP),
            variable("GOMEMLIMIT", "384MiB"),
        ]),
        ports: Some(vec![port("cluster-swarm", CLUSTER_SWARM_PORT), port("cluster", CLUSTER_REST_PORT)]),
        // It says no more than that the process answers, and here that is the question.
        liveness_probe: Some(Probe {
            http_get: Some(http("/health", CLUSTER_REST_PORT)),
            initial_delay_seconds: Some(30),
            ..patient()
        }),
        volume_mounts: Some(volumes::of_cluster()),
        resources: Some(resources("20m", "96Mi", "512Mi")),
        security_context: Some(unprivileged()),
        ..Container::default()
    }
}

/// The way in. Ready when kubo and the cluster peer work.
pub fn agent(plan: &Plan) -> Container {
    Container {
        name: "agent".to_owned(),
        args: Some(["storage", "serve"].map(str::to_owned).into()),
        env: Some(vec![variable("DSN_NODE", &plan.node)]),
        ports: Some(vec![port("storage", STORAGE_PORT), port("metrics", METRICS_PORT)]),
        readiness_probe: Some(Probe {
            http_get: Some(http("/readyz", METRICS_PORT)),
            period_seconds: Some(3),
            failure_threshold: Some(2),
            ..Probe::default()
        }),
        liveness_probe: Some(Probe { http_get: Some(http("/healthz", METRICS_PORT)), ..patient() }),
        volume_mounts: Some(volumes::of_agent()),
        resources: Some(resources("20m", "32Mi", "256Mi")),
        security_context: Some(unprivileged()),
        ..Container::default()
    }
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

fn from_pod(name: &str, path: &str) -> EnvVar {
    let field_ref = Some(ObjectFieldSelector { field_path: path.to_owned(), api_version: Some("v1".to_owned()) });
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref, ..EnvVarSource::default() }),
    }
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(port),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn http(path: &str, port: u16) -> HTTPGetAction {
    HTTPGetAction { path: Some(path.to_owned()), port: IntOrString::Int(i32::from(port)), ..HTTPGetAction::default() }
}

fn patient() -> Probe {
    Probe { period_seconds: Some(20), timeout_seconds: Some(10), failure_threshold: Some(6), ..Probe::default() }
}

fn resources(cpu: &str, memory: &str, most_memory: &str) -> ResourceRequirements {
    let quantity = |text: &str| Quantity(text.to_owned());
    ResourceRequirements {
        requests: Some([("cpu".to_owned(), quantity(cpu)), ("memory".to_owned(), quantity(memory))].into()),
        limits: Some([("memory".to_owned(), quantity(most_memory))].into()),
        claims: None,
    }
}

fn unprivileged() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}
