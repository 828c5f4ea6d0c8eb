//! From a request's arrival to the write of its app's scale, by the real KEDA on a real API server: what the add-on
//! is slow at. KEDA's own part of it, from `true` on the stream, is in it.

use super::Part;
use crate::{
    bench::Bench,
    figures::percentile,
    report::{Goal, Report},
};
use anyhow::{Context as _, ensure};
use serde_json::json;
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
    let (woken, seen) = mpsc::channel();
    // The bed has threads of its own: this one would wait in vain for them.
    tokio::task::spawn_blocking(move || {
        let bed = cluster::start(&dir)?;
        let of = Arc::clone(&bed);
        cluster::inside(&bed, async move |cluster| wake_all(&cluster, &of, wakes, &woken).await)
    })
    .await??;
    let seen: Vec<Wake> = seen.into_iter().collect();
    ensure!(seen.len() == wakes, "{} wakes of {wakes}", seen.len());
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
    line("arrival to the answer's first byte, p50", &answered, 50.0, None);
    line("arrival to the answer's first byte, p99", &answered, 99.0, None);
    Ok(())
}

async fn wake_all(
    cluster: &Cluster,
    bed: &Bed,
    wakes: usize,
    woken: &mpsc::Sender<Wake>,
) -> anyhow::Result<()> {
    let sluice = Sluice::install(cluster, &Settings::default()).await?;
    let namespace = cluster.namespace("wakes").await?;
    let apps: Vec<App> =
        (0..wakes).map(|number| App::new(&sluice, &namespace, &format!("app-{number}"))).collect();
    // Not back to zero while others are woken.
    let stays = json!({"scaledownPeriod": 3_600});
    let objects: Vec<_> = apps
        .iter()
        .flat_map(|app| app.workload().into_iter().chain([app.http_scaled_object(stays.clone())]))
        .collect();
    cluster.apply(&objects).await?;
    for app in &apps {
        app.scaled_object_ready().await?;
    }
    let all: Vec<&App> = apps.iter().collect();
    sluice.until_keda_listens(&all).await?;
    let gateway = Gateway::start(&sluice, 2, &all).await?;
    for app in &apps {
        until_quiet(bed, &namespace).await?;
        let wake = wake(&gateway, bed, app).await?;
        app.until_ready(1).await?;
        // The bed's HPA controller looks at every app that is awake once a second, not every 15 s: with fifty of
        // them awake it is that what would be measured.
        let objects = ["httpscaledobject", "deployment"].map(|kind| format!("{kind}/{}", app.name));
        let [scaled, deployment] = objects.each_ref().map(String::as_str);
        cluster.kubectl(&["delete", "--namespace", &namespace, "--wait=false", scaled, deployment]).await?;
        // The receiver waits for the end of this.
        let _ = woken.send(wake);
    }
    Ok(())
}

async fn wake(gateway: &Gateway, bed: &Bed, app: &App) -> anyhow::Result<Wake> {
    let answer = gateway.spawn_get(app, "/", &app.name).await??;
    ensure!(answer.status == 200, "{}: {} {}", app.name, answer.status, answer.text());
    let access = gateway.envoy.access(&app.name).await?;
    let scales = audit::scales(bed, &app.namespace, &app.name)?;
    let written = scales.first().with_context(|| format!("{}: KEDA has written no scale", app.name))?;
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
