//! Is a Deployment rolled out, and if not, what holds it up?
//!
//! Pure: reads the status of the Deployment and of its pods. Not here: what the pods do once they run (their agents
//! report that). Called by the `status` steps.

use std::{borrow::Borrow, fmt};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};

use crate::domain::control::Problem;

/// Waiting reasons of a container that will not pass by themselves soon.
const STUCK: [&str; 8] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];

/// Reason of a Deployment whose pods the API server refuses.
pub const PODS_REFUSED: &str = "PodsRefused";

fn problem(reason: impl Into<String>, message: impl fmt::Display) -> Problem {
    Problem { reason: reason.into(), message: message.to_string() }
}

/// What keeps pods from running, if anything does.
pub fn pod_problem<P: Borrow<Pod>>(pods: &[P]) -> Option<Problem> {
    pods.iter().map(Borrow::borrow).filter(|pod| pod.metadata.deletion_timestamp.is_none()).find_map(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let status = pod.status.as_ref()?;
        let unschedulable = status
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == "PodScheduled" && c.status == "False" && c.reason.as_deref() == Some("Unschedulable"))
            .map(|c| {
                problem("Unschedulable", format!("pod {name}: {}", c.message.as_deref().unwrap_or("no node fits")))
            });
        let containers =
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
        let stuck = containers.into_iter().find_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            let reason = waiting.reason.as_deref().filter(|reason| STUCK.contains(reason))?;
            // The kubelet's message of a crash loop holds a pause that grows and the pod's uid: noise in a condition.
            let message = match reason {
                "CrashLoopBackOff" => {
                    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                    format!("see kubectl -n {namespace} logs {name} -c {} --previous", container.name)
                }
                _ => waiting.message.clone().unwrap_or_default(),
            };
            Some(problem(reason, format!("pod {name}, container {}: {reason}: {message}", container.name)))
        });
        unschedulable.or(stuck)
    })
}

/// What keeps a Deployment's pods from being made: a quota, an admission, a class that does not exist.
fn refusal(deployment: &Deployment) -> Option<Problem> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let refused = conditions.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    let why = refused.message.as_deref().unwrap_or("without a reason");
    Some(problem(PODS_REFUSED, format!("Kubernetes makes no pod, change what it names: {why}")))
}

/// What keeps the pods of a Deployment from running, or from being there at all.
pub fn obstacle<P: Borrow<Pod>>(deployment: Option<&Deployment>, pods: &[P]) -> Option<Problem> {
    pod_problem(pods).or_else(|| refusal(deployment?))
}

/// What a Deployment still waits for; `None` = rolled out.
pub fn waits_for<P: Borrow<Pod>>(name: &str, deployment: Option<&Deployment>, pods: &[P]) -> Option<Problem> {
    let Some(deployment) = deployment else { return Some(problem("RollingOut", format!("{name} is being created"))) };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        return Some(problem("RollingOut", format!("{name} is being rolled out")));
    }
    if let Some(refused) = refusal(deployment) {
        return Some(refused);
    }
    let settled = status.updated_replicas.unwrap_or(0) >= wanted
        && status.available_replicas.unwrap_or(0) >= wanted
        && status.replicas.unwrap_or(0) <= wanted;
    if settled {
        return None;
    }
    Some(pod_problem(pods).unwrap_or_else(|| problem("RollingOut", format!("the pod of {name} is not ready yet"))))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{
        apps::v1::{DeploymentCondition, DeploymentSpec, DeploymentStatus},
        core::v1::{ContainerState, ContainerStateWaiting, ContainerStatus, PodCondition, PodStatus},
    };

    use super::*;

    fn deployment(replicas: i32, status: DeploymentStatus) -> Deployment {
        let mut deployment = Deployment {
            spec: Some(DeploymentSpec { replicas: Some(replicas), ..DeploymentSpec::default() }),
            status: Some(DeploymentStatus { observed_generation: Some(2), ..status }),
            ..Deployment::default()
        };
        deployment.metadata.generation = Some(2);
        deployment
    }

    fn waiting(reason: &str, message: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some("p-1".into());
        let waiting = ContainerStateWaiting { reason: Some(reason.into()), message: Some(message.into()) };
        let container = ContainerStatus {
            name: "agent".into(),
            state: Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() }),
            ..ContainerStatus::default()
        };
        pod.status = Some(PodStatus { container_statuses: Some(vec![container]), ..PodStatus::default() });
        pod
    }

    #[test]
    fn truth_table() {
        let ready = DeploymentStatus {
            replicas: Some(1),
            updated_replicas: Some(1),
            available_replicas: Some(1),
            ..DeploymentStatus::default()
        };
        let none: [Pod; 0] = [];
        assert_eq!(waits_for("d", Some(&deployment(1, ready.clone())), &none), None);
        assert_eq!(waits_for("d", Some(&deployment(0, DeploymentStatus::default())), &none), None);
        let reason = |d: Option<&Deployment>, pods: &[Pod]| waits_for("d", d, pods).map(|p| p.reason);
        assert_eq!(reason(None, &none).as_deref(), Some("RollingOut"));
        let mut stale = deployment(1, ready);
        stale.metadata.generation = Some(3);
        assert_eq!(reason(Some(&stale), &none).as_deref(), Some("RollingOut"));
        let pulling = deployment(1, DeploymentStatus::default());
        assert_eq!(
            reason(Some(&pulling), &[waiting("ImagePullBackOff", "no such image")]).as_deref(),
            Some("ImagePullBackOff")
        );
        assert_eq!(reason(Some(&pulling), &[waiting("ContainerCreating", "")]).as_deref(), Some("RollingOut"));
        let refused = deployment(
            1,
            DeploymentStatus {
                conditions: Some(vec![DeploymentCondition {
                    type_: "ReplicaFailure".into(),
                    status: "True".into(),
                    message: Some("exceeded quota".into()),
                    ..DeploymentCondition::default()
                }]),
                ..DeploymentStatus::default()
            },
        );
        let why = problem(PODS_REFUSED, "Kubernetes makes no pod, change what it names: exceeded quota");
        assert_eq!(waits_for("d", Some(&refused), &none), Some(why.clone()));
        // A Camera whose pod is not there said "no word", and sent people to the logs of no pod.
        assert_eq!(obstacle(Some(&refused), &none), Some(why));
        assert_eq!(obstacle(Some(&pulling), &none), None);
    }

    #[test]
    fn a_pod_without_a_node_says_why() {
        let status = Some(PodStatus {
            conditions: Some(vec![PodCondition {
                type_: "PodScheduled".into(),
                status: "False".into(),
                reason: Some("Unschedulable".into()),
                message: Some("0/1 nodes are available".into()),
                ..PodCondition::default()
            }]),
            ..PodStatus::default()
        });
        let pod = Pod { status, ..Pod::default() };
        assert_eq!(pod_problem(&[pod]).map(|p| p.reason).as_deref(), Some("Unschedulable"));
    }
}
