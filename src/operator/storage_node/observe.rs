//! What there is: the watched objects of the node and its group. Reads stores only.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::ResourceExt;

use super::desired::stateful_set;
use crate::{
    api::StorageNode,
    domain::name,
    operator::context::{self, Context},
};

/// What a reconcile looks at.
#[derive(Clone, Default)]
pub struct Observed {
    /// Every node of the group, this one included, in the order of their names.
    pub group: Vec<Arc<StorageNode>>,
    /// The node's `StatefulSet`.
    pub stateful_set: Option<Arc<StatefulSet>>,
    /// The node's volume claim.
    pub claim: Option<Arc<PersistentVolumeClaim>>,
    /// The node's pods.
    pub pods: Vec<Arc<Pod>>,
}

impl Observed {
    /// Does the node's pod work?
    pub fn is_running(&self) -> bool {
        let status = self.stateful_set.as_ref().and_then(|set| set.status.as_ref());
        status.is_some_and(|status| status.ready_replicas.unwrap_or(0) > 0)
    }
}

/// Looks.
pub fn storage_node(node: &StorageNode, ctx: &Context) -> Observed {
    let (namespace, name) = (node.namespace().unwrap_or_default(), node.name_any());
    let pods = ctx.stores.pods.of(&namespace, &name, |pod| pod.storage_node.as_deref() == Some(&name));
    Observed {
        group: context::select(&ctx.stores.storage_nodes, &namespace, |other| {
            other.effective_group() == node.effective_group() && other.metadata.deletion_timestamp.is_none()
        }),
        stateful_set: ctx.stores.stateful_sets.get(&namespace, &name::storage_node(&name)).map(|set| set.unpack()),
        claim: ctx.stores.volume_claims.get(&namespace, &stateful_set::claim_name(&name)).map(|claim| claim.unpack()),
        pods: pods.iter().map(|pod| pod.unpack()).collect(),
    }
}
