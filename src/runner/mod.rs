//! Role `runner`: pid 1 beside ffmpeg. Starts, watches and stops the capture as the assignment says, and reports.
//!
//! It reads hostile input through ffmpeg, so it holds the camera's credentials and nothing else: no token, no broker,
//! no IPFS. It never gives up, and it never waits for anything behind it; its files in the spool are its only voice.

mod backoff;
mod capture;
mod picture;
mod probe;
mod room;
mod session;
mod told;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    backoff::Backoff,
    capture::{Capture, Ended, PAUSED},
    told::{Order, Told, Wanted},
};
use crate::{
    domain::{
        control::Phase,
        diagnosis,
        segment::GapReason,
        spool::{self, RunnerReport},
    },
    files::{self, Hints},
    orphans,
    report::Reporter,
    telemetry::{self, Outcome},
};

/// Files are looked at this often even without a hint.
const RESCAN: Duration = Duration::from_secs(10);

/// Arguments of the role.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Volume for footage, shared with the agent.
    #[arg(long, env = "DSN_SPOOL", default_value = "/spool")]
    pub spool: PathBuf,
    /// Folder in which the agent writes the assignment.
    #[arg(long, env = "DSN_ASSIGNMENT", default_value = "/assignment")]
    pub assignment: PathBuf,
    /// Folder of the camera's mounted Secret.
    #[arg(long, env = "DSN_CREDENTIALS", default_value = "/etc/dsn/credentials")]
    pub credentials: PathBuf,
    /// Program that captures.
    #[arg(long, env = "DSN_FFMPEG", default_value = "ffmpeg")]
    pub ffmpeg: PathBuf,
    /// Program that probes.
    #[arg(long, env = "DSN_FFPROBE", default_value = "ffprobe")]
    pub ffprobe: PathBuf,
}

/// Runs the role until shutdown.
pub async fn run(args: Args) -> Outcome {
    let shutdown = telemetry::shutdown_token()?;
    let reporter = Reporter::new(args.spool.join(spool::REPORT_FILE), RunnerReport::differs);
    // What is open belongs to a runner that died only if there is no other: its sessions are not ours to close.
    let lock = args.spool.join(spool::RUNNER_LOCK);
    let Some(alone) = shutdown.run_until_cancelled(files::alone(&lock)).await else { return Ok(()) };
    let _alone = alone?;
    session::close_left_open(&args.spool)?;
    let (told, hears) = watch::channel(Told::read(&args.assignment, &args.credentials));
    let hints = hints(&args.assignment, &args.credentials);
    tokio::select! {
        () = listen(&args, hints, &told) => {}
        () = orphans::reap() => {}
        () = reporter.keep_fresh() => {}
        () = supervise(&args, hears, &reporter, &shutdown) => {}
    }
    Ok(())
}

/// Hints about the assignment and the mounted Secret (the kubelet replaces a link beside its files).
fn hints(assignment: &Path, credentials: &Path) -> Hints {
    Hints::new(RESCAN, |_| true).folder(assignment, false).folder(credentials, false)
}

/// Keeps what we are told up to date.
async fn listen(args: &Args, mut hints: Hints, told: &watch::Sender<Told>) {
    loop {
        hints.wait().await;
        let now = Told::read(&args.assignment, &args.credentials);
        told.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }
}

/// Does what is wanted until shutdown: one capture run after the other, or nothing.
async fn supervise(
    args: &Args,
    mut told: watch::Receiver<Told>,
    reporter: &Reporter<RunnerReport>,
    shutdown: &CancellationToken,
) {
    let mut capture = Capture::new(args, reporter);
    let mut backoff = Backoff::default();
    while !shutdown.is_cancelled() {
        let now = told.borrow_and_update().clone();
        reporter.update(|report| report.revision = now.revision);
        let order = match now.wanted {
            Wanted::Capture(order) => order,
            Wanted::Nothing => {
                rest(&mut told, reporter, Phase::Starting, shutdown).await;
                continue;
            }
            Wanted::Paused | Wanted::Draining => {
                let since = Instant::now();
                rest(&mut told, reporter, Phase::Paused, shutdown).await;
                capture.hindered(since, GapReason::Paused, PAUSED);
                continue;
            }
            Wanted::Impossible(problem) => {
                tracing::warn!(reason = problem.reason, "{}", problem.message);
                let since = Instant::now();
                let (gap, message) = (diagnosis::gap_of(&problem), problem.message.clone());
                reporter.update(|report| report.problem = Some(problem));
                rest(&mut told, reporter, Phase::Failing, shutdown).await;
                capture.hindered(since, gap, &message);
                continue;
            }
        };
        match capture.run(&order, &mut told, shutdown).await {
            // As told: go on at once with whatever is wanted now.
            Ended::Told => backoff = Backoff::default(),
            Ended::Failed { refused_login, captured } => {
                if captured {
                    backoff = Backoff::default();
                }
                wait(backoff.next(refused_login), &order, &mut told, shutdown).await;
            }
        }
    }
}

/// Reports a phase without ffmpeg and waits until something else is wanted.
async fn rest(
    told: &mut watch::Receiver<Told>,
    reporter: &Reporter<RunnerReport>,
    phase: Phase,
    shutdown: &CancellationToken,
) {
    reporter.update(|report| {
        report.phase = phase;
        report.session = None;
        if phase != Phase::Failing {
            report.problem = None;
        }
    });
    tokio::select! { _ = told.changed() => {}, () = shutdown.cancelled() => {} }
}

/// Waits before the next try, less when something else is wanted.
async fn wait(delay: Duration, order: &Order, told: &mut watch::Receiver<Told>, shutdown: &CancellationToken) {
    let changed = async {
        // A new revision of the same order is no reason to knock at the camera earlier.
        while told.changed().await.is_ok() && told.borrow_and_update().orders(order) {}
    };
    tokio::select! { () = tokio::time::sleep(delay) => {}, () = changed => {}, () = shutdown.cancelled() => {} }
}
