//! Role `agent`: the sidecar of a capture pod that holds its tokens.
//!
//! It hands the assignment to the runner, seals and uploads what ffmpeg leaves in the spool, announces it, serves live
//! and says how the instance is doing. Capture never waits for it: killed at any line, it goes on from the spool and its
//! outbox. The spool is hostile to it (`spool`), the broker may be away for hours (`control`).

mod announce;
mod assignment;
mod commands;
mod context;
mod control;
#[cfg(test)]
mod fixture;
mod ladder;
mod live;
mod metrics;
mod outbox;
mod reading;
mod report;
mod rungs;
mod sealer;
mod spool;
mod trim;
mod upload;
mod watch;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use self::{context::Context, live::Live, outbox::Outbox, spool::Spool};
use crate::{
    domain::{
        id::SessionId,
        name::{LIVE_PORT, METRICS_PORT},
        session::LIVE_SEGMENTS,
        spool::{AGENT_FOLDER, AGENT_LOCK},
    },
    files,
    telemetry::{self, Outcome},
};

/// At shutdown: what is captured must be announced within this time, or wait for the next agent.
const FLUSH: Duration = Duration::from_secs(60);
/// An agent that waits for its turn looks this often whether the runner is to be told something newer.
const HAND_OVER: Duration = Duration::from_secs(5);
/// At shutdown: the runner ends ffmpeg within this time.
const RUNNER_ENDS: Duration = Duration::from_secs(8);

/// Arguments of the role.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Volume for footage, shared with the runner.
    #[arg(long, env = "DSN_SPOOL", default_value = "/spool")]
    pub spool: PathBuf,
    /// Folder in which the runner finds its assignment.
    #[arg(long, env = "DSN_ASSIGNMENT", default_value = "/assignment")]
    pub assignment: PathBuf,
    /// The assignment as mounted from the ConfigMap.
    #[arg(long, env = "DSN_CONFIG", default_value = "/etc/dsn/assignment/assignment.json")]
    pub config: PathBuf,
    /// Folder of the mounted Secret with the broker's address and the live token.
    #[arg(long, env = "DSN_AGENT_SECRET", default_value = "/etc/dsn/agent")]
    pub agent_secret: PathBuf,
    /// Folder of the mounted upload token.
    #[arg(long, env = "DSN_STORAGE_SECRET", default_value = "/etc/dsn/storage")]
    pub storage_secret: PathBuf,
    /// Address of the live endpoint.
    #[arg(long, env = "DSN_LIVE_ADDRESS", default_value_t = SocketAddr::from(([0, 0, 0, 0], LIVE_PORT)))]
    pub live_address: SocketAddr,
    /// Address of health and metrics.
    #[arg(long, env = "DSN_METRICS_ADDRESS", default_value_t = SocketAddr::from(([0, 0, 0, 0], METRICS_PORT)))]
    pub metrics_address: SocketAddr,
}

/// Runs the role until shutdown.
pub async fn run(args: Args) -> Outcome {
    let shutdown = telemetry::shutdown_token()?;
    let own = args.spool.join(AGENT_FOLDER);
    std::fs::create_dir_all(&own)?;
    let Some(alone) = shutdown.run_until_cancelled(our_turn(&args, &own.join(AGENT_LOCK))).await else { return Ok(()) };
    let _alone = alone?;
    let outbox = Outbox::open(&own).await?;
    let spool = Spool::open(&args.spool)?;
    let live =
        Live::new(&outbox.newest(LIVE_SEGMENTS).await?, |segment| spool.init_file(&segment.key, segment.container()));
    let context = Arc::new(Context::new(args, outbox, spool, live, shutdown));
    tokio::try_join!(
        until_finished(watch::run(context.clone())),
        until_finished(assignment::follow_file(&context)),
        until_finished(sealer::run(context.clone())),
        until_finished(upload::run(context.clone(), true)),
        until_finished(upload::run(context.clone(), false)),
        until_finished(Box::pin(control::run(context.clone()))),
        until_finished(trim::run(context.clone())),
        until_finished(report::run(context.clone())),
        async { Ok(serve_live(&context).await?) },
        async { Ok(serve_health(&context).await?) },
        until_finished(finish(&context)),
    )?;
    context.outbox.close_file().await;
    Ok(())
}

/// Waits until no other agent works on the spool; the runner need not.
async fn our_turn(args: &Args, lock: &Path) -> std::io::Result<std::fs::File> {
    let handing_over = async {
        loop {
            if let Err(error) = assignment::hand_over(args) {
                tracing::warn!("{}", telemetry::chain(&error));
            }
            tokio::time::sleep(HAND_OVER).await;
        }
    };
    tokio::select! {
        biased;
        () = handing_over => unreachable!("it goes on for ever"),
        alone = files::alone(lock) => alone,
    }
}

/// A task that has no error of its own to end with.
async fn until_finished(task: impl Future<Output = ()>) -> Outcome {
    task.await;
    Ok(())
}

async fn serve_live(context: &Arc<Context>) -> std::io::Result<()> {
    telemetry::serve(context.args.live_address, live::routes(context.clone()), context.finished.clone()).await
}

async fn serve_health(context: &Arc<Context>) -> std::io::Result<()> {
    let registry = Arc::new(context.metrics.registry());
    let ready = context.clone();
    let readiness: telemetry::Readiness = Arc::new(move || match (ready.applied(), ready.worst_problem()) {
        (None, _) => Err("no assignment yet".to_owned()),
        // Live works without broker and storage; without the spool nothing does.
        (_, Some(problem)) if problem.reason == "SpoolFailed" => Err(problem.message),
        _ => Ok(()),
    });
    let routes = telemetry::health_routes(registry, readiness);
    telemetry::serve(context.args.metrics_address, routes, context.finished.clone()).await
}

/// At shutdown: seals what the runner still finishes, announces everything, then ends all tasks.
async fn finish(context: &Context) {
    context.shutdown.cancelled().await;
    let begun = tokio::time::Instant::now();
    // Later ones are those of the next pod, whose runner does not wait for us.
    let upto = context.spool.sessions().ok().and_then(|sessions| sessions.last().copied());
    while begun.elapsed() < FLUSH {
        context.to_scan.raise();
        tokio::time::sleep(Duration::from_millis(250)).await;
        match is_flushed(context, upto, begun.elapsed() > RUNNER_ENDS).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => tracing::warn!("{}", telemetry::chain(&error)),
        }
    }
    tracing::info!("flushed for {:?}", begun.elapsed());
    context.finished.cancel();
}

/// Is everything that was captured sealed, up to this session if there is one?
async fn is_sealed(context: &Context, upto: Option<SessionId>) -> Result<bool, outbox::Error> {
    for session in context.spool.sessions()?.into_iter().filter(|session| upto.is_none_or(|upto| *session <= upto)) {
        // Closed: all of it is sealed, and no more will come. Trap: a runner's word that it has ended says nothing of what
        // is sealed, and one that ended without footage is removed by the sealer.
        if !context.outbox.session(session).await?.is_some_and(|row| row.closed) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Is everything sealed, up to this session, and announced? `impatient`: the runner has had its time to end ffmpeg.
async fn is_flushed(context: &Context, upto: Option<SessionId>, impatient: bool) -> Result<bool, outbox::Error> {
    if !impatient && !is_sealed(context, upto).await? {
        return Ok(false);
    }
    let (unannounced, _) = context.outbox.waiting().await?;
    Ok(unannounced == 0 && context.outbox.untold_gaps().await? == 0)
}
