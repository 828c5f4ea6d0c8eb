//! KEDA without Sluice: an external scaler that says `true` when it is told to, and knows nothing else. From that word to
//! the write of the scale is what KEDA and the API server take, whoever tells them.

use anyhow::{Context as _, Result};
use futures::{Stream, StreamExt as _, stream};
use sluice_proto::keda::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
    external_scaler_server::{ExternalScaler, ExternalScalerServer},
};
use sluice_tests::{clock, wait};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    net::TcpListener,
    sync::broadcast::{self, error::RecvError},
    task::JoinHandle,
};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// The scaler, served until dropped.
pub(super) struct Alone {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    /// Names of ScaledObjects to which `true` is told.
    wakes: broadcast::Sender<String>,
    /// Names of ScaledObjects that KEDA has opened a stream for.
    followed: Mutex<BTreeSet<String>>,
}

// === impl Alone ===

impl Alone {
    /// Serves on a free port of the loopback.
    pub(super) async fn serve() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared =
            Arc::new(Shared { wakes: broadcast::Sender::new(16), followed: Mutex::new(BTreeSet::new()) });
        let service = ExternalScalerServer::from_arc(Arc::new(Service(Arc::clone(&shared))));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
        let server = tokio::spawn(async move {
            if let Err(error) = serving.await {
                eprintln!("bench: the scaler for KEDA alone has ended: {error}");
            }
        });
        Ok(Self { address, shared, server })
    }

    /// What a trigger's `scalerAddress` is to be.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Waits until KEDA has opened a stream for this ScaledObject.
    pub(super) async fn followed(&self, name: &str) -> Result<()> {
        wait::until("KEDA to open its stream", async || {
            let followed = self.shared.followed.lock().unwrap_or_else(PoisonError::into_inner);
            if followed.contains(name) { Ok(()) } else { Err(format!("{name} is not among {followed:?}")) }
        })
        .await
    }

    /// Tells KEDA `true` of this ScaledObject. Returns when that was, in microseconds since 1970.
    pub(super) fn wake(&self, name: &str) -> Result<u64> {
        let told_us = clock::now_us();
        self.shared.wakes.send(name.to_owned()).context("KEDA has no stream open")?;
        Ok(told_us)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service(Arc<Shared>);

/// One metric, of which there is nothing: what runs is KEDA's way from 0 to 1 alone.
const METRIC: &str = "alone";

#[tonic::async_trait]
impl ExternalScaler for Service {
    type StreamIsActiveStream = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;
    type StreamMetricSpecStream = stream::Pending<Result<GetMetricSpecResponse, Status>>;

    async fn is_active(&self, _: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        Ok(Response::new(IsActiveResponse { result: false }))
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let name = request.into_inner().name;
        let wakes = self.0.wakes.subscribe();
        self.0.followed.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        let told = stream::unfold((wakes, name), |(mut wakes, name)| async move {
            loop {
                match wakes.recv().await {
                    Ok(woken) if woken == name => {
                        return Some((Ok(IsActiveResponse { result: true }), (wakes, name)));
                    }
                    // Another's; or so many of them that this one's would be missed, which fails its wake.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        Ok(Response::new(told.boxed()))
    }

    async fn get_metric_spec(
        &self,
        _: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let spec = MetricSpec { metric_name: METRIC.to_owned(), target_size: 1, target_size_float: 1.0 };
        Ok(Response::new(GetMetricSpecResponse { metric_specs: vec![spec] }))
    }

    async fn get_metrics(
        &self,
        _: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let value = MetricValue { metric_name: METRIC.to_owned(), metric_value: 0, metric_value_float: 0.0 };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![value] }))
    }

    async fn stream_metric_spec(
        &self,
        _: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamMetricSpecStream>, Status> {
        Err(Status::unimplemented("KEDA does without"))
    }
}
