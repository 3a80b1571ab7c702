//! `/hls/…`: the questions behind the playlists. Their text is [`crate::domain::playlist`].

use std::collections::BTreeSet;

use axum::{
    extract::{Path, Query, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use jiff::{SignedDuration, Timestamp, fmt::temporal::Pieces};
use serde::Deserialize;

use super::{App, live, problem::Problem, roster::Live};
use crate::{
    catalogue::Camera,
    domain::{
        ladder::{MAX_RENDITIONS, is_rendition},
        playlist::{self, DVR_WINDOW, Declared, Entry, Lacking, PATIENCE, Variant},
        segment::SOURCE,
    },
};

/// Longest replay: a day, also when clocks are set back.
const LONGEST: SignedDuration = SignedDuration::from_hours(26);
/// A live window that ends before this is no longer live.
const STALE: SignedDuration = SignedDuration::from_secs(60);
/// A range that ends before this will not change any more, but for what is removed.
const SETTLED: SignedDuration = PATIENCE;

/// `start` and `end` of a replay; the rendition of a media playlist.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Range {
    start: Option<String>,
    end: Option<String>,
    rendition: Option<String>,
}

impl Range {
    fn parse(&self) -> Result<(Timestamp, Timestamp), Problem> {
        let (start, end) = (time("start", self.start.as_deref())?, time("end", self.end.as_deref())?);
        if end <= start {
            return Err(Problem::invalid("end must be later than start"));
        }
        if end.duration_since(start) > LONGEST {
            return Err(Problem::invalid("a replay spans at most 26 hours: ask for a shorter range"));
        }
        Ok((start, end))
    }
}

/// Reads a time of a query.
pub(super) fn time(name: &str, text: Option<&str>) -> Result<Timestamp, Problem> {
    let text = text.unwrap_or_default();
    // A plus sign that was not escaped arrives as a space.
    let text = text.replace(' ', "+");
    text.parse().map_err(|_| {
        let whole = Pieces::parse(&text).is_ok_and(|pieces| pieces.time().is_some() && pieces.offset().is_some());
        Problem::invalid(if whole {
            format!("{name} must lie between {:.0} and {:.0}, not at {text}", Timestamp::MIN, Timestamp::MAX)
        } else {
            format!("{name} must be a time like 2026-01-31T08:00:00Z (RFC 3339), not {text:?}")
        })
    })
}

/// `GET /hls/{namespace}/{name}/{file}`.
pub(super) async fn playlist(
    State(app): State<App>,
    Path((namespace, name, file)): Path<(String, String, String)>,
    Query(range): Query<Range>,
) -> Result<Response, Problem> {
    let rendition = range.rendition.as_deref().unwrap_or(SOURCE);
    let camera = Asked { app: &app, namespace: &namespace, name: &name, rendition };
    let ranged = range.start.is_some() || range.end.is_some();
    match file.as_str() {
        "live.m3u8" => camera.live().await,
        "dvr.m3u8" => camera.dvr().await,
        "replay.m3u8" => camera.replay(&range).await,
        "live-master.m3u8" => camera.live_master().await,
        "master.m3u8" if !ranged => camera.live_master().await,
        "dvr-master.m3u8" => {
            let now = Timestamp::now();
            camera.master(now - DVR_WINDOW, now, "dvr.m3u8".into(), Lacking::Dvr).await
        }
        "master.m3u8" | "replay-master.m3u8" => {
            let (start, end) = range.parse()?;
            camera.master(start, end, format!("replay.m3u8?start={start}&end={end}"), Lacking::Replay).await
        }
        _ => Err(Problem::not_found("UnknownPlaylist", "there are live.m3u8, dvr.m3u8 and replay.m3u8?start=…&end=…")),
    }
}

struct Asked<'a> {
    app: &'a App,
    namespace: &'a str,
    name: &'a str,
    rendition: &'a str,
}

impl Asked<'_> {
    /// Never reads SQL: the roster and the capture pod know it all.
    async fn window(&self) -> Result<std::sync::Arc<crate::domain::live::LiveWindow>, Problem> {
        match self.app.roster.live(self.namespace, self.name) {
            Live::Unknown => Err(Problem::unknown_camera(self.namespace, self.name)),
            Live::NotRecorded => Err(Problem::not_found(
                "NotRecorded",
                format!(
                    "no pipeline records {}/{}: what was recorded before, if anything, can be replayed",
                    self.namespace, self.name
                ),
            )),
            Live::From(stream, phase, problem) => {
                let window = self.app.live.window(&stream).await?;
                let newest = window.segments.iter().map(|segment| segment.end).max();
                match newest {
                    Some(end) if Timestamp::now().duration_since(end) < STALE => Ok(window),
                    _ => Err(live::no_picture(self.name, phase, problem)),
                }
            }
        }
    }

    async fn live(&self) -> Result<Response, Problem> {
        let window = self.window().await?;
        let entries =
            self.shaped(live::entries(&window, SOURCE), live::entries(&window, self.rendition), Lacking::Live)?;
        let text = playlist::live(entries).ok_or_else(|| live::no_picture(self.name, None, None))?;
        Ok(hls(text, "no-cache"))
    }

    /// The entries of the source, or what another rendition has of them.
    fn shaped(&self, source: Vec<Entry>, rung: Vec<Entry>, lacking: Lacking) -> Result<Vec<Entry>, Problem> {
        if self.rendition == SOURCE || source.is_empty() {
            return Ok(source);
        }
        let entries = playlist::rendition(source, self.rendition, rung, lacking);
        if entries.is_empty() {
            return Err(Problem::not_found(
                "NoRendition",
                format!(
                    "{} has no footage as {:?} at this time: take a name from the master playlist",
                    self.name, self.rendition
                ),
            ));
        }
        Ok(entries)
    }

    async fn live_master(&self) -> Result<Response, Problem> {
        let window = self.window().await?;
        let names: BTreeSet<&str> = window.segments.iter().map(|segment| segment.key.rendition.as_str()).collect();
        // Names go into addresses: a capture pod may say anything. One that is over has no playlist any more.
        let source = live::entries(&window, SOURCE);
        let goes_on = |name: &&str| {
            let rung = live::entries(&window, name);
            !playlist::rendition(source.clone(), name, rung, Lacking::Live).is_empty()
        };
        let others = names.into_iter().filter(|name| is_rendition(name)).take(MAX_RENDITIONS).filter(goes_on);
        let mut variants: Vec<Variant> = others.filter_map(|name| live::variant(&window, name, "live.m3u8")).collect();
        let source = live::variant(&window, SOURCE, "live.m3u8");
        variants.insert(0, source.ok_or_else(|| live::no_picture(self.name, None, None))?);
        Ok(hls(playlist::master(&variants), "no-cache"))
    }

    async fn camera(&self) -> Result<Camera, Problem> {
        let camera = self.app.catalogue.camera(self.namespace, self.name).await?;
        camera.ok_or_else(|| Problem::unknown_camera(self.namespace, self.name))
    }

    async fn dvr(&self) -> Result<Response, Problem> {
        let camera = self.camera().await?;
        let to = Timestamp::now() + SignedDuration::from_hours(1);
        // Behind the window as far as a hole may hold it up.
        let from = Timestamp::now() - DVR_WINDOW - PATIENCE;
        let entries = self.entries(&camera, from, to, Lacking::Dvr).await?;
        let declared = Declared::new(&self.app.catalogue.gaps(&camera, from, to).await?);
        let text = playlist::dvr(entries, &declared).ok_or_else(|| {
            Problem::not_found("NoFootage", format!("{} has no footage of the last two hours", self.name))
        })?;
        Ok(hls(text, "no-cache"))
    }

    async fn replay(&self, range: &Range) -> Result<Response, Problem> {
        let (start, end) = range.parse()?;
        let camera = self.camera().await?;
        let entries = self.entries(&camera, start, end, Lacking::Replay).await?;
        let declared = Declared::new(&self.app.catalogue.gaps(&camera, start, end).await?);
        let Some(text) = playlist::replay(entries, &declared) else {
            return Err(self.nothing(&camera, start, end).await?);
        };
        // The text of a range that lies behind us changes no more.
        let settled = Timestamp::now().duration_since(end) > SETTLED;
        Ok(hls(text, if settled { "private, max-age=300" } else { "no-cache" }))
    }

    async fn entries(
        &self,
        camera: &Camera,
        from: Timestamp,
        to: Timestamp,
        lacking: Lacking,
    ) -> Result<Vec<Entry>, Problem> {
        let source = self.app.catalogue.entries(camera, SOURCE, from, to).await?;
        let rung = if self.rendition == SOURCE {
            Vec::new()
        } else {
            self.app.catalogue.entries(camera, self.rendition, from, to).await?
        };
        self.shaped(source, rung, lacking)
    }

    /// Has a growing list of this rendition something to show? Not while all that is made of it lies behind a hole that
    /// may still be filled.
    fn begins(source: &[Entry], rendition: &str, rung: Vec<Entry>) -> bool {
        !rung.is_empty() && !playlist::rendition(source.to_vec(), rendition, rung, Lacking::Dvr).is_empty()
    }

    async fn master(&self, from: Timestamp, to: Timestamp, uri: String, lacking: Lacking) -> Result<Response, Problem> {
        let camera = self.camera().await?;
        let source = match lacking {
            Lacking::Dvr => Some(self.app.catalogue.entries(&camera, SOURCE, from, to).await?),
            Lacking::Live | Lacking::Replay => None,
        };
        let mut variants = Vec::new();
        for rendition in self.app.catalogue.renditions(&camera).await? {
            if let Some(source) = source.as_ref().filter(|_| rendition != SOURCE) {
                // A capture pod may announce any number of names.
                if variants.len() > MAX_RENDITIONS {
                    break;
                }
                let rung = self.app.catalogue.entries(&camera, &rendition, from, to).await?;
                if !Self::begins(source, &rendition, rung) {
                    continue;
                }
            }
            let uri = playlist::in_rendition(&uri, &rendition);
            if let Some(variant) = self.app.catalogue.variant(&camera, &rendition, from, to, uri).await? {
                variants.push(variant);
            } else if rendition == SOURCE {
                return Err(self.nothing(&camera, from, to).await?);
            }
        }
        Ok(hls(playlist::master(&variants), "no-cache"))
    }

    /// Why a range is empty.
    async fn nothing(&self, camera: &Camera, start: Timestamp, end: Timestamp) -> Result<Problem, Problem> {
        Ok(match self.app.catalogue.removed_until(camera).await? {
            Some(removed) if end <= removed || start < removed => {
                Problem::gone("Removed", format!("the footage up to {removed:.0} was removed, as its pipeline says"))
            }
            _ => Problem::not_found("NoFootage", format!("{} has no footage between {start} and {end}", self.name)),
        })
    }
}

fn hls(text: String, caching: &'static str) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.apple.mpegurl"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    response
}
