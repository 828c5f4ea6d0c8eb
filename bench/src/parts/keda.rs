//! From a request's arrival to the write of its app's scale, by the real KEDA on a real API server: what the add-on
//! is slow at. Beside it, in turns, what KEDA takes alone: from `true` on the stream of a scaler that knows it anyway.

mod alone;

use super::Part;
use crate::{
    bench::Bench,
    figures::percentile,
    report::{Goal, Report},
};
use alone::Alone;
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sluice_tests::{
    clock,
    cluster::{
        self, Cluster,
        bed::Bed,
        sluice::{App, Gateway, Settings, Sluice, audit},
    },
    wait,
};
use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

/// How many apps are woken, each once, one after the other.
const WAKES: usize = 50;
/// KEDA's client has 20 requests a second and a burst of 30. When it has written nothing for so long, what the wake
/// before has left to be written is written: each wake finds KEDA with nothing to do, as a first request does.
const QUIET: Duration = Duration::from_millis(1_500);

/// The goal of 8 ms is of a machine on which KEDA alone takes 4.3 ms. On any other it is this many times what KEDA takes there.
const RATIO: f64 = 8.0 / 4.3;

/// What one turn has found.
enum Turn {
    Sluice(Wake),
    /// KEDA alone: from `true` to the write, answered, in ms.
    Keda(f64),
}

/// The moments of one wake, in ms after the request's arrival.
struct Wake {
    /// KEDA's first request for it is at the API server, to read the scale.
    read_ms: f64,
    /// KEDA's write of the scale is at the API server.
    received_ms: f64,
    /// The write is done, and answered.
    written_ms: f64,
    /// The first byte of the app's answer.
    answered_ms: f64,
}

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (wakes, dir) = (bench.plan.wakes.min(WAKES), bench.dir("keda")?);
    let (woken, turns) = mpsc::channel();
    // The bed has threads of its own: this one would wait in vain for them.
    tokio::task::spawn_blocking(move || {
        let bed = cluster::start(&dir)?;
        let of = Arc::clone(&bed);
        cluster::inside(&bed, async move |cluster| wake_all(&cluster, &of, wakes, &woken).await)
    })
    .await??;
    let (mut seen, mut alone) = (Vec::new(), Vec::new());
    for turn in turns {
        match turn {
            Turn::Sluice(wake) => seen.push(wake),
            Turn::Keda(written_ms) => alone.push(written_ms),
        }
    }
    ensure!(
        seen.len() == wakes && alone.len() == wakes,
        "{} and {} wakes of {wakes}",
        seen.len(),
        alone.len()
    );
    let moments = |of: fn(&Wake) -> f64| seen.iter().map(of).collect::<Vec<f64>>();
    let (read, received) = (moments(|wake| wake.read_ms), moments(|wake| wake.received_ms));
    let (written, answered) = (moments(|wake| wake.written_ms), moments(|wake| wake.answered_ms));
    report.figure(Part::Keda, "wakes by the real KEDA", wakes as f64, "", None);
    let mut line = |name: &str, samples: &[f64], percent: f64, most: Option<f64>| {
        report.figure(Part::Keda, name, percentile(samples, percent), "ms", most.map(Goal::AtMost));
    };
    line("arrival to KEDA's reading of the scale, p50", &read, 50.0, None);
    line("arrival to the write at the API server, p50", &received, 50.0, None);
    line("arrival to the write of the scale, p50", &written, 50.0, Some(8.0));
    line("arrival to the write of the scale, p99", &written, 99.0, Some(30.0));
    line("arrival to the write of the scale, worst", &written, 100.0, None);
    line("KEDA alone: true to the write of the scale, p50", &alone, 50.0, None);
    line("KEDA alone: true to the write of the scale, p99", &alone, 99.0, None);
    line("arrival to the answer's first byte, p50", &answered, 50.0, None);
    line("arrival to the answer's first byte, p99", &answered, 99.0, None);
    let over = percentile(&written, 50.0) / percentile(&alone, 50.0);
    report.figure(
        Part::Keda,
        "the write of the scale / KEDA alone, p50",
        over,
        "",
        Some(Goal::AtMost(RATIO)),
    );
    Ok(())
}

async fn wake_all(
    cluster: &Cluster,
    bed: &Bed,
    wakes: usize,
    woken: &mpsc::Sender<Turn>,
) -> anyhow::Result<()> {
    let sluice = Sluice::install(cluster, &Settings::default()).await?;
    let alone = Alone::serve().await?;
    let namespace = cluster.namespace("wakes").await?;
    let apps = |name: &str| -> Vec<App> {
        (0..wakes).map(|number| App::new(&sluice, &namespace, &format!("{name}-{number}"))).collect()
    };
    let (by_sluice, by_keda) = (apps("app"), apps("alone"));
    let gateway = Gateway::start(&sluice, 2, &by_sluice.iter().collect::<Vec<_>>()).await?;
    for (app, other) in by_sluice.iter().zip(&by_keda) {
        // Not back to zero meanwhile: KEDA's writes then would be among those that are waited for.
        let object = app.http_scaled_object(json!({"scaledownPeriod": 3_600}));
        create(cluster, app, object).await?;
        sluice.until_keda_listens(&[app]).await?;
        gateway.linked(&sluice).await?;
        until_quiet(bed, &namespace).await?;
        let wake = wake(&gateway, bed, app).await?;
        delete(cluster, app, "httpscaledobject").await?;
        // The receiver waits for the end of this.
        let _ = woken.send(Turn::Sluice(wake));

        let object = other.scaled_object(json!({
            "pollingInterval": null,
            "cooldownPeriod": 3_600,
            "triggers": [{"type": "external-push", "metadata": {"scalerAddress": alone.address()}}],
        }));
        create(cluster, other, object).await?;
        alone.followed(&other.name).await?;
        until_quiet(bed, &namespace).await?;
        let told_us = alone.wake(&other.name)?;
        other.until_ready(1).await?;
        let written = written(bed, other)?;
        delete(cluster, other, "scaledobject").await?;
        let _ = woken.send(Turn::Keda(clock::ms_between(told_us, written.at_us())));
    }
    Ok(())
}

/// An app that KEDA is ready for. One at a time: the bed's HPA controller looks at every ScaledObject's app once a second, not
/// every 15 s, one that sleeps included. A hundred of them would be the load of 1,500.
async fn create(cluster: &Cluster, app: &App, object: Value) -> anyhow::Result<()> {
    let objects: Vec<_> = app.workload().into_iter().chain([object]).collect();
    cluster.apply(&objects).await?;
    app.scaled_object_ready().await
}

async fn delete(cluster: &Cluster, app: &App, kind: &str) -> anyhow::Result<()> {
    app.until_ready(1).await?;
    let objects = [kind, "deployment"].map(|kind| format!("{kind}/{}", app.name));
    let [scaled, deployment] = objects.each_ref().map(String::as_str);
    cluster
        .kubectl(&["delete", "--namespace", &app.namespace, "--wait=false", scaled, deployment])
        .await
        .map(drop)
}

fn written(bed: &Bed, app: &App) -> anyhow::Result<audit::Request> {
    let scales = audit::scales(bed, &app.namespace, &app.name)?;
    scales.into_iter().next().with_context(|| format!("{}: KEDA has written no scale", app.name))
}

async fn wake(gateway: &Gateway, bed: &Bed, app: &App) -> anyhow::Result<Wake> {
    let answer = gateway.spawn_get(app, "/", &app.name).await??;
    ensure!(answer.status == 200, "{}: {} {}", app.name, answer.status, answer.text());
    let access = gateway.envoy.access(&app.name).await?;
    let written = written(bed, app)?;
    let reads = audit::reads(bed, &app.namespace, &app.name)?;
    let mut reads = reads.iter().filter(|read| read.at <= written.received && read.at_us() > access.start_us);
    let read = reads.next_back().with_context(|| format!("{}: KEDA has read no scale", app.name))?;
    let answered_us = access.first_byte_us.with_context(|| format!("{}: not answered", app.name))?;
    let after = |us: u64| clock::ms_between(access.start_us, us);
    Ok(Wake {
        read_ms: after(read.received_us()),
        received_ms: after(written.received_us()),
        written_ms: after(written.at_us()),
        answered_ms: after(answered_us),
    })
}

/// Waits until KEDA has written nothing for [`QUIET`].
async fn until_quiet(bed: &Bed, namespace: &str) -> anyhow::Result<()> {
    let mut last = (0, Instant::now());
    wait::until("KEDA to have nothing to write", async || {
        let writes = audit::writes(bed, namespace).map_err(|error| format!("{error:#}"))?.len();
        if writes != last.0 {
            last = (writes, Instant::now());
        }
        if last.1.elapsed() >= QUIET { Ok(()) } else { Err(format!("{writes} writes")) }
    })
    .await
}
