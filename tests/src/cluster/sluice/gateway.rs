//! The gateway: the real Envoy with the filter, on its own in the bed's network, with endpoints from the scalers.

use super::{App, Sluice};
use crate::{
    cluster::services,
    envoy::{self, AppCluster, Config, Eds, Envoy, Filter, Protocol, Route, Upstream},
    http::{self, Answer},
    paths,
};
use anyhow::{Context as _, Result};
use hyper::Request;
use serde_json::json;
use std::net::SocketAddr;
use tokio::{net::TcpListener, task::JoinHandle};

/// A running gateway. Envoy dies with the thread that started it, which is the test's.
#[derive(Debug)]
pub struct Gateway {
    /// Its Envoy.
    pub envoy: Envoy,
    workers: u32,
}

// === impl Gateway ===

impl Gateway {
    /// Starts an Envoy with a virtual host and a cluster for each app, and waits until all its workers are linked
    /// to every scaler.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn start(sluice: &Sluice, workers: u32, apps: &[&App]) -> Result<Self> {
        Self::start_at(sluice, workers, apps, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// As [`Self::start`], with the listener at an address.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_at(
        sluice: &Sluice,
        workers: u32,
        apps: &[&App],
        listener: SocketAddr,
    ) -> Result<Self> {
        let bed = sluice.cluster().bed().context("needs the bed")?;
        let name = apps.first().map_or_else(String::new, |app| app.namespace.clone());
        let dir = bed.folder(&format!("gateway_{name}"))?;
        let scalers = sluice.links().await?;
        let names: Vec<&str> = scalers.iter().map(|(name, _)| name.as_str()).collect();
        let config = Config {
            listener,
            filter: Some(Filter { wasm: paths::wasm()?, config: json!({"scalers": names}) }),
            routes: apps
                .iter()
                .map(|app| Route {
                    domains: vec![app.host(), format!("{}:*", app.host())],
                    cluster: app.cluster_name(),
                })
                .collect(),
            apps: apps
                .iter()
                .map(|app| AppCluster {
                    name: app.cluster_name(),
                    // One stream for all: a hundred apps would be a hundred streams.
                    eds: Eds::Scalers(Protocol::Aggregated),
                    upstream: Upstream::AsDownstream,
                })
                .collect(),
            scalers,
            access_log: dir.join("access.jsonl"),
        };
        let envoy = Envoy::start(&envoy::envoy(None)?, workers, &config, &dir).await?;
        let gateway = Self { envoy, workers };
        gateway.linked(sluice).await?;
        Ok(gateway)
    }

    /// Waits until all its workers (and Envoy's main thread, whose VM is linked like theirs) are linked to every
    /// scaler and know all routes.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn linked(&self, sluice: &Sluice) -> Result<()> {
        let wanted = self.workers as usize + 1;
        sluice
            .until(format!("{wanted} workers"), |state| match state.connected(state.routes.len()) {
                connected if connected == wanted => Ok(()),
                connected => Err(format!("{connected} workers have all routes: {:?}", state.gateways)),
            })
            .await
    }

    /// Makes it reachable from outside the bed's network, by a listener that was made there; where that is. To be
    /// called inside.
    ///
    /// # Errors
    /// If the listener cannot be used.
    pub fn open_outside(&self, listener: std::net::TcpListener) -> Result<SocketAddr> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let inside = self.envoy.address();
        tokio::spawn(async move {
            loop {
                // No more files, for example: it may get better.
                let Ok((client, _)) = listener.accept().await else {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                };
                tokio::spawn(services::relay(client, inside));
            }
        });
        Ok(address)
    }

    /// GET on a connection of its own.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get(&self, app: &App, path: &str) -> Result<Answer> {
        http::request(self.envoy.address(), http::get_request(&app.host(), path)?).await
    }

    /// As [`Self::get`], beside the test, with an `x-test-id` to find it by in the access log. The answer has to be
    /// waited for.
    pub fn spawn_get(&self, app: &App, path: &str, id: &str) -> JoinHandle<Result<Answer>> {
        let request = Request::get(path)
            .header("host", app.host())
            .header("x-test-id", id)
            .body(http_body_util::Full::default());
        let address = self.envoy.address();
        tokio::spawn(async move { http::request(address, request?).await })
    }

    /// Waits until so many requests wait in the gateway, as the filter counts them: known without a scaler.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn until_held(&self, held: u64) -> Result<()> {
        crate::wait::until(format!("{held} requests held"), async || {
            match self.envoy.stat("wasmcustom.sluice_held").await {
                Ok(seen) if seen == held => Ok(()),
                Ok(seen) => Err(format!("{seen}")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }
}
