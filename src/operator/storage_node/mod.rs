//! The `StorageNode` controller: one disk's worth of IPFS as a `StatefulSet`, and what its group shares.
//!
//! Several nodes of a group reconcile the group's objects; they write the same, so whoever comes second writes nothing.
//! No finalizer: children go with their owners, Secrets and (unless told otherwise) volumes stay and are found again.

mod desired;
mod keys;
mod observe;
mod plan;
mod status;

use std::sync::Arc;

use kube::runtime::controller::Action;

use self::{keys::Keys, observe::Observed, plan::Plan};
use super::{
    apply::{self, Manager},
    context::Context,
    error::Error,
};
use crate::api::StorageNode;

/// Brings one `StorageNode`'s children to what its spec says (rows K2, V10).
///
/// observe (stores) → keys (two Secrets, once) → plan (pure) → desired (pure) → apply → status (pure, on both branches)
pub async fn reconcile(node: Arc<StorageNode>, ctx: Arc<Context>) -> Result<Action, Error> {
    if node.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let observed = observe::storage_node(&node, &ctx);
    let keys = keys::of(&node, &observed, &ctx).await;
    let identity = keys.as_ref().ok().cloned();
    let outcome = match keys {
        Ok(keys) => bring_about(&node, &observed, keys, &ctx).await,
        Err(error) => Err(error),
    };
    let status = status::storage_node(&node, &observed, identity.as_ref(), &outcome, ctx.now());
    apply::status(&ctx, Manager::StorageNode, &*node, status).await?;
    outcome.map(|_| Action::await_change())
}

async fn bring_about(node: &StorageNode, observed: &Observed, keys: Keys, ctx: &Context) -> Result<Plan, Error> {
    let plan = plan::storage_node(node, observed, keys)?;
    // Configuration before what mounts it.
    apply::child(ctx, Manager::StorageNode, desired::peers::config_map(&plan)).await?;
    apply::child(ctx, Manager::StorageNode, desired::group_service::service(&plan)).await?;
    apply::child(ctx, Manager::StorageNode, desired::disruption_budget::disruption_budget(&plan)).await?;
    apply::child(ctx, Manager::StorageNode, desired::service::service(&plan)).await?;
    apply::child(ctx, Manager::StorageNode, desired::stateful_set::stateful_set(&plan, &ctx.config.images)).await?;
    Ok(plan)
}
