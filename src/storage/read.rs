//! `GET|HEAD /ipfs/{cid}[/path]`: the bytes of a file, whole or a range, or a block as it is.
//!
//! Content never changes under its name, so it may be kept for ever. Looked for here first, then, since only the server
//! may read, at the nodes of the group (`Cache-Control: only-if-cached` forbids that).

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;

use super::api::{Agent, Refusal};
use crate::{
    clients::ipfs::{Error, Reach, Stat},
    domain::cid::{self, Cid},
};

/// How long the nodes of the group are asked for a block.
pub const SEARCH: Duration = Duration::from_secs(10);
/// Kept by whoever may have it; not by caches in between, which know nothing of tokens.
const CACHING: &str = "private, max-age=31536000, immutable";
/// Media type of a block as it is.
const RAW_BLOCK: &str = "application/vnd.ipld.raw";

#[derive(Deserialize)]
pub struct Parameters {
    format: Option<String>,
}

/// The route.
pub async fn read(
    State(agent): State<Arc<Agent>>,
    method: Method,
    Path(path): Path<String>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let path = path.trim_end_matches('/');
    let (root, below) = path.split_once('/').map_or((path, ""), |(root, below)| (root, below));
    let root: Cid = root.parse().map_err(|_| bad(format!("{root:?} is no CID")))?;
    // kubo resolves the path; nothing in it may lead out of what the CID names.
    if below.split('/').any(|part| part == "." || part == "..") {
        return Err(bad("a path below a CID has no '.' or '..'"));
    }
    let raw = match parameters.format.as_deref() {
        Some("raw") => true,
        Some(other) => return Err(bad(format!("format {other:?} is not served: use raw, or leave it out"))),
        None => has(&headers, header::ACCEPT, RAW_BLOCK),
    };
    if below.is_empty() && has(&headers, header::IF_NONE_MATCH, &etag(&root, raw)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag(&root, raw))]).into_response());
    }
    let local_only = has(&headers, header::CACHE_CONTROL, "only-if-cached");
    let response = if raw {
        read_block(&agent, &root, path, local_only).await?
    } else {
        read_file(&agent, &headers, path, local_only, method == Method::HEAD).await?
    };
    Ok(response)
}

async fn read_block(agent: &Agent, root: &Cid, path: &str, local_only: bool) -> Result<Response, Refusal> {
    let block = match agent.kubo.block(path, Reach::Local).await {
        Err(Error::NotFound { .. }) if !local_only => agent.kubo.block(path, Reach::Neighbours(SEARCH)).await,
        other => other,
    }
    .map_err(|error| refusal(&error, local_only))?;
    if path == root.to_string() && !cid::matches(root, &block) {
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, "ContentMismatch", "the block on the disk is damaged"));
    }
    agent.metrics.sent.inc_by(block.len() as u64);
    let headers = [
        (header::CONTENT_TYPE, RAW_BLOCK.to_owned()),
        (header::CACHE_CONTROL, CACHING.to_owned()),
        (header::ETAG, etag(root, true)),
    ];
    Ok((headers, block).into_response())
}

async fn read_file(
    agent: &Agent,
    headers: &HeaderMap,
    path: &str,
    local_only: bool,
    head: bool,
) -> Result<Response, Refusal> {
    let stat = match agent.kubo.stat(path, Reach::Local).await {
        Err(Error::NotFound { .. }) if !local_only => agent.kubo.stat(path, Reach::Neighbours(SEARCH)).await,
        other => other,
    }
    .map_err(|error| refusal(&error, local_only))?;
    if stat.is_directory {
        return Err(bad("this is a directory: name a file in it, or ask for format=raw"));
    }
    let tag = etag(&stat.cid, false);
    if has(headers, header::IF_NONE_MATCH, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let (status, first, length) = match range(headers, &tag, stat.size) {
        Range::Whole => (StatusCode::OK, 0, stat.size),
        Range::Part { first, length } => (StatusCode::PARTIAL_CONTENT, first, length),
        Range::Impossible => {
            let content_range = [(header::CONTENT_RANGE, format!("bytes */{}", stat.size))];
            let refusal =
                Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "RangeInvalid", "the range lies behind the end");
            return Ok((content_range, refusal).into_response());
        }
    };
    let body = if head || length == 0 {
        Body::empty()
    } else {
        Body::from_stream(bytes_of(agent, &stat, path, first, length, local_only).await?)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let mut put = |name, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    };
    put(header::CONTENT_TYPE, "application/octet-stream".into());
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff".into());
    put(header::CONTENT_LENGTH, length.to_string());
    put(header::ACCEPT_RANGES, "bytes".into());
    put(header::CACHE_CONTROL, CACHING.into());
    put(header::ETAG, tag);
    if status == StatusCode::PARTIAL_CONTENT {
        put(header::CONTENT_RANGE, format!("bytes {first}-{}/{}", first + length - 1, stat.size));
    }
    Ok(response)
}

async fn bytes_of(
    agent: &Agent,
    stat: &Stat,
    path: &str,
    first: u64,
    length: u64,
    local_only: bool,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, Refusal> {
    // The root may be here and a leaf not: kubo fetches it on the way.
    let reach = if local_only { Reach::Local } else { Reach::Neighbours(SEARCH) };
    let bytes = agent.kubo.cat(path, first, length, reach).await.map_err(|error| refusal(&error, local_only))?;
    let (sent, cid) = (agent.metrics.sent.clone(), stat.cid);
    // Trap: when a leaf is missing, kubo ends the body as if it were whole. Whoever reads must see it break.
    Ok(stream::try_unfold((Box::pin(bytes), length), move |(mut bytes, left)| {
        let sent = sent.clone();
        async move {
            match bytes.next().await {
                Some(piece) => {
                    let piece = piece.map_err(io::Error::other)?;
                    let length = piece.len() as u64;
                    sent.inc_by(length);
                    Ok(Some((piece, (bytes, left.saturating_sub(length)))))
                }
                None if left > 0 => {
                    tracing::warn!(%cid, left, "a block is missing in the middle of a file");
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a block is missing"))
                }
                None => Ok(None),
            }
        }
    }))
}

fn refusal(error: &Error, local_only: bool) -> Refusal {
    match error {
        Error::NotFound { .. } if local_only => {
            Refusal::new(StatusCode::PRECONDITION_FAILED, "NotHere", "this node does not have it")
        }
        Error::NotFound { .. } => Refusal::new(StatusCode::NOT_FOUND, "ContentMissing", "no node of the group has it"),
        other => Refusal::of_kubo(other),
    }
}

fn bad(sentence: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "RequestInvalid", sentence)
}

fn etag(cid: &Cid, raw: bool) -> String {
    if raw { format!("\"{cid}.raw\"") } else { format!("\"{cid}\"") }
}

fn has(headers: &HeaderMap, name: header::HeaderName, value: &str) -> bool {
    headers.get_all(name).iter().filter_map(|header| header.to_str().ok()).any(|header| {
        header.split(',').any(|part| {
            let part = part.trim().trim_start_matches("W/");
            part == value || part.split(';').next().is_some_and(|name| name.trim() == value)
        })
    })
}

/// What part of a file is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    Part { first: u64, length: u64 },
    Impossible,
}

/// RFC 9110 §14.2: one range; several, or words that are no range, are answered with the whole.
fn range(headers: &HeaderMap, etag: &str, size: u64) -> Range {
    let asked = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(wanted) = asked(header::RANGE).and_then(|value| value.strip_prefix("bytes=")) else { return Range::Whole };
    if asked(header::IF_RANGE).is_some_and(|condition| condition != etag) {
        return Range::Whole;
    }
    let Some((first, last)) = wanted.trim().split_once('-') else { return Range::Whole };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last && first < size => {
            Range::Part { first, length: last.min(size - 1) - first + 1 }
        }
        (Ok(first), Err(_)) if last.is_empty() && first < size => Range::Part { first, length: size - first },
        (Err(_), Ok(count)) if first.is_empty() && count > 0 && size > 0 => {
            let length = count.min(size);
            Range::Part { first: size - length, length }
        }
        (Ok(first), Ok(last)) if first <= last => Range::Impossible,
        (Ok(_), Err(_)) if last.is_empty() => Range::Impossible,
        (Err(_), Ok(_)) if first.is_empty() => Range::Impossible,
        _ => Range::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str, size: u64) -> Range {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, text.parse().expect("a header"));
        range(&headers, "\"tag\"", size)
    }

    #[test]
    fn ranges_as_players_ask_for_them() {
        let part = |first, length| Range::Part { first, length };
        for (text, wanted) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-5", part(2, 4)),
            ("bytes=2-", part(2, 8)),
            ("bytes=2-99", part(2, 8)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-99", part(0, 10)),
            ("bytes=10-", Range::Impossible),
            ("bytes=10-12", Range::Impossible),
            ("bytes=-0", Range::Impossible),
            ("bytes=5-2", Range::Whole),
            ("bytes=0-1,4-5", Range::Whole),
            ("bytes=x-y", Range::Whole),
            ("lines=1-2", Range::Whole),
        ] {
            assert_eq!(asked(text, 10), wanted, "{text}");
        }
        assert_eq!(asked("bytes=0-", 0), Range::Impossible);
        assert_eq!(range(&HeaderMap::new(), "\"tag\"", 10), Range::Whole);
    }

    #[test]
    fn a_range_of_another_version_is_answered_with_the_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=0-1".parse().expect("a header"));
        headers.insert(header::IF_RANGE, "\"other\"".parse().expect("a header"));
        assert_eq!(range(&headers, "\"tag\"", 10), Range::Whole);
    }

    #[test]
    fn headers_are_lists_with_parameters() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, "text/html, application/vnd.ipld.raw;q=0.9".parse().expect("a header"));
        headers.insert(header::IF_NONE_MATCH, "\"a\", W/\"b\"".parse().expect("a header"));
        assert!(has(&headers, header::ACCEPT, RAW_BLOCK));
        assert!(has(&headers, header::IF_NONE_MATCH, "\"b\""));
        assert!(!has(&headers, header::IF_NONE_MATCH, "\"c\""));
    }
}
