//! What requests that wait cost, and whether very many of them all come out again.

use super::Part;
use crate::{
    bench::Bench,
    figures::ratios,
    gateway::{Gateway, Kind},
    report::{Goal, Report},
    system::{self, Cores},
    upstream::Upstream,
};
use anyhow::{Context as _, bail, ensure};
use serde_json::json;
use sluice_tests::{
    bed::Bed,
    envoy::Upstream as Protocol,
    http::{self, Http2},
    objects::Target,
};
use std::{net::SocketAddr, time::Instant};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

/// Workers of the gateways.
const WORKERS: u32 = 2;
/// Held before the memory is looked at for the first time: what is made once for all is there then.
const FIRST: usize = 50;
/// Streams on one HTTP/2 connection.
const STREAMS: usize = 1_000;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let connections = bench.plan.held_connections;
    let needed = 2 * connections + 1_000;
    // A plain Envoy has each request twice, once from the client and once to the app.
    if system::open_files() < needed {
        bail!("{connections} held connections need {needed} open files: raise the hard limit (ulimit -Hn)");
    }
    let kinds = [Kind::Plain, Kind::Delay, Kind::Sluice { routes: 1 }];
    let mut per_request = kinds.map(|_| Vec::new());
    for _ in 0..bench.plan.held_rounds {
        for (kind, grown) in kinds.into_iter().zip(&mut per_request) {
            grown.push(growth(bench, kind, connections).await? / 1e3);
        }
    }
    for (kind, grown) in kinds.into_iter().zip(&per_request) {
        let name = format!("{}, per request ({connections} connections)", kind.name());
        report.rounds(Part::Held, name, grown.clone(), "KB", None);
    }
    let [plain, delay, sluice] = per_request;
    let goal = Some(Goal::AtMost(0.6));
    report.rounds(Part::Held, "memory per held request, Sluice / plain", ratios(&sluice, &plain), "", goal);
    let name = "memory per held request, Sluice / Envoy's own delay";
    report.rounds(Part::Held, name, ratios(&sluice, &delay), "", None);
    at_once(bench, report).await
}

/// By how much the gateway grows with each request that waits, in bytes: behind a plain one at an app that does
/// not answer, in Sluice for an app that is asleep.
async fn growth(bench: &Bench, kind: Kind, connections: usize) -> anyhow::Result<f64> {
    let cores = Cores::for_workers(WORKERS);
    let upstream = Upstream::silent(bench, &cores).await?;
    let gateway = Gateway::start(bench, kind, WORKERS, &cores).await?;
    if kind == Kind::Plain {
        gateway.set_endpoint(upstream.address()).await?;
    }
    let mut waiting = Vec::new();
    hold(&gateway, FIRST, &mut waiting).await?;
    let before = system::resident(gateway.id())?;
    hold(&gateway, connections, &mut waiting).await?;
    let after = system::resident(gateway.id())?;
    Ok((after - before) / connections as f64)
}

/// Sends so many more requests, one connection each, and waits until all are at the gateway.
async fn hold(gateway: &Gateway, requests: usize, waiting: &mut Vec<TcpStream>) -> anyhow::Result<()> {
    let request = format!(
        "GET / HTTP/1.1\r\nhost: {}\r\nuser-agent: sluice-bench\r\naccept: */*\r\n\r\n",
        gateway.host()
    );
    for _ in 0..requests {
        let mut stream = TcpStream::connect(gateway.address()).await.context("a connection to be held")?;
        stream.write_all(request.as_bytes()).await?;
        waiting.push(stream);
    }
    gateway.until_waiting(waiting.len() as u64).await
}

/// Holds thousands as streams of a few connections, wakes the app, and counts what comes out.
async fn at_once(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let wanted = bench.plan.held_at_once;
    let target = Target::new("app");
    let limit = 2 * wanted;
    let bed = Bed::of(std::slice::from_ref(&target))
        .workers(WORKERS)
        .plugin("limits", json!({"heldPerRoute": limit, "heldPerWorker": limit}))
        .upstream(Protocol::Http2)
        .start()
        .await?;
    let app = bed.start_app().await?;
    let before = system::resident(bed.envoy.id())?;
    let mut answers = send_streams(bed.envoy.address(), &target, wanted).await?;
    bed.until_filter_holds(wanted as u64).await?;
    let after = system::resident(bed.envoy.id())?;
    bed.until_held(&target, wanted as u64).await?;

    let woken = Instant::now();
    bed.wake(&target, &[app.address()])?;
    let mut right = 0;
    let mut wrong = None;
    while let Some(answer) = answers.join_next().await {
        match answer? {
            Ok(answer) if answer.status == 200 && answer.header("x-keda-http-cold-start") == "true" => {
                right += 1
            }
            Ok(answer) => wrong = Some(answer.status.to_string()),
            Err(error) => wrong = Some(format!("{error:#}")),
        }
    }
    let took = woken.elapsed();
    if let Some(wrong) = wrong {
        report
            .failed(Part::Held, &format!("{} of {wanted} held at once went wrong: {wrong}", wanted - right));
    }
    let arrived = app.requests()?.len();
    ensure!(arrived >= right, "the app saw {arrived} of {right} answered requests");
    let goal = Some(Goal::AtLeast(wanted as f64));
    report.figure(Part::Held, "held at once, released and answered 200", right as f64, "", goal);
    let each = (after - before) / wanted as f64 / 1e3;
    report.figure(Part::Held, "the same, memory per HTTP/2 stream", each, "KB", None);
    let name = "the same, endpoint usable to the last answer";
    report.figure(Part::Held, name, took.as_secs_f64() * 1e3, "ms", None);
    Ok(())
}

async fn send_streams(
    gateway: SocketAddr,
    target: &Target,
    wanted: usize,
) -> anyhow::Result<JoinSet<anyhow::Result<http::Answer>>> {
    let mut answers = JoinSet::new();
    let mut connection = Http2::connect(gateway).await?;
    for number in 0..wanted {
        if number % STREAMS == 0 && number > 0 {
            connection = Http2::connect(gateway).await?;
        }
        let connection = connection.clone();
        let request = http::get_request_http2(&target.host(), "/")?;
        answers.spawn(async move { connection.send(request).await });
    }
    Ok(answers)
}
