//! A storage agent as the capture agent sees it: takes files on loopback, answers with their CID.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex},
};

use dsn::domain::cid;
use wiremock::{
    Mock, MockServer, Request, Respond, ResponseTemplate,
    matchers::{bearer_token, method, path},
};

pub const UPLOAD_TOKEN: &str = "upload-token-of-the-test";

/// Files by their path, in the order of their first arrival, with how often they came.
#[derive(Clone, Default)]
pub struct Uploads(Arc<Mutex<Vec<(String, String, u32)>>>);

impl Uploads {
    /// Paths, oldest first.
    pub fn paths(&self) -> Vec<String> {
        self.0.lock().expect("whole").iter().map(|(path, ..)| path.clone()).collect()
    }

    /// How often each path came, with its CID.
    pub fn counts(&self) -> BTreeMap<String, (String, u32)> {
        self.0.lock().expect("whole").iter().map(|(path, cid, count)| (path.clone(), (cid.clone(), *count))).collect()
    }
}

impl Respond for Uploads {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let path = request.headers.get("path").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let cid = cid::of(&request.body).to_string();
        let mut uploads = self.0.lock().expect("whole");
        match uploads.iter_mut().find(|(known, ..)| *known == path) {
            Some((_, _, count)) => *count += 1,
            None => uploads.push((path, cid.clone(), 1)),
        }
        ResponseTemplate::new(200).set_body_json(serde_json::json!({"cid": cid, "size": request.body.len()}))
    }
}

/// Serves on a port chosen before, until dropped.
pub async fn serve(port: u16) -> (MockServer, Uploads) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is still free");
    let server = MockServer::builder().listener(listener).start().await;
    let uploads = Uploads::default();
    Mock::given(method("PUT"))
        .and(path("/v1/files"))
        .and(bearer_token(UPLOAD_TOKEN))
        .respond_with(uploads.clone())
        .mount(&server)
        .await;
    (server, uploads)
}
