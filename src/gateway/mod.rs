//! Role part `gateway`: login, playlists, bytes, and the page that shows them.
//!
//! Reads the catalogue and never writes it; live does not even read it. Knows no Kubernetes: who exists it learns from
//! the recorder, which learns it from the operator.

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{get, post},
};
use prometheus_client::registry::Registry;

use crate::{
    catalogue::Reader,
    clients::groups::Groups,
    telemetry::{self, Readiness},
};

mod access;
mod api;
mod live;
mod media;
mod page;
mod playlists;
mod problem;
mod roster;

#[cfg(test)]
mod tests;

pub use access::Access;
pub use live::LiveSource;
pub use problem::Problem;
pub use roster::Roster;

/// What the handlers share.
pub struct Gateway {
    /// The catalogue.
    pub catalogue: Reader,
    /// Storage groups.
    pub groups: Arc<Groups>,
    /// Cameras and streams.
    pub roster: Arc<Roster>,
    /// The capture pods.
    pub live: LiveSource,
    /// The door.
    pub access: Access,
}

type App = Arc<Gateway>;

/// All routes. `/metrics` is behind the login here; the roles' own port has it without.
pub fn routes(gateway: Gateway, registry: Arc<Registry>, ready: Readiness) -> Router {
    let app: App = Arc::new(gateway);
    Router::new()
        .route("/", get(page::index))
        .route("/assets/{file}", get(page::asset))
        .route("/login", get(page::index).post(access::login))
        .route("/logout", post(access::logout))
        .route("/api/me", get(api::me))
        .route("/api/cameras", get(api::cameras))
        .route("/api/cameras/{namespace}/{name}/coverage", get(api::coverage))
        .route("/api/ledger", get(api::ledger))
        .route("/hls/{namespace}/{name}/{file}", get(playlists::playlist))
        .route("/media/{stream}/{session}/{rendition}/{file}", get(media::media))
        .route("/live/{stream}/{session}/{rendition}/{file}", get(media::live))
        .with_state(Arc::clone(&app))
        .layer(middleware::map_response(problem::in_our_words))
        .merge(telemetry::health_routes(registry, ready))
        .fallback(|| async { Problem::not_found("NotFound", "there is nothing at this address") })
        .layer(middleware::from_fn_with_state(app, access::guard))
}
