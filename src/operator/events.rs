//! Kubernetes Events: one for each condition that changed, so that `kubectl describe` tells the story.
//!
//! Not here: logs and metrics. Called by [`super::apply::status`]; an Event that can't be written is a log line, never
//! an error, and reconciles do not wait for it.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

/// Reasons that follow from what a person asked for: no warning.
const WANTED: [&str; 7] = ["Paused", "Stopped", "NotSelected", "Starting", "Pending", "RollingOut", "Draining"];
/// Before anything can have been captured this is what was asked for; later it is a warning.
const AT_FIRST: &str = "NoneCapturing";
/// So many Events may wait to be written; more are dropped, as client-go does.
const QUEUE: usize = 1_000;
/// So many Events are remembered at most, to be counted up when they come again.
///
/// Trap: kube's recorder keeps each of the last six minutes, 3 kB of them; where a thousand Pipelines come up that is a
/// tenth of the operator's memory.
const REMEMBERED: usize = 256;

/// Publishes Events in the operator's name.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<(ObjectReference, Event)>,
}

impl Events {
    /// Events by the pod `instance`, and the task that writes them, one at a time: written within the reconciles they took
    /// as long as everything else together.
    pub fn new(client: kube::Client, instance: &str) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let reporter = Reporter { controller: "dsn.network/operator".into(), instance: Some(instance.to_owned()) };
        let (queue, mut inbox) = mpsc::channel::<(ObjectReference, Event)>(QUEUE);
        let writing = async move {
            let mut recorder = Recorder::new(client.clone(), reporter.clone());
            let mut written = 0;
            while let Some((about, event)) = inbox.recv().await {
                if written == REMEMBERED {
                    (recorder, written) = (Recorder::new(client.clone(), reporter.clone()), 0);
                }
                written += 1;
                if let Err(error) = recorder.publish(&event, &about).await {
                    tracing::debug!(%error, reason = event.reason, "failed to publish an event");
                }
            }
        };
        (Self { queue }, writing)
    }

    /// Publishes what `transitions` found.
    pub fn publish(&self, about: &ObjectReference, events: Vec<Event>) {
        for event in events {
            if let Err(refused) = self.queue.try_send((about.clone(), event)) {
                tracing::debug!(error = %refused, "dropped an event");
            }
        }
    }
}

/// One Event for each condition whose truth or reason changed to something worth telling. That what was just created is not
/// there yet is not.
pub fn transitions(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    after
        .iter()
        .filter(|now| {
            let then = before.iter().find(|c| c.type_ == now.type_);
            let is_trouble = now.status == "False" && !WANTED.contains(&now.reason.as_str());
            match then {
                Some(then) => then.status != now.status || (then.reason != now.reason && is_trouble),
                None => is_trouble && now.reason != AT_FIRST,
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
            (None, ("False", "RollingOut"), 0),
            (None, ("False", "NoneCapturing"), 0),
            (Some(("True", "AllCapturing")), ("False", "NoneCapturing"), 1),
            (Some(("False", "NotSelected")), ("False", "Starting"), 0),
            (Some(("True", "Ok")), ("False", "Paused"), 1),
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
