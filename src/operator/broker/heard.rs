//! What agents and the recorder say, taken in at the desk. Called by the supervisor for each delivery.

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::{Concerned, Desk};
use crate::domain::{
    control::{
        Ack, Envelope, Hello, InstanceReport, KNOWN_CAMERAS_KEY, KnownCameras, RECORDER_HELLO_KEY, SUMMARY_KEY, Summary,
    },
    id::InstanceUid,
};

impl Desk {
    /// Takes in one message; who has to be reconciled for it.
    pub(super) fn hear(&self, key: &str, body: &[u8], now: Timestamp) -> Concerned {
        match key {
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
            _ => self.hear_agent(key, body, now).unwrap_or_default(),
        }
    }

    fn hear_agent(&self, key: &str, body: &[u8], now: Timestamp) -> Option<Concerned> {
        let mut words = key.split('.');
        let (Some("evt"), Some(uid), Some(event), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return None;
        };
        let uid = uid.parse::<InstanceUid>().ok()?;
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
