use clap::Parser;
use sluice_proto::{keda::{*, external_scaler_client::ExternalScalerClient}, link::{*, link_client::LinkClient}};
use sluice_scaler::{config::Args, hub::Hub, ledger::WorkerId, index::route_id, run::*};
use std::{sync::Arc, time::Instant as I};
use tokio_stream::wrappers::ReceiverStream;

fn rss() -> u64 { let s = std::fs::read_to_string("/proc/self/statm").unwrap(); s.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4 / 1024 }

#[tokio::main]
async fn main() {
    let dir = std::env::temp_dir().join("perf-k"); let _ = std::fs::create_dir(&dir);
    let n = 10_000u64;
    let mut y = String::new();
    for i in 0..n { y += &format!("{{apiVersion: http.keda.sh/v1alpha1, kind: HTTPScaledObject, metadata: {{name: app-{i}, namespace: ns}}, spec: {{hosts: [app-{i}.example.com], scaleTargetRef: {{service: app-{i}, port: 80}}}}}}\n---\n"); }
    std::fs::write(dir.join("a.yaml"), y).unwrap();
    let config = Args::try_parse_from(["s", "--config-dir", dir.to_str().unwrap(), "--bind=127.0.0.1", "--port=0", "--http-port=0"]).unwrap().resolve().unwrap();
    let l = Listeners::open(&config).await.unwrap();
    let addr = l.grpc.local_addr().unwrap();
    let hub = Arc::new(Hub::new(&config));
    let h2 = hub.clone();
    let t = I::now();
    tokio::spawn(serve(config, h2, l, std::future::pending::<()>()));
    while hub.phase() != sluice_scaler::hub::Phase::Ready { tokio::time::sleep(std::time::Duration::from_millis(1)).await; }
    println!("10k objects read in {:?}, rss {} MB", t.elapsed(), rss());
    let ids: Vec<u64> = (0..n).map(|i| route_id(sluice_core::route::Kind::HttpScaledObject, "ns", &format!("app-{i}")).0).collect();
    // A: ledger
    let seats: Vec<_> = (0..2000).map(|i| hub.ledger.join(hub.clock.now(), WorkerId { gateway: "g".into(), instance: 1_000_000 + i }, String::new()).unwrap()).collect();
    let mk = |w: u64, tick: u64| -> Report {
        let routes = (0..100u64).map(|k| { let id = ids[((w * 37 + tick * 100 + k) % std::env::var("R").map_or(1000, |r| r.parse::<u64>().unwrap())) as usize]; RouteCounts { route: id, in_flight: 1, arrivals: tick + 1, concurrency_us: tick * 1000,
            completions: vec![Completions { method: 1, code: 200, count: tick, duration_buckets: { let mut b = vec![0; 15]; b[0] = tick; b }, duration_us: tick * 100 }], ..Default::default() } }).collect();
        Report { sequence: tick, complete: tick == 0, routes }
    };
    let mut spent = std::time::Duration::ZERO; let mut count = 0u64;
    for tick in 0..12 { let reports: Vec<Report> = (0..2000).map(|w| mk(w, tick)).collect();
        let t = I::now();
        for (s, r) in seats.iter().zip(&reports) { s.report(&hub.ledger, hub.clock.now(), r).unwrap(); }
        if tick > 9 { spent += t.elapsed(); count += 200_000; } 
    }
    println!("ledger: {} ns per route update; rss {} MB", spent.as_nanos() as u64 / count, rss());
    let bytes = prost::Message::encode_to_vec(&mk(1, 5)); let t = I::now();
    for _ in 0..1000 { let r: Report = prost::Message::decode(&bytes[..]).unwrap(); std::hint::black_box(r); }
    println!("decode: {:?} per report of 100 ({} bytes)", t.elapsed() / 1000, bytes.len());
    // B: latency
    let ch = tonic::transport::Channel::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap();
    let ch2 = tonic::transport::Channel::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap();
    let (tx, rx) = tokio::sync::mpsc::channel(4);
    tx.send(FromWorker { message: Some(from_worker::Message::Hello(Hello { protocol: 1, gateway: "x".into(), instance: 5, filter_version: "".into() })) }).await.unwrap();
    let mut down = LinkClient::new(ch).max_decoding_message_size(1 << 30).connect(ReceiverStream::new(rx)).await.unwrap().into_inner();
    tokio::spawn(async move { while let Ok(Some(_)) = down.message().await {} });
    let mut keda = ExternalScalerClient::new(ch2);
    let mut lat = Vec::new();
    let mut seq = 1;
    tx.send(FromWorker { message: Some(from_worker::Message::Report(Report { sequence: seq, complete: true, routes: vec![] })) }).await.unwrap();
    for i in 0..500usize {
        let name = format!("app-{}", 5000 + i);
        let r = ScaledObjectRef { name: name.clone(), namespace: "ns".into(), scaler_metadata: [("httpScaledObject".to_string(), name)].into() };
        let mut s = keda.stream_is_active(r).await.unwrap().into_inner();
        assert!(!s.message().await.unwrap().unwrap().result);
        seq += 1;
        let t = I::now();
        tx.send(FromWorker { message: Some(from_worker::Message::Report(Report { sequence: seq, complete: false, routes: vec![RouteCounts { route: ids[5000 + i], in_flight: 1, held: 1, arrivals: 1, ..Default::default() }] })) }).await.unwrap();
        assert!(s.message().await.unwrap().unwrap().result);
        lat.push(t.elapsed());
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    lat.sort();
    println!("arrival->true p50 {:?} p99 {:?} max {:?}", lat[250], lat[495], lat[499]);
    let t = I::now(); let s = sluice_scaler::http::State::of(&hub); println!("debug {:?} {}", t.elapsed(), s.routes.len());
    std::process::exit(0);
}
