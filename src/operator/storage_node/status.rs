//! Pure: what was observed and what came of it → the node's status.
//!
//! `Ready` = accepted and rolled out, and stays true while a pod that was ready once recovers by itself; `Online` = kubo
//! and the cluster peer answer now.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use super::{keys::Keys, observe::Observed, plan::Plan};
use crate::{
    api::{
        StorageNode, StorageNodeStatus,
        condition::{self, Truth, Verdict},
    },
    operator::{error::Error, rollout},
};

/// Condition: accepted and rolled out.
const READY: &str = "Ready";
/// Condition: works now.
const ONLINE: &str = "Online";

/// The status.
///
/// `identity` is told as soon as it is known, also when nothing else works: every node of the group makes the list of its
/// peers from it, and two that make different lists would write over each other's for ever.
pub fn storage_node(
    node: &StorageNode,
    observed: &Observed,
    identity: Option<&Keys>,
    outcome: &Result<Plan, Error>,
    now: Timestamp,
) -> StorageNodeStatus {
    let before = node.status.clone().unwrap_or_default();
    let (kubo, cluster) = match identity {
        Some(keys) => (Some(keys.kubo.to_string()), Some(keys.cluster.to_string())),
        // What it was stays: its neighbours go by it.
        None => (before.ipfs_peer_id, before.cluster_peer_id),
    };
    let verdicts = [ready(node, observed, outcome), online(observed)];
    StorageNodeStatus {
        observed_generation: node.metadata.generation,
        group: Some(node.effective_group().to_owned()),
        ipfs_peer_id: kubo,
        cluster_peer_id: cluster,
        conditions: condition::merge(&before.conditions, &verdicts, node.metadata.generation, now),
    }
}

fn ready(node: &StorageNode, observed: &Observed, outcome: &Result<Plan, Error>) -> Verdict {
    let no = |reason, message: String| Verdict::new(READY, Truth::False, reason, message);
    if let Err(error) = outcome {
        // Of a conflict nobody can do anything: the next look settles it.
        let truth = if error.is_conflict() { Truth::Unknown } else { Truth::False };
        return Verdict::new(READY, truth, error.reason(), error.to_string());
    }
    let Some(set) = &observed.stateful_set else { return no("RollingOut", "the pod is being created".to_owned()) };
    let status = set.status.clone().unwrap_or_default();
    if status.observed_generation < set.metadata.generation || status.current_revision != status.update_revision {
        // A pod that is stuck says more than that the new one is not there yet.
        let stuck = rollout::pod_problem(&observed.pods).map(|problem| problem.message);
        return no("RollingOut", stuck.unwrap_or_else(|| "the pod is being replaced".to_owned()));
    }
    if observed.is_running() {
        return Verdict::new(READY, Truth::True, "RolledOut", "accepted and rolled out");
    }
    if let Some(stuck) = rollout::pod_problem(&observed.pods) {
        return no("RollingOut", stuck.message);
    }
    let was_ready = condition::find(&node.status.clone().unwrap_or_default().conditions, READY)
        .is_some_and(|ready| ready.status == "True" && ready.observed_generation == node.metadata.generation);
    if was_ready {
        Verdict::new(READY, Truth::True, "RolledOut", "accepted and rolled out")
    } else {
        no("RollingOut", "the pod is starting".to_owned())
    }
}

fn online(observed: &Observed) -> Verdict {
    let no = |reason, message: String| Verdict::new(ONLINE, Truth::False, reason, message);
    if observed.is_running() {
        return Verdict::new(ONLINE, Truth::True, "Online", "kubo and ipfs-cluster answer");
    }
    if let Some(stuck) = rollout::pod_problem(&observed.pods) {
        return no("PodStuck", stuck.message);
    }
    let Some(pod) = observed.pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_none()) else {
        return no("PodMissing", "there is no pod yet".to_owned());
    };
    let name = pod.name_any();
    match containers(pod).find(|container| !container.ready) {
        Some(container) if container.name == "agent" && container.started == Some(true) => {
            no("NotAnswering", format!("kubo or ipfs-cluster does not answer: see kubectl logs {name} -c agent"))
        }
        Some(container) if container.restart_count > 0 || has_ended(container) => no(
            "Restarting",
            format!("{} restarts: see kubectl logs {name} -c {} --previous", container.name, container.name),
        ),
        _ => no("Starting", format!("pod {name} is starting")),
    }
}

fn has_ended(container: &ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|state| state.terminated.is_some())
}

/// The containers that have something to say: of the init steps only those that are not done.
fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| {
        status
            .init_container_statuses
            .iter()
            .flatten()
            .filter(|init| !init.ready)
            .chain(status.container_statuses.iter().flatten())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::{
        apps::v1::{StatefulSet, StatefulSetStatus},
        core::v1::{ContainerState, ContainerStateWaiting, PodCondition, PodStatus},
    };
    use kube::api::ObjectMeta;

    use super::{
        super::plan::{self, fixture},
        *,
    };

    fn set(ready: i32, current: &str, update: &str) -> Arc<StatefulSet> {
        Arc::new(StatefulSet {
            metadata: ObjectMeta { generation: Some(1), ..ObjectMeta::default() },
            status: Some(StatefulSetStatus {
                observed_generation: Some(1),
                ready_replicas: Some(ready),
                current_revision: Some(current.into()),
                update_revision: Some(update.into()),
                ..StatefulSetStatus::default()
            }),
            ..StatefulSet::default()
        })
    }

    fn container(name: &str, ready: bool, waiting: Option<(&str, &str)>) -> ContainerStatus {
        ContainerStatus {
            name: name.into(),
            ready,
            started: Some(waiting.is_none()),
            restart_count: i32::from(waiting.is_some()),
            state: waiting.map(|(reason, message)| ContainerState {
                waiting: Some(ContainerStateWaiting { reason: Some(reason.into()), message: Some(message.into()) }),
                ..ContainerState::default()
            }),
            ..ContainerStatus::default()
        }
    }

    fn pod(containers: Vec<ContainerStatus>) -> Arc<Pod> {
        let metadata = ObjectMeta { name: Some("sn-disk-1-0".into()), ..ObjectMeta::default() };
        let status = PodStatus { container_statuses: Some(containers), ..PodStatus::default() };
        Arc::new(Pod { metadata, status: Some(status), ..Pod::default() })
    }

    fn unschedulable() -> Arc<Pod> {
        let condition = PodCondition {
            type_: "PodScheduled".into(),
            status: "False".into(),
            reason: Some("Unschedulable".into()),
            message: Some("0/1 nodes are available".into()),
            ..PodCondition::default()
        };
        let status = PodStatus { conditions: Some(vec![condition]), ..PodStatus::default() };
        let metadata = ObjectMeta { name: Some("sn-disk-1-0".into()), ..ObjectMeta::default() };
        Arc::new(Pod { metadata, status: Some(status), ..Pod::default() })
    }

    fn verdicts(node: &StorageNode, observed: &Observed) -> String {
        let status = storage_node(
            node,
            observed,
            Some(&fixture::keys(1)),
            &plan::storage_node(node, observed, fixture::keys(1)),
            Timestamp::UNIX_EPOCH,
        );
        let lines: Vec<_> =
            status.conditions.iter().map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message)).collect();
        lines.join("\n")
    }

    #[test]
    fn truth_table() {
        let node = fixture::node("disk-1");
        let observed = |set: Option<Arc<StatefulSet>>, pods: Vec<Arc<Pod>>| Observed {
            stateful_set: set,
            pods,
            ..fixture::observed([fixture::node("disk-1")])
        };
        let agent = |ready| container("agent", ready, None);
        let cases = [
            ("nothing yet", observed(None, vec![])),
            ("running", observed(Some(set(1, "a", "a")), vec![pod(vec![agent(true)])])),
            ("starting", observed(Some(set(0, "a", "a")), vec![pod(vec![])])),
            ("new revision", observed(Some(set(0, "a", "b")), vec![pod(vec![])])),
            (
                "kubo silent",
                observed(Some(set(0, "a", "a")), vec![pod(vec![container("kubo", true, None), agent(false)])]),
            ),
            (
                "kubo crashes",
                observed(
                    Some(set(0, "a", "a")),
                    vec![pod(vec![
                        container("kubo", false, Some(("CrashLoopBackOff", "back-off 2m40s"))),
                        agent(false),
                    ])],
                ),
            ),
            (
                "no image",
                observed(
                    Some(set(0, "a", "a")),
                    vec![pod(vec![container("cluster", false, Some(("ImagePullBackOff", "not found")))])],
                ),
            ),
            ("no machine", observed(Some(set(0, "a", "a")), vec![unschedulable()])),
        ];
        let table: Vec<_> =
            cases.iter().map(|(case, observed)| format!("# {case}\n{}", verdicts(&node, observed))).collect();
        insta::assert_snapshot!(table.join("\n"));
    }

    #[test]
    fn a_node_that_recovers_by_itself_stays_ready_and_is_not_online() {
        let mut node = fixture::node("disk-1");
        let observed = |ready| Observed {
            stateful_set: Some(set(ready, "a", "a")),
            pods: vec![pod(vec![container("agent", ready > 0, None)])],
            ..fixture::observed([fixture::node("disk-1")])
        };
        let outcome = plan::storage_node(&node, &observed(1), fixture::keys(1));
        node.status = Some(storage_node(&node, &observed(1), Some(&fixture::keys(1)), &outcome, Timestamp::UNIX_EPOCH));
        let later = verdicts(&node, &observed(0));
        assert!(later.starts_with("Ready=True") && later.contains("Online=False NotAnswering"), "{later}");
        // An edit asks for a new roll-out.
        node.metadata.generation = Some(2);
        assert!(verdicts(&node, &observed(0)).starts_with("Ready=False"));
    }

    /// A node that could not be rolled out kept its identity to itself; it and its neighbour then wrote their common list
    /// of peers in turn, thirty times a second.
    #[test]
    fn a_node_that_fails_tells_its_identity_so_that_all_make_the_same_list() {
        let mut failing = fixture::node("disk-1");
        let neighbour = fixture::known("disk-2", 2);
        let group = |failing: &StorageNode| fixture::observed([failing.clone(), neighbour.clone()]);
        let own = plan::storage_node(&failing, &group(&failing), fixture::keys(1)).expect("a plan").peers;
        let outcome = Err(Error::Invalid { reason: "Rejected", message: "a toleration".into() });
        let keys = fixture::keys(1);
        failing.status = Some(storage_node(&failing, &group(&failing), Some(&keys), &outcome, Timestamp::UNIX_EPOCH));
        let seen = plan::storage_node(&neighbour, &group(&failing), fixture::keys(2)).expect("a plan").peers;
        assert_eq!(seen, own);
    }

    #[test]
    fn a_mismatch_of_keys_says_what_to_do_and_keeps_the_identity() {
        let node = fixture::known("disk-1", 1);
        let outcome = Err(Error::Lost { reason: "GroupKeyMismatch", message: "restore dsn-master".into() });
        let status = storage_node(&node, &fixture::observed([node.clone()]), None, &outcome, Timestamp::UNIX_EPOCH);
        assert_eq!(status.conditions[0].reason, "GroupKeyMismatch");
        assert_eq!(status.conditions[0].message, "restore dsn-master");
        assert_eq!(status.ipfs_peer_id, node.status.and_then(|status| status.ipfs_peer_id));
    }

    #[test]
    fn at_rest_the_status_does_not_change() {
        let mut node = fixture::node("disk-1");
        let observed =
            Observed { stateful_set: Some(set(1, "a", "a")), ..fixture::observed([fixture::node("disk-1")]) };
        let at = |node: &StorageNode, second| {
            let now = Timestamp::from_second(second).expect("a time");
            storage_node(
                node,
                &observed,
                Some(&fixture::keys(1)),
                &plan::storage_node(node, &observed, fixture::keys(1)),
                now,
            )
        };
        node.status = Some(at(&node, 1));
        assert_eq!(node.status, Some(at(&node, 2)));
    }
}
