//! Role `storage`.

use crate::telemetry::Outcome;

/// Arguments of the role.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the role until shutdown.
pub async fn run(_args: Args) -> Outcome {
    Ok(())
}
