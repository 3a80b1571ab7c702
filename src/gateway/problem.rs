//! What the gateway says when it cannot do what was asked: a status, a stable word, a sentence.

use axum::{
    Json,
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
