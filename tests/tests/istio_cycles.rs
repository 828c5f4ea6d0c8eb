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

/// With Pods from before that are still ending.
const NAPS: u64 = 30;

/// How long a process goes on serving after SIGTERM, as with a `preStop` hook: longer than the gateway takes to hear
/// of it, and short, since a cycle waits for it.
const END_DELAY_MS: u32 = 500;

/// The gateway's workers: each may hear from istiod first.
const WORKERS: u64 = 2;

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
    /// Answers of the gateway's own for want of a host; where they are not allowed there are none.
    lost: AtomicU64,
    allows_losses: bool,
    /// How many have a request under way.
    busy: AtomicU64,
    /// Whether they send.
    sends: watch::Sender<bool>,
}

#[test]
fn three_hundred_sleeps_and_wakes_under_steady_load_give_only_200() {
    istio::run("cycles", async |world| {
        let app = world.app("shop").await?;
        app.end_after(END_DELAY_MS).await?;
        // Asleep is who has no Pod left, ending ones included. While there are some, what istiod sends when one of them has
        // come to its end may take the next sleep with it, before the scaler can have told of it: see below.
        let sleep = async |_: &Load| {
            app.scale(0).await?;
            app.asleep().await
        };
        cycles(&world, &app, CYCLES, false, sleep).await
    });
}

/// Each sleep's Pod ends some sleeps later. istiod sends that 100 ms after it was told, with whatever it has been told in the
/// meantime: an app that falls asleep in just that moment is gone from the gateway at once. (docs/istio.md, "One case is left".)
#[test]
fn naps_with_pods_still_ending_cost_each_worker_one_answer_at_most() {
    istio::run("naps", async |world| {
        let app = world.app("shop").await?;
        let lost = AtomicU64::new(0);
        let nap = async |load: &Load| {
            let before = lost.swap(load.lost.load(Ordering::Relaxed), Ordering::Relaxed);
            let in_this_one = lost.load(Ordering::Relaxed) - before;
            ensure!(in_this_one <= WORKERS, "{in_this_one} were lost in one nap");
            app.scale(0).await
        };
        cycles(&world, &app, NAPS, true, nap).await
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
        cycles(&world, &app, CRASHES, false, crash).await
    });
}

/// Runs the cycles, with `sleep` to send the app to sleep.
async fn cycles(
    world: &World,
    app: &App,
    cycles: u64,
    allows_losses: bool,
    sleep: impl AsyncFn(&Load) -> Result<()>,
) -> Result<()> {
    let load = Arc::new(Load {
        enough: AtomicBool::new(false),
        good: AtomicU64::new(0),
        cold: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        allows_losses,
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
    println!("{good} answers, {cold} of them cold; {} lost", load.lost.load(Ordering::Relaxed));
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
        if load.allows_losses && answer.status == 503 && answer.text() == "no healthy upstream" {
            load.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
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
