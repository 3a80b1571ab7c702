//! Kubernetes Events: one for each condition that changed, so that `kubectl describe` tells the story.
//!
//! Not here: logs and metrics. Called by [`super::apply::status`]; an Event that can't be written is a log line, never
//! an error.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Reasons that follow from what a person asked for: no warning.
const WANTED: [&str; 7] = ["Paused", "Stopped", "NotSelected", "Starting", "Pending", "RollingOut", "Draining"];

/// Publishes Events in the operator's name.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events by the pod `instance`.
    pub fn new(client: kube::Client, instance: &str) -> Self {
        let reporter = Reporter { controller: "dsn.network/operator".into(), instance: Some(instance.to_owned()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Publishes what `transitions` found.
    pub async fn publish(&self, about: &ObjectReference, events: Vec<Event>) {
        for event in events {
            if let Err(error) = self.recorder.publish(&event, about).await {
                tracing::debug!(%error, reason = event.reason, "failed to publish an event");
            }
        }
    }
}

/// One Event for each condition whose truth or reason changed to something worth telling.
pub fn transitions(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    after
        .iter()
        .filter(|now| {
            let then = before.iter().find(|c| c.type_ == now.type_);
            match then {
                Some(then) => then.status != now.status || (then.reason != now.reason && now.status == "False"),
                None => now.status == "False",
            }
        })
        .filter(|now| now.status != "Unknown")
        .map(|now| Event {
            type_: if now.status == "True" || WANTED.contains(&now.reason.as_str()) {
                EventType::Normal
            } else {
                EventType::Warning
            },
            reason: now.reason.clone(),
            // The API server refuses notes of more than 1 kB.
            note: Some(format!("{}: {}", now.type_, now.message).chars().take(900).collect()),
            action: format!("{}{}", now.type_, now.status),
            secondary: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn only_changes_worth_telling_become_events() {
        let table = [
            (None, ("True", "Ok"), 0),
            (None, ("False", "Unauthorized"), 1),
            (Some(("True", "Ok")), ("True", "Other"), 0),
            (Some(("True", "Ok")), ("False", "Bad"), 1),
            (Some(("False", "Bad")), ("False", "Bad"), 0),
            (Some(("False", "Bad")), ("False", "Worse"), 1),
            (Some(("False", "Bad")), ("True", "Ok"), 1),
            (Some(("True", "Ok")), ("Unknown", "Silent"), 0),
        ];
        for (before, after, events) in table {
            let before: Vec<_> = before.iter().map(|(s, r)| condition("C", s, r)).collect();
            let found = transitions(&before, &[condition("C", after.0, after.1)]);
            assert_eq!(found.len(), events, "{before:?} {after:?}");
        }
    }
}
