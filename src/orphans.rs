//! A pid 1 inherits every process whose parent died, and must reap it, or the pod fills with zombies.

use std::{fs, time::Duration};

use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::signal::unix::{SignalKind, signal};

/// Our own children are reaped by whoever waits for them, within milliseconds: what is still a zombie after this time
/// is nobody's.
const GRACE: Duration = Duration::from_secs(2);

/// Reaps orphans for ever; rests when we are not pid 1.
pub async fn reap() {
    if std::process::id() != 1 {
        return std::future::pending().await;
    }
    let mut deaths = match signal(SignalKind::child()) {
        Ok(deaths) => deaths,
        Err(error) => {
            tracing::warn!("failed to listen for the end of processes: {error}");
            return std::future::pending().await;
        }
    };
    while deaths.recv().await.is_some() {
        let before = zombies();
        if before.is_empty() {
            continue;
        }
        tokio::time::sleep(GRACE).await;
        for pid in zombies().into_iter().filter(|pid| before.contains(pid)) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Our children that have ended and were not waited for.
fn zombies() -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // "pid (any name) state ppid …", proc(5): the name may hold brackets and blanks.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let (state, parent) = (fields.next()?, fields.next()?);
            (state == "Z" && parent == "1").then(|| Pid::from_raw(pid))?
        })
        .collect()
}
