use super::*;
use crate::{
    config::Args,
    hub::Hub,
    index::{Changes, Defaults},
    source::{Batch, Event, Object, ObjectKind, ObjectRef},
};
use clap::Parser as _;
use prost::Message as _;
use serde_json::{Value, json};
use sluice_core::gate::Hint;
use sluice_proto::envoy::config::{
    core::v3::{address, socket_address},
    endpoint::v3::{ClusterLoadAssignment, lb_endpoint},
};

const HTTP: &str = "outbound|80||svc.ns.svc.cluster.local";
const ISTIO: &str = "outbound|{port}|{subset}|{service}.{namespace}.svc.cluster.local";

struct Bed {
    index: Index,
    state: State,
    now: Instant,
    /// The board's version, and the one that all links have been told.
    version: u64,
    told: u64,
}

impl Bed {
    fn new(template: &str) -> Self {
        let defaults =
            Defaults { cluster_template: template.parse().unwrap(), hold_timeout: None, max_held: None };
        let now = Instant::default().after(Duration::from_secs(7));
        Self { index: Index::new(defaults), state: State::default(), now, version: 0, told: 0 }
    }

    fn take(&mut self, event: Event) {
        self.index.take(vec![event], &mut Changes::new());
        let touched = self.index.take_touched();
        self.state.touch(self.now, self.version, &self.index, &touched);
    }

    fn apply(&mut self, object: Object) {
        self.take(Event::Apply(object));
    }

    fn delete(&mut self, kind: ObjectKind, name: &str) {
        self.take(Event::Delete(ObjectRef { kind, namespace: "ns".to_owned(), name: name.to_owned() }));
    }

    fn join(&mut self) -> u64 {
        self.state.join(Arc::default())
    }

    fn follow(&mut self, id: u64, name: &str) {
        self.state.follow(id, &self.index, name, None).unwrap();
    }

    /// A stream that follows this cluster.
    fn follower(&mut self, name: &str) -> u64 {
        let id = self.join();
        self.follow(id, name);
        id
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.state.tell_due(self.now, self.told);
    }

    fn hear(&mut self, id: u64) -> Vec<(String, Vec<String>)> {
        self.state.news(id, usize::MAX).iter().map(|resource| read(resource)).collect()
    }

    /// What a stream hears that follows one cluster and has news.
    fn endpoints(&mut self, id: u64) -> Vec<String> {
        let news = self.hear(id);
        assert_eq!(news.len(), 1, "{news:?}");
        news.into_iter().flat_map(|(_, endpoints)| endpoints).collect()
    }
}

fn read(resource: &Resource) -> (String, Vec<String>) {
    assert_eq!(resource.any.type_url, "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment");
    let assignment = ClusterLoadAssignment::decode(resource.any.value.clone()).unwrap();
    let endpoints = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
    let endpoints = endpoints.map(|endpoint| {
        let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = endpoint.host_identifier else {
            panic!()
        };
        let Some(address::Address::SocketAddress(socket)) = endpoint.address.unwrap().address else {
            panic!()
        };
        let Some(socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!() };
        format!("{} {port}", socket.address)
    });
    (assignment.cluster_name, endpoints.collect())
}

fn service(namespace: &str, name: &str, ports: &Value) -> Object {
    let service = json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"ports": ports}});
    Object::Service(Box::new(serde_json::from_value(service).unwrap()))
}

fn two_ports() -> Object {
    service("ns", "svc", &json!([{"port": 80, "name": "http"}, {"port": 9090, "name": "metrics"}]))
}

fn slice_of(namespace: &str, service: &str, name: &str, ports: &Value, endpoints: &[&str]) -> Object {
    let endpoints: Vec<Value> = endpoints.iter().map(|address| json!({"addresses": [address]})).collect();
    let slice = json!({
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    });
    Object::EndpointSlice(Box::new(serde_json::from_value(slice).unwrap()))
}

fn slice(endpoints: &[&str]) -> Object {
    slice_of("ns", "svc", "svc-1", &json!([{"name": "http", "port": 8080}]), endpoints)
}

fn object(namespace: &str, service: &str, port: u16) -> Object {
    let object = json!({
        "metadata": {"name": "app", "namespace": namespace},
        "spec": {"hosts": ["a.example.com"], "scaleTargetRef": {"service": service, "port": port}},
    });
    Object::HttpScaledObject(Box::new(serde_json::from_value(object).unwrap()))
}

#[test]
fn a_cluster_has_the_ready_endpoints_of_its_own_port_and_only_changes_are_told() {
    let mut bed = Bed::new(ISTIO);
    bed.apply(two_ports());
    let (http, metrics) = (bed.follower(HTTP), bed.follower("outbound|9090||svc.ns.svc.cluster.local"));
    assert!(bed.endpoints(http).is_empty() && bed.endpoints(metrics).is_empty());
    bed.apply(slice(&["10.0.0.1", "fd00::1"]));
    assert_eq!(
        bed.hear(http),
        [(HTTP.to_owned(), vec!["10.0.0.1 8080".to_owned(), "fd00::1 8080".to_owned()])]
    );
    assert!(bed.hear(metrics).is_empty(), "nothing has changed there");
    bed.apply(slice(&["fd00::1", "10.0.0.1"]));
    assert!(bed.hear(http).is_empty(), "the same in another order");
    bed.apply(slice_of("ns", "svc", "svc-2", &json!([{"name": "http", "port": 8081}]), &["10.0.0.2"]));
    assert_eq!(bed.endpoints(http), ["10.0.0.1 8080", "10.0.0.2 8081", "fd00::1 8080"]);
}

#[test]
fn a_name_that_is_no_services_cluster_is_empty_until_it_is_one() {
    let mut bed = Bed::new(ISTIO);
    bed.apply(slice(&["10.0.0.1"]));
    let id = bed.follower(HTTP);
    let names = ["outbound|81||svc.ns.svc.cluster.local", "outbound|80|v1|svc.ns.svc.cluster.local", "x", ""];
    let others = names.map(|name| bed.follower(name));
    assert!(bed.endpoints(id).is_empty());
    bed.apply(service("ns", "svc", &json!([{"port": 80, "name": "http"}])));
    assert_eq!(bed.endpoints(id), ["10.0.0.1 8080"]);
    for (name, other) in names.into_iter().zip(others) {
        assert_eq!(bed.hear(other), [(name.to_owned(), vec![])], "told once, and of no endpoints");
    }
    bed.delete(ObjectKind::Service, "svc");
    bed.pass(REMOVAL_DELAY);
    assert!(bed.endpoints(id).is_empty(), "and no more when the Service is gone");
}

#[test]
fn that_the_last_endpoint_is_gone_is_told_after_a_while_and_everything_else_at_once() {
    let mut bed = Bed::new(ISTIO);
    bed.apply(two_ports());
    bed.apply(slice(&["10.0.0.1", "10.0.0.2"]));
    let id = bed.follower(HTTP);
    bed.hear(id);
    bed.apply(slice(&["10.0.0.2"]));
    assert_eq!(bed.endpoints(id), ["10.0.0.2 8080"], "one of two");
    bed.apply(slice(&["10.0.0.3"]));
    assert_eq!(bed.endpoints(id), ["10.0.0.3 8080"], "another one instead");
    bed.apply(slice(&[]));
    let almost = REMOVAL_DELAY - Duration::from_nanos(1);
    assert_eq!(bed.state.next_due(), Some(bed.now.after(REMOVAL_DELAY)));
    bed.pass(almost);
    // Whatever else happens to it in the meantime makes it no later.
    bed.apply(slice(&[]));
    assert!(bed.hear(id).is_empty());
    bed.pass(Duration::from_nanos(1));
    assert!(bed.endpoints(id).is_empty());
    assert_eq!(bed.state.next_due(), None);
}

#[test]
fn a_link_that_has_not_heard_not_ready_is_waited_for() {
    let mut bed = Bed::new(ISTIO);
    bed.apply(two_ports());
    bed.apply(slice(&["10.0.0.1"]));
    let id = bed.follower(HTTP);
    bed.hear(id);
    (bed.version, bed.told) = (5, 4);
    bed.apply(slice(&[]));
    bed.pass(REMOVAL_DELAY);
    bed.pass(REMOVAL_LOOK);
    // What is published in the meantime is another cluster's.
    (bed.version, bed.told) = (6, 5);
    bed.pass(REMOVAL_LOOK);
    assert!(bed.hear(id).is_empty(), "it has only just been told");
    bed.told = 0;
    bed.pass(REMOVAL_DELAY - Duration::from_nanos(1));
    assert!(bed.hear(id).is_empty());
    bed.pass(Duration::from_nanos(1));
    assert!(bed.endpoints(id).is_empty(), "whoever comes now is not waited for");
    assert_eq!(bed.state.next_due(), None);
}

#[test]
fn a_link_that_does_not_read_is_not_waited_for_for_ever() {
    let mut bed = Bed::new(ISTIO);
    bed.apply(two_ports());
    bed.apply(slice(&["10.0.0.1"]));
    let id = bed.follower(HTTP);
    bed.hear(id);
    bed.version = 1;
    bed.apply(slice(&[]));
    let start = bed.now;
    let mut looks = 0;
    while let Some(due) = bed.state.next_due() {
        assert!(bed.hear(id).is_empty());
        bed.pass(due.since(bed.now));
        looks += 1;
    }
    assert!(bed.endpoints(id).is_empty());
    let waited = bed.now.since(start);
    assert!(waited >= REMOVAL_PATIENCE && waited < REMOVAL_PATIENCE + REMOVAL_LOOK, "{waited:?}");
    assert!(looks <= 50, "{looks}");
}

#[test]
fn an_app_that_is_back_within_the_while_was_never_away() {
    let mut bed = Bed::new(ISTIO);
    bed.apply(two_ports());
    bed.apply(slice(&["10.0.0.1"]));
    let id = bed.follower(HTTP);
    bed.hear(id);
    bed.apply(slice(&[]));
    bed.apply(slice(&["10.0.0.1"]));
    bed.pass(REMOVAL_DELAY);
    assert!(bed.hear(id).is_empty());
    bed.apply(slice(&[]));
    bed.apply(slice(&["10.0.0.9"]));
    assert_eq!(bed.endpoints(id), ["10.0.0.9 8080"]);
    bed.pass(REMOVAL_DELAY);
    assert!(bed.hear(id).is_empty());
}

#[test]
fn what_an_envoy_has_already_is_not_told_again_by_whichever_replica() {
    let mut replicas = [Bed::new(ISTIO), Bed::new(ISTIO)];
    for bed in &mut replicas {
        bed.apply(two_ports());
        bed.apply(slice(&["10.0.0.1"]));
    }
    let [mut one, mut other] = replicas;
    let id = one.follower(HTTP);
    let version = one.state.news(id, 1)[0].version.to_string();
    let (comes, stranger) = (other.join(), other.join());
    other.state.follow(comes, &other.index, HTTP, Some(version.parse().unwrap())).unwrap();
    other.state.follow(stranger, &other.index, HTTP, Some("1".parse().unwrap())).unwrap();
    assert!(other.hear(comes).is_empty());
    assert_eq!(other.endpoints(stranger), ["10.0.0.1 8080"]);
    other.apply(slice(&["10.0.0.2"]));
    assert_eq!(other.endpoints(comes), ["10.0.0.2 8080"]);
}

#[test]
fn a_cluster_is_told_again_to_who_asks_again_and_no_more_to_who_leaves() {
    let mut bed = Bed::new(ISTIO);
    bed.apply(two_ports());
    bed.apply(slice(&["10.0.0.1"]));
    let (id, other) = (bed.follower(HTTP), bed.follower(HTTP));
    bed.hear(id);
    bed.follow(id, HTTP);
    assert_eq!(bed.endpoints(id), ["10.0.0.1 8080"]);
    bed.state.unfollow(id, HTTP);
    bed.state.unfollow(id, "never followed");
    bed.state.leave(other);
    bed.apply(slice(&["10.0.0.2"]));
    assert!(bed.hear(id).is_empty() && bed.hear(other).is_empty());
    assert_eq!(bed.state.followed(id).count(), 0);
    bed.follow(id, HTTP);
    assert_eq!(bed.endpoints(id), ["10.0.0.2 8080"]);
}

#[test]
fn nothing_is_left_of_streams_that_are_gone() {
    let mut bed = Bed::new(ISTIO);
    bed.apply(two_ports());
    bed.apply(slice(&["10.0.0.1"]));
    let id = bed.follower(HTTP);
    bed.apply(slice(&[]));
    assert!(bed.state.next_due().is_some());
    bed.state.leave(id);
    assert_eq!(bed.state.next_due(), None);
    assert_eq!((bed.state.streams(), bed.state.clusters()), (0, 0));
}

#[test]
fn news_come_in_pieces_and_one_stream_has_bounds() {
    let mut bed = Bed::new(ISTIO);
    let id = bed.join();
    for number in 0..10 {
        bed.follow(id, &format!("c-{number}"));
    }
    let pieces = [4, 4, 2, 0].map(|_| bed.state.news(id, 4).len());
    assert_eq!(pieces, [4, 4, 2, 0]);
    for number in 10..16_384 {
        bed.follow(id, &format!("c-{number}"));
    }
    let too_many = bed.state.follow(id, &bed.index, "one more", None).unwrap_err();
    assert!(too_many.to_string().contains("16384"), "{too_many}");
    bed.follow(id, "c-0");
    let too_long = bed.state.follow(id, &bed.index, &"x".repeat(1_025), None).unwrap_err();
    assert!(too_long.to_string().contains("1024"), "{too_long}");
}

#[test]
fn where_the_template_leaves_the_port_out_the_objects_say_which() {
    let mut bed = Bed::new("{namespace}/{service}");
    bed.apply(service(
        "ns",
        "svc",
        &json!([{"port": 9090, "name": "metrics"}, {"port": 80, "name": "http"}]),
    ));
    bed.apply(slice(&["10.0.0.1"]));
    let ports = json!([{"name": "metrics", "port": 9090}]);
    bed.apply(slice_of("ns", "svc", "svc-m", &ports, &["10.0.0.1"]));
    let id = bed.follower("ns/svc");
    assert_eq!(bed.endpoints(id), ["10.0.0.1 9090"], "the first one, as long as there is no object");
    bed.apply(object("ns", "svc", 80));
    assert_eq!(bed.endpoints(id), ["10.0.0.1 8080"]);
}

#[test]
fn where_several_services_are_called_alike_the_one_with_an_object_is_meant_or_none() {
    let mut bed = Bed::new("{service}");
    for namespace in ["ns", "other"] {
        bed.apply(service(namespace, "svc", &json!([{"port": 80, "name": "http"}])));
        bed.apply(slice_of(namespace, "svc", "s", &json!([{"name": "http", "port": 8080}]), &["10.0.0.1"]));
    }
    let id = bed.follower("svc");
    assert!(bed.endpoints(id).is_empty(), "one of them would be somebody else's");
    bed.apply(object("ns", "svc", 80));
    assert_eq!(bed.endpoints(id), ["10.0.0.1 8080"]);
    bed.delete(ObjectKind::HttpScaledObject, "app");
    bed.pass(REMOVAL_DELAY);
    assert!(bed.endpoints(id).is_empty());
}

#[test]
fn an_object_that_goes_takes_no_endpoints_with_it() {
    let mut bed = Bed::new(ISTIO);
    bed.apply(two_ports());
    bed.apply(slice(&["10.0.0.1"]));
    bed.apply(object("ns", "svc", 80));
    let id = bed.follower(HTTP);
    assert_eq!(bed.endpoints(id), ["10.0.0.1 8080"]);
    bed.delete(ObjectKind::HttpScaledObject, "app");
    bed.pass(REMOVAL_DELAY);
    assert!(bed.hear(id).is_empty());
}

/// The order that keeps a request from meeting an empty cluster: see the module.
#[tokio::test(start_paused = true)]
async fn gateways_hear_not_ready_long_before_the_last_endpoint_goes() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["sluice-scaler", "--config-dir", dir.path().to_str().unwrap()];
    let hub = Arc::new(Hub::new(&Args::try_parse_from(args).unwrap().resolve().unwrap()));
    let running = tokio::spawn({
        let hub = Arc::clone(&hub);
        async move { hub.eds.run(hub.clock, &hub.board).await }
    });
    let take = |objects: Vec<Object>| {
        let events = objects.into_iter().map(Event::Apply).collect();
        hub.take(Batch { events, problems: None, synced: true });
    };
    take(vec![two_ports(), object("ns", "svc", 80), slice(&["10.0.0.1"])]);
    let follower = Follower::join(&hub.eds);
    follower.change(&hub.index(), &[(HTTP.to_owned(), None)], &[]).unwrap();
    follower.changed().await;
    assert_eq!(follower.news(1).len(), 1);
    let (_, told) = hub.board.news(None).unwrap();
    let link = hub.board.join();
    link.told(told);

    let before = tokio::time::Instant::now();
    take(vec![slice(&[])]);
    let (news, _) = hub.board.news(Some(told)).unwrap();
    let hints: Vec<Hint> = news.hints.iter().map(|(_, hint)| *hint).collect();
    assert_eq!(hints, [Hint::NotReady], "the link's sessions have it at once");
    assert!(follower.news(1).is_empty());
    let late = 3 * REMOVAL_DELAY;
    assert!(tokio::time::timeout(late, follower.changed()).await.is_err(), "the link has not been told");
    link.told(hub.board.version());
    follower.changed().await;
    assert!(before.elapsed() >= late + REMOVAL_DELAY);
    assert_eq!(read(&follower.news(1)[0]), (HTTP.to_owned(), vec![]));

    take(vec![slice(&["10.0.0.1"])]);
    let before = tokio::time::Instant::now();
    follower.changed().await;
    assert_eq!((before.elapsed(), follower.news(1).len()), (Duration::ZERO, 1), "what comes is told at once");
    running.abort();
}
