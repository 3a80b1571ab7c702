//! The command line: `dsn <role>` for the parts that run in pods, `dsn <verb>` for people.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{agent, operator, runner, server, storage, telemetry, transcoder};

mod crd;

/// Cameras and video on Kubernetes: capture, keep on IPFS, replay.
#[derive(Parser)]
#[command(name = "dsn", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the `CustomResourceDefinitions` as YAML.
    Crd(crd::Args),
    /// Role: reconcile Cameras, Pipelines and `StorageNodes` (Deployment dsn-operator).
    Operator(operator::Args),
    /// Role: recorder and gateway, with the catalogue (`StatefulSet` dsn-server).
    Server(server::Args),
    /// Role: sidecar of an instance: assignment, spool, upload, live.
    Agent(agent::Args),
    /// Role: pid 1 beside ffmpeg.
    Runner(runner::Args),
    /// Role: other sizes of the picture, beside ffmpeg.
    Transcoder(transcoder::Args),
    /// Role: storage agent in front of kubo, and the init step of its pod.
    Storage(storage::Args),
}

/// Parses the arguments and runs the role or verb to its end.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Two TLS providers may be compiled in by our dependencies; the first thing the process does is choose one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match cli.command {
        Command::Crd(args) => crd::run(&args),
        Command::Operator(args) => telemetry::block_on(operator::run(args)),
        Command::Server(args) => telemetry::block_on(server::run(args)),
        Command::Agent(args) => telemetry::block_on(agent::run(args)),
        Command::Runner(args) => telemetry::block_on(runner::run(args)),
        Command::Transcoder(args) => telemetry::block_on(transcoder::run(args)),
        Command::Storage(args) => telemetry::block_on(storage::run(args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dsn: {}", telemetry::chain(&*error));
            ExitCode::FAILURE
        }
    }
}
