//! What agents and the recorder say, taken in at the desk.
//!
//! An agent is believed about the instances of its own namespace only: the broker vouches for the user that a message
//! names, and a namespace's password must not speak for another's cameras. Called by the supervisor for each delivery.

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::{Concerned, Desk, topology};
use crate::domain::{
    control::{
        Ack, Envelope, Hello, InstanceReport, KNOWN_CAMERAS_KEY, KnownCameras, RECORDER_HELLO_KEY, SUMMARY_KEY, Summary,
    },
    id::InstanceUid,
};

impl Desk {
    /// Takes in one message; who has to be reconciled for it.
    pub(super) fn hear(&self, key: &str, user: Option<&str>, body: &[u8], now: Timestamp) -> Concerned {
        match key {
            // The broker lets no agent use these keys.
            SUMMARY_KEY => parse::<Summary>(key, body).map(|s| self.summarised(s, now)).unwrap_or_default(),
            KNOWN_CAMERAS_KEY => {
                if let Some(known) = parse::<KnownCameras>(key, body) {
                    self.cameras_known(known.cameras);
                }
                Concerned::default()
            }
            RECORDER_HELLO_KEY => {
                tracing::info!("the recorder asks for every configuration");
                self.recorder_asks();
                Concerned::default()
            }
            _ => self.hear_agent(key, user, body, now).unwrap_or_default(),
        }
    }

    fn hear_agent(&self, key: &str, user: Option<&str>, body: &[u8], now: Timestamp) -> Option<Concerned> {
        let mut words = key.split('.');
        let (Some("evt"), Some(uid), Some(event), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return None;
        };
        let uid = uid.parse::<InstanceUid>().ok()?;
        let Some(namespace) = self.namespace_of(uid) else {
            // Its Pipeline is not reconciled yet, or it is over: what it says now comes again, or concerns nobody.
            tracing::debug!(%uid, event, "nobody wants this instance");
            return None;
        };
        if user != Some(&topology::agent_user(&namespace)) {
            tracing::warn!(key, user, namespace, "dropping what a stranger says of an instance");
            return None;
        }
        match event {
            "hello" => {
                let hello = parse::<Hello>(key, body)?;
                tracing::info!(%uid, revision = hello.revision, "an agent says hello");
                self.instance_asks(uid);
                None
            }
            "ack" => Some(self.acknowledged(uid, parse::<Ack>(key, body)?.revision, now)),
            "state" | "heartbeat" => Some(self.reported(uid, parse::<InstanceReport>(key, body)?, now)),
            _ => None,
        }
    }
}

/// The data of a message; one that can't be read is said and dropped, for it would come again and again.
fn parse<T: DeserializeOwned>(key: &str, body: &[u8]) -> Option<T> {
    serde_json::from_slice::<Envelope<T>>(body)
        .map(|envelope| envelope.data)
        .map_err(|error| tracing::warn!(key, %error, "dropping a message that can't be read"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::control::{Event, Phase, event_key},
        operator::broker::{View, wanted::fixture},
    };

    /// Who held any namespace's broker password could say that a leaving camera has nothing left to upload, and its volume
    /// was deleted with the footage on it.
    #[test]
    fn an_instance_is_believed_only_when_its_own_namespaces_agent_speaks() {
        let now = Timestamp::now();
        let desk = Desk::new(now);
        let instance = fixture::instance(1);
        let uid = instance.uid;
        desk.want_instance(instance, now);
        let report = InstanceReport { phase: Phase::Drained, ..InstanceReport::default() };
        let message = Envelope::unordered(uid.to_string(), "state", now, report);
        let body = serde_json::to_vec(&message).expect("encodes");
        let say = |user: Option<&str>| desk.hear(&event_key(uid, Event::State), user, &body, now);
        for stranger in [Some("dsn-other"), Some("guest"), Some("n"), None] {
            assert_eq!(say(stranger), Concerned::default(), "{stranger:?}");
            assert_eq!(desk.view(uid, now).view, View::Awaiting, "{stranger:?}");
        }
        assert_eq!(say(Some("dsn-n")).pipelines.len(), 1);
        assert!(matches!(desk.view(uid, now).view, View::Fresh(report) if report.phase == Phase::Drained));
    }
}
