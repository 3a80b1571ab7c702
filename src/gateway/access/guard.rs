//! The door: every request but the public ones passes here, and every answer gets its headers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    Form,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::Deserialize;

use super::{Verdict, cookie::LASTS};
use crate::gateway::{App, problem::Problem};

const COOKIE: &str = "dsn_session";

/// hls.js transmuxes in a worker made from a blob and plays from one; nothing comes from anywhere else.
const POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; \
     worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The only things that anybody may have.
fn is_public(method: &Method, path: &str) -> bool {
    match path {
        "/login" => true,
        "/" | "/healthz" | "/readyz" => matches!(*method, Method::GET | Method::HEAD),
        _ => path.starts_with("/assets/") && matches!(*method, Method::GET | Method::HEAD),
    }
}

/// Lets in who may come in, and marks every answer.
pub(in crate::gateway) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let https = is_https(request.headers());
    let answer = if is_foreign_post(request.method(), request.headers()) {
        Problem::new(StatusCode::FORBIDDEN, "ForeignOrigin", "this request was made by another site's page")
            .into_response()
    } else if is_public(request.method(), request.uri().path()) {
        next.run(request).await
    } else {
        match admit(&app, &request) {
            Ok(()) => next.run(request).await,
            Err(refusal) => *refusal,
        }
    };
    mark(answer, https)
}

fn admit(app: &App, request: &Request) -> Result<(), Box<Response>> {
    let (headers, now) = (request.headers(), Timestamp::now());
    if let Some((username, password)) = basic(headers) {
        return match app.access.check(client(request.extensions()), &username, &password, now) {
            Verdict::In => Ok(()),
            verdict => Err(Box::new(refusal(verdict, headers))),
        };
    }
    match cookie(headers) {
        Some(cookie) if app.access.knows_session(cookie, now) => Ok(()),
        _ => Err(Box::new(refusal(Verdict::Wrong, headers))),
    }
}

fn refusal(verdict: Verdict, headers: &HeaderMap) -> Response {
    match verdict {
        Verdict::Later(seconds) => Problem {
            retry_after: Some(seconds),
            ..Problem::new(StatusCode::TOO_MANY_REQUESTS, "TooManyAttempts", "too many wrong passwords: wait a while")
        }
        .into_response(),
        Verdict::Unconfigured => {
            Problem::unavailable("NoAdmin", "the Secret dsn-admin with username and password cannot be read", 10)
                .into_response()
        }
        Verdict::In | Verdict::Wrong => {
            let mut response = Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized", "log in first").into_response();
            // Tools such as ffmpeg answer a challenge. A browser would put up a box of its own over our page.
            let browser =
                headers.get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"));
            if !browser {
                let challenge = HeaderValue::from_static("Basic realm=\"dsn\", charset=\"UTF-8\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
    }
}

/// A form of another site that posts to us with our visitor's cookie. `SameSite=Lax` keeps the cookie from it as well.
fn is_foreign_post(method: &Method, headers: &HeaderMap) -> bool {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return false;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    // Browsers too old for Sec-Fetch-Site, and pages without https, still send Origin. Tools send neither.
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => origin.split_once("://").is_none_or(|(_, from)| from != host),
        (Some(_), None) => true,
        (None, _) => false,
    }
}

fn is_https(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

fn mark(mut answer: Response, https: bool) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if https {
        headers.insert("strict-transport-security", HeaderValue::from_static("max-age=31536000"));
    }
    // Whatever says nothing of its own about caching is somebody's and of the moment.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    text.split_once(':').map(|(name, password)| (name.to_owned(), password.to_owned()))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// The peer of the connection. A forwarded address is not believed: anybody can send one.
fn client(extensions: &axum::http::Extensions) -> IpAddr {
    extensions.get::<ConnectInfo<SocketAddr>>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |info| info.0.ip())
}

/// Fields of the login form.
#[derive(Deserialize)]
pub(in crate::gateway) struct Credentials {
    username: String,
    password: String,
}

/// `POST /login`: a cookie for the right pair.
pub(in crate::gateway) async fn login(
    State(app): State<App>,
    headers: HeaderMap,
    extensions: axum::http::Extensions,
    Form(credentials): Form<Credentials>,
) -> Response {
    let now = Timestamp::now();
    match app.access.check(client(&extensions), &credentials.username, &credentials.password, now) {
        Verdict::In => match app.access.open_session(now) {
            Some(session) => moved(&cookie_header(&session, LASTS.as_secs(), is_https(&headers))),
            None => refusal(Verdict::Unconfigured, &headers),
        },
        Verdict::Wrong => {
            Problem::new(StatusCode::UNAUTHORIZED, "WrongPassword", "the name or the password is wrong").into_response()
        }
        other => refusal(other, &headers),
    }
}

/// `POST /logout`.
pub(in crate::gateway) async fn logout(State(app): State<App>, headers: HeaderMap) -> Response {
    if let Some(session) = cookie(&headers) {
        app.access.close_session(session, Timestamp::now());
    }
    moved(&cookie_header("", 0, is_https(&headers)))
}

fn cookie_header(value: &str, seconds: i64, https: bool) -> String {
    let secure = if https { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}")
}

/// To the page, which is where the form stands.
fn moved(cookie: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, "./"), (header::SET_COOKIE, cookie)]).into_response()
}
