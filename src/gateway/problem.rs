//! What the gateway says when it cannot do what was asked: a status, a stable word, a sentence.

use axum::{
    Json,
    body::to_bytes,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{catalogue, domain::upload, telemetry};

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
    pub(super) sentence: String,
    /// Seconds after which asking again makes sense.
    pub(super) retry_after: Option<u32>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, reason: &'static str, sentence: impl Into<String>) -> Self {
        Self { status, reason, sentence: sentence.into(), retry_after: None }
    }

    pub(super) fn invalid(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid", sentence)
    }

    pub(super) fn not_found(reason: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, reason, sentence)
    }

    pub(super) fn gone(reason: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, reason, sentence)
    }

    pub(super) fn unavailable(reason: &'static str, sentence: impl Into<String>, retry_after: u32) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, sentence) }
    }

    pub(super) fn unknown_camera(namespace: &str, name: &str) -> Self {
        Self::not_found(
            "UnknownCamera",
            format!("there is no camera {namespace}/{name}: look at the list of cameras, or at kubectl get cameras -A"),
        )
    }
}

impl From<catalogue::Error> for Problem {
    fn from(error: catalogue::Error) -> Self {
        tracing::error!(error = telemetry::chain(&error), "the catalogue does not answer");
        Self::unavailable(error.reason(), "the catalogue does not answer; live still works", 5)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = upload::Problem { reason: self.reason.to_owned(), error: self.sentence };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Longest sentence of a refusal that is not ours.
const LONGEST: usize = 1024;

/// A refusal that is not our own (the web framework's, or one without a body) in our form, with its headers.
pub(super) async fn in_our_words(answer: Response) -> Response {
    let status = answer.status();
    let is_json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
    let ours = answer.headers().get(header::CONTENT_TYPE).is_some_and(is_json);
    if ours || !(status.is_client_error() || status.is_server_error()) {
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let (reason, sentence) = match status {
        StatusCode::METHOD_NOT_ALLOWED => ("MethodNotAllowed", "this address does not take this method: see Allow"),
        StatusCode::PAYLOAD_TOO_LARGE => ("TooLarge", "the body of this request is too long"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ("UnsupportedMediaType", "send a form: Content-Type application/x-www-form-urlencoded")
        }
        StatusCode::RANGE_NOT_SATISFIABLE => ("RangeNotSatisfiable", "the file is shorter: see Content-Range"),
        _ => ("Invalid", "this request cannot be understood"),
    };
    // What is wrong with a query or a form only its reader knows.
    let said = match reason {
        "Invalid" => to_bytes(body, LONGEST).await.ok().and_then(|bytes| String::from_utf8(bytes.into()).ok()),
        _ => None,
    };
    let said = said.as_deref().map(str::trim).filter(|said| !said.is_empty());
    let mut response = Problem::new(status, reason, said.unwrap_or(sentence)).into_response();
    for (name, value) in &parts.headers {
        if *name != header::CONTENT_LENGTH {
            response.headers_mut().entry(name).or_insert(value.clone());
        }
    }
    response
}
