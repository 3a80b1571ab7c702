//! Asks a camera what it sends, and remembers it: a reconnect must not spend its seconds on asking again.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::io::AsyncReadExt;

use super::told::Order;
use crate::{
    child,
    domain::{
        capture::{self, Probe},
        control::Problem,
        diagnosis::Cause,
        segment::GapReason,
    },
};

/// ffprobe waits 5 s for the socket and looks at up to 5 s of the stream.
const LIMIT: Duration = Duration::from_secs(15);
/// Its answer about a few streams is some kilobytes.
const MAX_ANSWER: u64 = 1 << 20;

/// Why a probe told nothing.
pub struct Failed {
    /// For people.
    pub problem: Problem,
    /// What the loss of footage is put down to.
    pub gap: GapReason,
    /// Did the camera refuse the login?
    pub refused_login: bool,
}

/// Runs ffprobe. Dropping the future kills it.
pub async fn probe(ffprobe: &Path, order: &Order) -> Result<Probe, Failed> {
    match tokio::time::timeout(LIMIT, ask(ffprobe, order)).await {
        Ok(answer) => answer,
        Err(_) => Err(failed(&Cause::NoAnswer, order)),
    }
}

async fn ask(ffprobe: &Path, order: &Order) -> Result<Probe, Failed> {
    let begun = Instant::now();
    let url =
        order.address.with(order.credentials.as_ref()).map_err(|why| unusable("SourceInvalid", why.to_string()))?;
    let arguments = capture::probe_arguments(&order.address, order.transport, &url);
    let mut child = child::spawn(ffprobe, &arguments)
        .map_err(|error| unusable("ProbeFailed", format!("failed to start ffprobe: {error}")))?;
    let (stdout, mut complaints) = (child.stdout.take(), child::Lines::new(child.stderr.take()));
    let reading = async {
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            // A broken pipe means an answer cut short: the parser says so.
            let _ = stdout.take(MAX_ANSWER).read_to_end(&mut answer).await;
        }
        answer
    };
    let listening = async {
        let mut lines = Vec::new();
        while let Some(line) = complaints.next().await {
            // Past the first lines it only repeats itself; reading on keeps it from blocking.
            if lines.len() < 50 {
                lines.push(order.redact(&line));
            }
        }
        lines
    };
    let (answer, lines) = tokio::join!(reading, listening);
    match child.wait().await {
        Ok(status) if status.success() => {
            let probe = capture::parse_probe(&answer).map_err(|why| unusable(why.reason(), why.to_string()))?;
            // Trap: announced is not sent. What ffprobe learns without a picture has no size.
            if probe.info.width == 0 { Err(failed(&Cause::Hung, order)) } else { Ok(probe) }
        }
        _ => Err(failed(&Cause::of(&lines, begun.elapsed()), order)),
    }
}

fn failed(cause: &Cause, order: &Order) -> Failed {
    let problem = cause.problem(&order.declared());
    Failed { problem, gap: cause.gap(), refused_login: cause.is_refused_login() }
}

fn unusable(reason: &str, message: String) -> Failed {
    Failed {
        problem: Problem { reason: reason.to_owned(), message },
        gap: GapReason::CaptureDied,
        refused_login: false,
    }
}
