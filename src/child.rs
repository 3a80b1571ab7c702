//! ffmpeg and ffprobe as child processes: started in a group of their own, read line by line, stopped for certain.
//!
//! Not here: why they are started or stopped (runner and transcoder know).

use std::{io, path::Path, process::ExitStatus, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::timeout,
};

/// After the first TERM ffmpeg finishes its segment; one that is blocked in a read does not hear it.
pub const READING: Duration = Duration::from_secs(2);
/// The same for one of which that is known: only so long that the two signals do not become one.
pub const BLOCKED: Duration = Duration::from_millis(100);
/// After the second TERM a blocked read is interrupted.
const SECOND_TERM: Duration = Duration::from_secs(3);

/// A longer line is cut: nobody reads it, and it must not fill the memory.
const MAX_LINE: usize = 2_048;

/// Starts a program in a process group of its own that dies with us.
pub fn spawn(program: &Path, arguments: &[String]) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        // Nothing of our environment concerns it, and FFREPORT would write the address with its password to a file.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    dies_with_us(&mut command);
    command.spawn()
}

#[expect(unsafe_code, reason = "pre_exec is unsafe by signature; prctl(2) is async-signal-safe")]
fn dies_with_us(command: &mut Command) {
    // SAFETY: the closure only makes a system call between fork and exec; it neither allocates nor locks.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}

/// Stops it for certain: TERM, [`READING`] or [`BLOCKED`], TERM, 3 s, KILL; always reaps.
pub async fn stop(child: &mut Child, first_term: Duration) -> io::Result<ExitStatus> {
    signal(child, Signal::TERM);
    // A stopped process (SIGSTOP) must wake up to hear the TERM.
    signal(child, Signal::CONT);
    if let Ok(status) = timeout(first_term, child.wait()).await {
        return status;
    }
    signal(child, Signal::TERM);
    if let Ok(status) = timeout(SECOND_TERM, child.wait()).await {
        return status;
    }
    signal(child, Signal::KILL);
    child.wait().await
}

fn signal(child: &Child, signal: Signal) {
    // No id = already reaped: the number may belong to another process by now.
    if let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        let _ = kill_process_group(group, signal);
    }
}

/// Lines of a pipe, none longer than [`MAX_LINE`].
pub struct Lines<R> {
    pipe: Option<R>,
    pending: Vec<u8>,
    cutting: bool,
    ready: std::collections::VecDeque<String>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines of a pipe that may be missing.
    pub fn new(pipe: Option<R>) -> Self {
        Self { pipe, pending: Vec::new(), cutting: false, ready: std::collections::VecDeque::new() }
    }

    /// The next line; `None` at the end. Safe to cancel.
    pub async fn next(&mut self) -> Option<String> {
        let mut chunk = [0; 4_096];
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            let pipe = self.pipe.as_mut()?;
            match pipe.read(&mut chunk).await {
                Ok(count) if count > 0 => self.take(&chunk[..count]),
                _ => {
                    self.pipe = None;
                    if !self.pending.is_empty() {
                        self.finish_line();
                    }
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => self.finish_line(),
                _ if self.pending.len() < MAX_LINE => self.pending.push(*byte),
                _ => self.cutting = true,
            }
        }
    }

    fn finish_line(&mut self) {
        let mut line = String::from_utf8_lossy(&self.pending).into_owned();
        if std::mem::take(&mut self.cutting) {
            line.push('…');
        }
        self.pending.clear();
        if !line.is_empty() {
            self.ready.push_back(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn endless_lines_are_cut() {
        let text = format!("a\n{}\r\nb", "x".repeat(100_000));
        let mut lines = Lines::new(Some(text.as_bytes()));
        assert_eq!(lines.next().await.as_deref(), Some("a"));
        assert!(lines.next().await.is_some_and(|line| line.len() < MAX_LINE + 10));
        assert_eq!(lines.next().await.as_deref(), Some("b"));
        assert_eq!(lines.next().await, None);
    }

    #[tokio::test]
    async fn a_stopped_child_that_ignores_term_is_killed_within_the_time() {
        let mut child =
            spawn(Path::new("/bin/sh"), &["-c".to_owned(), "trap '' TERM; sleep 60 & wait; wait".to_owned()])
                .expect("starts");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = std::time::Instant::now();
        let status = stop(&mut child, READING).await.expect("reaped");
        assert!(!status.success());
        assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    }
}
