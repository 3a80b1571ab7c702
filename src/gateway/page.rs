//! The page's files, compiled in.

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::problem::Problem;

/// Ours. Globs cross slashes, so what npm installs and what only tests need is taken out by name.
#[derive(RustEmbed)]
#[folder = "ui/"]
#[allow_missing = true]
#[include = "*.html"]
#[include = "*.js"]
#[include = "*.css"]
#[include = "*.svg"]
#[exclude = "node_modules/*"]
#[exclude = "test/*"]
struct Page;

/// hls.js, as npm brings it; `build.rs` says so when it is missing.
#[derive(RustEmbed)]
#[folder = "ui/node_modules/hls.js/dist/"]
#[allow_missing = true]
#[include = "hls.min.js"]
struct HlsJs;

/// `GET /`: the page, which holds the login form too and says nothing by itself.
pub(super) async fn index(headers: HeaderMap) -> Result<Response, Problem> {
    file("index.html", &headers)
}

/// `GET /assets/{file}`.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    file(&name, &headers)
}

fn file(name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let found: Option<EmbeddedFile> = if name == "hls.min.js" { HlsJs::get(name) } else { Page::get(name) };
    let found = found.ok_or_else(|| Problem::not_found("NotFound", "the page has no such file"))?;
    let etag = format!("\"{}\"", data_encoding::HEXLOWER.encode(&found.metadata.sha256_hash()));
    // Names carry no hash: a new version must show at the next visit.
    let caching = [(header::CACHE_CONTROL, "no-cache".to_owned()), (header::ETAG, etag.clone())];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, caching).into_response());
    }
    let mut response = (caching, found.data.into_owned()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind(name)));
    Ok(response)
}

/// Browsers refuse a module of another type.
fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
