//! `/api/…`: what the page and its scripts ask for.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{App, playlists::time, problem::Problem, roster::Listed};
use crate::domain::{
    control::{self, Phase},
    coverage::{self, Span},
    ledger::Row,
};

/// Breaks up to this long do not show in the coverage.
const TOLERANCE: SignedDuration = SignedDuration::from_millis(1500);
/// Longest coverage.
const LONGEST: SignedDuration = SignedDuration::from_hours(35 * 24);
/// Footage this old while a camera should be recorded is an outage that still goes on.
const OUTAGE: SignedDuration = SignedDuration::from_secs(60);

/// `GET /api/me`.
pub(super) async fn me(State(app): State<App>) -> Json<Value> {
    Json(json!({"user": app.access.username(), "role": "admin"}))
}

/// A camera in the list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CameraView {
    namespace: String,
    name: String,
    uid: String,
    site: String,
    /// Word of the phase, or `Unknown`.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<control::Problem>,
    /// Is there a stream to be seen live?
    live: bool,
    deleted: bool,
    /// End of the newest footage.
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<Timestamp>,
}

/// `GET /api/cameras`.
pub(super) async fn cameras(State(app): State<App>) -> Json<Vec<CameraView>> {
    let mut views = Vec::new();
    for listed in app.roster.list() {
        let object = &listed.config.camera;
        // The list is worth showing without the catalogue too: live still works then.
        let newest = match app.catalogue.camera(&object.namespace, &object.name).await {
            Ok(Some(camera)) => app.catalogue.newest(&camera).await.ok().flatten(),
            _ => None,
        };
        // A camera that is gone and has left nothing is of no use to anybody.
        if listed.config.deleted && newest.is_none() {
            continue;
        }
        views.push(CameraView {
            state: word(&listed),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            uid: object.uid.clone(),
            site: listed.config.site.clone(),
            message: listed.problem.as_ref().map(|problem| problem.message.clone()),
            problem: listed.problem.clone(),
            live: listed.recorded && listed.phase == Some(Phase::Running),
            deleted: listed.config.deleted,
            newest,
        });
    }
    Json(views)
}

fn word(listed: &Listed) -> String {
    match (listed.recorded, listed.phase) {
        (true, Some(phase)) => format!("{phase:?}"),
        (true, None) => "Starting".to_owned(),
        (false, _) => "Unknown".to_owned(),
    }
}

/// `from` and `to` of a coverage.
#[derive(Deserialize)]
pub(super) struct Range {
    from: Option<String>,
    to: Option<String>,
}

/// `GET /api/cameras/{namespace}/{name}/coverage?from&to`.
pub(super) async fn coverage(
    State(app): State<App>,
    Path((namespace, name)): Path<(String, String)>,
    Query(range): Query<Range>,
) -> Result<Json<Value>, Problem> {
    let (from, to) = (time("from", range.from.as_deref())?, time("to", range.to.as_deref())?);
    if to <= from {
        return Err(Problem::invalid("to must be later than from"));
    }
    if to.duration_since(from) > LONGEST {
        return Err(Problem::invalid("a coverage spans at most 35 days: ask for a shorter range"));
    }
    let camera = app.catalogue.camera(&namespace, &name).await?;
    let camera = camera.ok_or_else(|| Problem::unknown_camera(&namespace, &name))?;
    let clipped = app
        .catalogue
        .spans(&camera, from, to)
        .await?
        .into_iter()
        .map(|span| Span { start: span.start.max(from), end: span.end.min(to) });
    let spans = coverage::merge(clipped, TOLERANCE);
    let mut gaps: Vec<Value> = app
        .catalogue
        .gaps(&camera, from, to)
        .await?
        .into_iter()
        .map(|gap| {
            json!({"from": gap.from, "to": gap.to, "reason": gap.reason, "detail": gap.detail,
                "session": gap.session, "seq": gap.seq})
        })
        .collect();
    let newest = app.catalogue.newest(&camera).await?;
    gaps.extend(outage(&app, &namespace, &name, newest, (from, to)));
    let removed = app.catalogue.removed_until(&camera).await?;
    Ok(Json(json!({
        "from": from, "to": to, "spans": spans, "gaps": gaps, "newest": newest, "removedUntil": removed,
    })))
}

/// The gap that is still open: it is declared only when footage comes again.
fn outage(
    app: &App,
    namespace: &str,
    name: &str,
    newest: Option<Timestamp>,
    (from, to): (Timestamp, Timestamp),
) -> Option<Value> {
    let now = Timestamp::now();
    let begin = newest.filter(|newest| now.duration_since(*newest) > OUTAGE)?;
    let until = now.min(to);
    if until <= begin.max(from) {
        return None;
    }
    let listed = app.roster.list();
    let camera = listed.iter().find(|l| l.config.camera.namespace == namespace && l.config.camera.name == name)?;
    let (reason, detail) = match (&camera.problem, camera.phase) {
        _ if !camera.recorded => return None,
        (Some(problem), _) => (problem.reason.clone(), problem.message.clone()),
        (None, Some(Phase::Paused)) => ("Paused".to_owned(), String::new()),
        // It records and we have not heard of it: on its way, not missing.
        (None, Some(Phase::Running)) => return None,
        (None, _) => ("InstanceLost".to_owned(), String::new()),
    };
    Some(json!({"from": begin, "to": until, "reason": reason, "detail": detail}))
}

/// Page of the ledger.
#[derive(Deserialize)]
pub(super) struct Page {
    after: Option<i64>,
    limit: Option<i64>,
}

/// `GET /api/ledger?after&limit`: rows, and whether the whole chain holds (row C4).
pub(super) async fn ledger(State(app): State<App>, Query(page): Query<Page>) -> Result<Json<Value>, Problem> {
    let (count, broken) = app.catalogue.verify_ledger().await?;
    let rows = app.catalogue.ledger(page.after.unwrap_or(0), page.limit.unwrap_or(1000).clamp(1, 10_000)).await?;
    let entries: Vec<Value> = rows.iter().map(entry).collect();
    Ok(Json(json!({"verified": broken.is_none(), "brokenAt": broken, "count": count, "entries": entries})))
}

/// The row with the fields of its body, for reading; `body` is the text to the letter, for checking.
fn entry(row: &Row) -> Value {
    let mut entry: Map<String, Value> = serde_json::from_str(&row.body).unwrap_or_default();
    entry.extend([
        ("id".to_owned(), json!(row.id)),
        ("at".to_owned(), json!(row.at)),
        ("event".to_owned(), json!(row.kind)),
        ("body".to_owned(), json!(row.body)),
        ("prevHash".to_owned(), json!(row.prev_hash)),
        ("hash".to_owned(), json!(row.hash)),
    ]);
    Value::Object(entry)
}
