//! Starts everything, and ends it gracefully.

use crate::{
    config::{self, Config},
    control::{self, Gateway, Shared},
    http::{self, Health},
    lease::{self, Candidate, Reign},
    metrics::Metrics,
    plan::Scaler,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, config::InferConfigError};
use sluice_api::upstream::Upstream;
use sluice_envoyfilter::Manifest;
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::watch};

/// How long a connection to the API server may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection to the API server may be silent: lists have no end of their own. More than watches last (290 s,
/// kube's default).
const SILENCE: Duration = Duration::from_secs(360);
/// How long handing back the Lease may take; it expires by itself otherwise.
const RELEASE_PATIENCE: Duration = Duration::from_secs(3);

/// Why the operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No address to listen on.
    #[error("cannot listen on {address} (--bind, --http-port): {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The file for the port.
    #[error("--ports-file: {}: {error}", path.display())]
    PortsFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The process itself: threads, signals.
    #[error("{0}")]
    Process(#[from] io::Error),
    /// The module for the gateway.
    #[error("--module: {}: {error}; it is what ./wasm-build.sh makes", path.display())]
    Module {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// What the gateway's EnvoyFilter cannot be made of.
    #[error("the gateway's EnvoyFilter: {0}")]
    Filter(#[from] sluice_envoyfilter::Error),
    /// Nothing says where the API server is.
    #[error("no cluster: {0}. Run in a Pod with a ServiceAccount, or set KUBECONFIG")]
    Infer(#[from] InferConfigError),
    /// What says where the API server is cannot be used.
    #[error("cannot make a client for the API server: {0}")]
    Client(#[from] kube::Error),
}

/// Runs until SIGTERM or SIGINT, and then to a graceful end. A second signal ends the process at once.
///
/// # Errors
/// If it cannot begin.
pub fn run(config: Config) -> Result<(), RunError> {
    sluice_process::until_told(|stopping| serve(config, stopping))
}

/// Works until `stopping`: takes part in the election, and while it leads, looks after objects. At the end no write
/// is under way any more, and then the Lease is handed back: whoever takes it is alone.
async fn serve(config: Config, stopping: watch::Receiver<bool>) -> Result<(), RunError> {
    let address = SocketAddr::new(config.bind, config.http_port);
    let listener = TcpListener::bind(address).await.map_err(|error| RunError::Listen { address, error })?;
    if let Some(path) = config.ports_file {
        let text = serde_json::json!({"http": listener.local_addr()?.port()}).to_string();
        std::fs::write(&path, text).map_err(|error| RunError::PortsFile { path, error })?;
    }
    let client = {
        let mut cluster = kube::Config::infer().await?;
        cluster.connect_timeout = Some(CONNECT_TIMEOUT);
        cluster.read_timeout = Some(SILENCE);
        if let Some(namespace) = config.namespace {
            cluster.default_namespace = namespace;
        }
        Client::try_from(cluster)?
    };
    let namespace = client.default_namespace().to_owned();
    let gateway =
        config.gateway.map(|gateway| self::gateway(gateway, &namespace, &config.upstream)).transpose()?;
    tracing::info!(name = config.name, namespace, "the operator has started");

    let (reign, mut reigns) = watch::channel(Reign::Unasked);
    let metrics = Arc::new(Metrics::new());
    let works = Arc::new(AtomicBool::new(false));
    let health = Health {
        reign: reigns.clone(),
        works: Arc::clone(&works),
        stopping: stopping.clone(),
        metrics: Arc::clone(&metrics),
    };
    tokio::spawn(http::serve(health, listener));

    let leases = Api::<Lease>::default_namespaced(client.clone());
    let candidate = config.election.map(|timing| Candidate::new(config.name.clone(), timing));
    let election = match candidate.clone() {
        Some(candidate) => Some(tokio::spawn(lease::run(leases.clone(), candidate, reign))),
        None => {
            reign.send_replace(Reign::Always);
            // Its receivers would see the end of a sender that is gone.
            Some(tokio::spawn(async move { reign.closed().await }))
        }
    };
    let shared = Shared {
        scaler: Scaler {
            service: config.scaler_service,
            namespace: namespace.clone(),
            port: config.scaler_port,
            authentication: config.scaler_authentication,
        },
        watch_namespace: config.watch_namespace,
        name: config.name,
        reign: reigns.clone(),
        works: Arc::clone(&works),
        metrics: Arc::clone(&metrics),
        client,
        gateway,
    };
    let mut stop = stopping.clone();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            reign = reigns.wait_for(|reign| reign.leads()) => if reign.is_err() { break },
        }
        metrics.leader.set(1);
        let mut deposed = reigns.clone();
        let mut stopped = stopping.clone();
        control::run(&shared, async move {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => {}
                _ = deposed.wait_for(|reign| !reign.holds(Instant::now())) => {}
            }
        })
        .await;
        metrics.leader.set(0);
        works.store(false, Ordering::Relaxed);
    }
    if let Some(election) = election {
        election.abort();
    }
    if let Some(candidate) = candidate {
        match tokio::time::timeout(RELEASE_PATIENCE, lease::release(&leases, &candidate)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot hand the Lease back; it expires by itself"),
            Err(_) => tracing::warn!("cannot hand the Lease back in time; it expires by itself"),
        }
    }
    tracing::info!("ended");
    Ok(())
}

/// What the gateway is to have: known before anything is begun, since it does not change.
fn gateway(config: config::Gateway, namespace: &str, upstream: &Upstream) -> Result<Gateway, RunError> {
    let mut settings = config.filter;
    namespace.clone_into(&mut settings.scaler.namespace);
    let module = std::fs::read(&config.module)
        .map_err(|error| RunError::Module { path: config.module.clone(), error })?;
    let manifest = Manifest::new(&settings, &module)?;
    Ok(Gateway::new(&settings, &manifest, upstream))
}
