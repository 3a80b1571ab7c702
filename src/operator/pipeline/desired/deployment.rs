//! The capture Deployment of one camera: the runner with ffmpeg, the agent, and a transcoder if renditions are wanted.
//!
//! ffmpeg reads hostile input: its container holds no token and no broker address, and the agent that does shares no
//! process namespace with it. One uid and fsGroup for both, so that the agent may unlink what the runner wrote.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy},
        core::v1::{
            Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, HTTPGetAction,
            KeyToPath, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
            ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::api::ObjectMeta;

use super::{COMPONENT, instance_metadata};
use crate::{
    domain::name::{self, AGENT_SECRET, LIVE_PORT, METRICS_PORT, secret_key},
    operator::{
        context::Images,
        labels,
        pipeline::{
            plan::{Instance, Plan, SpoolVolume},
            revision::{ASSIGNMENT_KEY, LADDER_KEY},
        },
    },
};

/// User, group and fsGroup of the pod.
const UID: i64 = 65532;
/// Stop ffmpeg, seal, upload for at most 60 s.
const GRACE_SECONDS: i64 = 75;

/// The Deployment.
pub fn deployment(plan: &Plan, instance: &Instance, images: &Images) -> Deployment {
    let metadata = instance_metadata(plan, instance);
    let selector = labels::instance(&plan.pipeline.name, &instance.camera.name, instance.uid, COMPONENT)
        .into_iter()
        .filter(|(key, _)| key == labels::INSTANCE || key == labels::COMPONENT)
        .collect();
    Deployment {
        spec: Some(DeploymentSpec {
            replicas: Some(instance.replicas),
            // The spool is one volume for one pod.
            strategy: Some(DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None }),
            revision_history_limit: Some(1),
            selector: LabelSelector { match_labels: Some(selector), match_expressions: None },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: metadata.labels.clone(), ..ObjectMeta::default() }),
                spec: Some(pod(plan, instance, images)),
            },
            ..DeploymentSpec::default()
        }),
        metadata,
        status: None,
    }
}

fn pod(plan: &Plan, instance: &Instance, images: &Images) -> PodSpec {
    PodSpec {
        // <instance>.<service>.<namespace>.svc: the gateway's way to live video.
        hostname: Some(instance.name.clone()),
        subdomain: Some(plan.service.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(UID),
            run_as_group: Some(UID),
            fs_group: Some(UID),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: [Some(runner(instance, images)), Some(agent(images)), transcoder(instance, images)]
            .into_iter()
            .flatten()
            .collect(),
        volumes: Some(volumes(plan, instance)),
        node_selector: plan.pod.node_selector.clone(),
        tolerations: plan.pod.tolerations.clone(),
        priority_class_name: plan.pod.priority_class_name.clone(),
        image_pull_secrets: plan.pod.image_pull_secrets.clone(),
        ..PodSpec::default()
    }
}

/// pid 1 beside ffmpeg; of all secrets it sees the camera's only.
fn runner(instance: &Instance, images: &Images) -> Container {
    let mut mounts = vec![
        mount("spool", "/spool", false),
        mount("assignment", "/assignment", true),
        mount("runner-tmp", "/tmp", false),
    ];
    if instance.credentials.is_some() {
        mounts.push(mount("credentials", "/etc/dsn/credentials", true));
    }
    Container {
        name: "runner".to_owned(),
        image: Some(images.capture.clone()),
        image_pull_policy: Some(images.pull_policy.clone()),
        args: Some(vec!["runner".to_owned()]),
        resources: Some(resources("50m", "64Mi", "512Mi")),
        security_context: Some(unprivileged()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// Makes the other renditions, when the Pipeline wants any. ffmpeg here reads what a camera sent: neither a secret nor a
/// token is in sight, and what processor time it gets is what capture leaves.
fn transcoder(instance: &Instance, images: &Images) -> Option<Container> {
    instance.assignment.ladder.as_ref()?;
    Some(Container {
        name: "transcoder".to_owned(),
        image: Some(images.transcoder.clone()),
        image_pull_policy: Some(images.pull_policy.clone()),
        args: Some(vec!["transcoder".to_owned()]),
        resources: Some(resources("20m", "64Mi", "1Gi")),
        security_context: Some(unprivileged()),
        volume_mounts: Some(vec![
            mount("spool", "/spool", false),
            mount("assignment", "/assignment", true),
            mount("transcoder-tmp", "/tmp", false),
        ]),
        ..Container::default()
    })
}

/// Takes the assignment, uploads, announces, serves live.
fn agent(images: &Images) -> Container {
    let port = |name: &str, port: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(port),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        name: "agent".to_owned(),
        image: Some(images.operator.clone()),
        image_pull_policy: Some(images.pull_policy.clone()),
        args: Some(vec!["agent".to_owned()]),
        ports: Some(vec![port("live", LIVE_PORT), port("metrics", METRICS_PORT)]),
        readiness_probe: Some(probe("/readyz", 5, 3)),
        // Longer than it waits for the agent of a pod that goes.
        liveness_probe: Some(probe("/healthz", 10, 9)),
        resources: Some(resources("20m", "32Mi", "256Mi")),
        security_context: Some(unprivileged()),
        volume_mounts: Some(vec![
            mount("spool", "/spool", false),
            mount("assignment", "/assignment", false),
            mount("config", "/etc/dsn/assignment", true),
            mount("agent", "/etc/dsn/agent", true),
            mount("storage", "/etc/dsn/storage", true),
            mount("agent-tmp", "/tmp", false),
        ]),
        ..Container::default()
    }
}

fn volumes(plan: &Plan, instance: &Instance) -> Vec<Volume> {
    let spool = match &instance.spool {
        SpoolVolume::Claim { .. } => Volume {
            name: "spool".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: instance.name.clone(),
                read_only: None,
            }),
            ..Volume::default()
        },
        SpoolVolume::Ephemeral { size } => empty_dir("spool", size),
    };
    let mut keys = vec![key(ASSIGNMENT_KEY)];
    // A key that is named and not there would keep the pod from starting.
    if instance.assignment.ladder.is_some() {
        keys.push(key(LADDER_KEY));
    }
    let config = Volume {
        name: "config".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: instance.name.clone(),
            items: Some(keys),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    let mut volumes = vec![
        spool,
        empty_dir("assignment", "1Mi"),
        config,
        secret("agent", AGENT_SECRET, &[secret_key::AMQP_URL, secret_key::LIVE_TOKEN], false),
        // The group may come later; capture does not wait for it.
        secret("storage", &name::storage_group(&plan.settings.group), &[secret_key::UPLOAD_TOKEN], true),
        empty_dir("runner-tmp", "64Mi"),
        empty_dir("agent-tmp", "64Mi"),
    ];
    if instance.assignment.ladder.is_some() {
        volumes.push(empty_dir("transcoder-tmp", "64Mi"));
    }
    if let Some(credentials) = &instance.credentials {
        // Optional: a missing Secret is a condition that says so, not a pod that hangs without a word.
        volumes.push(secret("credentials", credentials, &["username", "password"], true));
    }
    volumes
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn key(key: &str) -> KeyToPath {
    KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None }
}

fn secret(name: &str, secret: &str, keys: &[&str], optional: bool) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            items: Some(keys.iter().map(|name| key(name)).collect()),
            optional: optional.then_some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn empty_dir(name: &str, limit: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource { medium: None, size_limit: Some(Quantity(limit.to_owned())) }),
        ..Volume::default()
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

fn resources(cpu: &str, memory: &str, memory_limit: &str) -> ResourceRequirements {
    let quantity = |key: &str, value: &str| (key.to_owned(), Quantity(value.to_owned()));
    ResourceRequirements {
        requests: Some([quantity("cpu", cpu), quantity("memory", memory)].into()),
        // No limit on the processor: a throttled ffmpeg loses packets.
        limits: Some([quantity("memory", memory_limit)].into()),
        claims: None,
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("metrics".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{planned, simple},
        *,
    };
    use crate::{
        api::pipeline::{Audio, Container, PipelineState, Spool},
        operator::{fixture::PipelineFixture, pipeline::plan},
    };

    fn images() -> Images {
        Images {
            operator: "dsn:1".into(),
            capture: "dsn-capture:1".into(),
            transcoder: "dsn-transcoder:1".into(),
            kubo: "kubo:1".into(),
            cluster: "cluster:1".into(),
            pull_policy: "IfNotPresent".into(),
        }
    }

    fn made(pipeline: &PipelineFixture) -> Deployment {
        let (plan, instance) = planned(pipeline);
        deployment(&plan, &instance, &images())
    }

    #[test]
    fn capture_deployment() {
        insta::assert_yaml_snapshot!(made(&simple()));
    }

    #[test]
    fn pausing_and_editing_leave_the_pod_alone() {
        let before = made(&simple());
        assert_eq!(made(&simple().state(PipelineState::Paused)), before);
        assert_eq!(made(&simple().segment_seconds(9)), before);
        assert_eq!(made(&simple().packed(Container::MpegTs, Audio::None)), before);
        let stopped = made(&simple().state(PipelineState::Stopped));
        assert_eq!(stopped.spec.as_ref().map(|s| &s.template), before.spec.as_ref().map(|s| &s.template));
    }

    #[test]
    fn transcoding_deployment() {
        insta::assert_yaml_snapshot!(made(&simple().transcoding(800)));
    }

    #[test]
    fn a_ladder_changes_the_pod_and_an_edit_of_it_does_not() {
        assert_ne!(made(&simple().transcoding(800)), made(&simple()));
        assert_eq!(made(&simple().transcoding(900)), made(&simple().transcoding(800)));
    }

    #[test]
    fn draining_leaves_the_pod_alone() {
        use plan::tests::{carried_out, observed, plan};
        let before = plan(&simple(), &observed(&["lobby"]));
        let leaving = plan(&simple(), &carried_out(&before, &observed(&[])));
        assert_eq!(
            deployment(&leaving, &leaving.instances[0], &images()),
            deployment(&before, &before.instances[0], &images())
        );
    }

    #[test]
    fn the_runner_sees_the_cameras_secret_and_no_other() {
        let deployment = made(&simple().spool(Spool { ephemeral: Some(true), ..Spool::default() }));
        let pod = deployment.spec.and_then(|s| s.template.spec).expect("a pod");
        let mounts = |name: &str| -> Vec<String> {
            let container = pod.containers.iter().find(|c| c.name == name).expect("there");
            container.volume_mounts.iter().flatten().map(|m| m.name.clone()).collect()
        };
        assert_eq!(mounts("runner"), ["spool", "assignment", "runner-tmp", "credentials"]);
        assert!(!mounts("agent").contains(&"credentials".to_owned()));
    }

    #[test]
    fn the_transcoder_sees_no_secret_at_all() {
        let pod = made(&simple().transcoding(800)).spec.and_then(|s| s.template.spec).expect("a pod");
        let container = pod.containers.iter().find(|c| c.name == "transcoder").expect("there");
        let mounts: Vec<_> = container.volume_mounts.iter().flatten().map(|m| m.name.as_str()).collect();
        assert_eq!(mounts, ["spool", "assignment", "transcoder-tmp"]);
    }
}
