//! Many sleeps and wakes.

use sluice_tests::{
    app::{App, AppOptions},
    bed::Bed,
    http::{self, Http1, Http2},
    objects::{Condition, Target},
    standin::{self, Options, Surroundings, What},
    wait,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};

/// With a control plane that lags like istiod.
const CYCLES: u64 = 500;
/// With endpoints from the scaler, which is the first to know and must not be the first to tell.
const CYCLES_BY_SCALER: u64 = 300;

/// Clients that send their next request when they have the answer to the last one; a half of them over HTTP/1.1.
const CLIENTS: u64 = 8;

/// How many answers a wake has to bring before the app goes to sleep again: more than there were holds, so that
/// warm requests are among them.
const ANSWERS_PER_WAKE: u64 = 3 * CLIENTS;

/// The control plane's share: after Kubernetes and the scaler know, Envoy's endpoints change. istiod's debounce
/// makes that 102 ms by default. It is the world's delay and not a wait of the test's.
const ENDPOINT_LAG: Duration = Duration::from_millis(100);

/// What the clients saw.
#[derive(Default)]
struct Seen {
    enough: AtomicBool,
    good: AtomicU64,
    cold: AtomicU64,
}

#[tokio::test]
async fn five_hundred_sleeps_and_wakes_under_steady_load_give_only_200() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).workers(2).control_plane();
    cycles(&bed.start().await.unwrap(), &target, CYCLES, Some(ENDPOINT_LAG)).await;
}

#[tokio::test]
async fn three_hundred_with_endpoints_from_the_scaler_give_only_200() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).workers(2);
    cycles(&bed.start().await.unwrap(), &target, CYCLES_BY_SCALER, None).await;
}

/// `lag`: the control plane's; none if there is none but the scaler.
async fn cycles(bed: &Bed, target: &Target, cycles: u64, lag: Option<Duration>) {
    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(number % 2 == 0, bed.envoy.address(), target.host(), Arc::clone(&seen)));
    }
    for cycle in 0..cycles {
        let ran = tokio::select! {
            ran = one_cycle(bed, target, lag, &seen) => ran,
            // A client ends early only with what it did not expect.
            Some(ended) = clients.join_next() => ended.unwrap(),
        };
        if let Err(error) = ran {
            panic!("cycle {cycle}: {error:#}");
        }
    }
    // Let the held ones out.
    let app = bed.start_app().await.unwrap();
    bed.wake(target, &[app.address()]).unwrap();
    seen.enough.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap().unwrap();
    }
    let (good, cold) = (seen.good.load(Ordering::Relaxed), seen.cold.load(Ordering::Relaxed));
    assert!(
        cold >= cycles * CLIENTS,
        "{cold} of {good} answers were cold: every client waits in every cycle"
    );
    assert!(good > cold, "and has warm ones in between");
    let counted =
        bed.until_route(target, "all counted", |route| (route.arrivals, route.in_flight) == (good, 0)).await;
    assert_eq!(counted.unwrap().cold_starts, cold, "what the clients were told is what was counted");
}

/// All clients wait; an app starts and answers; it is taken away.
async fn one_cycle(bed: &Bed, target: &Target, lag: Option<Duration>, seen: &Seen) -> anyhow::Result<()> {
    bed.until_filter_holds(CLIENTS).await?;
    let before = seen.good.load(Ordering::Relaxed);
    let mut app: App = bed.start_app().await?;
    bed.say_ready(target, &[app.address()])?;
    if let Some(lag) = lag {
        tokio::time::sleep(lag).await;
        bed.set_endpoints(target, &[app.address()])?;
    }
    wait::until("answers after the wake", async || {
        let answers = seen.good.load(Ordering::Relaxed) - before;
        if answers >= ANSWERS_PER_WAKE { Ok(()) } else { Err(format!("{answers}")) }
    })
    .await?;

    bed.objects.endpoints(target, &[(app.address(), Condition::Terminating)])?;
    if let Some(lag) = lag {
        // The control plane hears of it when the scaler does, and then waits; a folder takes longer to tell than a
        // watch, up to 45 ms.
        bed.until_route(target, "the scaler to know", |route| route.hint == "notReady").await?;
        tokio::time::sleep(lag).await;
        bed.set_endpoints(target, &[])?;
    }
    // As a preStop hook would: the process ends when the gateway has let go of it.
    let connections = format!("cluster.{}.upstream_cx_active", target.cluster());
    wait::until("the gateway to close its connections", async || match bed.envoy.stat(&connections).await {
        Ok(0) => Ok(()),
        Ok(open) => Err(format!("{open} open")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await?;
    app.stop().await
}

async fn client(is_http1: bool, address: SocketAddr, host: String, seen: Arc<Seen>) -> anyhow::Result<()> {
    let mut http1 = Http1::connect(address).await?;
    let http2 = Http2::connect(address).await?;
    while !seen.enough.load(Ordering::Relaxed) {
        let answer = if is_http1 {
            http1.send(http::get_request(&host, "/")?).await?
        } else {
            http2.send(http::get_request_http2(&host, "/")?).await?
        };
        anyhow::ensure!(answer.status == 200, "an answer was {}: {}", answer.status, answer.text());
        if answer.header("x-keda-http-cold-start") == "true" {
            seen.cold.fetch_add(1, Ordering::Relaxed);
        }
        seen.good.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The whole circle with nothing but public protocols between its parts: see [`sluice_tests::standin`].
#[tokio::test]
async fn keda_wakes_the_app_and_puts_it_to_sleep_again() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target))
        .scaler_args(&["--activity-window", "1s"])
        .start()
        .await
        .unwrap();
    let (events, mut happened) = mpsc::unbounded_channel();
    let options = Options {
        target: target.clone(),
        polling_interval: Duration::from_millis(100),
        cooldown: Duration::from_millis(500),
        app: AppOptions { start_delay: Duration::from_millis(50) },
        termination_delay: Duration::from_millis(500),
    };
    let surroundings = Surroundings {
        scaler: bed.scalers[0].grpc(),
        objects: bed.objects.clone(),
        control_plane: None,
        dir: bed.dir().to_owned(),
        events,
    };
    let use_it = async {
        for round in 1..=3 {
            let answer = bed.get(&target, "/").await.unwrap();
            let said = (answer.status.as_u16(), answer.header("x-keda-http-cold-start"));
            assert_eq!(said, (200, "true"), "round {round}");
            assert_eq!(bed.get(&target, "/").await.unwrap().status, 200, "round {round}");
            let mut steps = Vec::new();
            while steps.last() != Some(&What::ProcessEnded) {
                steps.push(happened.recv().await.expect("the stand-in runs").what);
            }
            let at = |what: &What| steps.iter().position(|step| step == what);
            let order = [
                at(&What::Told),
                at(&What::ProcessReady),
                at(&What::Slices { ready: 1 }),
                at(&What::ScaledToZero),
                at(&What::ProcessEnded),
            ];
            assert!(order.is_sorted() && order.iter().all(Option::is_some), "round {round}: {steps:?}");
        }
    };
    tokio::select! {
        ended = standin::run(options, surroundings, std::future::pending()) => panic!("the stand-in ended: {ended:?}"),
        () = use_it => {}
    }
}
