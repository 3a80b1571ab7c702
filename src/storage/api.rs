//! The storage agent's HTTP API: uploads, roll-ups, status; reads are in [`super::read`].
//!
//! Every route asks for a token of the group. An answer that is no success is a [`Problem`].

use std::{
    io,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, head, post, put},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use jiff::Timestamp;

use super::{
    access::{Right, Tokens},
    have,
    health::Health,
    metrics::{self, Metrics},
    neighbours, read,
    room::Room,
    ticket,
};
use crate::{
    clients::ipfs::{Error, Ipfs},
    domain::{
        cid::{self, Cid, Entry, FileDigest, MAX_FILE},
        upload::{
            PATH_HEADER, Problem, Publish, RolledUp, Rollup, SHA256_HEADER, Status, TICKET_HEADER, Ticket, Uploaded,
        },
    },
    telemetry,
};

/// Longest roll-up request: names and CIDs of [`cid::MAX_ENTRIES`] files.
const MAX_ROLLUP_BODY: usize = 4 * 1024 * 1024;

/// What the handlers work with.
pub struct Agent {
    /// Name of the StorageNode.
    pub node: String,
    /// Who may do what.
    pub tokens: Tokens,
    /// kubo.
    pub kubo: Ipfs,
    /// Does the node work?
    pub health: Health,
    /// Room on the volume.
    pub room: Room,
    /// The group's other nodes.
    pub neighbours: neighbours::Shared,
    /// Counters.
    pub metrics: Metrics,
}

/// An answer that is no success.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    problem: Problem,
}

impl Refusal {
    /// With a stable word and a sentence.
    pub fn new(status: StatusCode, reason: &str, error: impl Into<String>) -> Self {
        Self { status, problem: Problem { reason: reason.to_owned(), error: error.into() } }
    }

    /// What kubo's trouble means to the one who asked.
    pub fn of_kubo(error: &Error) -> Self {
        let status = match error {
            Error::NotFound { .. } => StatusCode::NOT_FOUND,
            Error::Transport(_) | Error::Timeout { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Error::Refused { .. } | Error::Garbled { .. } | Error::OtherCid { .. } => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error.reason(), telemetry::chain(error))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.problem)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("2"));
        }
        response
    }
}

/// All routes.
pub fn routes(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/v1/files", put(upload))
        .route("/v1/files/{cid}", head(have::have))
        .route("/v1/publish", post(publish))
        .route("/v1/rollups", post(roll_up))
        .route("/v1/status", get(status))
        .route("/ipfs/{*path}", get(read::read))
        .layer(DefaultBodyLimit::max(MAX_ROLLUP_BODY))
        .layer(middleware::from_fn_with_state(agent.clone(), authorise))
        .with_state(agent)
}

/// Lets a request pass that carries the right token, and counts how it ended.
async fn authorise(State(agent): State<Arc<Agent>>, request: Request, next: Next) -> Response {
    let (operation, needed) = match (request.method(), request.uri().path()) {
        (&Method::PUT, "/v1/files") => ("upload", Right::Upload),
        (&Method::HEAD, path) if path.starts_with("/v1/files/") => ("have", Right::Upload),
        (_, "/v1/publish") => ("publish", Right::Upload),
        (_, "/v1/status") => ("status", Right::Upload),
        (_, "/v1/rollups") => ("rollup", Right::Serve),
        _ => ("read", Right::Serve),
    };
    let response = match agent.tokens.right(request.headers()) {
        Some(right) if right >= needed => next.run(request).await,
        Some(_) => {
            Refusal::new(StatusCode::FORBIDDEN, "Forbidden", "an upload token does not open this").into_response()
        }
        None => {
            let refusal =
                Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized", "present a token of the storage group");
            ([(header::WWW_AUTHENTICATE, "Bearer")], refusal).into_response()
        }
    };
    agent.metrics.requests.get_or_create(&metrics::Request { operation, status: response.status().as_u16() }).inc();
    response
}

/// `PUT /v1/files`: takes a file in, if its bytes are those of its header `sha256`.
async fn upload(State(agent): State<Arc<Agent>>, headers: HeaderMap, body: Body) -> Result<Json<Uploaded>, Refusal> {
    let announced = sha256_of(&headers)?;
    let length: Option<u64> = text(&headers, header::CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
    if length.is_some_and(|length| length > MAX_FILE) {
        return Err(too_big());
    }
    if let Some(ticket) = text(&headers, TICKET_HEADER)
        && !ticket::covers(&agent.tokens.upload, ticket, length.unwrap_or(MAX_FILE), Timestamp::now())
    {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "TicketInvalid", "the ticket does not cover this file"));
    }
    if !agent.room.admits(length.unwrap_or(0)) {
        return Err(full(&agent.room));
    }
    let stored = store(&agent.kubo, body).await?;
    if stored.sha256 != announced {
        // The bytes are in the repo, unpinned: the next collection takes them.
        let sentence = format!("the bytes have the SHA-256 {}, not the announced one: send them again", stored.sha256);
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "HashMismatch", sentence));
    }
    agent.room.note(stored.bytes);
    agent.metrics.received.inc_by(stored.bytes);
    tracing::debug!(path = text(&headers, PATH_HEADER), cid = %stored.cid, bytes = stored.bytes, "stored");
    Ok(Json(Uploaded { cid: stored.cid.to_string(), size: stored.bytes }))
}

/// Streams a body into kubo, up to the size limit.
async fn store(kubo: &Ipfs, body: Body) -> Result<FileDigest, Refusal> {
    let fate = Arc::new(Fate::default());
    kubo.add(limited(body, fate.clone())).await.map_err(|error| {
        // Whose fault it was is not in kubo's error: from its side the connection just broke.
        if fate.too_big.load(Ordering::Relaxed) {
            too_big()
        } else if fate.broken.load(Ordering::Relaxed) {
            Refusal::new(StatusCode::BAD_REQUEST, "BodyBroken", "the upload broke off: send it again")
        } else {
            Refusal::of_kubo(&error)
        }
    })
}

/// Why a body ended early.
#[derive(Default)]
struct Fate {
    too_big: AtomicBool,
    broken: AtomicBool,
}

fn limited(body: Body, fate: Arc<Fate>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let taken = AtomicU64::new(0);
    body.into_data_stream().map(move |piece| {
        let piece = piece.map_err(|error| {
            fate.broken.store(true, Ordering::Relaxed);
            io::Error::other(error)
        })?;
        let length = piece.len() as u64;
        if taken.fetch_add(length, Ordering::Relaxed) + length > MAX_FILE {
            fate.too_big.store(true, Ordering::Relaxed);
            return Err(io::Error::other("too big"));
        }
        Ok(piece)
    })
}

/// `POST /v1/publish`: may so many bytes come?
async fn publish(State(agent): State<Arc<Agent>>, Json(publish): Json<Publish>) -> Result<Json<Ticket>, Refusal> {
    if publish.bytes > MAX_FILE {
        return Err(too_big());
    }
    agent.health.get().map_err(|problem| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "NotReady", problem))?;
    if !agent.room.admits(publish.bytes) {
        return Err(full(&agent.room));
    }
    let ticket = ticket::issue(&agent.tokens.upload, publish.bytes, publish.ttl, Timestamp::now());
    Ok(Json(Ticket { accepted: true, ticket }))
}

/// `POST /v1/rollups`: makes the directory that one pin will cover. The files may still be on other nodes.
async fn roll_up(State(agent): State<Arc<Agent>>, Json(rollup): Json<Rollup>) -> Result<Json<RolledUp>, Refusal> {
    let invalid = |error: String| Refusal::new(StatusCode::BAD_REQUEST, "RollupInvalid", error);
    let entries: Vec<Entry> = rollup
        .entries
        .into_iter()
        .map(|entry| match entry.cid.parse::<Cid>() {
            Ok(cid) => Ok(Entry { name: entry.name, cid, size: entry.size }),
            Err(_) => Err(invalid(format!("{:?} is no CID", entry.cid))),
        })
        .collect::<Result<_, _>>()?;
    let directory = cid::directory(entries).map_err(|error| invalid(error.to_string()))?;
    agent.kubo.put_directory(&directory).await.map_err(|error| Refusal::of_kubo(&error))?;
    tracing::debug!(cid = %directory.cid, files = directory.entries.len(), "rolled up");
    Ok(Json(RolledUp { cid: directory.cid.to_string() }))
}

/// `GET /v1/status`.
async fn status(State(agent): State<Arc<Agent>>) -> Json<Status> {
    let health = agent.health.get();
    let seen = agent.neighbours.read().unwrap_or_else(PoisonError::into_inner).clone();
    Json(Status {
        node: agent.node.clone(),
        ready: health.is_ok(),
        problem: health.err(),
        repo_bytes: agent.room.taken(),
        max_bytes: agent.room.max(),
        connected: seen.connected,
        missing: seen.missing,
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn sha256_of(headers: &HeaderMap) -> Result<String, Refusal> {
    match text(headers, SHA256_HEADER) {
        Some(digest) if digest.len() == 64 && digest.bytes().all(|c| c.is_ascii_hexdigit()) => {
            Ok(digest.to_ascii_lowercase())
        }
        _ => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "HashMissing",
            "send the header sha256: the SHA-256 of the bytes as 64 hex digits",
        )),
    }
}

fn too_big() -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "FileTooBig", format!("a file has at most {MAX_FILE} bytes"))
}

fn full(room: &Room) -> Refusal {
    let sentence = format!("{} of {} bytes are taken: try another node of the group", room.taken(), room.max());
    Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "StorageFull", sentence)
}
