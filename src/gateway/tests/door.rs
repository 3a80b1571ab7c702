//! Who comes in, and how answers are marked.

use reqwest::{Response, StatusCode};
use serde_json::Value;

use wiremock::ResponseTemplate;

use super::{World, media_path, world};
use crate::catalogue::fixture::{bytes_of, segments};

#[tokio::test]
async fn nothing_but_the_page_and_health_is_public() {
    let world = world().await;
    for path in [
        "/api/me",
        "/api/cameras",
        "/api/ledger",
        "/api/cameras/demo/camera/coverage",
        "/hls/demo/camera/live.m3u8",
        "/hls/demo/camera/replay.m3u8?start=x&end=y",
        "/media/a/b/c/1",
        "/live/a/b/c/1",
        "/metrics",
        "/nowhere",
        "//api/me",
        "/assets/../api/me",
    ] {
        let bare = world.request(path).send().await.expect("answers");
        assert_eq!(bare.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(bare.headers()["www-authenticate"], "Basic realm=\"dsn\", charset=\"UTF-8\"", "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(world.request(path).send().await.expect("answers").status(), StatusCode::OK, "{path}");
    }
    let browser = world.request("/api/me").header("user-agent", "Mozilla/5.0").send().await.expect("answers");
    assert!(!browser.headers().contains_key("www-authenticate"), "a browser would put its own box over our form");
    assert_eq!(world.get("/metrics").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let world = world().await;
    for path in ["/", "/api/me", "/nowhere", "/healthz"] {
        let response = world.request(path).send().await.expect("answers");
        let policy = response.headers()["content-security-policy"].to_str().expect("text");
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{path}");
    }
}

async fn log_in(world: &World) -> Response {
    let form = [("username", "admin"), ("password", "secret")];
    let request = world.client.post(format!("http://{}/login", world.address)).form(&form);
    request.send().await.expect("answers")
}

#[tokio::test]
async fn a_cookie_opens_until_it_is_closed() {
    let world = world().await;
    let response = log_in(&world).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let set = response.headers()["set-cookie"].to_str().expect("text").to_owned();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax") && !set.contains("Secure"), "{set}");
    let cookie = set.split(';').next().expect("a pair").to_owned();
    let me = world.request("/api/me").header("cookie", &cookie).send().await.expect("answers");
    assert_eq!(me.json::<Value>().await.expect("JSON"), serde_json::json!({"user": "admin", "role": "admin"}));
    let out = world.client.post(format!("http://{}/logout", world.address)).header("cookie", &cookie);
    assert_eq!(out.send().await.expect("answers").status(), StatusCode::SEE_OTHER);
    let after = world.request("/api/me").header("cookie", &cookie).send().await.expect("answers");
    assert_eq!(after.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn behind_https_the_cookie_is_secure() {
    let world = world().await;
    let form = [("username", "admin"), ("password", "secret")];
    let request = world.client.post(format!("http://{}/login", world.address)).form(&form);
    let response = request.header("x-forwarded-proto", "https").send().await.expect("answers");
    assert!(response.headers()["set-cookie"].to_str().expect("text").contains("; Secure"));
    assert!(response.headers().contains_key("strict-transport-security"));
}

#[tokio::test]
async fn another_sites_form_is_refused() {
    let world = world().await;
    let form = [("username", "admin"), ("password", "secret")];
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://elsewhere.example"),
        ("origin", "null"),
    ] {
        let request = world.client.post(format!("http://{}/login", world.address)).form(&form).header(name, value);
        assert_eq!(request.send().await.expect("answers").status(), StatusCode::FORBIDDEN, "{name}: {value}");
    }
    let own = format!("http://{}", world.address);
    let request = world.client.post(format!("{own}/login")).form(&form).header("origin", &own);
    assert_eq!(request.send().await.expect("answers").status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn wrong_passwords_are_slowed_down() {
    let world = world().await;
    let mut last = StatusCode::OK;
    for _ in 0..12 {
        let form = [("username", "admin"), ("password", "guess")];
        let request = world.client.post(format!("http://{}/login", world.address)).form(&form);
        last = request.send().await.expect("answers").status();
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn every_refusal_is_a_sentence() {
    let world = world().await;
    world.record(segments(1, 0..1, 0)).await;
    world.store(ResponseTemplate::new(200).set_body_bytes(bytes_of(1, 0))).await;
    let address = |path: &str| format!("http://{}{path}", world.address);
    let get = |path: &str| world.request(path).basic_auth("admin", Some("secret"));
    let log_in = || world.client.post(address("/login"));
    let segment = get(&media_path(1, 0)).header("range", "bytes=99-");
    for (request, status, reason) in [
        (get("/hls/demo/camera/replay.m3u8?start=a&start=b"), 400, "Invalid"),
        (get("/hls/demo/%ff/live.m3u8"), 400, "Invalid"),
        (get("/api/ledger?limit=x"), 400, "Invalid"),
        (log_in().json(&serde_json::json!({"username": "admin"})), 415, "UnsupportedMediaType"),
        (log_in().form(&[("username", "admin")]), 422, "Invalid"),
        (log_in().form(&[("username", "a".repeat(2 << 20))]), 413, "TooLarge"),
        (world.client.put(address("/login")), 405, "MethodNotAllowed"),
        (segment, 416, "RangeNotSatisfiable"),
    ] {
        let answer = request.send().await.expect("answers");
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let told = match status {
            405 => Some(("allow", "GET,HEAD,POST")),
            416 => Some(("content-range", "bytes */11")),
            _ => None,
        };
        if let Some((name, value)) = told {
            assert_eq!(answer.headers()[name], value);
        }
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["reason"], reason, "{body}");
        assert!(body["error"].as_str().is_some_and(|sentence| sentence.len() > 20), "{body}");
    }
}
