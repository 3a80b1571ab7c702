//! Bytes: fetched by CID, checked against the catalogue's hash before the first one leaves (row B1).
//!
//! Asked for by stream, session, rendition and number, never by CID: a CID is no permission, and one init section
//! belongs to many cameras.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{App, problem::Problem};
use crate::{
    catalogue::{Media, MediaRow},
    clients::{groups::Group, storage_agent::Error},
    domain::{
        cid::Cid,
        container::Container,
        id::{SessionId, StreamId},
        segment::SegmentKey,
    },
    telemetry,
};

/// Storage agents asked before we give up; each attempt opens a connection of its own, so another one may answer.
const ATTEMPTS: usize = 3;

/// What a file name of a session means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum File {
    /// `00000012.m4s`, `00000012.ts`, `12`.
    Segment(u64),
    /// `init`, `init.mp4`, `init-<hash>.mp4`.
    Init(String),
}

fn parse(file: &str) -> Option<File> {
    let harmless = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if !harmless(file) || file.len() > 64 {
        return None;
    }
    let (stem, _) = file.split_once('.').unwrap_or((file, ""));
    if stem == "init" || stem.starts_with("init-") {
        return Some(File::Init(file.to_owned()));
    }
    (!stem.is_empty() && stem.bytes().all(|b| b.is_ascii_digit())).then(|| stem.parse().ok().map(File::Segment))?
}

struct Asked {
    stream: StreamId,
    session: SessionId,
    rendition: String,
    file: File,
}

fn asked(path: &(String, String, String, String)) -> Result<Asked, Problem> {
    let (stream, session, rendition, file) = path;
    let no_address = || Problem::not_found("UnknownMedia", "this is no address of footage: take them from a playlist");
    let word = |text: &str| {
        !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !word(rendition) {
        return Err(no_address());
    }
    Ok(Asked {
        stream: stream.parse().map_err(|_| no_address())?,
        session: session.parse().map_err(|_| no_address())?,
        rendition: rendition.clone(),
        file: parse(file).ok_or_else(no_address)?,
    })
}

/// `GET /media/{stream}/{session}/{rendition}/{file}`.
pub(super) async fn media(
    State(app): State<App>,
    Path(path): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = asked(&path)?;
    let found = match &asked.file {
        File::Segment(seq) => {
            let key = SegmentKey {
                stream: asked.stream,
                rendition: asked.rendition.clone(),
                session: asked.session,
                seq: *seq,
            };
            app.catalogue.segment(&key).await?
        }
        File::Init(name) => app.catalogue.init(asked.stream, asked.session, &asked.rendition, name).await?,
    };
    let row = match found {
        Media::Found(row) => row,
        Media::Removed => {
            return Err(Problem::gone("Removed", "retention has removed this footage"));
        }
        Media::Lost(reason) => {
            return Err(Problem::gone("Lost", format!("this segment was lost before it could be stored ({reason})")));
        }
        Media::Unknown => {
            return Err(Problem::not_found("UnknownMedia", "the catalogue knows no such segment"));
        }
    };
    let etag = format!("\"{}\"", row.blob.sha256);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let bytes = fetch(&app, &row).await?;
    Ok(answer(&bytes, row.container, Some(&etag), &headers))
}

/// `GET /live/{stream}/{session}/{rendition}/{file}`: the same from the capture pod.
pub(super) async fn live(
    State(app): State<App>,
    Path(path): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = asked(&path)?;
    let stored = || Redirect::temporary(&format!("/media/{}/{}/{}/{}", path.0, path.1, path.2, path.3)).into_response();
    // Recorded no more: what was live is in the catalogue by now.
    let Some(stream) = app.roster.stream(asked.stream) else { return Ok(stored()) };
    match app.live.file(&stream, asked.session, &asked.rendition, &path.3).await {
        Ok(bytes) => Ok(answer(&bytes, Container::of_file(&path.3).unwrap_or_default(), None, &headers)),
        Err(problem) if problem.status == StatusCode::NOT_FOUND => Ok(stored()),
        Err(problem) => Err(problem),
    }
}

/// The whole of a blob, or why not.
async fn fetch(app: &App, row: &MediaRow) -> Result<Bytes, Problem> {
    let unreadable = |_| {
        Problem::new(StatusCode::BAD_GATEWAY, "ContentMissing", "the catalogue's address of this segment is unreadable")
    };
    let cid: Cid = row.blob.cid.parse().map_err(unreadable)?;
    let group = Group { namespace: row.namespace.clone(), name: row.group.clone() };
    let mut worst = None;
    for attempt in 0..ATTEMPTS {
        let client = if attempt == 0 { app.groups.storage(&group) } else { app.groups.another_storage(&group) };
        let fetched = match client {
            Ok(client) => client.get(&cid).await,
            Err(error) => Err(error),
        };
        match fetched {
            // The CID was checked by the client. The catalogue's own hash is checked as well: it is what was announced.
            Ok(bytes) if sha256(&bytes) == row.blob.sha256 => return Ok(bytes),
            Ok(_) => worst = Some(Error::OtherContent(cid)),
            Err(error) => {
                let settled = matches!(error, Error::Unauthorized);
                worst = Some(error);
                if settled {
                    break;
                }
            }
        }
    }
    Err(worst.map_or_else(|| away(&group), |error| problem_of(&error, &group)))
}

fn away(group: &Group) -> Problem {
    Problem::unavailable("StorageUnreachable", format!("no storage node of the group {group} answers"), 5)
}

fn problem_of(error: &Error, group: &Group) -> Problem {
    tracing::warn!(%group, error = telemetry::chain(error), "cannot fetch footage");
    let bad = |reason, sentence: String| Problem::new(StatusCode::BAD_GATEWAY, reason, sentence);
    match error {
        Error::Missing(_) => bad("ContentMissing", format!("no storage node of the group {group} has this segment")),
        Error::OtherContent(_) => {
            bad("ContentMismatch", "a storage node has other bytes than were recorded: this segment is altered".into())
        }
        Error::Unauthorized => {
            bad("StorageUnauthorized", format!("the storage nodes of the group {group} refuse our token"))
        }
        _ => away(group),
    }
}

/// Bytes with range, type and caching.
fn answer(bytes: &Bytes, container: Container, etag: Option<&str>, headers: &HeaderMap) -> Response {
    let length = bytes.len();
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, body, content_range) = match range.map(|text| part(text, length)) {
        None | Some(Part::Whole) => (StatusCode::OK, bytes.clone(), None),
        Some(Part::Some(from, to)) => {
            (StatusCode::PARTIAL_CONTENT, bytes.slice(from..to), Some(format!("bytes {from}-{}/{length}", to - 1)))
        }
        Some(Part::Outside) => (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new(), Some(format!("bytes */{length}"))),
    };
    let mut response = (status, Body::from(body)).into_response();
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(container.content_type()));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // One address means one content for ever, but only for those who are logged in.
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=86400, immutable"));
    for (name, value) in [(header::ETAG, etag), (header::CONTENT_RANGE, content_range.as_deref())] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            out.insert(name, value);
        }
    }
    response
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Some(usize, usize),
    Outside,
}

/// RFC 9110 §14.2: one range of bytes. What is not understood, several ranges too, means the whole.
fn part(text: &str, length: usize) -> Part {
    let Some((from, to)) = text.strip_prefix("bytes=").and_then(|text| text.trim().split_once('-')) else {
        return Part::Whole;
    };
    let numbers = |text: &str| text.is_empty() || text.bytes().all(|b| b.is_ascii_digit());
    if !numbers(from) || !numbers(to) {
        return Part::Whole;
    }
    match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) if from <= to && from < length => Part::Some(from, to.saturating_add(1).min(length)),
        (Ok(from), Err(_)) if to.is_empty() && from < length => Part::Some(from, length),
        (Err(_), Ok(last)) if from.is_empty() && last > 0 && length > 0 => {
            Part::Some(length.saturating_sub(last), length)
        }
        (Ok(from), Ok(to)) if from > to => Part::Whole,
        _ => Part::Outside,
    }
}

/// SHA-256 in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        for (text, expected) in [
            ("bytes=0-", Part::Some(0, 10)),
            ("bytes=2-4", Part::Some(2, 5)),
            ("bytes=2-400", Part::Some(2, 10)),
            ("bytes=-3", Part::Some(7, 10)),
            ("bytes=-30", Part::Some(0, 10)),
            ("bytes=10-", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=5-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=0-1", Part::Whole),
        ] {
            assert_eq!(part(text, 10), expected, "{text}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Outside);
    }

    #[test]
    fn names_of_files_are_understood_or_refused() {
        assert_eq!(parse("00000012.m4s"), Some(File::Segment(12)));
        assert_eq!(parse("12"), Some(File::Segment(12)));
        assert_eq!(parse("12.ts"), Some(File::Segment(12)));
        assert_eq!(parse("init"), Some(File::Init("init".into())));
        assert_eq!(parse("init-0011.mp4"), Some(File::Init("init-0011.mp4".into())));
        for bad in ["", "..", "../1", "-1", "1/2", "x.m4s", "99999999999999999999999", "initial"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
