//! The link, as a gateway worker sees it.

use crate::bed::{APP, Bed, Worker, counts, hello, slice, within};
use clap::Parser;
use sluice_core::route::Kind;
use sluice_proto::link::{
    FromWorker, Hello, Hint, PROTOCOL, Report, RouteCounts, from_worker, to_worker::Message,
};
use sluice_scaler::{
    config::Args,
    hub::Hub,
    index::route_id,
    link::LinkService,
    source::{Batch, Event, Object},
};
use std::sync::Arc;
use tokio::net::TcpListener;
use tonic::{
    Code,
    transport::{Channel, Server, server::TcpIncoming},
};

#[tokio::test]
async fn a_worker_hears_welcome_the_table_and_then_what_changes() {
    let bed = Bed::start().await;
    bed.write("app.yaml", APP);
    bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    let mut worker = Worker::connect(bed.channel().await, hello(1)).await.unwrap();
    let Message::Welcome(welcome) = worker.hear().await else { panic!("no welcome") };
    assert_eq!((welcome.protocol, welcome.scaler.as_str()), (PROTOCOL, "replica-7"));
    assert!(welcome.settings.unwrap().cold_start_header);
    let Message::Table(table) = worker.hear().await else { panic!("no table") };
    assert!(table.reset && table.complete);
    let route = &table.upserts[0];
    assert_eq!(route.id, counts(0, 0, 0).route);
    assert_eq!(route.rules[0].hosts, ["app.example.com"]);
    assert_eq!(route.hint(), Hint::NotReady);
    let cluster = route.cluster.as_ref().unwrap();
    assert_eq!(cluster.prefix, "outbound|80|");
    assert_eq!(cluster.suffix.as_deref(), Some("|app.ns.svc.cluster.local"));

    bed.write("slice.yaml", &slice(true));
    let Message::Readiness(readiness) = worker.hear().await else { panic!("no readiness") };
    assert_eq!(readiness.ready, [route.id]);
    bed.write("slice.yaml", &slice(false));
    let Message::Readiness(readiness) = worker.hear().await else { panic!("no readiness") };
    assert_eq!(readiness.not_ready, [route.id]);

    bed.write("app.yaml", &APP.replace("app.example.com", "other.example.com"));
    let Message::Table(table) = worker.hear().await else { panic!("no table") };
    assert!(!table.reset && table.complete);
    assert_eq!(table.upserts[0].rules[0].hosts, ["other.example.com"]);
    bed.write("app.yaml", "");
    let Message::Table(table) = worker.hear().await else { panic!("no table") };
    assert_eq!(table.removals, [route.id]);
}

#[tokio::test]
async fn another_version_is_refused_with_the_versions_that_are_spoken() {
    let bed = Bed::start().await;
    let hello = Hello { protocol: 99, ..Hello::default() };
    let hello = FromWorker { message: Some(from_worker::Message::Hello(hello)) };
    let status = Worker::connect(bed.channel().await, hello).await.err().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("version 99"), "{status}");
    assert!(status.message().contains("version 1 alone"), "{status}");
}

#[tokio::test]
async fn hello_comes_first_and_once() {
    let bed = Bed::start().await;
    let report = FromWorker { message: Some(from_worker::Message::Report(Report::default())) };
    let status = Worker::connect(bed.channel().await, report).await.err().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let mut worker = bed.worker(1).await;
    worker.send(hello(1)).await;
    let status = worker.next().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn names_without_end_are_refused() {
    let bed = Bed::start().await;
    let hello = Hello { protocol: PROTOCOL, gateway: "x".repeat(2_000), ..Hello::default() };
    let hello = FromWorker { message: Some(from_worker::Message::Hello(hello)) };
    let status = Worker::connect(bed.channel().await, hello).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn reports_are_acknowledged_and_counted() {
    let bed = Bed::start().await;
    bed.write("app.yaml", APP);
    bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    let mut one = bed.worker(1).await;
    let mut two = bed.worker(2).await;
    one.report(vec![]).await;
    two.report(vec![]).await;
    one.report(vec![counts(2, 1, 3)]).await;
    two.report(vec![counts(1, 0, 1)]).await;
    let state = bed.state().await;
    let route = &state["routes"][0];
    assert_eq!((&route["inFlight"], &route["held"], &route["arrivals"]), (&3.into(), &1.into(), &4.into()));
    let workers = state["gateways"][0]["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2);
    assert_eq!((&workers[0]["instance"], &workers[0]["inFlight"]), (&"1".into(), &2.into()));
    assert_eq!((&workers[0]["connected"], &workers[0]["routes"]), (&true.into(), &1.into()));
}

#[tokio::test]
async fn what_a_young_worker_counted_before_it_was_heard_is_news() {
    let bed = Bed::with(&["--worker-grace=10s"]).await;
    bed.write("app.yaml", APP);
    bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    for (instance, age_ms, arrivals) in [(1, 9_999, 3), (2, 10_000, 3)] {
        let hello =
            Hello { protocol: PROTOCOL, gateway: "gw".to_owned(), instance, age_ms, ..Hello::default() };
        let hello = FromWorker { message: Some(from_worker::Message::Hello(hello)) };
        let mut worker = Worker::connect(bed.channel().await, hello).await.unwrap();
        worker.report(vec![counts(0, 0, 3)]).await;
        assert_eq!(bed.state().await["routes"][0]["arrivals"], arrivals);
    }
}

#[tokio::test]
async fn the_newest_stream_of_a_worker_takes_over_while_the_old_one_lives() {
    let bed = Bed::start().await;
    bed.write("app.yaml", APP);
    bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    let mut old = bed.worker(1).await;
    old.report(vec![counts(5, 5, 5)]).await;
    let mut new = bed.worker(1).await;
    assert_eq!(bed.state().await["routes"][0]["inFlight"], 5, "its counts go on");
    let status = old.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    new.report(vec![counts(4, 4, 6)]).await;
    let state = bed.state().await;
    assert_eq!(state["routes"][0]["inFlight"], 4);
    assert_eq!(state["gateways"][0]["workers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_worker_that_is_gone_is_kept_for_the_grace() {
    let bed = Bed::with(&["--worker-grace=1h"]).await;
    bed.write("app.yaml", APP);
    bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    let mut worker = bed.worker(1).await;
    worker.report(vec![counts(2, 1, 2)]).await;
    drop(worker);
    let state = bed.until(|state| state["gateways"][0]["workers"][0]["connected"] == false).await;
    assert_eq!(state["routes"][0]["inFlight"], 2);
}

#[tokio::test]
async fn a_worker_that_stays_away_is_taken_out() {
    let bed = Bed::with(&["--worker-grace=10ms"]).await;
    bed.write("app.yaml", APP);
    bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    let mut worker = bed.worker(1).await;
    worker.report(vec![counts(2, 1, 2)]).await;
    assert_eq!(bed.state().await["routes"][0]["inFlight"], 2);
    drop(worker);
    let state = bed.until(|state| state["routes"][0]["inFlight"] == 0).await;
    assert_eq!(state["gateways"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_its_own_stream_alone() {
    let bed = Bed::start().await;
    let mut other = bed.worker(2).await;
    let mut worker = bed.worker(1).await;
    let long = RouteCounts { hold_buckets: vec![u64::MAX; 2_000_000], ..RouteCounts::default() };
    let report = Report { sequence: 1, complete: true, routes: vec![long] };
    worker.send(FromWorker { message: Some(from_worker::Message::Report(report)) }).await;
    let status = worker.next().await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    other.report(vec![]).await;
}

#[tokio::test]
async fn ten_thousand_routes_arrive_in_pieces() {
    let bed = Bed::start().await;
    let objects: String = (0..10_000)
        .map(|number| {
            format!(
                "{{apiVersion: http.keda.sh/v1alpha1, kind: HTTPScaledObject, metadata: {{name: app-{number}, \
                 namespace: ns}}, spec: {{hosts: [app-{number}.example.com], scaleTargetRef: {{service: app-{number}, \
                 port: 80}}}}}}\n---\n"
            )
        })
        .collect();
    bed.write("all.yaml", &objects);
    bed.until(|state| state["routes"].as_array().is_some_and(|routes| routes.len() == 10_000)).await;
    let mut worker = Worker::connect(bed.channel().await, hello(1)).await.unwrap();
    let mut ids = std::collections::BTreeSet::new();
    let mut pieces = 0;
    loop {
        let Message::Table(table) = worker.hear().await else { continue };
        assert_eq!(table.reset, pieces == 0);
        pieces += 1;
        ids.extend(table.upserts.iter().map(|route| route.id));
        if table.complete {
            break;
        }
    }
    assert_eq!(ids.len(), 10_000);
    assert!(pieces > 3, "{pieces}");
}

#[tokio::test]
async fn what_workers_say_before_objects_are_read_is_counted_when_they_are() {
    let args = Args::try_parse_from(["sluice-scaler", "--config-dir=/"]).unwrap();
    let hub = Arc::new(Hub::new(&args.resolve().unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(LinkService::server(Arc::clone(&hub)));
    let serving = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = within(Channel::from_shared(format!("http://{address}")).unwrap().connect()).await.unwrap();

    let mut worker = Worker::connect(channel, hello(1)).await.unwrap();
    assert!(matches!(worker.hear().await, Message::Welcome(_)));
    let names: Vec<String> = (0..5_000).map(|number| format!("app-{number}")).collect();
    let routes = names.iter().map(|name| {
        let route = route_id(Kind::HttpScaledObject, "ns", name).0;
        RouteCounts { route, in_flight: 1, ..RouteCounts::default() }
    });
    let report = Report { sequence: 1, complete: true, routes: routes.collect() };
    worker.send(FromWorker { message: Some(from_worker::Message::Report(report)) }).await;
    let objects = names.iter().map(|name| {
        let object = serde_json::json!({
            "metadata": {"name": name, "namespace": "ns"},
            "spec": {"scaleTargetRef": {"service": name, "port": 80}},
        });
        Event::Apply(Object::HttpScaledObject(Box::new(serde_json::from_value(object).unwrap())))
    });
    hub.take(Batch { events: objects.collect(), problems: None, synced: true });
    while !matches!(worker.hear().await, Message::Ack(_)) {}
    let worker = &hub.ledger.workers(hub.clock.now())[0];
    assert_eq!(worker.in_flight, 5_000);
    serving.abort();
}
