//! The assignment: from the mounted ConfigMap (the truth) or the queue (the fast path); the higher revision wins and
//! goes to the runner's file, durably, before anybody is told that it is applied.
//!
//! Not here: what the assignment means for ffmpeg (the runner), or where messages come from (`control`).

use std::path::Path;

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
    Write(#[from] std::io::Error),
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
pub fn take(context: &Context, envelope: &Envelope<Assignment>) -> Result<Taken, Error> {
    let revision = envelope.revision;
    // Taken from two sides (file and queue): decide and write under one lock.
    let mut outcome = Ok(Taken::Older);
    context.assignment.send_if_modified(|current| {
        let known = current.as_ref().map(|applied| (applied.assignment.instance, applied.revision));
        let taken = decide(known, envelope.data.instance, revision);
        if taken != Taken::New {
            outcome = Ok(taken);
            return false;
        }
        let path = context.args.assignment.join(spool::ASSIGNMENT_FILE);
        let written =
            serde_json::to_vec(envelope).map_err(Error::from).and_then(|text| Ok(files::replace(&path, &text, true)?));
        match written {
            Ok(()) => {
                *current = Some(Applied { revision, assignment: envelope.data.clone() });
                outcome = Ok(Taken::New);
                true
            }
            Err(error) => {
                outcome = Err(error);
                false
            }
        }
    });
    if matches!(outcome, Ok(Taken::New)) {
        tracing::info!(revision, activity = ?envelope.data.activity, "assignment applied");
        context.metrics.assigned(&envelope.data);
        for signal in [&context.to_report, &context.to_scan, &context.to_trim, &context.to_add] {
            signal.raise();
        }
    }
    outcome
}

/// `remove`: the assignment in effect, draining.
pub fn drain(context: &Context, revision: u64) -> Result<Taken, Error> {
    let Some(applied) = context.applied() else { return Ok(Taken::Older) };
    let mut assignment = applied.assignment;
    assignment.activity = Activity::Draining;
    let uid = assignment.instance.to_string();
    let mut envelope = Envelope::unordered(uid, "remove", now(), assignment);
    envelope.revision = revision;
    take(context, &envelope)
}

/// Hands the mounted assignment to the runner before it is our turn on the spool: the agent of the pod before us may have a
/// minute's announcements to make while the broker is away, and capture waits for nobody behind it.
pub fn hand_over(args: &Args) -> Result<(), Error> {
    let read = |path: &Path| -> Result<Option<Envelope<Assignment>>, Error> {
        match std::fs::read(path) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
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
pub async fn follow_file(context: &Context) {
    let file = &context.args.config;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let mut asked = context.to_look.listen();
    look(context, &context.args.assignment.join(spool::ASSIGNMENT_FILE));
    ladder::look(context, &context.args.assignment.join(spool::LADDER_FILE));
    loop {
        look(context, file);
        ladder::look(context, &folder.join(spool::LADDER_FILE));
        tokio::select! { _ = asked.changed() => {}, () = context.finished.cancelled() => return }
    }
}

fn look(context: &Context, file: &Path) {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) => {
            tracing::debug!("no {}: {error}", file.display());
            return;
        }
    };
    let taken = serde_json::from_slice(&text).map_err(Error::from).and_then(|envelope| take(context, &envelope));
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
    use super::*;
    use crate::domain::id::Role;

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
