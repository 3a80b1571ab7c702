//! What every role shares at its edge: logs, the shutdown signal, health and metrics.

use std::{error::Error, fmt::Write, future::Future, net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// What the roles return: the process ends with the message, so any error type will do here.
pub type Outcome = Result<(), Box<dyn Error>>;

/// Libraries that say again, with every byte, what we say ourselves are silent.
const DEFAULT_FILTER: &str = "info,lapin=off,kube_client=off,kube_runtime=warn,sqlx=warn";

/// Sets up logs and a runtime and runs a role to its end.
pub fn block_on(role: impl Future<Output = Outcome>) -> Outcome {
    let filter = EnvFilter::try_from_env("DSN_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    tracing_subscriber::registry().with(filter).with(fmt::layer().with_writer(std::io::stderr).with_ansi(false)).init();
    // Two workers: every role waits for I/O most of the time, and agents run many to a node.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(role)
}

/// An error with all its causes on one line; a cause that its parent already quotes is not said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A token that is cancelled by SIGTERM or SIGINT.
pub fn shutdown_token() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn({
        let token = token.clone();
        async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            tracing::info!("shutting down");
            token.cancel();
        }
    });
    Ok(token)
}

/// Answers whether the role does its work; `Err` says in a sentence why not.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Routes `/healthz` (the process answers), `/readyz` and `/metrics` (OpenMetrics text).
pub fn health_routes(registry: Arc<Registry>, ready: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(|State((_, ready)): State<(Arc<Registry>, Readiness)>| async move {
                match ready() {
                    Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                    Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                }
            }),
        )
        .route(
            "/metrics",
            get(|State((registry, _)): State<(Arc<Registry>, Readiness)>| async move {
                let mut text = String::new();
                match prometheus_client::encoding::text::encode(&mut text, &registry) {
                    Ok(()) => (
                        StatusCode::OK,
                        [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")],
                        text,
                    ),
                    Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, [("content-type", "text/plain")], String::new()),
                }
            }),
        )
        .with_state((registry, ready))
}

/// Serves routes until shutdown.
pub async fn serve(address: SocketAddr, routes: Router, shutdown: CancellationToken) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, routes).with_graceful_shutdown(async move { shutdown.cancelled().await }).await
}

#[cfg(test)]
pub mod documented {
    //! Holds docs/metrics.md to what the roles register.

    use std::collections::BTreeSet;

    use prometheus_client::registry::Registry;

    /// (name as scraped, type, labels) of a metric.
    type Metric = (String, String, BTreeSet<String>);

    /// Everything that a registry shows.
    fn registered(registry: &Registry) -> BTreeSet<Metric> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).expect("it encodes");
        // A family without members shows nothing: the test has to count each of them once.
        let families: Vec<&str> = text.split("# TYPE ").skip(1).collect();
        let all = format!("{registry:?}").matches("Descriptor {").count();
        assert_eq!(families.len(), all, "a family without members among\n{text}");
        let metric = |family: &&str| {
            let (name, rest) = family.split_once(' ')?;
            let kind = rest.lines().next()?;
            let suffix = if kind == "counter" { "_total" } else { "" };
            Some((format!("{name}{suffix}"), kind.to_owned(), labels(rest)))
        };
        families.iter().filter_map(metric).collect()
    }

    /// Names of the labels of a family's members: `{controller="camera",le="0.1"}`.
    fn labels(family: &str) -> BTreeSet<String> {
        family
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| Some(line.split_once('{')?.1.split_once('}')?.0))
            // No value here holds a comma.
            .flat_map(|labels| labels.split(','))
            .filter_map(|label| Some(label.split_once('=')?.0.to_owned()))
            // Every histogram has it.
            .filter(|label| label != "le")
            .collect()
    }

    /// The rows below the heading of a role.
    fn described(role: &str) -> BTreeSet<Metric> {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let page = std::fs::read_to_string(page).expect("the page is there");
        page.lines()
            .skip_while(|line| *line != format!("## {role}"))
            .skip(1)
            .take_while(|line| !line.starts_with("## "))
            .filter(|line| line.starts_with("| `"))
            .map(|row| {
                let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                let labels = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
                (cells[1].trim_matches('`').to_owned(), cells[2].to_owned(), labels)
            })
            .collect()
    }

    /// The page names exactly what the role exports.
    pub fn assert(role: &str, registry: &Registry) {
        let (registered, described) = (registered(registry), described(role));
        let missing: Vec<_> = registered.difference(&described).collect();
        let invented: Vec<_> = described.difference(&registered).collect();
        assert!(
            missing.is_empty() && invented.is_empty(),
            "docs/metrics.md, section {role:?}: missing {missing:?}, not exported {invented:?}"
        );
    }
}
