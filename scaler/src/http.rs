//! HTTP, for people, probes and Prometheus.

mod debug;
mod evidence;
mod metrics;

pub use debug::State;

use crate::hub::{Hub, Phase};
use axum::{
    Json, Router, extract,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Serves until it is dropped.
pub(crate) async fn serve(hub: Arc<Hub>, listener: TcpListener) {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/debug/state", get(state))
        .route("/debug/evidence", get(evidence))
        .with_state(hub);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "HTTP ended");
    }
}

async fn readyz(extract::State(hub): extract::State<Arc<Hub>>) -> (StatusCode, &'static str) {
    match hub.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "objects are still being read\n"),
        Phase::Ready => (StatusCode::OK, "ok\n"),
        Phase::Leaving | Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
    }
}

async fn metrics(extract::State(hub): extract::State<Arc<Hub>>) -> impl IntoResponse {
    match metrics::text(hub) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn state(extract::State(hub): extract::State<Arc<Hub>>) -> Json<State> {
    Json(State::of(&hub))
}

async fn evidence(extract::State(hub): extract::State<Arc<Hub>>) -> Json<evidence::Evidence> {
    Json(evidence::Evidence::of(&hub))
}
