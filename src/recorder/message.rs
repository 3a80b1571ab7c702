//! From a delivery to a fact, or to the reason why it is none. Pure.
//!
//! What cannot be understood is dropped with a log line: it would not be understood the second time either.

use serde::de::DeserializeOwned;

use crate::{
    catalogue::Fact,
    domain::{
        cid::{Cid, MAX_FILE},
        control::{CameraConfig, Envelope, InstanceReport, StreamConfig, StreamOrphaned},
        segment::{Blob, Gap, Segment},
    },
};

/// Why a message is no fact.
#[derive(Debug, thiserror::Error)]
pub(super) enum Invalid {
    #[error("nobody told the recorder what {0:?} means")]
    Key(String),
    #[error("failed to read the message")]
    Json(#[from] serde_json::Error),
    #[error("the message says {0}")]
    Nonsense(&'static str),
}

/// Understands a message by its routing key.
pub(super) fn fact(key: &str, body: &[u8]) -> Result<Fact, Invalid> {
    let words: Vec<&str> = key.split('.').collect();
    match words.as_slice() {
        ["evt", _, "segment"] => {
            let segment: Segment = data(body)?.data;
            check_segment(&segment)?;
            Ok(Fact::Segment(Box::new(segment)))
        }
        ["evt", _, "gap"] => {
            let gap: Gap = data(body)?.data;
            if gap.to < gap.from {
                return Err(Invalid::Nonsense("that a gap ends before it begins"));
            }
            Ok(Fact::Gap(gap))
        }
        ["evt", instance, "state"] => {
            let envelope: Envelope<InstanceReport> = data(body)?;
            let instance = instance.parse().map_err(|_| Invalid::Nonsense("an instance that is no UUID"))?;
            Ok(Fact::State { instance, at: envelope.issued_at, report: Box::new(envelope.data) })
        }
        ["cfg", "camera", _] => {
            let envelope: Envelope<CameraConfig> = data(body)?;
            Ok(Fact::Camera(envelope.revision, envelope.data))
        }
        ["cfg", "stream", _] => {
            let envelope: Envelope<StreamConfig> = data(body)?;
            Ok(Fact::Stream(envelope.revision, Box::new(envelope.data)))
        }
        ["cfg", "orphan", _] => Ok(Fact::Orphan(data::<StreamOrphaned>(body)?.data.stream)),
        _ => Err(Invalid::Key(key.to_owned())),
    }
}

fn data<T: DeserializeOwned>(body: &[u8]) -> Result<Envelope<T>, Invalid> {
    Ok(serde_json::from_slice(body)?)
}

/// Browsers count in doubles, and SQLite turns `i64::MAX + 1` into one.
const HIGHEST_NUMBER: u64 = 1 << 53;

/// Bounds what a confused or hostile agent can put into everybody's playlists.
fn check_segment(segment: &Segment) -> Result<(), Invalid> {
    if segment.end <= segment.start {
        return Err(Invalid::Nonsense("that a segment ends before it begins"));
    }
    if segment.media_us == 0 || segment.media_us > 300_000_000 {
        return Err(Invalid::Nonsense("a length that no segment has"));
    }
    let word = &segment.key.rendition;
    if word.is_empty()
        || word.len() > 32
        || !word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return Err(Invalid::Nonsense("a rendition that is no word"));
    }
    if segment.key.seq.max(segment.playlist_seq).max(segment.discontinuity_seq) > HIGHEST_NUMBER {
        return Err(Invalid::Nonsense("a number beyond counting"));
    }
    check_blob(&segment.blob)?;
    segment.init.as_ref().map_or(Ok(()), check_blob)
}

fn check_blob(blob: &Blob) -> Result<(), Invalid> {
    if blob.cid.parse::<Cid>().is_err() {
        return Err(Invalid::Nonsense("a CID that is none"));
    }
    if blob.sha256.len() != 64 || !blob.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(Invalid::Nonsense("a hash that is none"));
    }
    if blob.bytes > MAX_FILE {
        return Err(Invalid::Nonsense("a file larger than any may be"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalogue::fixture;

    fn good() -> Segment {
        fixture::segment(1, 0, 0)
    }

    fn understand(segment: &Segment) -> Result<Fact, Invalid> {
        let envelope = Envelope::unordered("uid", "segment", fixture::at(0), segment);
        fact("evt.uid.segment", &serde_json::to_vec(&envelope).expect("encodes"))
    }

    #[test]
    fn a_segment_is_understood() {
        assert!(matches!(understand(&good()), Ok(Fact::Segment(segment)) if *segment == good()));
    }

    #[test]
    fn mpeg_ts_needs_no_init_section() {
        let mut segment = good();
        segment.init = None;
        assert!(understand(&segment).is_ok());
    }

    #[test]
    fn nonsense_is_refused() {
        type Spoil = fn(&mut Segment);
        let spoils: [Spoil; 9] = [
            |s| s.end = s.start,
            |s| s.media_us = 0,
            |s| s.key.rendition = "../x".into(),
            |s| s.key.seq = u64::MAX,
            |s| s.blob.cid = "../../etc".into(),
            |s| s.blob.sha256 = "zz".repeat(32),
            |s| s.blob.bytes = MAX_FILE + 1,
            |s| s.init = s.init.take().map(|init| Blob { cid: "x".into(), ..init }),
            |s| s.init = s.init.take().map(|init| Blob { cid: String::new(), ..init }),
        ];
        for (i, spoil) in spoils.iter().enumerate() {
            let mut segment = good();
            spoil(&mut segment);
            assert!(matches!(understand(&segment), Err(Invalid::Nonsense(_))), "{i}");
        }
        assert!(matches!(fact("evt.uid.segment", b"{"), Err(Invalid::Json(_))));
        assert!(matches!(fact("evt.uid.weather", b"{}"), Err(Invalid::Key(_))));
    }

    #[test]
    fn a_state_names_its_instance_by_the_key() {
        let body = json!({"id": uuid::Uuid::nil(), "uid": "u", "revision": 0, "op": "state",
            "issuedAt": "2026-01-01T00:00:00Z",
            "data": {"revision": 1, "phase": "Running", "starts": 1, "backlog": {"unannounced": 0, "unstored": 0, "bytes": 0}}});
        let uid = fixture::instance();
        let understood = fact(&format!("evt.{uid}.state"), body.to_string().as_bytes());
        assert!(matches!(understood, Ok(Fact::State { instance, .. }) if instance == uid));
    }
}
