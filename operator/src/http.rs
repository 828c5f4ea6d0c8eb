//! HTTP, for probes and Prometheus.

use crate::{
    lease::Reign,
    metrics::{CONTENT_TYPE, Metrics},
};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{net::TcpListener, sync::watch};

/// What probes ask for.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    /// Whether this replica leads.
    pub(crate) reign: watch::Receiver<Reign>,
    /// Whether the leader has read all that it needs.
    pub(crate) works: Arc<AtomicBool>,
    /// Whether the end has begun.
    pub(crate) stopping: watch::Receiver<bool>,
    /// The counters.
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves until it is dropped.
pub(crate) async fn serve(health: Health, listener: TcpListener) {
    let router = Router::new()
        // A peer that is away, the API server above all, is no reason to start anew.
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "HTTP ended");
    }
}

async fn readyz(State(health): State<Health>) -> (StatusCode, &'static str) {
    let not = |why| (StatusCode::SERVICE_UNAVAILABLE, why);
    if *health.stopping.borrow() {
        return not("shutting down\n");
    }
    match *health.reign.borrow() {
        Reign::Unasked => not("nothing is known of the Lease yet\n"),
        Reign::No => (StatusCode::OK, "standing by\n"),
        Reign::Until(_) | Reign::Always if health.works.load(Ordering::Relaxed) => {
            (StatusCode::OK, "leading\n")
        }
        Reign::Until(_) | Reign::Always => not("objects are still being read\n"),
    }
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    match health.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
