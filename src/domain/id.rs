//! Identities: stable over restarts of pods and processes, new when a resource is recreated under the same name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Defines a newtype around a UUID that prints and serialises as one.
macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_newtype! {
    /// One participant of a pipeline: (pipeline uid, camera uid, role, ordinal) as `UUIDv5`. Names its queue.
    InstanceUid
}
uuid_newtype! {
    /// The footage of one camera by one pipeline: (pipeline uid, camera uid) as `UUIDv5`.
    StreamId
}
uuid_newtype! {
    /// One run of the capturing ffmpeg, a `UUIDv7`: one folder in the spool, never reused (row V8).
    SessionId
}

/// What a participant does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes the live source and hands segments on (row C2: the distributor).
    Capture,
    /// Makes the other renditions of the segments.
    Transcoder,
}

impl Role {
    /// Lower-case word, as in labels and rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Transcoder => "transcoder",
        }
    }
}

/// Namespace of every `UUIDv5` made here; a constant of the product, never to be changed.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d21_3f0a_8a55_5d0e_9d7c_6473_6e00_0001);

impl InstanceUid {
    /// Identity of the participant `ordinal` in `role` for one camera of one pipeline; the uids are those of Kubernetes.
    pub fn of(pipeline_uid: &str, camera_uid: &str, role: Role, ordinal: u32) -> Self {
        Self(Uuid::new_v5(
            &NAMESPACE,
            format!("instance/{pipeline_uid}/{camera_uid}/{}/{ordinal}", role.as_str()).as_bytes(),
        ))
    }
}

impl StreamId {
    /// Identity of the footage of one camera by one pipeline.
    pub fn of(pipeline_uid: &str, camera_uid: &str) -> Self {
        Self(Uuid::new_v5(&NAMESPACE, format!("stream/{pipeline_uid}/{camera_uid}").as_bytes()))
    }
}

impl SessionId {
    /// A new session; sorts by time of creation.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// A new session that sorts after this one also when the clock was set back since.
    pub fn after(last: Self) -> Self {
        let new = Self::new();
        if new > last {
            return new;
        }
        let mut random = [0; 10];
        random.copy_from_slice(&new.0.as_bytes()[6..]);
        // The first 48 bits are milliseconds; a name from another hand may hold the last of them.
        let millis = u64::try_from(last.0.as_u128() >> 80).map_or(u64::MAX, |millis| millis + 1).min((1 << 48) - 1);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

impl Default for SessionId {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recreated_pipeline_has_other_instances_and_streams() {
        assert_ne!(InstanceUid::of("p1", "c", Role::Capture, 0), InstanceUid::of("p2", "c", Role::Capture, 0));
        assert_ne!(StreamId::of("p1", "c"), StreamId::of("p2", "c"));
        assert_eq!(StreamId::of("p1", "c"), StreamId::of("p1", "c"));
    }

    #[test]
    fn sessions_keep_their_order_when_the_clock_is_set_back() {
        let in_2100 = SessionId("03bb2cc3-d800-7000-8000-000000000000".parse().expect("a UUID"));
        let (next, one_more) = (SessionId::after(in_2100), SessionId::after(SessionId::after(in_2100)));
        assert!(in_2100 < next && next < one_more, "{next} {one_more}");
        assert_eq!(next.0.get_version_num(), 7);
        let before = SessionId::new();
        assert!(SessionId::after(before) > before);
        let _ = SessionId::after(SessionId(Uuid::max()));
    }

    #[test]
    fn identities_are_frozen() {
        // A change of these would orphan every queue and every stream of an installed system.
        insta::assert_snapshot!(format!("{} {}", InstanceUid::of("p", "c", Role::Capture, 0), StreamId::of("p", "c")));
    }
}
