//! Endpoints, as an Envoy sees them.

use crate::bed::{APP, Bed, slice, within};
use clap::Parser;
use prost::Message as _;
use sluice_proto::{
    envoy::{
        config::{
            core::v3::{Node, address},
            endpoint::v3::{ClusterLoadAssignment, lb_endpoint},
        },
        service::{
            discovery::v3::{
                DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
                aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
            },
            endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient,
        },
    },
    google::{protobuf::Any, rpc},
};
use sluice_scaler::{
    config::Args,
    eds::EdsService,
    hub::Hub,
    source::{Batch, Event, Object},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Server, server::TcpIncoming},
};

const APP_CLUSTER: &str = "outbound|80||app.ns.svc.cluster.local";
const OTHER_CLUSTER: &str = "outbound|80||other.ns.svc.cluster.local";
const TYPE_URL: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// A stream of either form.
struct Envoy<Q, A> {
    requests: mpsc::Sender<Q>,
    answers: Streaming<A>,
}

type Sotw = Envoy<DiscoveryRequest, DiscoveryResponse>;
type Delta = Envoy<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

impl<Q, A> Envoy<Q, A> {
    async fn say(&self, request: Q) {
        within(self.requests.send(request)).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<A>, Status> {
        within(self.answers.message()).await
    }

    async fn hear(&mut self) -> A {
        self.next().await.unwrap().expect("the stream goes on")
    }
}

async fn sotw(channel: Channel, first: DiscoveryRequest) -> Sotw {
    let (requests, outgoing) = mpsc::channel(16);
    requests.send(first).await.unwrap();
    let mut client = EndpointDiscoveryServiceClient::new(channel);
    let answers = within(client.stream_endpoints(ReceiverStream::new(outgoing))).await.unwrap().into_inner();
    Envoy { requests, answers }
}

async fn delta(channel: Channel, first: DeltaDiscoveryRequest) -> Delta {
    let (requests, outgoing) = mpsc::channel(16);
    requests.send(first).await.unwrap();
    let mut client = EndpointDiscoveryServiceClient::new(channel);
    let answers = within(client.delta_endpoints(ReceiverStream::new(outgoing))).await.unwrap().into_inner();
    Envoy { requests, answers }
}

fn node() -> Option<Node> {
    Some(Node { id: "gateway-1".to_owned() })
}

fn ask(names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        node: node(),
        resource_names: names.iter().map(ToString::to_string).collect(),
        type_url: TYPE_URL.to_owned(),
        response_nonce: nonce.to_owned(),
        version_info: nonce.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: node(),
        type_url: TYPE_URL.to_owned(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn refusal() -> Option<rpc::Status> {
    Some(rpc::Status { code: 3, message: "malformed".to_owned() })
}

/// A cluster's name and its addresses.
fn assignment(any: &Any) -> (String, Vec<String>) {
    assert_eq!(any.type_url, TYPE_URL);
    let assignment = ClusterLoadAssignment::decode(any.value.clone()).unwrap();
    let endpoints = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
    let endpoints = endpoints.map(|endpoint| {
        let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = endpoint.host_identifier else {
            panic!()
        };
        let Some(address::Address::SocketAddress(socket)) = endpoint.address.unwrap().address else {
            panic!()
        };
        socket.address
    });
    (assignment.cluster_name, endpoints.collect())
}

fn told(response: &DiscoveryResponse) -> BTreeMap<String, Vec<String>> {
    assert_eq!(response.type_url, TYPE_URL);
    response.resources.iter().map(assignment).collect()
}

fn told_delta(response: &DeltaDiscoveryResponse) -> BTreeMap<String, Vec<String>> {
    let assignments = response.resources.iter().map(|resource| {
        let (name, endpoints) = assignment(resource.resource.as_ref().unwrap());
        assert_eq!(name, resource.name);
        (name, endpoints)
    });
    assignments.collect()
}

fn of(clusters: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let owned = |addresses: &[&str]| addresses.iter().map(ToString::to_string).collect();
    clusters.iter().map(|(name, addresses)| (name.to_string(), owned(addresses))).collect()
}

/// A scaler with an app, awake.
async fn awake() -> Bed {
    let bed = Bed::start().await;
    bed.write("app.yaml", APP);
    bed.write("slice.yaml", &slice(true));
    bed.until(|state| state["routes"][0]["hint"] == "ready").await;
    bed
}

fn slice_at(address: &str) -> String {
    slice(true).replace("10.0.0.1", address)
}

#[tokio::test]
async fn state_of_the_world_tells_what_is_asked_for_and_then_what_changes() {
    let bed = awake().await;
    let mut envoy = sotw(bed.channel().await, ask(&[APP_CLUSTER, OTHER_CLUSTER], "")).await;
    let first = envoy.hear().await;
    assert_eq!(told(&first), of(&[(APP_CLUSTER, &["10.0.0.1"]), (OTHER_CLUSTER, &[])]));
    assert_eq!(first.control_plane.unwrap().identifier, "replica-7");
    envoy.say(ask(&[APP_CLUSTER, OTHER_CLUSTER], &first.nonce)).await;

    bed.write("slice.yaml", &slice_at("10.0.0.2"));
    let second = envoy.hear().await;
    assert_eq!(told(&second), of(&[(APP_CLUSTER, &["10.0.0.2"])]), "the other one is as it was");
    assert_ne!(second.nonce, first.nonce);
    assert_ne!(second.version_info, first.version_info);
}

#[tokio::test]
async fn state_of_the_world_follows_the_latest_list_of_names() {
    let bed = awake().await;
    let mut envoy = sotw(bed.channel().await, ask(&[APP_CLUSTER], "")).await;
    let first = envoy.hear().await;
    envoy.say(ask(&[OTHER_CLUSTER], &first.nonce)).await;
    let second = envoy.hear().await;
    assert_eq!(told(&second), of(&[(OTHER_CLUSTER, &[])]));
    // It answers the first response and comes after the second: what it names is out of date.
    envoy.say(ask(&["late"], &first.nonce)).await;
    // Not asked for any more: that it changed is nobody's business. Asked for again it is told again.
    bed.write("slice.yaml", &slice_at("10.0.0.2"));
    envoy.say(ask(&[APP_CLUSTER, OTHER_CLUSTER], &second.nonce)).await;
    loop {
        // The folder is read some time later.
        let news = told(&envoy.hear().await);
        assert_eq!(news.keys().collect::<Vec<_>>(), [APP_CLUSTER], "and nothing else");
        if news == of(&[(APP_CLUSTER, &["10.0.0.2"])]) {
            break;
        }
    }
}

#[tokio::test]
async fn what_an_envoy_refuses_is_counted_and_not_sent_again_until_it_changes() {
    let bed = awake().await;
    let mut envoy = sotw(bed.channel().await, ask(&[APP_CLUSTER], "")).await;
    let first = envoy.hear().await;
    let refused = DiscoveryRequest {
        version_info: String::new(),
        error_detail: refusal(),
        ..ask(&[APP_CLUSTER], &first.nonce)
    };
    envoy.say(refused).await;
    bed.until(|state| state["eds"]["rejections"] == 1).await;
    bed.write("slice.yaml", &slice_at("10.0.0.2"));
    let second = envoy.hear().await;
    assert_eq!(told(&second), of(&[(APP_CLUSTER, &["10.0.0.2"])]));
    assert_eq!((first.nonce.as_str(), second.nonce.as_str()), ("1", "2"), "nothing came in between");

    let mut envoy = delta(bed.channel().await, subscribe(&[APP_CLUSTER])).await;
    let first = envoy.hear().await;
    let answer = DeltaDiscoveryRequest { response_nonce: first.nonce, ..DeltaDiscoveryRequest::default() };
    envoy.say(DeltaDiscoveryRequest { error_detail: refusal(), ..answer }).await;
    bed.until(|state| state["eds"]["rejections"] == 2).await;
    bed.write("slice.yaml", &slice_at("10.0.0.3"));
    let second = envoy.hear().await;
    assert_eq!(told_delta(&second), of(&[(APP_CLUSTER, &["10.0.0.3"])]));
    assert_eq!(second.nonce, "2");
}

#[tokio::test]
async fn incrementally_names_come_and_go_one_by_one() {
    let bed = awake().await;
    let mut envoy = delta(bed.channel().await, subscribe(&[APP_CLUSTER])).await;
    let first = envoy.hear().await;
    assert_eq!(told_delta(&first), of(&[(APP_CLUSTER, &["10.0.0.1"])]));
    let version = first.resources[0].version.clone();
    envoy.say(subscribe(&[OTHER_CLUSTER])).await;
    assert_eq!(told_delta(&envoy.hear().await), of(&[(OTHER_CLUSTER, &[])]));
    envoy.say(subscribe(&[APP_CLUSTER])).await;
    let again = envoy.hear().await;
    assert_eq!(told_delta(&again), of(&[(APP_CLUSTER, &["10.0.0.1"])]), "asked for again it is told again");
    assert_eq!(again.resources[0].version, version, "and is the same");

    let unsubscribe =
        DeltaDiscoveryRequest { resource_names_unsubscribe: vec![APP_CLUSTER.to_owned()], ..subscribe(&[]) };
    envoy.say(unsubscribe).await;
    bed.until(|state| state["eds"]["clusters"] == 1).await;
    bed.write("slice.yaml", &slice_at("10.0.0.2"));
    bed.write("other.yaml", &APP.replace("app", "other"));
    bed.write("other-slice.yaml", &slice(true).replace("app", "other"));
    assert_eq!(told_delta(&envoy.hear().await), of(&[(OTHER_CLUSTER, &["10.0.0.1"])]));
}

#[tokio::test]
async fn an_envoy_that_comes_back_is_told_what_it_does_not_have() {
    let bed = awake().await;
    let mut envoy = delta(bed.channel().await, subscribe(&[APP_CLUSTER, OTHER_CLUSTER])).await;
    let versions: BTreeMap<String, String> =
        envoy.hear().await.resources.into_iter().map(|it| (it.name, it.version)).collect();
    drop(envoy);
    bed.until(|state| state["eds"]["streams"] == 0).await;
    let back = DeltaDiscoveryRequest {
        initial_resource_versions: versions.clone(),
        ..subscribe(&[APP_CLUSTER, OTHER_CLUSTER])
    };
    let mut envoy = delta(bed.channel().await, back).await;
    bed.until(|state| state["eds"]["clusters"] == 2).await;
    bed.write("slice.yaml", &slice_at("10.0.0.2"));
    let first = envoy.hear().await;
    assert_eq!((told_delta(&first), first.nonce.as_str()), (of(&[(APP_CLUSTER, &["10.0.0.2"])]), "1"));

    let back = DeltaDiscoveryRequest {
        initial_resource_versions: versions,
        ..subscribe(&[APP_CLUSTER, OTHER_CLUSTER])
    };
    let mut envoy = delta(bed.channel().await, back).await;
    assert_eq!(told_delta(&envoy.hear().await), of(&[(APP_CLUSTER, &["10.0.0.2"])]));
}

#[tokio::test]
async fn one_stream_may_ask_for_everything_and_gets_endpoints_alone() {
    let bed = awake().await;
    let (requests, outgoing) = mpsc::channel(16);
    requests.send(ask(&[APP_CLUSTER], "")).await.unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(bed.channel().await);
    let answers = client.stream_aggregated_resources(ReceiverStream::new(outgoing)).await.unwrap();
    let mut envoy = Envoy { requests, answers: answers.into_inner() };
    assert_eq!(told(&envoy.hear().await), of(&[(APP_CLUSTER, &["10.0.0.1"])]));
    let clusters = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    envoy.say(DiscoveryRequest { type_url: clusters.to_owned(), ..ask(&[], "") }).await;
    let status = envoy.next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains(clusters), "{status}");

    let (requests, outgoing) = mpsc::channel(16);
    requests.send(subscribe(&[APP_CLUSTER])).await.unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(bed.channel().await);
    let answers = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await.unwrap();
    let mut envoy = Envoy { requests, answers: answers.into_inner() };
    assert_eq!(told_delta(&envoy.hear().await), of(&[(APP_CLUSTER, &["10.0.0.1"])]));
}

#[tokio::test]
async fn names_without_end_are_refused() {
    let bed = Bed::start().await;
    let mut envoy = sotw(bed.channel().await, ask(&[&"x".repeat(2_000)], "")).await;
    let status = envoy.next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("1024"), "{status}");
}

/// An Envoy has endpoints from before the scaler was started again: none of them is to be taken away because the
/// scaler has not read all of them yet.
#[tokio::test]
async fn nothing_is_told_before_all_objects_are_read() {
    let args = Args::try_parse_from(["sluice-scaler", "--config-dir=/"]).unwrap();
    let hub = Arc::new(Hub::new(&args.resolve().unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(EdsService::server(Arc::clone(&hub)));
    let serving = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = within(Channel::from_shared(format!("http://{address}")).unwrap().connect()).await.unwrap();
    let mut one = sotw(channel.clone(), ask(&[APP_CLUSTER], "")).await;
    let mut other = delta(channel, subscribe(&[APP_CLUSTER])).await;
    within(async {
        while hub.eds.figures().streams < 2 || hub.eds.figures().clusters < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let object = |value: serde_json::Value| {
        Event::Apply(match value["kind"].as_str() {
            Some("Service") => Object::Service(Box::new(serde_json::from_value(value).unwrap())),
            _ => Object::EndpointSlice(Box::new(serde_json::from_value(value).unwrap())),
        })
    };
    let slice = |name: &str, address: &str| {
        object(serde_json::json!({
            "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": "app"}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": [address]}],
        }))
    };
    let service = object(serde_json::json!({
        "kind": "Service", "metadata": {"name": "app", "namespace": "ns"},
        "spec": {"ports": [{"port": 80, "name": "http"}]},
    }));
    let piece = |events, synced| hub.take(Batch { events, problems: None, synced });
    piece(vec![service], false);
    piece(vec![slice("app-1", "10.0.0.1")], false);
    piece(vec![slice("app-2", "10.0.0.2")], true);
    let all = of(&[(APP_CLUSTER, &["10.0.0.1", "10.0.0.2"])]);
    assert_eq!(told(&one.hear().await), all, "the first that is told is all");
    assert_eq!(told_delta(&other.hear().await), all);
    serving.abort();
}

#[tokio::test]
async fn streams_end_with_ok() {
    let mut bed = awake().await;
    let mut one = sotw(bed.channel().await, ask(&[APP_CLUSTER], "")).await;
    let mut other = delta(bed.channel().await, subscribe(&[APP_CLUSTER])).await;
    one.hear().await;
    other.hear().await;
    bed.stop();
    assert_eq!(one.next().await.unwrap(), None);
    assert_eq!(other.next().await.unwrap(), None);
    bed.ended().await.unwrap();
}
