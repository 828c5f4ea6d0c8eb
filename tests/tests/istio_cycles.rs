//! Many sleeps and wakes under steady load, with istiod's own delivery of endpoints and its default debounce.

use anyhow::{Result, ensure};
use sluice_tests::{
    cluster::istio::{self, App, World},
    http::{self, Http1, Http2},
    wait,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::{sync::watch, task::JoinSet};

const CYCLES: u64 = 300;

/// With an app that is not drained.
const CRASHES: u64 = 100;

/// Clients that send their next request when they have the answer to the last one; a half of them over HTTP/1.1.
const CLIENTS: u64 = 8;

/// How many answers a wake has to bring before the app goes to sleep again: more than there were holds, so that
/// warm requests are among them.
const ANSWERS_PER_WAKE: u64 = 3 * CLIENTS;

/// What the clients see and do.
struct Load {
    enough: AtomicBool,
    good: AtomicU64,
    cold: AtomicU64,
    /// How many have a request under way.
    busy: AtomicU64,
    /// Whether they send.
    sends: watch::Sender<bool>,
}

#[test]
fn three_hundred_sleeps_and_wakes_under_steady_load_give_only_200() {
    istio::run("cycles", async |world| {
        let app = world.app("shop").await?;
        cycles(&world, &app, CYCLES, async |_| app.scale(0).await).await
    });
}

/// The process is gone at once, and the gateway goes on listing its address until istiod has said otherwise: what
/// comes once Kubernetes knows is not sent there. (What was under way when it died is lost, as without Sluice.)
#[test]
fn a_pod_that_dies_undrained_costs_no_later_request() {
    istio::run("crashes", async |world| {
        let app = world.app("shop").await?;
        let crash = async |load: &Load| {
            load.sends.send_replace(false);
            wait::until("the clients to be idle", async || match load.busy.load(Ordering::SeqCst) {
                0 => Ok(()),
                busy => Err(format!("{busy} are not")),
            })
            .await?;
            app.crash().await?;
            world
                .sluice
                .until("that the app is gone", |state| match state.route(&app.namespace, &app.name) {
                    Some(route) if route.hint == "notReady" => Ok(()),
                    other => Err(format!("{other:?}")),
                })
                .await?;
            load.sends.send_replace(true);
            Ok(())
        };
        cycles(&world, &app, CRASHES, crash).await
    });
}

/// Runs the cycles, with `sleep` to send the app to sleep.
async fn cycles(
    world: &World,
    app: &App,
    cycles: u64,
    sleep: impl AsyncFn(&Load) -> Result<()>,
) -> Result<()> {
    let load = Arc::new(Load {
        enough: AtomicBool::new(false),
        good: AtomicU64::new(0),
        cold: AtomicU64::new(0),
        busy: AtomicU64::new(0),
        sends: watch::Sender::new(true),
    });
    let address = world.address().await?;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(number % 2 == 0, address, app.host(), Arc::clone(&load)));
    }
    for cycle in 0..cycles {
        let ran = tokio::select! {
            ran = one_cycle(world, app, &load, &sleep) => ran,
            // A client ends early only with what it did not expect.
            Some(ended) = clients.join_next() => ended?,
        };
        if let Err(error) = ran {
            let good = load.good.load(Ordering::Relaxed);
            return Err(error.context(format!("cycle {cycle}, after {good} good answers")));
        }
    }
    // Let the held ones out.
    app.scale(1).await?;
    load.enough.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let (good, cold) = (load.good.load(Ordering::Relaxed), load.cold.load(Ordering::Relaxed));
    ensure!(
        cold >= cycles * CLIENTS,
        "{cold} of {good} answers were cold: every client waits in every cycle"
    );
    ensure!(good > cold, "and has warm ones in between");
    Ok(())
}

/// All clients wait, and the gateway has no endpoint left; the app wakes and answers; it is sent to sleep.
async fn one_cycle(
    world: &World,
    app: &App,
    load: &Load,
    sleep: &impl AsyncFn(&Load) -> Result<()>,
) -> Result<()> {
    let endpoints = format!("cluster.{};.membership_total", app.cluster_name());
    for (stat, wanted) in [("wasmcustom.sluice_held", CLIENTS), (&endpoints, 0)] {
        wait::until(format!("{stat} to be {wanted}"), async || match world.gateway.stat(stat).await {
            Ok(value) if value == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
    }
    let before = load.good.load(Ordering::Relaxed);
    app.scale(1).await?;
    wait::until("answers after the wake", async || {
        let answers = load.good.load(Ordering::Relaxed) - before;
        if answers >= ANSWERS_PER_WAKE { Ok(()) } else { Err(format!("{answers}")) }
    })
    .await?;
    sleep(load).await
}

async fn client(is_http1: bool, address: SocketAddr, host: String, load: Arc<Load>) -> Result<()> {
    let mut http1 = Http1::connect(address).await?;
    let http2 = Http2::connect(address).await?;
    let mut sends = load.sends.subscribe();
    while !load.enough.load(Ordering::Relaxed) {
        // Busy first: whoever has said "stop" and then sees nobody busy has stopped everybody.
        load.busy.fetch_add(1, Ordering::SeqCst);
        if !*sends.borrow_and_update() {
            load.busy.fetch_sub(1, Ordering::SeqCst);
            sends.wait_for(|sends| *sends).await?;
            continue;
        }
        let answer = if is_http1 {
            http1.send(http::get_request(&host, "/")?).await?
        } else {
            http2.send(http::get_request_http2(&host, "/")?).await?
        };
        load.busy.fetch_sub(1, Ordering::SeqCst);
        ensure!(
            answer.status == 200,
            "an answer was {}: {} {:?}",
            answer.status,
            answer.text(),
            answer.headers
        );
        if answer.header("x-keda-http-cold-start") == "true" {
            load.cold.fetch_add(1, Ordering::Relaxed);
        }
        load.good.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
