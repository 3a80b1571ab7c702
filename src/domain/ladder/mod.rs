//! The ladder: other sizes of the picture, made from sealed segments one by one, so that every rendition is cut exactly
//! where the source is.
//!
//! What the transcoder is told ([`LadderAssignment`]), which segment is next ([`next`]), what ffmpeg is told
//! ([`arguments`]), and whether what it made lines up with the source ([`lines_up`]). Not here: running anything (the transcoder does), or numbering what comes out (the agent does).

use serde::{Deserialize, Serialize};

use super::{
    control::{Activity, ObjectRef},
    id::{InstanceUid, StreamId},
    segment::SOURCE,
};

mod extent;
mod job;
mod next;

pub use extent::{Extent, lines_up};
pub use job::{Job, PLAYLIST, arguments, folder_of};
pub use next::{Next, Waiting, next};

/// No pod has more renditions beside the source; the schema says the same.
pub const MAX_RENDITIONS: usize = 5;
/// A segment that is older is not transcoded any more, and its copy in the spool no longer waits for that, µs.
pub const BOUND_US: i64 = 300_000_000;
/// A transcoder whose oldest waiting segment is older than this is behind, µs.
pub const BEHIND_US: i64 = 30_000_000;
/// Tries for one segment.
pub const TRIES: u32 = 3;

/// The whole of what a transcoder needs to know. It reads the spool and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LadderAssignment {
    /// The instance.
    pub instance: InstanceUid,
    /// The stream it works for.
    pub stream: StreamId,
    /// Wanted activity.
    pub activity: Activity,
    /// Pipeline, for people.
    pub pipeline: ObjectRef,
    /// Camera, for people.
    pub camera: ObjectRef,
    /// What to make, beside the source.
    pub renditions: Vec<Rendition>,
}

/// One other size of the picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rendition {
    /// Its name: a folder beside `source`.
    pub name: String,
    /// Height in pixels; even.
    pub height: u32,
    /// Bit rate of the picture, kbit/s.
    pub video_bitrate_kbps: u32,
}

/// Can this be the name of a rendition beside the source? It becomes a folder and a part of addresses.
pub fn is_rendition(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=16).contains(&name.len())
        && name != SOURCE
        && name.bytes().all(|b| plain(b) || b == b'-')
        && name.bytes().next().is_some_and(plain)
        && name.bytes().last().is_some_and(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renditions_name_is_a_harmless_folder() {
        for good in ["480p", "low", "a-b", "1"] {
            assert!(is_rendition(good), "{good}");
        }
        for bad in ["", "source", "..", ".ladder", "a/b", "-a", "a-", "A", "seventeen-letters"] {
            assert!(!is_rendition(bad), "{bad}");
        }
    }
}
