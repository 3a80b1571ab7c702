//! Numbers the assignments of an instance: the order in which they hold, over leaders and over edits of Pipeline and
//! Camera.
//!
//! Pure. The number lives in the instance's `ConfigMap`; the write that raises it has that object's resourceVersion as
//! precondition, so two leaders can't give one number to two assignments. Called by `plan`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::control::{Activity, Assignment, Command, Envelope, StreamConfig};

/// Key of the assignment in its `ConfigMap`.
pub const ASSIGNMENT_KEY: &str = "assignment.json";
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
    /// Precondition of the write; `None` when nothing is held, or nothing changes.
    pub resource_version: Option<String>,
}

impl Numbered {
    /// Under which word the assignment is sent.
    pub fn command(&self) -> Command {
        [Command::Start, Command::Stop, Command::Remove]
            .into_iter()
            .find(|command| command.as_str() == self.envelope.op)
            .unwrap_or(Command::Apply)
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
    Some(Numbered { envelope, text, stream, resource_version: config_map.metadata.resource_version.clone() })
}

/// The numbered form of an assignment: what is held when it says the same, else a new revision.
pub fn number(held: Option<&Numbered>, assignment: Assignment, stream: StreamConfig, now: Timestamp) -> Numbered {
    let hash = hash(&assignment);
    if let Some(held) = held
        && held.envelope.data == assignment
        && held.envelope.spec_hash == hash
        && held.stream == stream
    {
        return Numbered { resource_version: None, ..held.clone() };
    }
    let command = match (held.map(|held| held.envelope.data.activity), assignment.activity) {
        (Some(before), now) if before == now => Command::Apply,
        (None, Activity::Running) => Command::Apply,
        (_, Activity::Running) => Command::Start,
        (_, Activity::Paused) => Command::Stop,
        (_, Activity::Draining) => Command::Remove,
    };
    // Never below the clock: an instance that left its Pipeline, lost its ConfigMap and comes back must not begin below
    // what agents and recorder have already seen of it.
    let floor = u64::try_from(now.as_second()).unwrap_or_default();
    let revision = held.map_or(0, |held| held.envelope.revision + 1).max(floor);
    let envelope = Envelope {
        // Made from what it stands for, so that a plan is a function of its inputs.
        id: Uuid::new_v5(&assignment.instance.0, revision.to_string().as_bytes()),
        uid: assignment.instance.to_string(),
        revision,
        spec_hash: hash,
        op: command.as_str().to_owned(),
        issued_at: now,
        data: assignment,
    };
    let text = json(&envelope);
    Numbered { envelope, text, stream, resource_version: held.and_then(|held| held.resource_version.clone()) }
}

fn hash(assignment: &Assignment) -> String {
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
        pipeline::plan::tests::{assignment, stream},
    };

    #[test]
    fn the_same_assignment_keeps_its_number_and_its_letters() {
        let first = number(None, assignment(Activity::Running, 4), stream(), at(0));
        let held = Numbered { resource_version: Some("7".into()), ..first.clone() };
        let again = number(Some(&held), assignment(Activity::Running, 4), stream(), at(100));
        assert_eq!(again, first);
        assert_eq!(again.resource_version, None);
    }

    #[test]
    fn a_change_raises_the_number_under_a_precondition() {
        let first = number(None, assignment(Activity::Running, 4), stream(), at(0));
        let held = Numbered { resource_version: Some("7".into()), ..first.clone() };
        let edited = number(Some(&held), assignment(Activity::Running, 6), stream(), at(0));
        assert_eq!(edited.envelope.revision, first.envelope.revision + 1);
        assert_eq!(edited.resource_version.as_deref(), Some("7"));
        let retention = StreamConfig { retention_seconds: 1, ..stream() };
        assert!(
            number(Some(&held), assignment(Activity::Running, 4), retention, at(0)).envelope.revision
                > first.envelope.revision
        );
    }

    #[test]
    fn a_lost_config_map_never_leads_below_what_was_seen() {
        let first = number(None, assignment(Activity::Running, 4), stream(), at(0));
        let anew = number(None, assignment(Activity::Running, 4), stream(), at(60));
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
            let next = number(held.as_ref(), assignment(activity, segment), stream(), at(0));
            assert_eq!(next.command(), command);
            held = Some(next);
        }
    }

    #[test]
    fn a_hand_in_the_config_map_is_undone_by_a_new_number() {
        let mut tampered = number(None, assignment(Activity::Running, 4), stream(), at(0));
        tampered.envelope.data.segment_seconds = 9;
        let repaired = number(Some(&tampered), assignment(Activity::Running, 4), stream(), at(0));
        assert!(repaired.envelope.revision > tampered.envelope.revision);
    }
}
