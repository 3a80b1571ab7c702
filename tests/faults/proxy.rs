//! A forwarder before the API server that counts what the operator writes, and fails at a chosen place.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::runtime::Runtime;

/// When, as seen from the API server, the operator dies at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The write does not arrive.
    Before,
    /// It is done; the answer does not arrive.
    Committed,
    /// The answer is on its way.
    Answered,
}

/// What goes wrong.
pub enum Fault {
    /// At the n-th write, counted from 1, this is called.
    At(u32, Moment, Box<dyn Fn() + Send>),
    /// Every n-th write is answered with this status and not forwarded.
    Every(u32, StatusCode),
}

struct Traffic {
    fault: Option<Fault>,
    writes: u32,
    last_write: Instant,
}

struct Shared {
    server: String,
    client: reqwest::Client,
    traffic: Mutex<Traffic>,
}

/// The forwarder, for as long as the value lives.
pub struct Proxy {
    shared: Arc<Shared>,
    address: String,
    _runtime: Runtime,
}

impl Proxy {
    /// Forwards to the API server at this address.
    pub fn to(server: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().danger_accept_invalid_certs(true).build().expect("a client");
        let traffic = Traffic { fault: None, writes: 0, last_write: Instant::now() };
        let shared = Arc::new(Shared { server: server.to_owned(), client, traffic: Mutex::new(traffic) });
        let app = Router::new().fallback(forward).with_state(shared.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { shared, address, _runtime: runtime }
    }

    /// Its own address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on this goes wrong; counting begins anew.
    pub fn set(&self, fault: Option<Fault>) {
        let mut traffic = self.traffic();
        (traffic.fault, traffic.writes, traffic.last_write) = (fault, 0, Instant::now());
    }

    /// Is what is to happen at a write still to come?
    pub fn is_armed(&self) -> bool {
        self.traffic().fault.is_some()
    }

    /// Writes since then.
    pub fn writes(&self) -> u32 {
        self.traffic().writes
    }

    /// For how long nothing has been written.
    pub fn quiet_for(&self) -> Duration {
        self.traffic().last_write.elapsed()
    }

    fn traffic(&self) -> std::sync::MutexGuard<'_, Traffic> {
        self.shared.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leases are renewed, Events are remarks: neither is state that anybody compares.
fn is_write(method: &Method, path: &str) -> bool {
    let aside = path.contains("/leases") || path.contains("/events") || path.contains("/subjectaccessreviews");
    !aside && [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
}

enum Due {
    Nothing,
    Refuse(StatusCode),
    Call(Moment, Box<dyn Fn() + Send>),
}

impl Shared {
    fn count(&self) -> Due {
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.writes += 1;
        traffic.last_write = Instant::now();
        let writes = traffic.writes;
        match traffic.fault.take() {
            Some(Fault::At(n, moment, call)) if n == writes => Due::Call(moment, call),
            Some(Fault::Every(n, status)) => {
                traffic.fault = Some(Fault::Every(n, status));
                if writes.is_multiple_of(n) { Due::Refuse(status) } else { Due::Nothing }
            }
            other => {
                traffic.fault = other;
                Due::Nothing
            }
        }
    }
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let due = if is_write(&parts.method, parts.uri.path()) { shared.count() } else { Due::Nothing };
    match &due {
        Due::Refuse(status) => return (*status, "the API server stumbles").into_response(),
        Due::Call(Moment::Before, call) => {
            call();
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
        Due::Call(moment, call) => {
            let Ok(bytes) = answer.bytes().await else { return StatusCode::BAD_GATEWAY.into_response() };
            if moment == Moment::Committed {
                call();
            } else {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    call();
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
