//! Role `operator`.

use crate::telemetry::Outcome;

pub mod apply;
pub mod backoff;
mod containment;
pub mod context;
pub mod error;
pub mod events;
pub mod labels;
pub mod metrics;
pub mod storage_node;

/// Arguments of the role.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the role until shutdown.
pub async fn run(_args: Args) -> Outcome {
    Ok(())
}
