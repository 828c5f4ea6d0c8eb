use super::*;
use crate::{
    config::Args,
    index::route_id,
    ledger::{Report, Seat, WorkerId},
    source::{Batch, Event, Object, ObjectKind, ObjectRef},
};
use clap::Parser;
use futures::StreamExt;
use serde_json::json;
use sluice_proto::link::{self, RouteCounts};
use std::time::Duration;

/// A hub without a source and without a network: what time does to streams, and nothing else.
struct Bed {
    hub: Arc<Hub>,
    seat: Seat,
    start: tokio::time::Instant,
}

impl Bed {
    fn new() -> Self {
        let args = ["sluice-scaler", "--config-dir=/", "--activity-window=30s"];
        let config = Args::try_parse_from(args).unwrap().resolve().unwrap();
        let hub = Arc::new(Hub::new(&config));
        let id = WorkerId { gateway: "gw".to_owned(), instance: 1 };
        let seat = hub.ledger.join(id, String::new(), false).unwrap();
        let bed = Self { hub, seat, start: tokio::time::Instant::now() };
        bed.report(vec![]);
        bed
    }

    fn report(&self, routes: Vec<RouteCounts>) {
        let report = link::Report { sequence: 1, complete: false, routes };
        let report = Report::of(&report).unwrap();
        self.seat.report(&self.hub.ledger, self.hub.clock.now(), &report).unwrap();
    }

    fn counts(&self, in_flight: u32, held: u32, arrivals: u64) {
        let route = route_id(Kind::HttpScaledObject, "ns", "app").0;
        self.report(vec![RouteCounts { route, in_flight, held, arrivals, ..RouteCounts::default() }]);
    }

    fn apply(&self, object: Object) {
        self.hub.take(Batch { events: vec![Event::Apply(object)], problems: None, synced: true });
    }

    fn app(&self) {
        let object = json!({"metadata": {"name": "app", "namespace": "ns"}, "spec": {"scaleTargetRef": {"service": "app", "port": 80}}});
        self.apply(Object::HttpScaledObject(Box::new(serde_json::from_value(object).unwrap())));
        let service =
            json!({"metadata": {"name": "app", "namespace": "ns"}, "spec": {"ports": [{"port": 80}]}});
        self.apply(Object::Service(Box::new(serde_json::from_value(service).unwrap())));
    }

    fn ready(&self, ready: bool) {
        let slice = json!({
            "metadata": {"name": "app", "namespace": "ns", "labels": {"kubernetes.io/service-name": "app"}},
            "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
        });
        self.apply(Object::EndpointSlice(Box::new(serde_json::from_value(slice).unwrap())));
    }

    fn stream(&self) -> impl Stream<Item = bool> + use<> {
        let reference = ScaledObjectRef {
            name: "so".to_owned(),
            namespace: "ns".to_owned(),
            scaler_metadata: [("httpScaledObject".to_owned(), "app".to_owned())].into(),
        };
        let subject = Subject::read(&reference).unwrap();
        activity(Arc::clone(&self.hub), &reference, subject)
    }

    /// Milliseconds since the beginning.
    fn now(&self) -> u128 {
        self.start.elapsed().as_millis()
    }
}

/// What the stream tells within that time, and when.
async fn told(
    bed: &Bed,
    stream: &mut (impl Stream<Item = bool> + Unpin),
    within: Duration,
) -> Vec<(u128, bool)> {
    let mut all = Vec::new();
    let end = tokio::time::Instant::now() + within;
    while let Ok(Some(told)) = tokio::time::timeout_at(end, stream.next()).await {
        all.push((bed.now(), told));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn while_requests_wait_true_comes_again_until_the_target_is_up() {
    let bed = Bed::new();
    bed.app();
    let mut stream = Box::pin(bed.stream());
    assert_eq!(told(&bed, &mut stream, Duration::from_secs(5)).await, [(0, false)]);
    bed.counts(1, 1, 1);
    let expected = [(5_000, true), (6_500, true), (9_500, true)];
    assert_eq!(told(&bed, &mut stream, Duration::from_secs(5)).await, expected);
    bed.ready(true);
    bed.counts(1, 0, 1);
    assert_eq!(told(&bed, &mut stream, Duration::from_secs(25)).await, [(19_500, true), (29_500, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_single_short_request_is_true_for_the_window_and_then_false() {
    let bed = Bed::new();
    bed.app();
    bed.ready(true);
    let mut stream = Box::pin(bed.stream());
    assert_eq!(told(&bed, &mut stream, Duration::from_secs(1)).await, [(0, false)]);
    bed.counts(0, 0, 1);
    let expected = [(1_000, true), (11_000, true), (21_000, true), (31_000, false)];
    assert_eq!(told(&bed, &mut stream, Duration::from_secs(60)).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_goes_down_under_waiting_requests_is_told_at_once() {
    let bed = Bed::new();
    bed.app();
    bed.ready(true);
    let mut stream = Box::pin(bed.stream());
    bed.counts(1, 0, 1);
    assert_eq!(told(&bed, &mut stream, Duration::from_secs(1)).await, [(0, true)]);
    bed.ready(false);
    bed.counts(2, 1, 2);
    assert_eq!(told(&bed, &mut stream, Duration::from_secs(1)).await, [(1_000, true)]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_not_there_is_wanted_by_nobody_and_the_stream_stays() {
    let bed = Bed::new();
    let mut stream = Box::pin(bed.stream());
    assert_eq!(told(&bed, &mut stream, Duration::from_secs(600)).await, [(0, false)]);
    bed.hub.ledger.tidy();
    bed.app();
    bed.counts(1, 1, 1);
    assert_eq!(told(&bed, &mut stream, Duration::from_secs(1)).await, [(600_000, true)]);
    let gone =
        ObjectRef { kind: ObjectKind::HttpScaledObject, namespace: "ns".to_owned(), name: "app".to_owned() };
    bed.hub.take(Batch { events: vec![Event::Delete(gone)], problems: None, synced: true });
    bed.counts(0, 0, 1);
    let after = told(&bed, &mut stream, Duration::from_secs(60)).await;
    assert_eq!(after.last(), Some(&(631_000, false)));
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_this_replica_does() {
    let bed = Bed::new();
    let mut stream = Box::pin(bed.stream());
    assert_eq!(stream.next().await, Some(false));
    assert_eq!(bed.hub.streams.count(), 1);
    bed.hub.advance(Phase::Leaving);
    assert!(told(&bed, &mut stream, Duration::from_secs(1)).await.is_empty());
    bed.hub.advance(Phase::Draining);
    assert_eq!(stream.next().await, None);
    drop(stream);
    assert_eq!(bed.hub.streams.count(), 0);
}
