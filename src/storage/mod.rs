//! Role `storage`: what stands beside kubo and ipfs-cluster in a StorageNode's pod.
//!
//! `dsn storage init` renders their configuration before they start; `dsn storage serve` is the narrow HTTP API in front
//! of kubo (whose own RPC can do anything and therefore stays on a unix socket), and the one who looks after kubo:
//! neighbours, room, a socket left behind. It knows nothing of Kubernetes, queues or cameras.

pub mod init;
pub mod render;

mod access;
mod api;
mod have;
mod health;
mod metrics;
mod neighbours;
mod read;
mod room;
mod serve;
mod ticket;

use crate::telemetry::Outcome;

/// Arguments of the role.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    step: Step,
}

#[derive(clap::Subcommand)]
enum Step {
    /// Write the configuration of kubo and ipfs-cluster, then end.
    Init(init::Args),
    /// Serve uploads, roll-ups and reads in front of kubo.
    Serve(serve::Args),
}

/// Runs one of the two to its end.
pub async fn run(args: Args) -> Outcome {
    match args.step {
        Step::Init(args) => Ok(init::run(&args)?),
        Step::Serve(args) => serve::run(args).await,
    }
}
