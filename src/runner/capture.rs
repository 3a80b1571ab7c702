//! One capture run: probe (cached), a new session, ffmpeg until it ends or must end.
//!
//! Output is watched, not the socket: `-progress` tells each second what was written, and goes silent when the camera
//! does. Not here: what comes after a run (the supervisor).

use std::{
    collections::VecDeque,
    io::ErrorKind,
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{process::Child, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    Args,
    picture::PictureWatch,
    probe, room,
    session::{Hindered, Session},
    told::{Order, Told, Wanted},
};
use crate::{
    child::{self, Lines},
    domain::{
        capture::{self, CaptureSpec, Probe, Progress, ProgressReader},
        clock::StepWatch,
        control::{Phase, Problem},
        diagnosis::{Cause, SECRET_MISSING},
        id::SessionId,
        segment::GapReason,
        spool::RunnerReport,
    },
    report::Reporter,
};

/// No new picture for this long = the camera hangs (noticed within 8 s, row B4).
const HUNG: Duration = Duration::from_secs(6);
/// Until the first picture: 5 s for the socket, 5 s of analysis, a long GOP.
const FIRST_PICTURE: Duration = Duration::from_secs(20);
/// Complaints older than this have nothing to do with the end.
const RECENT: Duration = Duration::from_secs(10);
/// Complaints kept.
const KEPT_LINES: usize = 30;
/// Complaints of one run that reach the log at its usual level; a damaged stream yields thousands.
const LOGGED_LINES: u32 = 20;

/// Why there is no footage of a pause.
pub const PAUSED: &str = "paused as told";

/// How a run ended.
pub enum Ended {
    /// As told: something else is wanted now, or shutdown.
    Told,
    /// By itself, or because it had to be stopped.
    Failed {
        /// Did the camera refuse the login?
        refused_login: bool,
        /// Had there been pictures?
        captured: bool,
    },
}

/// Why ffmpeg is no longer running.
enum Stop {
    Told(GapReason, String),
    Failed(Cause),
    /// The camera sends something else than when it was probed.
    Changed,
}

/// Runs captures, one after the other.
pub struct Capture<'a> {
    args: &'a Args,
    reporter: &'a Reporter<RunnerReport>,
    known: Option<(Order, Probe)>,
    /// When a session last ended because the camera sends another picture.
    changed: Option<Instant>,
    /// What was last said of the sound.
    said_of_sound: Option<String>,
    /// What has kept us from footage since there was some.
    hindered: Hindered,
}

impl<'a> Capture<'a> {
    /// Nothing is probed yet.
    pub fn new(args: &'a Args, reporter: &'a Reporter<RunnerReport>) -> Self {
        Self { args, reporter, known: None, changed: None, said_of_sound: None, hindered: Hindered::default() }
    }

    /// Nothing was captured since then, and why.
    pub fn hindered(&mut self, since: Instant, reason: GapReason, detail: &str) {
        self.hindered.by(since, reason, detail);
    }

    /// Captures until the run ends.
    pub async fn run(
        &mut self,
        order: &Order,
        told: &mut watch::Receiver<Told>,
        shutdown: &CancellationToken,
    ) -> Ended {
        self.reporter.update(|report| {
            report.session = None;
            // A camera that fails goes on failing until there is a picture.
            if report.phase != Phase::Failing {
                report.phase = Phase::Starting;
            }
        });
        let (reporter, asked) = (self.reporter, Instant::now());
        if !room::is_left(&self.args.spool) {
            let problem = Cause::DiskFull.problem(&order.declared());
            self.hindered.by(asked, GapReason::SpoolFull, &problem.message);
            self.fail(problem);
            return Ended::Failed { refused_login: false, captured: false };
        }
        let remembered = self.remembers(order);
        let probe = tokio::select! {
            probe = self.probe(order) => probe,
            () = until_other_order(order, told, reporter) => return Ended::Told,
            () = shutdown.cancelled() => return Ended::Told,
        };
        let probe = match probe {
            Ok(probe) => probe,
            Err(probe::Failed { problem, gap, refused_login }) => {
                self.hindered.by(asked, gap, &problem.message);
                self.fail(problem);
                return Ended::Failed { refused_login, captured: false };
            }
        };
        let revision = told.borrow().revision;
        let hindrances = self.hindered.told();
        let begun = Session::begin(&self.args.spool, revision, order.segment_seconds, &probe.info, hindrances)
            .and_then(|session| Ok((self.start(order, &probe, &session)?, session)));
        let (mut child, session) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
                let (gap, problem) = if full {
                    (GapReason::SpoolFull, Cause::DiskFull.problem(&order.declared()))
                } else {
                    let message = format!("failed to start ffmpeg on the spool: {error}");
                    (GapReason::CaptureDied, Problem { reason: "CaptureFailed".to_owned(), message })
                };
                self.hindered.by(asked, gap, &problem.message);
                self.fail(problem);
                return Ended::Failed { refused_login: false, captured: false };
            }
        };
        tracing::info!(session = %session.id(), video = %probe.info, "capturing {}", order.address);
        let pictures = PictureWatch::new(order.container, session.rendition(), probe.clone(), remembered, self.changed);
        let mut watching = Watching::new(&mut child, session.id(), probe, pictures);
        let stop = watching.until_stop(self.args, order, told, self.reporter, &mut child, shutdown).await;
        if let Stop::Failed(cause) = &stop {
            // At once: an ffmpeg that is blocked in a read ends seconds later.
            self.fail(cause.problem(&order.declared()));
        }
        // Whatever the reason, the process is reaped and its last segment finished before anything else starts.
        let first_term = if matches!(stop, Stop::Failed(Cause::Hung)) { child::BLOCKED } else { child::READING };
        if let Err(error) = child::stop(&mut child, first_term).await {
            tracing::warn!("failed to stop ffmpeg: {error}");
        }
        let captured = watching.media_us.is_some();
        let (ended, reason, detail) = match stop {
            Stop::Told(reason, detail) => (Ended::Told, reason, detail),
            Stop::Failed(cause) => {
                if !captured && !cause.tells_nothing() {
                    // Perhaps it sends something else than it used to: ask again.
                    self.known = None;
                }
                let detail = cause.problem(&order.declared()).message;
                (Ended::Failed { refused_login: cause.is_refused_login(), captured }, cause.gap(), detail)
            }
            Stop::Changed => {
                self.known = None;
                self.changed = Some(Instant::now());
                (Ended::Told, GapReason::Reconfigured, "the camera sends another picture than before".to_owned())
            }
        };
        tracing::info!(session = %session.id(), "capture ended: {detail}");
        match session.end(reason, detail.clone()) {
            Ok(false) => self.hindered.by(asked, reason, &detail),
            Ok(true) => self.hindered = Hindered::default(),
            Err(error) => {
                tracing::warn!("failed to close the session: {error}");
                // Nobody else will know why it ended.
                if captured {
                    self.hindered = Hindered::default();
                }
                self.hindered.by(if captured { Instant::now() } else { asked }, reason, &detail);
            }
        }
        self.reporter.update(|report| report.session = None);
        ended
    }

    /// Is it known what this camera sends?
    fn remembers(&self, order: &Order) -> bool {
        // Segment length, container and what becomes of the sound are no matter of the camera.
        self.known.as_ref().is_some_and(|(of, _)| {
            (&of.address, of.transport, &of.credentials) == (&order.address, order.transport, &order.credentials)
        })
    }

    async fn probe(&mut self, order: &Order) -> Result<Probe, probe::Failed> {
        if let Some((_, probe)) = self.known.as_ref().filter(|_| self.remembers(order)) {
            return Ok(probe.clone());
        }
        let probe = probe::probe(&self.args.ffprobe, order).await?;
        self.known = Some((order.clone(), probe.clone()));
        Ok(probe)
    }

    fn start(&mut self, order: &Order, probe: &Probe, session: &Session) -> std::io::Result<Child> {
        let url = order.address.with(order.credentials.as_ref()).map_err(std::io::Error::other)?;
        let (audio, sentence) = probe.sound(order.audio, order.container);
        // Once, not at each try.
        if let Some(sentence) = sentence.as_ref().filter(|_| sentence != self.said_of_sound) {
            tracing::warn!("{sentence}");
        }
        self.said_of_sound = sentence;
        let spec = CaptureSpec {
            address: order.address.clone(),
            transport: order.transport,
            segment_seconds: order.segment_seconds,
            container: order.container,
            codec: probe.codec,
            audio,
            folder: session.rendition().to_string_lossy().into_owned(),
        };
        self.reporter.update(|report| report.starts += 1);
        child::spawn(&self.args.ffmpeg, &capture::arguments(&spec, &url))
    }

    fn fail(&self, problem: Problem) {
        tracing::warn!(reason = problem.reason, "{}", problem.message);
        self.reporter.update(|report| {
            report.phase = Phase::Failing;
            report.session = None;
            report.problem = Some(problem);
        });
    }
}

/// Resolves when something else is wanted than this order; follows the revision meanwhile.
async fn until_other_order(order: &Order, told: &mut watch::Receiver<Told>, reporter: &Reporter<RunnerReport>) {
    while told.changed().await.is_ok() {
        let now = told.borrow_and_update().clone();
        if !keeps_running(&now, order) {
            // The supervisor looks at it again.
            told.mark_changed();
            return;
        }
        reporter.update(|report| report.revision = now.revision);
    }
}

/// A Secret that vanishes is no reason to stop a capture that still works.
fn keeps_running(now: &Told, order: &Order) -> bool {
    now.orders(order) || matches!(&now.wanted, Wanted::Impossible(problem) if problem.reason == SECRET_MISSING)
}

/// What is seen of a running ffmpeg.
struct Watching {
    session: SessionId,
    probe: Probe,
    stdout: Lines<tokio::process::ChildStdout>,
    stderr: Lines<tokio::process::ChildStderr>,
    progress: ProgressReader,
    complaints: VecDeque<(Instant, String)>,
    logged: u32,
    begun: Instant,
    steps: StepWatch,
    /// Frames of the picture written.
    frames: u64,
    /// Media time written; none before the first picture.
    media_us: Option<i64>,
    pictures: PictureWatch,
}

impl Watching {
    fn new(child: &mut Child, session: SessionId, probe: Probe, pictures: PictureWatch) -> Self {
        Self {
            session,
            probe,
            stdout: Lines::new(child.stdout.take()),
            stderr: Lines::new(child.stderr.take()),
            progress: ProgressReader::default(),
            complaints: VecDeque::new(),
            logged: 0,
            begun: Instant::now(),
            steps: StepWatch::default(),
            frames: 0,
            media_us: None,
            pictures,
        }
    }

    /// Watches until ffmpeg has ended or must be stopped.
    async fn until_stop(
        &mut self,
        args: &Args,
        order: &Order,
        told: &mut watch::Receiver<Told>,
        reporter: &Reporter<RunnerReport>,
        child: &mut Child,
        shutdown: &CancellationToken,
    ) -> Stop {
        let mut deadline = tokio::time::Instant::now() + FIRST_PICTURE;
        let (mut out, mut err) = (true, true);
        loop {
            tokio::select! {
                // Complaints first, so that the last one is known when the end is.
                biased;
                line = self.stderr.next(), if err => match line {
                    Some(line) => self.complain(order.redact(&line)),
                    None => err = false,
                },
                line = self.stdout.next(), if out => match line {
                    Some(line) => if let Some(progress) = self.progress.line(&line) {
                        if !room::is_left(&args.spool) {
                            return Stop::Failed(Cause::DiskFull);
                        }
                        match self.advance(progress, reporter) {
                            Some(Advance::Moved) => deadline = tokio::time::Instant::now() + HUNG,
                            Some(Advance::Jumped) => return Stop::Failed(Cause::ClockStep),
                            Some(Advance::Changed) => return Stop::Changed,
                            None => {}
                        }
                    },
                    None => out = false,
                },
                status = child.wait() => {
                    self.last_words(order).await;
                    return Stop::Failed(self.cause(status.ok().and_then(|s| s.signal())));
                }
                () = until_other_order(order, told, reporter) => {
                    let (reason, detail) = match told.borrow().wanted {
                        Wanted::Paused | Wanted::Draining | Wanted::Nothing => (GapReason::Paused, PAUSED),
                        _ => (GapReason::Reconfigured, "restarted with other settings"),
                    };
                    return Stop::Told(reason, detail.to_owned());
                }
                () = shutdown.cancelled() => {
                    return Stop::Told(GapReason::InstanceLost, "the capture pod was stopped".to_owned());
                }
                () = tokio::time::sleep_until(deadline) => {
                    return Stop::Failed(match self.media_us {
                        Some(_) => Cause::Hung,
                        None => self.cause_without_pictures().or_hung(),
                    });
                }
            }
        }
    }

    /// What still stands in the pipe when the process is gone.
    async fn last_words(&mut self, order: &Order) {
        let reading = async {
            while let Some(line) = self.stderr.next().await {
                self.complain(order.redact(&line));
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(200), reading).await;
    }

    fn complain(&mut self, line: String) {
        self.logged = self.logged.saturating_add(1);
        if self.logged <= LOGGED_LINES {
            tracing::warn!("ffmpeg: {line}");
        } else {
            tracing::debug!("ffmpeg: {line}");
        }
        if self.complaints.len() == KEPT_LINES {
            self.complaints.pop_front();
        }
        self.complaints.push_back((Instant::now(), line));
    }

    fn advance(&mut self, progress: Progress, reporter: &Reporter<RunnerReport>) -> Option<Advance> {
        // Trap: ffmpeg's time is that of the stream that is ahead: sound moves it on while the picture stands still.
        let moves = |now: &i64| progress.frames > self.frames && self.media_us.is_none_or(|before| *now > before);
        let media_us = progress.out_time_us.filter(moves)?;
        (self.frames, self.media_us) = (progress.frames, Some(media_us));
        reporter.update(|report| {
            report.phase = Phase::Running;
            report.session = Some(self.session);
            report.problem = None;
            report.video = Some(self.probe.info.clone());
            report.frames = progress.frames;
            report.out_time_us = media_us;
        });
        if self.pictures.is_another() {
            return Some(Advance::Changed);
        }
        let monotonic_us = i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX);
        let jumped = self.steps.jumped(monotonic_us, media_us, Timestamp::now().as_microsecond());
        Some(if jumped { Advance::Jumped } else { Advance::Moved })
    }

    /// Why ffmpeg ended by itself.
    fn cause(&self, signal: Option<i32>) -> Cause {
        if self.media_us.is_some() { Cause::of_a_run(&self.recent(), signal) } else { self.cause_without_pictures() }
    }

    fn cause_without_pictures(&self) -> Cause {
        Cause::of(&self.recent(), self.begun.elapsed())
    }

    fn recent(&self) -> Vec<String> {
        self.complaints.iter().filter(|(at, _)| at.elapsed() < RECENT).map(|(_, line)| line.clone()).collect()
    }
}

enum Advance {
    Moved,
    Jumped,
    Changed,
}
