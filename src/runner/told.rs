//! What the runner is told: the assignment file and the mounted credentials, read together.
//!
//! Not here: who decides the assignment (the agent writes the file), or acting on it.

use std::{fs, io::ErrorKind, path::Path};

use crate::domain::{
    capture::Transport,
    container::Container,
    control::{Activity, Assignment, Audio, Envelope, Problem},
    diagnosis::{self, Declared},
    source::{Address, Credentials},
    spool,
};

/// No mounted credential is longer; a Secret may hold a megabyte.
const MAX_CREDENTIAL: usize = 4_096;

/// The whole of what is wanted now.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Revision of the assignment; 0 = none yet.
    pub revision: u64,
    /// What to do.
    pub wanted: Wanted,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// No assignment yet.
    Nothing,
    /// Stand still.
    Paused,
    /// Stand still for good.
    Draining,
    /// Capture.
    Capture(Order),
    /// Capture is wanted and can't be tried until something is put right.
    Impossible(Problem),
}

/// Everything that, when it changes, needs another ffmpeg.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// The camera.
    pub address: Address,
    /// RTP transport.
    pub transport: Transport,
    /// Its login, if it has one.
    pub credentials: Option<Credentials>,
    /// Target segment length, seconds.
    pub segment_seconds: u32,
    /// What segments are packed in.
    pub container: Container,
    /// What becomes of the sound.
    pub audio: Audio,
    /// Name of the camera's Secret, for messages.
    pub secret: Option<String>,
}

impl Order {
    /// For messages to people.
    pub fn declared(&self) -> Declared {
        Declared { url: self.address.to_string(), credentials: self.credentials.is_some(), secret: self.secret.clone() }
    }

    /// Masks our secrets in a text.
    pub fn redact(&self, text: &str) -> String {
        self.credentials.clone().unwrap_or_default().redact(text)
    }
}

impl Told {
    /// Reads both; what can't be read becomes a problem that a person can put right.
    pub fn read(assignment: &Path, credentials: &Path) -> Self {
        let text = match fs::read(assignment.join(spool::ASSIGNMENT_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Self { revision: 0, wanted: Wanted::Nothing },
            Err(error) => return Self::invalid(0, format!("failed to read the assignment: {error}")),
        };
        let envelope: Envelope<Assignment> = match serde_json::from_slice(&text) {
            Ok(envelope) => envelope,
            Err(error) => return Self::invalid(0, format!("failed to understand the assignment: {error}")),
        };
        let assignment = envelope.data;
        let wanted = match assignment.activity {
            Activity::Paused => Wanted::Paused,
            Activity::Draining => Wanted::Draining,
            Activity::Running => capture(&assignment, credentials),
        };
        Self { revision: envelope.revision, wanted }
    }

    /// Is this order still what is wanted?
    pub fn orders(&self, order: &Order) -> bool {
        matches!(&self.wanted, Wanted::Capture(wanted) if wanted == order)
    }

    fn invalid(revision: u64, message: String) -> Self {
        Self { revision, wanted: Wanted::Impossible(Problem { reason: "AssignmentInvalid".to_owned(), message }) }
    }
}

fn capture(assignment: &Assignment, folder: &Path) -> Wanted {
    let source = &assignment.source;
    let invalid = |message: String| {
        Wanted::Impossible(Problem { reason: "SourceInvalid".to_owned(), message: format!("source.url: {message}") })
    };
    let address = match Address::parse(&source.url) {
        Ok(address) => address,
        Err(why) => return invalid(why.to_string()),
    };
    let credentials = if source.credentials {
        let read = |file: &str| credential(&folder.join(file));
        match (read(spool::USERNAME_FILE), read(spool::PASSWORD_FILE)) {
            (Some(username), Some(password)) => Some(Credentials { username, password }),
            _ => {
                return Wanted::Impossible(diagnosis::secret_missing(&Declared {
                    url: address.to_string(),
                    credentials: true,
                    secret: source.credentials_secret.clone(),
                }));
            }
        }
    } else {
        None
    };
    if let Err(why) = address.with(credentials.as_ref()) {
        return invalid(why.to_string());
    }
    Wanted::Capture(Order {
        address,
        transport: Transport::of(source),
        credentials,
        segment_seconds: assignment.segment_seconds.clamp(1, 60),
        container: assignment.container,
        audio: assignment.audio,
        secret: source.credentials_secret.clone(),
    })
}

/// A mounted key. `echo secret | base64` leaves a line break at the end that no camera wants.
fn credential(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok().filter(|text| text.len() <= MAX_CREDENTIAL)?;
    Some(text.trim_end_matches(['\r', '\n']).to_owned())
}
