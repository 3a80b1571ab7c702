//! Pure: spec and observation → everything the children are made of, or why that cannot be.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::Toleration,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
};
use kube::{Resource, ResourceExt};

use super::{keys::Keys, observe::Observed};
use crate::{
    api::{StorageNode, storage_node::ReclaimPolicy},
    domain::{
        group::{Endpoint, Node, Peers},
        identity::PeerId,
        name::{self, CLUSTER_SWARM_PORT, KUBO_SWARM_PORT},
        quantity,
    },
    operator::error::Error,
};

/// Share of the volume that is kubo's, percent: the rest is for its index, ipfs-cluster's state and what a collection
/// has not yet freed.
const STORAGE_SHARE: u64 = 85;

/// A node that can be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Namespace.
    pub namespace: String,
    /// Name of the `StorageNode`.
    pub node: String,
    /// Its group.
    pub group: String,
    /// The node, as owner and controller of its children.
    pub owner: OwnerReference,
    /// Every node of the group, as owner of what they share.
    pub group_owners: Vec<OwnerReference>,
    /// Size of the volume.
    pub capacity: Quantity,
    /// Bytes kubo may take.
    pub storage_max: u64,
    /// Class of the volume.
    pub storage_class_name: Option<String>,
    /// Fate of the volume.
    pub reclaim_policy: ReclaimPolicy,
    /// Labels of the machine.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Tolerations of the pod.
    pub tolerations: Option<Vec<Toleration>>,
    /// Who the node is, and the fingerprint of what its group shares.
    pub keys: Keys,
    /// Every node of the group that is known by now.
    pub peers: Peers,
}

/// Plans.
pub fn storage_node(node: &StorageNode, observed: &Observed, keys: Keys) -> Result<Plan, Error> {
    let (namespace, name) = (node.namespace().unwrap_or_default(), node.name_any());
    let managed = &node.spec.managed;
    let capacity = bytes(&managed.capacity).ok_or_else(|| Error::Invalid {
        reason: "CapacityInvalid",
        message: format!("capacity {:?} is no quantity: write e.g. 100Gi", managed.capacity.0),
    })?;
    volume_is_big_enough(observed, capacity)?;
    let owner = node
        .controller_owner_ref(&())
        .ok_or_else(|| Error::Invalid { reason: "NotStored", message: "the StorageNode has no uid yet".to_owned() })?;
    Ok(Plan {
        group: node.effective_group().to_owned(),
        owner,
        group_owners: observed.group.iter().filter_map(|member| member.owner_ref(&())).collect(),
        capacity: managed.capacity.clone(),
        storage_max: capacity / 100 * STORAGE_SHARE,
        storage_class_name: managed.storage_class_name.clone(),
        reclaim_policy: managed.effective_reclaim_policy(),
        node_selector: managed.node_selector.clone(),
        tolerations: managed.tolerations.clone(),
        peers: Peers::new(observed.group.iter().filter_map(|member| {
            // This node's identity was just read; the others write theirs into their status.
            let own = (member.name_any() == name).then(|| (keys.kubo.clone(), keys.cluster.clone()));
            let (kubo, cluster) = own.or_else(|| identities(member))?;
            Some(Node {
                host: name::storage_host(&member.name_any(), &namespace),
                name: member.name_any(),
                kubo: Endpoint { id: kubo, port: KUBO_SWARM_PORT },
                cluster: Endpoint { id: cluster, port: CLUSTER_SWARM_PORT },
            })
        })),
        keys,
        namespace,
        node: name,
    })
}

/// What a node has written about itself.
fn identities(node: &StorageNode) -> Option<(PeerId, PeerId)> {
    let status = node.status.as_ref()?;
    Some((status.ipfs_peer_id.as_ref()?.parse().ok()?, status.cluster_peer_id.as_ref()?.parse().ok()?))
}

/// A volume that an earlier node of that name left keeps its size.
fn volume_is_big_enough(observed: &Observed, wanted: u64) -> Result<(), Error> {
    let Some(claim) = &observed.claim else { return Ok(()) };
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
    match requests.and_then(|size| Some((size, bytes(size)?))) {
        Some((size, has)) if has < wanted => Err(Error::Invalid {
            reason: "VolumeTooSmall",
            message: format!(
                "the volume of an earlier StorageNode of this name has {}: create the node with that capacity, or under \
                 another name",
                size.0
            ),
        }),
        _ => Ok(()),
    }
}

fn bytes(quantity: &Quantity) -> Option<u64> {
    u64::try_from(quantity::parse(&quantity.0)? / 1_000_000_000).ok()
}

#[cfg(test)]
pub mod fixture {
    //! A group of two nodes of which the second has not written its identity yet, or has.

    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
    use kube::api::ObjectMeta;

    use super::*;
    use crate::{
        api::{StorageNodeSpec, StorageNodeStatus, storage_node::Managed},
        domain::identity::Identity,
    };

    /// A node of namespace `cams`, group `default`.
    pub fn node(name: &str) -> StorageNode {
        let managed = Managed {
            capacity: Quantity("100Gi".into()),
            storage_class_name: None,
            node_selector: None,
            tolerations: None,
            reclaim_policy: None,
        };
        let mut node = StorageNode::new(name, StorageNodeSpec { group: None, managed });
        node.metadata = ObjectMeta {
            name: Some(name.into()),
            namespace: Some("cams".into()),
            uid: Some(format!("uid-of-{name}")),
            generation: Some(1),
            ..ObjectMeta::default()
        };
        node
    }

    /// The node once it has written its identity into its status.
    pub fn known(name: &str, seed: u8) -> StorageNode {
        let keys = keys(seed);
        let status = StorageNodeStatus {
            ipfs_peer_id: Some(keys.kubo.to_string()),
            cluster_peer_id: Some(keys.cluster.to_string()),
            ..StorageNodeStatus::default()
        };
        StorageNode { status: Some(status), ..node(name) }
    }

    /// Keys that anyone can make again.
    pub fn keys(seed: u8) -> Keys {
        Keys {
            kubo: Identity::from_seed([seed; 32]).peer_id,
            cluster: Identity::from_seed([seed + 100; 32]).peer_id,
            fingerprint: "0123456789abcdef".into(),
        }
    }

    /// Nothing but the group's nodes.
    pub fn observed(group: impl IntoIterator<Item = StorageNode>) -> Observed {
        Observed { group: group.into_iter().map(Arc::new).collect(), ..Observed::default() }
    }

    /// A volume claim of that size.
    pub fn claim(size: &str) -> PersistentVolumeClaim {
        let requests = Some([("storage".to_owned(), Quantity(size.into()))].into());
        PersistentVolumeClaim {
            spec: Some(PersistentVolumeClaimSpec {
                resources: Some(VolumeResourceRequirements { requests, limits: None }),
                ..PersistentVolumeClaimSpec::default()
            }),
            ..PersistentVolumeClaim::default()
        }
    }

    /// The plan of `disk-1` beside `disk-2`.
    pub fn plan() -> Plan {
        storage_node(&node("disk-1"), &observed([node("disk-1"), known("disk-2", 2)]), keys(1)).expect("a valid node")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{fixture::*, *};

    #[test]
    fn every_node_of_a_group_plans_the_same_for_the_group() {
        let group = || [known("disk-1", 1), known("disk-2", 2)];
        let first = storage_node(&known("disk-1", 1), &observed(group()), keys(1)).expect("valid");
        let second = storage_node(&known("disk-2", 2), &observed(group()), keys(2)).expect("valid");
        assert_eq!(first.peers, second.peers);
        assert_eq!(first.group_owners, second.group_owners);
        assert!(first.group_owners.iter().all(|owner| owner.controller != Some(true)));
    }

    #[test]
    fn a_node_that_nobody_knows_yet_is_left_out_and_the_node_itself_is_not() {
        let plan = storage_node(&node("disk-1"), &observed([node("disk-1"), node("disk-2")]), keys(1)).expect("valid");
        let names: Vec<_> = plan.peers.peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!(names, ["disk-1"]);
    }

    #[test]
    fn footage_gets_85_percent() {
        assert_eq!(plan().storage_max, 100 * (1 << 30) / 100 * 85);
    }

    #[test]
    fn a_smaller_volume_that_was_left_behind_is_refused() {
        let with = |size| Observed { claim: Some(Arc::new(claim(size))), ..observed([node("disk-1")]) };
        assert!(storage_node(&node("disk-1"), &with("100Gi"), keys(1)).is_ok());
        assert!(storage_node(&node("disk-1"), &with("200Gi"), keys(1)).is_ok());
        let error = storage_node(&node("disk-1"), &with("10Gi"), keys(1)).expect_err("too small");
        assert_eq!(error.reason(), "VolumeTooSmall");
        assert!(error.to_string().contains("10Gi"), "{error}");
    }
}
