//! Starts everything, and ends it gracefully.

use crate::{
    config::{Config, Source},
    eds::EdsService,
    http,
    hub::{Hub, Phase},
    keda::KedaService,
    link::LinkService,
    source::{cluster, folder},
    tls::{Tls, TlsError},
};
use sluice_proto::FILE_DESCRIPTOR_SET;
use std::{future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::mpsc};
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::ServingStatus;

/// How often a peer that says nothing is asked whether it is still there, and how long it may take to answer. A
/// node that vanished ends no connection by itself, and KEDA's client never asks.
const PING_EVERY: Duration = Duration::from_secs(10);
/// See [`PING_EVERY`].
const PING_PATIENCE: Duration = Duration::from_secs(5);
/// How often what nobody needs any more is freed.
const TIDY_EVERY: Duration = Duration::from_secs(30);
/// gRPC health's names for what is no service: the add-on's probes ask for these.
const LIVENESS: &str = "liveness";
/// See [`LIVENESS`].
const READINESS: &str = "readiness";

/// Why the scaler cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No address to listen on.
    #[error("cannot listen on {address} ({flag}): {error}")]
    Listen {
        /// The flag that chooses it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The file for the ports.
    #[error("--ports-file: {}: {error}", path.display())]
    PortsFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The certificate, its key, or the authority for clients.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The process itself: threads, signals.
    #[error("{0}")]
    Process(#[from] io::Error),
    /// The cluster that objects are read from.
    #[error("{0}")]
    Cluster(#[from] cluster::ConnectError),
    /// The gRPC server.
    #[error("gRPC: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// The descriptors that reflection answers from.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// All listeners, open.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC.
    pub grpc: TcpListener,
    /// KEDA's external scaler, where it is served over TLS.
    pub tls: Option<(TcpListener, Tls)>,
    /// HTTP.
    pub http: TcpListener,
}

/// Runs until SIGTERM or SIGINT, and then to a graceful end. A second signal ends the process at once.
///
/// # Errors
/// If it cannot begin, or the gRPC server fails.
pub fn run(config: Config) -> Result<(), RunError> {
    if let Some(said) = &config.direct_pod_routing {
        tracing::info!(%said, "KEDA_HTTP_DIRECT_POD_ROUTING changes nothing: a gateway always routes to pods");
    }
    sluice_process::until_told(|mut stopping| async move {
        let listeners = Listeners::open(&config).await?;
        let hub = Arc::new(Hub::new(&config));
        serve(config, hub, listeners, async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        })
        .await
    })
}

/// Serves on these listeners until `stop`, and then to a graceful end: not ready, the delay, streams ended with OK,
/// calls finished within the drain timeout.
///
/// # Errors
/// If there is no cluster to read objects from, or the gRPC server fails.
pub async fn serve(
    config: Config,
    hub: Arc<Hub>,
    listeners: Listeners,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let (batches, mut batch) = mpsc::channel(16);
    let namespace = config.namespace.clone();
    let source = match &config.source {
        Source::Folder(root) => tokio::spawn(folder::follow(root.clone(), namespace, batches)),
        Source::Cluster => {
            let client = cluster::connect().await?;
            tokio::spawn(cluster::follow(client, namespace, Arc::clone(&hub.watches), batches))
        }
    };
    let taking = {
        let hub = Arc::clone(&hub);
        tokio::spawn(async move {
            while let Some(batch) = batch.recv().await {
                hub.take(batch);
            }
        })
    };
    let tidying = {
        let hub = Arc::clone(&hub);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TIDY_EVERY).await;
                hub.ledger.tidy();
            }
        })
    };
    let removing = {
        let hub = Arc::clone(&hub);
        tokio::spawn(async move { hub.eds.run(hub.clock, &hub.board).await })
    };
    let http = tokio::spawn(http::serve(Arc::clone(&hub), listeners.http));
    let (health, health_server) = tonic_health::server::health_reporter();
    let health = tokio::spawn(report_health(Arc::clone(&hub), health));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let draining = || {
        let hub = Arc::clone(&hub);
        async move { hub.draining().await }
    };
    // Few small messages, each of which somebody waits for: none is to wait for the next one.
    let incoming = TcpIncoming::from(listeners.grpc).with_nodelay(Some(true));
    let server = || {
        Server::builder()
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_PATIENCE))
    };
    // Over TLS where there is TLS, and nowhere else.
    let keda = KedaService::server(Arc::clone(&hub));
    let (keda, secure) = match listeners.tls {
        None => (Some(keda), None),
        Some((listener, tls)) => {
            let server = server().add_service(keda).add_service(health_server.clone());
            (None, Some(server.serve_with_incoming_shutdown(tls.accept(listener), draining())))
        }
    };
    let plain = server()
        .add_service(LinkService::server(Arc::clone(&hub)))
        .add_optional_service(keda)
        .add_service(EdsService::server(Arc::clone(&hub)))
        .add_service(EdsService::aggregated(Arc::clone(&hub)))
        .add_service(health_server)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, draining());
    let grpc = async {
        match secure {
            Some(secure) => tokio::try_join!(plain, secure).map(drop),
            None => plain.await,
        }
    };
    tokio::pin!(grpc);

    let ended = tokio::select! {
        result = &mut grpc => Some(result),
        () = stop => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            hub.advance(Phase::Leaving);
            tracing::info!(delay = ?config.shutdown_delay, "not ready any more, going on for the delay");
            let delay = tokio::time::sleep(config.shutdown_delay);
            let early = tokio::select! {
                result = &mut grpc => Some(result),
                () = delay => None,
            };
            hub.advance(Phase::Draining);
            match (early, config.drain_timeout) {
                (Some(result), _) => result,
                (None, None) => grpc.await,
                (None, Some(timeout)) => tokio::time::timeout(timeout, grpc).await.unwrap_or_else(|_| {
                    tracing::warn!(?timeout, "calls did not end in time, ending without them");
                    Ok(())
                }),
            }
        }
    };
    for task in [source, taking, tidying, removing, http, health] {
        task.abort();
    }
    tracing::info!("ended");
    Ok(result?)
}

/// Keeps gRPC health at what the phase says.
async fn report_health(hub: Arc<Hub>, health: tonic_health::server::HealthReporter) {
    let mut phases = hub.phases();
    health.set_service_status(LIVENESS, ServingStatus::Serving).await;
    loop {
        let status = match *phases.borrow_and_update() {
            Phase::Ready => ServingStatus::Serving,
            Phase::Starting | Phase::Leaving | Phase::Draining => ServingStatus::NotServing,
        };
        health.set_service_status("", status).await;
        health.set_service_status(READINESS, status).await;
        for service in [KEDA_SERVICE, LINK_SERVICE, EDS_SERVICE] {
            health.set_service_status(service, status).await;
        }
        if phases.changed().await.is_err() {
            return;
        }
    }
}

const KEDA_SERVICE: &str = sluice_proto::keda::external_scaler_server::SERVICE_NAME;
const EDS_SERVICE: &str =
    sluice_proto::envoy::service::endpoint::v3::endpoint_discovery_service_server::SERVICE_NAME;
const LINK_SERVICE: &str = sluice_proto::link::link_server::SERVICE_NAME;

// === impl Listeners ===

impl Listeners {
    /// Opens them, and says where they are if the configuration wants to know.
    ///
    /// # Errors
    /// If an address is taken, a file for TLS cannot be used, or the ports' file cannot be written.
    pub async fn open(config: &Config) -> Result<Self, RunError> {
        let open = async |flag, port| {
            let address = SocketAddr::new(config.bind, port);
            TcpListener::bind(address).await.map_err(|error| RunError::Listen { flag, address, error })
        };
        let tls = match &config.tls {
            None => None,
            Some(tls) => Some((open("--tls-port", tls.port).await?, Tls::load(tls.files.clone())?)),
        };
        let listeners = Self {
            grpc: open("--port", config.grpc_port).await?,
            tls,
            http: open("--http-port", config.http_port).await?,
        };
        let (grpc, http) = (listeners.grpc.local_addr()?, listeners.http.local_addr()?);
        let tls = listeners.tls.as_ref().map(|(listener, _)| listener.local_addr()).transpose()?;
        tracing::info!(%grpc, %http, tls = tls.map(tracing::field::display), "listening");
        if let Some(path) = &config.ports_file {
            let mut ports = serde_json::json!({"grpc": grpc.port(), "http": http.port()});
            if let Some(tls) = tls {
                ports["tls"] = tls.port().into();
            }
            write_whole(path, &ports.to_string())
                .map_err(|error| RunError::PortsFile { path: path.clone(), error })?;
        }
        Ok(listeners)
    }
}

/// Writes a file so that a reader finds all of it or nothing.
fn write_whole(path: &std::path::Path, text: &str) -> io::Result<()> {
    let beside = path.with_added_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}
