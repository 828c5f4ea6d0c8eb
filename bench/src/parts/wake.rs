//! The two edges of a cold start that are Sluice's: from a request's arrival to KEDA's ear, and from the app's
//! endpoint to the request at the app. What lies between (KEDA, the pod's start, istiod) is not.

use super::Part;
use crate::{
    bench::Bench,
    figures::percentile,
    report::{Goal, Report},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use sluice_proto::keda::IsActiveResponse;
use sluice_tests::{app::App, bed::Bed, clock, eds::EdsFile, http::Http1, keda::Keda, objects::Target};
use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tonic::Streaming;

/// How many apps are woken, in turns. Enough of them that one is asleep again when its turn comes; not more,
/// because Envoy takes an inotify instance for each file of endpoints, and a user has 128 of them.
const APPS: usize = 32;
/// How long the scaler calls an app active after its last request: the least that it takes.
const ACTIVITY_WINDOW: &str = "1s";
/// Between the scaler's word and the endpoint: control planes are slower than the EndpointSlice. Milliseconds,
/// another number each time, so that no tick is always met at the same point.
const LAGS: std::ops::Range<u64> = 5..45;

/// Who tells Envoy the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A control plane that is slower than the EndpointSlice.
    ControlPlane,
    /// The scaler.
    Scaler,
}

/// An app that sleeps, and who listens for it.
struct Sleeper {
    target: Target,
    /// None where the scaler tells Envoy.
    eds: Option<EdsFile>,
    stream: Streaming<IsActiveResponse>,
}

/// The moments of one wake.
struct Wake {
    id: String,
    told_ms: f64,
    /// When whoever tells Envoy its endpoints had the app's: of the scaler, the EndpointSlice's writing.
    endpoint_us: u64,
}

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    for source in [Source::ControlPlane, Source::Scaler] {
        wake_many(bench, report, source).await?;
    }
    Ok(())
}

async fn wake_many(bench: &Bench, report: &mut Report, source: Source) -> anyhow::Result<()> {
    let wakes = bench.plan.wakes;
    let targets: Vec<Target> =
        (0..wakes.min(APPS)).map(|number| Target::new(&format!("sleeper-{number}"))).collect();
    let args = ["--activity-window", ACTIVITY_WINDOW];
    let builder = Bed::of(&targets).workers(2).scaler_args(&args);
    let builder = if source == Source::ControlPlane { builder.control_plane() } else { builder };
    let bed = builder.start().await?;
    let scaler = bed.scalers.first().context("the bed has no scaler")?;
    let app = bed.start_app().await?;
    let mut sleepers = Vec::new();
    for target in targets {
        let eds = if source == Source::ControlPlane { Some(bed.eds(&target)?) } else { None };
        let stream = Keda::new(scaler.grpc(), &target)?.stream_is_active().await?;
        sleepers.push(Sleeper { target, eds, stream });
    }
    let mut woken = Vec::new();
    for (number, lag) in (0..wakes).zip(LAGS.cycle()) {
        let apps = sleepers.len();
        let sleeper = sleepers.get_mut(number % apps).context("no apps")?;
        sleeper.until_asleep(&bed).await?;
        woken.push(sleeper.wake(&bed, number, app.address(), Duration::from_millis(lag)).await?);
        if let Some(eds) = &sleeper.eds {
            eds.set(&[])?;
        }
        bed.say_ready(&sleeper.target, &[])?;
    }
    say(report, source, &woken, &app)
}

fn say(report: &mut Report, source: Source, woken: &[Wake], app: &App) -> anyhow::Result<()> {
    let told: Vec<f64> = woken.iter().map(|wake| wake.told_ms).collect();
    if source == Source::ControlPlane {
        report.figure(Part::Wake, "wakes", woken.len() as f64, "", None);
    }
    let mut line = |name: &str, samples: &[f64], percent: f64, most: Option<f64>| {
        let value = percentile(samples, percent);
        report.figure(Part::Wake, name, value, "ms", most.map(Goal::AtMost));
    };
    if source == Source::ControlPlane {
        line("arrival to `true` at KEDA, p50", &told, 50.0, Some(1.0));
        line("arrival to `true` at KEDA, p99", &told, 99.0, Some(5.0));
        line("arrival to `true` at KEDA, worst", &told, 100.0, None);
    }
    let arrived: HashMap<String, u64> =
        app.requests()?.into_iter().map(|request| (request.id, request.at_us)).collect();
    let released: Vec<f64> = woken
        .iter()
        .map(|wake| {
            let at_us = arrived.get(&wake.id).with_context(|| format!("the app never saw {}", wake.id))?;
            Ok(clock::ms_between(wake.endpoint_us, *at_us))
        })
        .collect::<anyhow::Result<_>>()?;
    match source {
        Source::ControlPlane => {
            line("endpoint usable to request at the app, p50", &released, 50.0, Some(5.0));
            line("endpoint usable to request at the app, p99", &released, 99.0, Some(20.0));
            line("endpoint usable to request at the app, worst", &released, 100.0, None);
        }
        Source::Scaler => {
            line("EDS by the scaler: ready to request at the app, p50", &released, 50.0, Some(15.0));
            line("EDS by the scaler: ready to request at the app, p99", &released, 99.0, None);
            line("EDS by the scaler: ready to request at the app, worst", &released, 100.0, None);
        }
    }
    Ok(())
}

// === impl Sleeper ===

impl Sleeper {
    /// Waits until nobody thinks that the app is awake.
    async fn until_asleep(&mut self, bed: &Bed) -> anyhow::Result<()> {
        // The first word on a stream, or the one after the last wake's.
        while self.stream.message().await?.context("KEDA's stream ended")?.result {}
        bed.until_usable(&self.target, 0).await?;
        bed.until_route(&self.target, "the hint `notReady`", |route| route.hint == "notReady").await?;
        Ok(())
    }

    async fn wake(
        &mut self,
        bed: &Bed,
        number: usize,
        app: SocketAddr,
        lag: Duration,
    ) -> anyhow::Result<Wake> {
        let id = format!("wake-{number}");
        let request = Request::get("/").header("host", self.target.host()).header("x-test-id", &id);
        let request = request.body(Full::<Bytes>::default())?;
        // The connection is there before: a handshake is no part of an arrival.
        let mut connection = Http1::connect(bed.envoy.address()).await?;
        let stream = &mut self.stream;
        let sent = Instant::now();
        let answer = tokio::spawn(async move { connection.send(request).await });
        let told = stream.message().await?.context("KEDA's stream ended")?;
        let told_ms = sent.elapsed().as_secs_f64() * 1000.0;
        ensure!(told.result, "{id}: KEDA was told false");

        let ready_us = clock::now_us();
        bed.say_ready(&self.target, &[app])?;
        let endpoint_us = match &self.eds {
            Some(eds) => {
                bed.until_route(&self.target, "the hint `ready`", |route| route.hint == "ready").await?;
                tokio::time::sleep(lag).await;
                eds.set(&[app])?
            }
            None => ready_us,
        };
        let answer = answer.await??;
        ensure!(answer.status == 200, "{id}: answered with {}", answer.status);
        ensure!(answer.header("x-keda-http-cold-start") == "true", "{id}: it was not held");
        Ok(Wake { id, told_ms, endpoint_us })
    }
}
