//! Numbers the assignments of an instance: the order in which they hold, over leaders and over edits of Pipeline and
//! Camera.
//!
//! Pure. The number lives in the instance's `ConfigMap`; the write that raises it has that object's resourceVersion as
//! precondition, so two leaders can't give one number to two assignments. Called by `plan`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::{
    control::{Activity, Assignment, Command, Envelope, StreamConfig},
    id::InstanceUid,
    ladder::LadderAssignment,
    spool,
};

/// Key of the assignment in its `ConfigMap`.
pub const ASSIGNMENT_KEY: &str = spool::ASSIGNMENT_FILE;
/// Key of the assignment of the transcoder in the same pod.
pub const LADDER_KEY: &str = spool::LADDER_FILE;
/// Key of what the recorder is told about the stream.
pub const STREAM_KEY: &str = "stream.json";

/// A numbered assignment, as it is held by a `ConfigMap` or shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered {
    /// The assignment.
    pub envelope: Envelope<Assignment>,
    /// The envelope to the letter.
    pub text: String,
    /// How the footage is kept.
    pub stream: StreamConfig,
    /// What the transcoder in the same pod is told, if there is one. It is a participant of its own, with a queue and
    /// revisions of its own.
    pub ladder: Option<NumberedLadder>,
    /// Precondition of the write; `None` when nothing is held, or nothing changes.
    pub resource_version: Option<String>,
}

/// The numbered assignment of a transcoder.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberedLadder {
    /// The assignment.
    pub envelope: Envelope<LadderAssignment>,
    /// The envelope to the letter.
    pub text: String,
}

/// Under which word an assignment is sent.
fn command<T>(envelope: &Envelope<T>) -> Command {
    [Command::Start, Command::Stop, Command::Remove]
        .into_iter()
        .find(|command| command.as_str() == envelope.op)
        .unwrap_or(Command::Apply)
}

impl NumberedLadder {
    /// Under which word the assignment is sent.
    pub fn command(&self) -> Command {
        command(&self.envelope)
    }
}

impl Numbered {
    /// Under which word the assignment is sent.
    pub fn command(&self) -> Command {
        command(&self.envelope)
    }

    /// What the recorder is told, as it stands in the `ConfigMap`.
    pub fn stream_text(&self) -> String {
        json(&self.stream)
    }
}

/// Reads what a `ConfigMap` holds; `None` when it holds no assignment we could read (it is then numbered anew).
pub fn held(config_map: &ConfigMap) -> Option<Numbered> {
    let data = config_map.data.as_ref()?;
    let text = data.get(ASSIGNMENT_KEY)?.clone();
    let envelope: Envelope<Assignment> = serde_json::from_str(&text).ok()?;
    let stream = serde_json::from_str(data.get(STREAM_KEY)?).ok()?;
    let ladder = data
        .get(LADDER_KEY)
        .and_then(|text| Some(NumberedLadder { envelope: serde_json::from_str(text).ok()?, text: text.clone() }));
    Some(Numbered { envelope, text, stream, ladder, resource_version: config_map.metadata.resource_version.clone() })
}

/// The numbered form of an assignment: what is held when it says the same, else a new revision. The transcoder's is
/// numbered by itself: an edit of the one sends nothing to the other.
pub fn number(
    held: Option<&Numbered>,
    assignment: Assignment,
    stream: StreamConfig,
    ladder: Option<LadderAssignment>,
    now: Timestamp,
) -> Numbered {
    let ladder = ladder.map(|ladder| number_ladder(held.and_then(|held| held.ladder.as_ref()), ladder, now));
    let hash = hash(&assignment);
    let same_stream = held.is_some_and(|held| held.stream == stream);
    let (envelope, text) = match held {
        Some(held) if same_stream && held.envelope.data == assignment && held.envelope.spec_hash == hash => {
            (held.envelope.clone(), held.text.clone())
        }
        _ => {
            let before = held.map(|held| (held.envelope.revision, held.envelope.data.activity));
            let envelope = envelope(before, assignment.instance, assignment.activity, hash, assignment, now);
            let text = json(&envelope);
            (envelope, text)
        }
    };
    let changed = held.is_none_or(|held| held.text != text || held.envelope != envelope || held.ladder != ladder);
    let resource_version = held.filter(|_| changed).and_then(|held| held.resource_version.clone());
    Numbered { envelope, text, stream, ladder, resource_version }
}

fn number_ladder(held: Option<&NumberedLadder>, ladder: LadderAssignment, now: Timestamp) -> NumberedLadder {
    let hash = hash(&ladder);
    if let Some(held) = held
        && held.envelope.data == ladder
        && held.envelope.spec_hash == hash
    {
        return held.clone();
    }
    let before = held.map(|held| (held.envelope.revision, held.envelope.data.activity));
    let envelope = envelope(before, ladder.instance, ladder.activity, hash, ladder, now);
    NumberedLadder { text: json(&envelope), envelope }
}

/// The next revision of an instance's assignment.
fn envelope<T>(
    before: Option<(u64, Activity)>,
    instance: InstanceUid,
    activity: Activity,
    spec_hash: String,
    data: T,
    now: Timestamp,
) -> Envelope<T> {
    let command = match (before.map(|(_, activity)| activity), activity) {
        (Some(before), now) if before == now => Command::Apply,
        (None, Activity::Running) => Command::Apply,
        (_, Activity::Running) => Command::Start,
        (_, Activity::Paused) => Command::Stop,
        (_, Activity::Draining) => Command::Remove,
    };
    // Never below the clock: an instance that left its Pipeline, lost its ConfigMap and comes back must not begin below
    // what agents and recorder have already seen of it.
    let floor = u64::try_from(now.as_second()).unwrap_or_default();
    let revision = before.map_or(0, |(revision, _)| revision + 1).max(floor);
    Envelope {
        // Made from what it stands for, so that a plan is a function of its inputs.
        id: Uuid::new_v5(&instance.0, revision.to_string().as_bytes()),
        uid: instance.to_string(),
        revision,
        spec_hash,
        op: command.as_str().to_owned(),
        issued_at: now,
        data,
    }
}

fn hash(assignment: &impl serde::Serialize) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(json(assignment).as_bytes())[..16])
}

fn json(value: &impl serde::Serialize) -> String {
    // These types have text keys and plain values only: there is nothing serde_json could refuse.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{
        fixture::at,
        pipeline::plan::tests::{assignment, ladder, stream},
    };

    #[test]
    fn the_same_assignment_keeps_its_number_and_its_letters() {
        let first = number(None, assignment(Activity::Running, 4), stream(), None, at(0));
        let held = Numbered { resource_version: Some("7".into()), ..first.clone() };
        let again = number(Some(&held), assignment(Activity::Running, 4), stream(), None, at(100));
        assert_eq!(again, first);
        assert_eq!(again.resource_version, None);
    }

    #[test]
    fn a_change_raises_the_number_under_a_precondition() {
        let first = number(None, assignment(Activity::Running, 4), stream(), None, at(0));
        let held = Numbered { resource_version: Some("7".into()), ..first.clone() };
        let edited = number(Some(&held), assignment(Activity::Running, 6), stream(), None, at(0));
        assert_eq!(edited.envelope.revision, first.envelope.revision + 1);
        assert_eq!(edited.resource_version.as_deref(), Some("7"));
        let retention = StreamConfig { retention_seconds: 1, ..stream() };
        assert!(
            number(Some(&held), assignment(Activity::Running, 4), retention, None, at(0)).envelope.revision
                > first.envelope.revision
        );
    }

    #[test]
    fn an_edit_of_the_ladder_leaves_the_capture_alone() {
        let first = number(None, assignment(Activity::Running, 4), stream(), Some(ladder(800)), at(0));
        let held = Numbered { resource_version: Some("7".into()), ..first.clone() };
        let again = number(Some(&held), assignment(Activity::Running, 4), stream(), Some(ladder(800)), at(9));
        assert_eq!(again, first);
        let edited = number(Some(&held), assignment(Activity::Running, 4), stream(), Some(ladder(900)), at(0));
        assert_eq!((&edited.envelope, &edited.text), (&first.envelope, &first.text));
        assert_eq!(edited.resource_version.as_deref(), Some("7"));
        let revision = |numbered: &Numbered| numbered.ladder.as_ref().map(|ladder| ladder.envelope.revision);
        assert_eq!(revision(&edited), revision(&first).map(|revision| revision + 1));
    }

    #[test]
    fn a_lost_config_map_never_leads_below_what_was_seen() {
        let first = number(None, assignment(Activity::Running, 4), stream(), None, at(0));
        let anew = number(None, assignment(Activity::Running, 4), stream(), None, at(60));
        assert!(anew.envelope.revision > first.envelope.revision);
    }

    #[test]
    fn the_word_follows_the_activity() {
        let mut held: Option<Numbered> = None;
        for (activity, segment, command) in [
            (Activity::Running, 4, Command::Apply),
            (Activity::Running, 6, Command::Apply),
            (Activity::Paused, 6, Command::Stop),
            (Activity::Paused, 4, Command::Apply),
            (Activity::Running, 4, Command::Start),
            (Activity::Draining, 4, Command::Remove),
        ] {
            let next = number(held.as_ref(), assignment(activity, segment), stream(), None, at(0));
            assert_eq!(next.command(), command);
            held = Some(next);
        }
    }

    #[test]
    fn a_hand_in_the_config_map_is_undone_by_a_new_number() {
        let mut tampered = number(None, assignment(Activity::Running, 4), stream(), None, at(0));
        tampered.envelope.data.segment_seconds = 9;
        let repaired = number(Some(&tampered), assignment(Activity::Running, 4), stream(), None, at(0));
        assert!(repaired.envelope.revision > tampered.envelope.revision);
    }
}
