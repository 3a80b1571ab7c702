//! The two Secrets behind a node: its identity and what its group shares; made when they are missing, never written over.
//!
//! Secrets are not watched. Once they were read, and as long as the node runs, what follows from them is taken from the
//! node's status and its `StatefulSet`: a node at rest costs no call.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, ResourceExt};

use super::{
    desired::{group_secret, identity_secret, stateful_set},
    observe::Observed,
};
use crate::{
    api::StorageNode,
    domain::{
        identity::{Identity, PeerId},
        name,
    },
    operator::{
        apply,
        context::Context,
        error::{Error, Verb},
    },
};

/// How long a pod may take to start before its Secrets are looked at again.
const STARTING: SignedDuration = SignedDuration::from_secs(60);

/// What follows from the two Secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Identity of kubo.
    pub kubo: PeerId,
    /// Identity of the cluster peer.
    pub cluster: PeerId,
    /// Fingerprint of the group's Secret: another one restarts the pods.
    pub fingerprint: String,
}

/// Reads or makes them.
pub async fn of(node: &StorageNode, observed: &Observed, ctx: &Context) -> Result<Keys, Error> {
    match remembered(node, observed, ctx) {
        Some(keys) => Ok(keys),
        None => read_or_make(node, ctx, observed.claim.is_some()).await,
    }
}

/// Key of [`Context::known`] for a Secret that was read and found right.
fn known(namespace: &str, secret: &str) -> String {
    format!("secret/{namespace}/{secret}")
}

/// What an earlier reconcile of this process found, while nothing speaks against it.
fn remembered(node: &StorageNode, observed: &Observed, ctx: &Context) -> Option<Keys> {
    let namespace = node.namespace()?;
    let seen = [name::storage_identity_secret(&node.name_any()), name::storage_group(node.effective_group())]
        .iter()
        .all(|secret| ctx.known.contains(&known(&namespace, secret)));
    // A pod that does not get ready may be waiting for a Secret that somebody deleted.
    let young = |pod: &Arc<Pod>| {
        let born = pod.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |created| created.0);
        ctx.now().duration_since(born) < STARTING
    };
    (seen && (observed.is_running() || observed.pods.iter().all(young))).then_some(())?;
    let status = node.status.as_ref()?;
    Some(Keys {
        kubo: status.ipfs_peer_id.as_ref()?.parse().ok()?,
        cluster: status.cluster_peer_id.as_ref()?.parse().ok()?,
        fingerprint: stateful_set::fingerprint_of(observed.stateful_set.as_deref()?)?,
    })
}

async fn read_or_make(node: &StorageNode, ctx: &Context, has_volume: bool) -> Result<Keys, Error> {
    let (namespace, name) = (node.namespace().unwrap_or_default(), node.name_any());
    let group = node.effective_group();
    let wanted = group_secret::secret(&namespace, group, &ctx.master, rand::random(), rand::random());
    let group_name = name::storage_group(group);
    let found = apply::secret_once(ctx, &namespace, &group_name, || wanted).await?;
    group_secret::check(&found, &namespace, group, &ctx.master)?;
    ctx.known.insert(known(&namespace, &group_name));

    let identity_name = name::storage_identity_secret(&name);
    let identity = if has_volume {
        existing_identity(ctx, &namespace, &identity_name, &name).await?
    } else {
        let make = || {
            let (kubo, cluster) = (Identity::from_seed(rand::random()), Identity::from_seed(rand::random()));
            identity_secret::secret(&namespace, &name, group, &kubo, &cluster)
        };
        apply::secret_once(ctx, &namespace, &identity_name, make).await?
    };
    let (kubo, cluster) = identity_secret::peer_ids(&identity)?;
    ctx.known.insert(known(&namespace, &identity_name));
    Ok(Keys { kubo, cluster, fingerprint: group_secret::fingerprint(&found) })
}

/// The identity of a node that has a volume already: it is never made anew. The cluster knows the node's copies by its
/// identity, and would take all of them for lost.
async fn existing_identity(ctx: &Context, namespace: &str, secret: &str, node: &str) -> Result<Secret, Error> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    ctx.metrics.api_request(Verb::Get, "Secret");
    let found = api.get_opt(secret).await.map_err(|error| Error::api(Verb::Get, "Secret", secret, error))?;
    found.ok_or_else(|| Error::Lost {
        reason: "IdentityLost",
        message: format!(
            "Secret {secret:?} is gone, but the volume of the node is there: restore the Secret, or delete \
             PersistentVolumeClaim {:?} to start the node anew",
            stateful_set::claim_name(node)
        ),
    })
}
