//! The node itself: kubo, its ipfs-cluster peer and the storage agent around one volume.
//!
//! The public images and the locally built ones both fit: what runs is named here, and the configuration is rendered by
//! the init step, so no entry point script is needed. Everybody is the same unprivileged user; nobody has a Kubernetes
//! token.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec},
        core::v1::{
            Affinity, Container, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodAffinityTerm, PodAntiAffinity,
            PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile, VolumeResourceRequirements,
            WeightedPodAffinityTerm,
        },
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::api::ObjectMeta;

use super::{COMPONENT, Plan, node_metadata};
use crate::{
    api::storage_node::ReclaimPolicy,
    domain::name,
    operator::{context::Images, labels},
};

mod containers;
mod volumes;

/// User, group and owner of the files.
const USER: i64 = 65532;
/// Name of the volume claim template.
const VOLUME: &str = "data";
/// Annotation of the pod: fingerprint of the group's Secret. Nothing here depends on who else is in the group.
const GROUP_KEY: &str = "dsn.network/group-key";

/// Name of a node's volume claim.
pub fn claim_name(node: &str) -> String {
    format!("{VOLUME}-{}-0", name::storage_node(node))
}

/// What tells the pods of a node from all others. Fixed for the life of a `StatefulSet`.
pub fn selector(plan: &Plan) -> BTreeMap<String, String> {
    [(labels::COMPONENT, COMPONENT), (labels::STORAGE_NODE, plan.node.as_str())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The fingerprint that a `StatefulSet`'s pods were made with.
pub fn fingerprint_of(stateful_set: &StatefulSet) -> Option<String> {
    let template = stateful_set.spec.as_ref()?.template.metadata.as_ref()?;
    template.annotations.as_ref()?.get(GROUP_KEY).cloned()
}

/// The `StatefulSet`.
pub fn stateful_set(plan: &Plan, images: &Images) -> StatefulSet {
    let when_deleted = match plan.reclaim_policy {
        ReclaimPolicy::Retain => "Retain",
        ReclaimPolicy::Delete => "Delete",
    };
    StatefulSet {
        metadata: node_metadata(plan, name::storage_node(&plan.node)),
        spec: Some(StatefulSetSpec {
            replicas: Some(1),
            service_name: Some(name::storage_node(&plan.node)),
            selector: LabelSelector { match_labels: Some(selector(plan)), match_expressions: None },
            // A pod that never gets ready would otherwise hold up the template that repairs it.
            pod_management_policy: Some("Parallel".to_owned()),
            revision_history_limit: Some(2),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(when_deleted.to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels::storage_node(&plan.node, &plan.group, COMPONENT)),
                    annotations: Some([(GROUP_KEY.to_owned(), plan.keys.fingerprint.clone())].into()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(plan, images)),
            },
            volume_claim_templates: Some(vec![claim(plan)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn pod(plan: &Plan, images: &Images) -> PodSpec {
    let image = |container: Container, image: &str| Container {
        image: Some(image.to_owned()),
        image_pull_policy: Some(images.pull_policy.clone()),
        ..container
    };
    PodSpec {
        init_containers: Some(vec![image(containers::init(plan), &images.operator)]),
        containers: vec![
            image(containers::kubo(), &images.kubo),
            image(containers::cluster(), &images.cluster),
            image(containers::agent(plan), &images.operator),
        ],
        volumes: Some(volumes::all(plan)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(60),
        node_selector: plan.node_selector.clone(),
        tolerations: plan.tolerations.clone(),
        affinity: Some(apart_from_its_group(plan)),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            // Changing the owner of every block at every start would take minutes.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

/// Replicas are worth most on different machines; on a single one the group still runs.
fn apart_from_its_group(plan: &Plan) -> Affinity {
    let same_group = [(labels::COMPONENT, COMPONENT), (labels::GROUP, plan.group.as_str())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    topology_key: "kubernetes.io/hostname".to_owned(),
                    label_selector: Some(LabelSelector {
                        match_labels: Some(same_group.into()),
                        match_expressions: None,
                    }),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn claim(plan: &Plan) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(VOLUME.to_owned()),
            labels: Some(labels::storage_node(&plan.node, &plan.group, COMPONENT)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: plan.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), plan.capacity.clone())].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::plan::{self, fixture},
        *,
    };

    fn images() -> Images {
        Images {
            operator: "dsn/operator:1".into(),
            capture: "dsn/capture:1".into(),
            transcoder: "dsn/transcoder:1".into(),
            kubo: "ipfs/kubo:v0.43.0".into(),
            cluster: "ipfs/ipfs-cluster:v1.1.6".into(),
            pull_policy: "IfNotPresent".into(),
        }
    }

    #[test]
    fn stateful_set_of_disk_1() {
        insta::assert_yaml_snapshot!(stateful_set(&fixture::plan(), &images()));
    }

    #[test]
    fn a_new_neighbour_restarts_nobody() {
        let alone = plan::storage_node(
            &fixture::node("disk-1"),
            &fixture::observed([fixture::node("disk-1")]),
            fixture::keys(1),
        );
        let alone = stateful_set(&alone.expect("valid"), &images());
        assert_eq!(alone, stateful_set(&fixture::plan(), &images()));
    }

    #[test]
    fn a_new_group_key_restarts_the_pod() {
        let mut plan = fixture::plan();
        let before = stateful_set(&plan, &images());
        plan.keys.fingerprint = "other".into();
        let after = stateful_set(&plan, &images());
        assert_ne!(before, after);
        assert_eq!(fingerprint_of(&after).as_deref(), Some("other"));
    }

    #[test]
    fn the_volume_goes_with_the_node_only_when_told() {
        let policy = |plan: &Plan| {
            let spec = stateful_set(plan, &images()).spec.expect("a spec");
            spec.persistent_volume_claim_retention_policy.and_then(|policy| policy.when_deleted)
        };
        let mut plan = fixture::plan();
        assert_eq!(policy(&plan).as_deref(), Some("Retain"));
        plan.reclaim_policy = ReclaimPolicy::Delete;
        assert_eq!(policy(&plan).as_deref(), Some("Delete"));
    }
}
