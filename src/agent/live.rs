//! Live: the newest sealed segments, straight from the spool. Needs neither broker nor storage nor catalogue.
//!
//! Whoever presents the live token may read (the gateway does, after it has authorised its viewer).

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path as UrlPath, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio_util::io::ReaderStream;

use super::{context::Context, spool::folder_path};
use crate::domain::{
    container::Container,
    ladder::{Rendition, is_rendition},
    live::{AWAITED, LiveSegment, LiveWindow},
    name::secret_key,
    segment::{SOURCE, Segment, SegmentKey},
    session::LIVE_SEGMENTS,
    spool, token,
};

/// The live window.
#[derive(Debug, Default)]
pub struct Live {
    segments: RwLock<VecDeque<LiveSegment>>,
}

impl Live {
    /// With what an earlier agent left. Which rungs came too late for live is forgotten: they are listed now.
    pub fn new(segments: &[Segment], init_file: impl Fn(&Segment) -> Option<String>) -> Self {
        let live = Self::default();
        for segment in segments {
            live.push(segment, init_file(segment).as_deref());
        }
        live
    }

    /// Takes the next segment, or an older one of another rendition; `init`: the file of its init section. One that comes
    /// too late is for replay only: live has listed its place as a gap.
    pub fn push(&self, segment: &Segment, init: Option<&str>) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let newer = |other: &&LiveSegment| other.key.rendition == SOURCE && other.playlist_seq > segment.playlist_seq;
        if segment.key.rendition != SOURCE && segments.iter().filter(newer).count() >= AWAITED {
            return;
        }
        let segment = LiveSegment::new(segment, init);
        let at = segments.iter().rposition(|other| other.playlist_seq <= segment.playlist_seq).map_or(0, |at| at + 1);
        segments.insert(at, segment);
        // What the source no longer shows, no rendition shows.
        let source = segments.iter().rev().filter(|segment| segment.key.rendition == SOURCE);
        let oldest = source.take(LIVE_SEGMENTS).last().map_or(0, |segment| segment.playlist_seq);
        segments.retain(|segment| segment.playlist_seq >= oldest);
    }

    /// A copy that had to go is no longer live.
    pub fn remove(&self, key: &SegmentKey) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).retain(|segment| segment.key != *key);
    }

    /// The source, and the renditions that are still made: of one that was edited away nothing will follow.
    fn segments(&self, ladder: &[Rendition]) -> Vec<LiveSegment> {
        let wanted = |name: &str| name == SOURCE || ladder.iter().any(|rendition| rendition.name == name);
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.iter().filter(|segment| wanted(&segment.key.rendition)).cloned().collect()
    }
}

/// The routes, all behind the token.
pub fn routes(context: Arc<Context>) -> Router {
    Router::new()
        .route("/v1/live", get(window))
        .route("/v1/live/{session}/{rendition}/{file}", get(file))
        .layer(middleware::from_fn_with_state(context.clone(), authorise))
        .with_state(context)
}

async fn authorise(State(context): State<Arc<Context>>, headers: HeaderMap, request: Request, next: Next) -> Response {
    let presented = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    // Read each time: the Secret may change, and the file is in memory.
    let expected = std::fs::read_to_string(context.agent_secret(secret_key::LIVE_TOKEN)).unwrap_or_default();
    if token::matches(presented, expected.trim()) {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response()
    }
}

async fn window(State(context): State<Arc<Context>>) -> Response {
    let Some(applied) = context.applied() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "2")], "no assignment yet\n").into_response();
    };
    let ladder = context.ladder.applied().map_or_else(Vec::new, |applied| applied.assignment.renditions);
    let window = LiveWindow { stream: applied.assignment.stream, segments: context.live.segments(&ladder) };
    ([(header::CACHE_CONTROL, "no-store")], Json(window)).into_response()
}

async fn file(
    State(context): State<Arc<Context>>,
    UrlPath((session, rendition, file)): UrlPath<(String, String, String)>,
) -> Response {
    let session = spool::session_of(&session).filter(|_| rendition == SOURCE || is_rendition(&rendition));
    let Some((session, container)) = session.zip(Container::of_file(&file)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let path = folder_path(session, &rendition).join(&file);
    let Ok((open, length, _)) = open(&context, &path) else { return StatusCode::NOT_FOUND.into_response() };
    let body = Body::from_stream(ReaderStream::with_capacity(tokio::io::AsyncReadExt::take(open, length), 64 << 10));
    let headers = [
        (header::CONTENT_TYPE, container.content_type().to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::CACHE_CONTROL, "private, max-age=86400, immutable".to_owned()),
    ];
    (headers, body).into_response()
}

fn open(context: &Context, path: &Path) -> std::io::Result<(tokio::fs::File, u64, std::time::SystemTime)> {
    let (file, length, modified) = context.spool.file(path)?;
    Ok((tokio::fs::File::from_std(file), length, modified))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::outbox::{Outbox, tests::sealed};

    /// Sealed segments of a source, and one of them as a rendition.
    async fn segments(count: u64) -> (Vec<Segment>, impl Fn(usize) -> Segment) {
        let folder = tempfile::tempdir().expect("a folder");
        let outbox = Outbox::open(folder.path()).await.expect("opens");
        sealed(&outbox, count).await;
        let source = outbox.newest(LIVE_SEGMENTS).await.expect("reads");
        let all = source.clone();
        let low = move |n: usize| {
            let mut rung = all[n].clone();
            rung.key.rendition = "low".to_owned();
            rung
        };
        (source, low)
    }

    /// Numbers of the rendition that live shows.
    fn shown(live: &Live, ladder: &str) -> Vec<u64> {
        let ladder = [Rendition { name: ladder.to_owned(), height: 180, video_bitrate_kbps: 150 }];
        let all = live.segments(&ladder);
        all.iter().filter(|segment| segment.key.rendition != SOURCE).map(|segment| segment.key.seq).collect()
    }

    #[tokio::test]
    async fn a_rung_that_comes_too_late_is_not_live_any_more() {
        let (source, low) = segments(5).await;
        let live = Live::new(&source, |_| None);
        for n in [4, 2, 3] {
            live.push(&low(n), None);
        }
        assert_eq!(shown(&live, "low"), [3, 4]);
    }

    #[tokio::test]
    async fn a_rendition_that_was_edited_away_is_not_live_any_more() {
        let (source, low) = segments(2).await;
        let live = Live::new(&source, |_| None);
        live.push(&low(1), None);
        assert_eq!((shown(&live, "low"), shown(&live, "small")), (vec![1], vec![]));
    }
}
