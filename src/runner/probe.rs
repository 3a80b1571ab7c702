//! Asks a camera what it sends, and remembers it: a reconnect must not spend its seconds on asking again.

use std::{path::Path, time::Duration};

use tokio::io::AsyncReadExt;

use super::told::Order;
use crate::{
    child,
    domain::{
        capture::{self, Probe},
        control::Problem,
        diagnosis::Cause,
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
    let url = order.address.with(order.credentials.as_ref()).map_err(|why| invalid(why.to_string()))?;
    let arguments = capture::probe_arguments(&order.address, order.transport, &url);
    let mut child = child::spawn(ffprobe, &arguments).map_err(|error| Failed {
        problem: Problem { reason: "ProbeFailed".to_owned(), message: format!("failed to start ffprobe: {error}") },
        refused_login: false,
    })?;
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
        Ok(status) if status.success() => capture::parse_probe(&answer).map_err(|why| Failed {
            problem: Problem { reason: why.reason().to_owned(), message: why.to_string() },
            refused_login: false,
        }),
        _ => Err(failed(&Cause::of(&lines), order)),
    }
}

fn failed(cause: &Cause, order: &Order) -> Failed {
    Failed { problem: cause.problem(&order.declared()), refused_login: cause.is_refused_login() }
}

fn invalid(message: String) -> Failed {
    Failed { problem: Problem { reason: "SourceInvalid".to_owned(), message }, refused_login: false }
}
