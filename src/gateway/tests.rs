//! The gateway as a viewer meets it: over HTTP, with a capture pod and a storage group that do as they are told.

use std::{net::SocketAddr, sync::Arc};

use prometheus_client::registry::Registry;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{any, bearer_token, method, path},
};

use super::{Access, Gateway, LiveSource, Roster, routes};
use crate::{
    catalogue::{Fact, Recorded, fixture::*},
    clients::groups::Groups,
    domain::{
        control::{InstanceReport, Phase, Problem, StreamConfig},
        live::{LiveSegment, LiveWindow},
        token::{MasterKey, Purpose},
    },
};

mod door;
mod footage;
mod live;

struct World {
    catalogue: Fixture,
    roster: Arc<Roster>,
    storage: MockServer,
    capture: MockServer,
    address: SocketAddr,
    client: Client,
    _admin: tempfile::TempDir,
}

async fn world() -> World {
    let (storage, capture) = (MockServer::start().await, MockServer::start().await);
    let catalogue = catalogue().await;
    let admin = tempfile::tempdir().expect("a folder");
    std::fs::write(admin.path().join("username"), "admin").expect("writes");
    std::fs::write(admin.path().join("password"), "secret").expect("writes");
    let master = MasterKey::new("k");
    let roster = Arc::new(Roster::default());
    let gateway = Gateway {
        catalogue: catalogue.reader.clone(),
        groups: Arc::new(Groups::new(master.clone(), storage.uri(), storage.uri())),
        roster: Arc::clone(&roster),
        live: LiveSource::new(master.clone()).expect("a client"),
        access: Access::new(admin.path().to_owned(), master),
    };
    let routes = routes(gateway, Arc::new(Registry::default()), Arc::new(|| Ok(())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let world = World { catalogue, roster, storage, capture, address, client, _admin: admin };
    let stream = StreamConfig { live_url: world.capture.uri(), ..stream_config() };
    world.record(vec![Fact::Camera(1, camera_config()), Fact::Stream(1, Box::new(stream))]).await;
    world
}

impl World {
    async fn record(&self, facts: Vec<Fact>) -> Recorded {
        let recorded = self.catalogue.writer.record(&facts, at(600)).await.expect("records");
        self.roster.heard(&recorded);
        recorded
    }

    fn request(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    async fn get(&self, path: &str) -> Response {
        self.request(path).basic_auth("admin", Some("secret")).send().await.expect("answers")
    }

    async fn text(&self, path: &str) -> String {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.text().await.expect("text")
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).expect("JSON")
    }

    /// Status and reason of a refusal; every one of them has a sentence.
    async fn refusal(&self, path: &str) -> (u16, String) {
        let response = self.get(path).await;
        let status = response.status();
        let retry = response.headers().contains_key("retry-after");
        let body: Value = response.json().await.expect("JSON");
        assert!(body["error"].as_str().is_some_and(|sentence| sentence.len() > 10), "{body}");
        assert_eq!(retry, status == StatusCode::SERVICE_UNAVAILABLE, "{path}");
        (status.as_u16(), body["reason"].as_str().expect("a reason").to_owned())
    }

    async fn store(&self, answer: ResponseTemplate) {
        self.storage.reset().await;
        Mock::given(any()).respond_with(answer).mount(&self.storage).await;
    }

    async fn live_with(&self, segments: Vec<LiveSegment>) {
        let token = MasterKey::new("k").derive(Purpose::Live, "demo");
        Mock::given(method("GET"))
            .and(path("/v1/live"))
            .and(bearer_token(token))
            .respond_with(ResponseTemplate::new(200).set_body_json(LiveWindow { stream: stream(), segments }))
            .mount(&self.capture)
            .await;
    }

    fn report(&self, phase: Phase, problem: Option<Problem>) {
        let report = InstanceReport { phase, problem, ..InstanceReport::default() };
        self.roster.heard(&Recorded { instances: vec![(instance(), report)], ..Recorded::default() });
    }
}

fn media_path(n: u128, seq: u64) -> String {
    format!("/media/{}/{}/source/{seq:08}.m4s", stream(), session(n))
}
