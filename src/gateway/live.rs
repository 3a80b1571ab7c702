//! Live: straight from the capture pod. Neither database nor broker nor IPFS lies between.
//!
//! The window of a stream is asked for at most twice a second, whatever the number of viewers; media are checked against
//! the hashes that it names.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;

use super::problem::Problem;
use crate::{
    domain::{
        cid::MAX_FILE,
        control::{Phase, StreamConfig},
        id::{SessionId, StreamId},
        live::{LiveSegment, LiveWindow},
        playlist::{self, Entry, Sized, Variant},
        token::{MasterKey, Purpose},
    },
    telemetry,
};

/// How old a window may be that is handed to another viewer.
const FRESH: Duration = Duration::from_millis(500);
/// A capture pod that does not answer within this time is moving.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The system asks again after 1 s and after 3 s: a first word that gets lost on a busy node is no reason to give up.
const CONNECT: Duration = Duration::from_secs(4);
/// A live window holds ten segments of each rendition, of which there are six at most; more is nonsense.
const MAX_WINDOW: usize = 1_000;

/// The last answer of a capture pod, and when it came.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Result<Arc<LiveWindow>, Problem>)>>>;

/// Client of the capture agents' live endpoints.
pub struct LiveSource {
    http: reqwest::Client,
    master: MasterKey,
    windows: Mutex<HashMap<StreamId, Slot>>,
}

impl LiveSource {
    /// With the key that the live tokens are derived from.
    pub fn new(master: MasterKey) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { http, master, windows: Mutex::default() })
    }

    /// The newest segments of a stream.
    pub(super) async fn window(&self, stream: &StreamConfig) -> Result<Arc<LiveWindow>, Problem> {
        let slot = self.slot(stream.stream);
        // Held while asking: those who come meanwhile wait for the same answer, also when it is none.
        let mut slot = slot.lock().await;
        if let Some((answered, answer)) = &*slot
            && answered.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = self.ask(stream).await;
        *slot = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn ask(&self, stream: &StreamConfig) -> Result<Arc<LiveWindow>, Problem> {
        let bytes = self.get(stream, "/v1/live").await?;
        let window: LiveWindow = serde_json::from_slice(&bytes).map_err(|error| {
            tracing::warn!(stream = %stream.stream, error = telemetry::chain(&error), "a capture pod answered nonsense");
            away()
        })?;
        // What lists are made of takes time for each pair of them.
        if window.segments.len() > MAX_WINDOW {
            tracing::warn!(stream = %stream.stream, segments = window.segments.len(), "a capture pod says too much");
            return Err(away());
        }
        // A pod that has taken over the address of another one.
        if window.stream != stream.stream {
            return Err(away());
        }
        Ok(Arc::new(window))
    }

    /// One file of a stream, as the window says that it is (row B1). What no window names is not live.
    pub(super) async fn file(
        &self,
        stream: &StreamConfig,
        session: SessionId,
        rendition: &str,
        file: &str,
    ) -> Result<Bytes, Problem> {
        let named = |window: &LiveWindow| {
            let of = |s: &&LiveSegment| s.key.session == session && s.key.rendition == rendition && s.names(file);
            window.segments.iter().find(of).cloned()
        };
        let known = self.known(stream.stream).await.and_then(|window| named(&window));
        let segment = match known {
            Some(segment) => segment,
            // We have just started, or nobody has asked for the playlist here since there is this segment.
            None => named(&*self.window(stream).await?).ok_or_else(not_live)?,
        };
        let bytes = self.get(stream, &format!("/v1/live/{session}/{rendition}/{file}")).await?;
        // Only an agent of an earlier release says no hash, that of the init section.
        if segment.sha256_of(file).is_some_and(|sha256| sha256 != super::media::sha256(&bytes)) {
            return Err(Problem::new(
                axum::http::StatusCode::BAD_GATEWAY,
                "ContentMismatch",
                "the capture pod has other bytes than it announced: this segment is altered",
            ));
        }
        Ok(bytes)
    }

    /// The last window there was, however old: what it says of a file holds for ever.
    async fn known(&self, stream: StreamId) -> Option<Arc<LiveWindow>> {
        self.slot(stream).lock().await.as_ref().and_then(|(_, window)| window.as_ref().ok().cloned())
    }

    fn slot(&self, stream: StreamId) -> Slot {
        Arc::clone(self.windows.lock().unwrap_or_else(PoisonError::into_inner).entry(stream).or_default())
    }

    async fn get(&self, stream: &StreamConfig, path: &str) -> Result<Bytes, Problem> {
        let token = self.master.derive(Purpose::Live, &stream.pipeline.namespace);
        let request = self.http.get(format!("{}{path}", stream.live_url.trim_end_matches('/'))).bearer_auth(token);
        let failed = |error: reqwest::Error| {
            tracing::info!(stream = %stream.stream, error = telemetry::chain(&error), "a capture pod does not answer");
            away()
        };
        let mut response = request.send().await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(not_live());
            }
            StatusCode::UNAUTHORIZED => {
                return Err(Problem::unavailable(
                    "LiveUnauthorized",
                    "the capture pod refuses our token: its Secret dsn-agent does not come from this installation",
                    10,
                ));
            }
            _ => return Err(away()),
        }
        let mut bytes = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if (bytes.len() + piece.len()) as u64 > MAX_FILE {
                return Err(away());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }
}

fn not_live() -> Problem {
    Problem::not_found("NotLive", "the capture pod no longer has this segment")
}

fn away() -> Problem {
    Problem::unavailable("CaptureAway", "the capture pod does not answer, it may be moving: try again in a moment", 2)
}

/// Why there is no live picture, in the words of the instance where it has some.
pub(super) fn no_picture(
    name: &str,
    phase: Option<Phase>,
    problem: Option<crate::domain::control::Problem>,
) -> Problem {
    match (problem, phase) {
        (Some(problem), _) => Problem::unavailable("NoPicture", problem.message, 5),
        (None, Some(Phase::Paused)) => Problem::unavailable("Paused", format!("{name} is paused"), 10),
        _ => Problem::unavailable("NoPicture", format!("{name} has no live picture yet"), 2),
    }
}

/// What a master playlist says of a rendition that has segments in the window.
pub(super) fn variant(window: &LiveWindow, rendition: &str, uri: &str) -> Option<Variant> {
    let of_it = || window.segments.iter().filter(|segment| segment.key.rendition == rendition);
    let newest = of_it().next_back()?;
    let sum = |of: fn(&LiveSegment) -> u64| of_it().map(of).sum::<u64>();
    let media_us = sum(|segment| segment.media_us).max(1);
    let sized = of_it().map(|segment| Sized {
        bytes: segment.bytes,
        media_us: segment.media_us,
        target_seconds: segment.target_seconds,
    });
    Some(Variant {
        uri: playlist::in_rendition(uri, rendition),
        rates: playlist::rates(&sized.collect::<Vec<_>>()),
        frame_rate: sum(|segment| segment.frames) * 1_000_000_000 / media_us,
        codecs: newest.codecs.clone(),
        width: newest.width,
        height: newest.height,
    })
}

/// The window of a rendition as a playlist's rows.
pub(super) fn entries(window: &LiveWindow, rendition: &str) -> Vec<Entry> {
    window
        .segments
        .iter()
        .filter(|segment| segment.key.rendition == rendition)
        .map(|segment| Entry {
            folder: playlist::folder("/live", segment.key.stream, segment.key.session, &segment.key.rendition).into(),
            key: segment.key.clone(),
            init: segment.init.as_deref().map(Into::into),
            start: segment.start,
            end: segment.end,
            media_us: segment.media_us,
            playlist_seq: segment.playlist_seq,
            discontinuity_seq: segment.discontinuity_seq,
            target_seconds: segment.target_seconds,
            lacking: false,
        })
        .collect()
}
