//! The streams: requests are taken in as they come, and what is new is sent as the Envoy reads it. Whatever waits
//! to be read, a stream keeps names and versions, and one response.

use super::{
    Follower,
    delta::Delta,
    resource::{Resource, TYPE_URL, Version},
    sotw::Sotw,
};
use crate::hub::Hub;
use futures::Stream;
use sluice_proto::envoy::service::{
    discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
    endpoint::v3::endpoint_discovery_service_server::{
        EndpointDiscoveryService, EndpointDiscoveryServiceServer,
    },
};
use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How many clusters one response tells of. Some hundred bytes each, as long as an app has few endpoints.
const PER_RESPONSE: usize = 512;

/// Both services: clusters may have a stream each, or share one (`ads`).
#[derive(Clone, Debug)]
pub struct EdsService {
    hub: Arc<Hub>,
}

/// One of the two forms of the protocol, for one stream.
pub(super) trait Form: Default + Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// What a request asks for.
    fn read(&self, request: Self::Request) -> Wish;

    /// The next response. `scaler`: who sends it.
    fn write(&mut self, resources: &[Arc<Resource>], scaler: &str) -> Self::Response;
}

/// What a request asks for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wish {
    /// Who asks, where it says.
    pub(super) node: Option<String>,
    /// For which kind of resource.
    pub(super) type_url: String,
    /// Why the Envoy did not take over a response. It keeps what it had before, and is told again when there is
    /// something else to tell: the same once more would be refused once more.
    pub(super) rejection: Option<String>,
    /// All that it wants to know; `None`: as before, but for what follows.
    pub(super) all: Option<Vec<String>>,
    /// What it wants to know besides, with the version that it has.
    pub(super) follow: Vec<(String, Option<Version>)>,
    /// What it wants to know no more.
    pub(super) unfollow: Vec<String>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

// === impl EdsService ===

impl EdsService {
    /// A service for endpoints alone, ready to be served.
    pub fn server(hub: Arc<Hub>) -> EndpointDiscoveryServiceServer<Self> {
        EndpointDiscoveryServiceServer::new(Self { hub })
    }

    /// The aggregated service, ready to be served. It has endpoints alone.
    pub fn aggregated(hub: Arc<Hub>) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(Self { hub })
    }

    fn answer<F: Form>(&self, requests: Streaming<F::Request>) -> Responses<F::Response> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(serve::<F>(Arc::clone(&self.hub), requests, sender));
        Box::pin(ReceiverStream::new(receiver))
    }
}

#[tonic::async_trait]
impl EndpointDiscoveryService for EdsService {
    type StreamEndpointsStream = Responses<DiscoveryResponse>;
    type DeltaEndpointsStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_endpoints(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamEndpointsStream>, Status> {
        Ok(Response::new(self.answer::<Sotw>(request.into_inner())))
    }

    async fn delta_endpoints(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaEndpointsStream>, Status> {
        Ok(Response::new(self.answer::<Delta>(request.into_inner())))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for EdsService {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(Response::new(self.answer::<Sotw>(request.into_inner())))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(Response::new(self.answer::<Delta>(request.into_inner())))
    }
}

async fn serve<F: Form>(
    hub: Arc<Hub>,
    requests: Streaming<F::Request>,
    sender: mpsc::Sender<Result<F::Response, Status>>,
) {
    let follower = Follower::join(&hub.eds);
    let result = tokio::select! {
        result = talk::<F>(&hub, &follower, requests, &sender) => result,
        () = hub.draining() => Ok(()),
    };
    if let Err(status) = result {
        tracing::warn!(%status, "stream of endpoints ended");
        // It may well be that nobody reads any more.
        let _ = sender.try_send(Err(status));
    }
}

/// Until the Envoy has gone or did something wrong.
async fn talk<F: Form>(
    hub: &Hub,
    follower: &Follower<'_>,
    mut requests: Streaming<F::Request>,
    sender: &mpsc::Sender<Result<F::Response, Status>>,
) -> Result<(), Status> {
    let mut form = F::default();
    let mut node = String::new();
    let mut has_news = false;
    let mut is_started = false;
    loop {
        tokio::select! {
            request = requests.message() => {
                // However the stream broke: the Envoy comes again if it is still there.
                let Ok(Some(request)) = request else { return Ok(()) };
                let mut wish = form.read(request);
                if let Some(name) = wish.node.take() {
                    node = name;
                }
                take(hub, follower, &node, wish)?;
            }
            () = hub.started(), if !is_started => is_started = true,
            () = follower.changed(), if !has_news => has_news = true,
            permit = sender.reserve(), if has_news && is_started => {
                let Ok(permit) = permit else { return Ok(()) };
                has_news = false;
                let resources = follower.news(PER_RESPONSE);
                if !resources.is_empty() {
                    permit.send(Ok(form.write(&resources, &hub.name)));
                }
            }
        }
    }
}

/// Does what a request asks for.
fn take(hub: &Hub, follower: &Follower<'_>, node: &str, wish: Wish) -> Result<(), Status> {
    let Wish { node: _, type_url, rejection, all, mut follow, mut unfollow } = wish;
    if !type_url.is_empty() && type_url != TYPE_URL {
        return Err(Status::invalid_argument(format!(
            "this scaler serves endpoints alone ({TYPE_URL}), not {type_url}; have `ads` for `eds_config` only"
        )));
    }
    if let Some(message) = rejection {
        hub.eds.rejections.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(envoy = node, %message, "an Envoy did not take over the endpoints that it was told");
    }
    if let Some(all) = all {
        let all: BTreeSet<String> = all.into_iter().collect();
        let before = follower.followed();
        unfollow.extend(before.iter().filter(|name| !all.contains(&***name)).map(ToString::to_string));
        follow.extend(all.into_iter().filter(|name| !before.contains(&**name)).map(|name| (name, None)));
    }
    follower
        .change(&hub.index(), &follow, &unfollow)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}
