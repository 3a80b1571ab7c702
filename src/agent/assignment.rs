//! The assignment: from the mounted ConfigMap (the truth) or the queue (the fast path); the higher revision wins and
//! goes to the runner's file, durably, before anybody is told that it is applied.
//!
//! Not here: what the assignment means for ffmpeg (the runner), or where messages come from (`control`).

use std::{io, path::Path, sync::Arc};

use serde::Serialize;

use super::{
    Args,
    context::{Context, Part, now},
    ladder,
};
use crate::{
    domain::{
        control::{Activity, Assignment, Envelope, Problem},
        id::InstanceUid,
        spool,
    },
    files,
};

/// An assignment in effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Its revision.
    pub revision: u64,
    /// What it says.
    pub assignment: Assignment,
}

/// What became of an offered assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in effect now.
    New,
    /// It was in effect already: say so again.
    Again,
    /// A newer one is in effect.
    Older,
    /// It is another instance's.
    Foreign,
}

/// Why an assignment could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not what we know.
    #[error("failed to understand an assignment")]
    Invalid(#[from] serde_json::Error),
    /// The runner's file could not be written.
    #[error("failed to hand the assignment to the runner")]
    Write(#[from] io::Error),
}

/// Decides by instance and revision.
pub fn decide(current: Option<(InstanceUid, u64)>, instance: InstanceUid, revision: u64) -> Taken {
    match current {
        Some((ours, _)) if ours != instance => Taken::Foreign,
        Some((_, applied)) if applied > revision => Taken::Older,
        Some((_, applied)) if applied == revision => Taken::Again,
        _ => Taken::New,
    }
}

/// Takes an assignment if it is newer than the one in effect.
pub async fn take(context: &Arc<Context>, envelope: Envelope<Assignment>) -> Result<Taken, Error> {
    one_by_one(context, move |context| {
        let Envelope { revision, data: assignment, .. } = &envelope;
        let known = context.assignment.borrow().as_ref().map(|known| (known.assignment.instance, known.revision));
        let taken = decide(known, assignment.instance, *revision);
        if taken != Taken::New {
            return Ok(taken);
        }
        hand(context, spool::ASSIGNMENT_FILE, &envelope)?;
        context.assignment.send_replace(Some(Applied { revision: *revision, assignment: assignment.clone() }));
        tracing::info!(revision, activity = ?assignment.activity, "assignment applied");
        context.metrics.assigned(assignment);
        for signal in [&context.to_report, &context.to_scan, &context.to_trim, &context.to_add] {
            signal.raise();
        }
        Ok(taken)
    })
    .await
}

/// Taken from two sides (file and queue): one decides, writes and says so, then the other.
///
/// Traps: a disk may take seconds, and whoever reads the assignment, live for each request, must not wait for it: so beside
/// all tasks, and not under the lock of the watch. A connection that ends stops nothing of it half-way.
pub async fn one_by_one(
    context: &Arc<Context>,
    take: impl FnOnce(&Context) -> Result<Taken, Error> + Send + 'static,
) -> Result<Taken, Error> {
    let context = context.clone();
    let taking = tokio::task::spawn_blocking(move || {
        let _turn = context.turn();
        take(&context)
    });
    taking.await.map_err(io::Error::other)?
}

/// Writes a file for another container of the pod, durably.
pub fn hand<T: Serialize>(context: &Context, file: &str, envelope: &Envelope<T>) -> Result<(), Error> {
    Ok(files::replace(&context.args.assignment.join(file), &serde_json::to_vec(envelope)?, true)?)
}

/// `remove`: the assignment in effect, draining.
pub async fn drain(context: &Arc<Context>, revision: u64) -> Result<Taken, Error> {
    let Some(applied) = context.applied() else { return Ok(Taken::Older) };
    let mut assignment = applied.assignment;
    assignment.activity = Activity::Draining;
    let uid = assignment.instance.to_string();
    let mut envelope = Envelope::unordered(uid, "remove", now(), assignment);
    envelope.revision = revision;
    take(context, envelope).await
}

/// Hands the mounted assignment to the runner before it is our turn on the spool: the agent of the pod before us may have a
/// minute's announcements to make while the broker is away, and capture waits for nobody behind it.
pub fn hand_over(args: &Args) -> Result<(), Error> {
    let read = |path: &Path| -> Result<Option<Envelope<Assignment>>, Error> {
        match std::fs::read(path) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let path = args.assignment.join(spool::ASSIGNMENT_FILE);
    let Some(mounted) = read(&args.config)? else { return Ok(()) };
    // What the runner can't read is as good as none.
    let held = read(&path).ok().flatten().map(|held| (held.data.instance, held.revision));
    if decide(held, mounted.data.instance, mounted.revision) == Taken::New {
        files::replace(&path, &serde_json::to_vec(&mounted)?, true)?;
    }
    Ok(())
}

/// Reads the mounted file whenever it may have changed. The first time also what the runner was told before us.
pub async fn follow_file(context: &Arc<Context>) {
    let file = &context.args.config;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let mut asked = context.to_look.listen();
    look(context, &context.args.assignment.join(spool::ASSIGNMENT_FILE)).await;
    ladder::look(context, &context.args.assignment.join(spool::LADDER_FILE)).await;
    loop {
        look(context, file).await;
        ladder::look(context, &folder.join(spool::LADDER_FILE)).await;
        tokio::select! { _ = asked.changed() => {}, () = context.finished.cancelled() => return }
    }
}

async fn look(context: &Arc<Context>, file: &Path) {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) => {
            tracing::debug!("no {}: {error}", file.display());
            return;
        }
    };
    let taken = match serde_json::from_slice(&text) {
        Ok(envelope) => take(context, envelope).await,
        Err(error) => Err(error.into()),
    };
    let problem = match taken {
        Ok(Taken::Foreign) => Some("the assignment is that of another instance".to_owned()),
        Ok(_) => None,
        Err(error) => Some(crate::telemetry::chain(&error)),
    };
    let problem = problem.map(|message| Problem { reason: "AssignmentInvalid".to_owned(), message });
    context.problem(Part::Assignment, problem);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tokio::{net::unix::pipe, time::timeout};

    use super::*;
    use crate::{agent::fixture, domain::id::Role};

    #[tokio::test(flavor = "multi_thread")]
    async fn live_is_served_while_an_assignment_waits_for_the_disk() {
        let deadline = Duration::from_secs(10);
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Running, "http://127.0.0.1:1").await;
        // A disk that takes nothing: the runner's file is written into a pipe that nobody empties.
        let file = format!(".{}.{}", spool::ASSIGNMENT_FILE, std::process::id());
        let file = context.args.assignment.join(file);
        mknodat(CWD, &file, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        let disk = pipe::OpenOptions::new().open_receiver(&file).expect("opens");
        let applied = context.applied().expect("an assignment");
        let mut assignment = applied.assignment.clone();
        assignment.source.url = "x".repeat(1 << 20);
        let mut envelope = Envelope::unordered(assignment.instance.to_string(), "apply", now(), assignment);
        envelope.revision = applied.revision + 1;
        let taking = tokio::spawn({
            let context = context.clone();
            async move { take(&context, envelope).await }
        });
        timeout(deadline, disk.readable()).await.expect("it is being written").expect("a pipe");
        let asked = tokio::task::spawn_blocking({
            let context = context.clone();
            move || context.applied()
        });
        let told = timeout(deadline, asked).await;
        drop(disk);
        assert_eq!(told.expect("told at once").expect("told"), Some(applied.clone()));
        assert!(taking.await.expect("ends").is_err(), "the disk has failed");
        assert_eq!(context.applied(), Some(applied));
    }

    #[test]
    fn the_highest_revision_wins_whatever_brings_it() {
        let ours = InstanceUid::of("p", "c", Role::Capture, 0);
        let current = Some((ours, 5));
        assert_eq!(decide(None, ours, 1), Taken::New);
        assert_eq!(decide(current, ours, 6), Taken::New);
        assert_eq!(decide(current, ours, 5), Taken::Again);
        assert_eq!(decide(current, ours, 4), Taken::Older);
        let other = InstanceUid::of("p", "other", Role::Capture, 0);
        assert_eq!(decide(current, other, 9), Taken::Foreign);
    }
}
