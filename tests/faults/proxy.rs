//! A forwarder before an HTTP server (the API server, the broker's management API) that counts what the operator writes,
//! and fails at a chosen place.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::traffic::{Due, Moment, Traffic};

struct Shared {
    server: String,
    client: reqwest::Client,
    traffic: Arc<Traffic>,
}

/// The forwarder, for as long as the value lives.
pub struct Proxy {
    /// What goes through.
    pub traffic: Arc<Traffic>,
    address: String,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Forwards to the server at this address.
    pub fn to(runtime: &Runtime, client: &reqwest::Client, server: &str) -> Self {
        let traffic = Arc::<Traffic>::default();
        let shared = Arc::new(Shared { server: server.to_owned(), client: client.clone(), traffic: traffic.clone() });
        let app = Router::new().fallback(forward).with_state(shared);
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = runtime.spawn(async move { axum::serve(listener, app).await.expect("it serves for ever") });
        Self { traffic, address, serving }
    }

    /// Its own address.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Leases are renewed, Events are remarks: neither is state that anybody compares.
fn is_write(method: &Method, path: &str) -> bool {
    let aside = path.contains("/leases") || path.contains("/events") || path.contains("/subjectaccessreviews");
    !aside && [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let due = if is_write(&parts.method, parts.uri.path()) { shared.traffic.write() } else { Due::Nothing };
    match &due {
        Due::Refuse(status) => return (*status, "the server stumbles").into_response(),
        Due::Call(Moment::Before, kill) => {
            kill();
            return StatusCode::BAD_GATEWAY.into_response();
        }
        _ => {}
    }
    let Ok(body) = to_bytes(body, 16 << 20).await else { return StatusCode::BAD_REQUEST.into_response() };
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let answer = shared.client.request(parts.method, format!("{}{path}", shared.server)).headers(headers).body(body);
    let Ok(answer) = answer.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = match due {
        Due::Call(moment, kill) => {
            let Ok(bytes) = answer.bytes().await else { return StatusCode::BAD_GATEWAY.into_response() };
            if moment == Moment::Committed {
                kill();
            } else {
                tokio::spawn(async move {
                    tokio::time::sleep(Moment::ON_ITS_WAY).await;
                    kill();
                });
            }
            Body::from(bytes)
        }
        // A watch goes on for ever.
        _ => Body::from_stream(answer.bytes_stream()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in &headers {
        // How this connection carries it is this connection's matter.
        if name != header::TRANSFER_ENCODING && name != header::CONTENT_LENGTH && name != header::CONNECTION {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}
