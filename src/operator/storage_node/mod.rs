//! The `StorageNode` controller.

use std::sync::Arc;

use kube::runtime::controller::Action;

use super::{context::Context, error::Error};
use crate::api::StorageNode;

/// Brings one `StorageNode`'s children to what its spec says.
pub async fn reconcile(_node: Arc<StorageNode>, _ctx: Arc<Context>) -> Result<Action, Error> {
    Ok(Action::await_change())
}
