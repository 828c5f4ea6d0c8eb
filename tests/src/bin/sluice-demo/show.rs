//! What the demo prints, step by step.

use crate::{
    Args,
    timeline::Timeline,
    world::{World, request_id},
};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use sluice_tests::{
    app::{self, AppRequest},
    clock::ms_between,
    envoy::{self, Access},
    http::{self, Answer},
    paths,
    standin::What,
    wait,
};
use std::{fs, time::Duration};

/// The header that says whether a request waited for its app.
const COLD_START: &str = "x-keda-http-cold-start";

/// How often new requests are looked for.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

/// How many requests of one interval are shown one by one.
const SHOWN_SINGLY: usize = 5;

/// What runs, and where.
pub(crate) fn surroundings(args: &Args, world: &World) -> anyhow::Result<()> {
    let version = std::env::var("SLUICE_ENVOY").map_or_else(
        |_| envoy::pinned_version().map(|version| format!("Envoy {version}")),
        |own| Ok(format!("Envoy ({own})")),
    )?;
    let size = fs::metadata(paths::wasm()?)?.len() / 1024;
    let (envoy, scaler) = (world.envoy()?, world.scaler()?);
    println!("Sluice on the real Envoy");
    println!(
        "   gateway  http://{}  {version}, {} workers, the filter in it ({size} KiB); admin http://{}",
        envoy.address(),
        args.workers,
        envoy.admin()
    );
    println!("   scaler   http://{}/debug/state  gRPC on {}", scaler.http(), scaler.grpc());
    println!("   app      {}: takes {} ms to start; not running", world.target.cluster(), args.app_start_ms);
    match args.endpoint_lag_ms {
        Some(lag) => println!(
            "   stand-in for KEDA, kubelet and istiod (endpoints reach Envoy {lag} ms after Kubernetes has them)"
        ),
        None => println!("   stand-in for KEDA and kubelet; Envoy has its endpoints from the scaler"),
    }
    println!("   logs     {}\n", world.logs());
    Ok(())
}

/// Sends the first request and prints its way. Returns the line for machines.
pub(crate) async fn cold_start(world: &mut World) -> anyhow::Result<String> {
    println!("1. A request to the app, which is not running");
    let id = request_id();
    let request = request_to(world, &id)?;
    let address = world.envoy()?.address();
    let mut answer = tokio::spawn(http::request(address, request));
    let woken = async {
        while !world.wake.is_done(world.has_control_plane) {
            world.event().await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        woken = woken => woken?,
        answer = &mut answer => {
            let answer = answer?.context("the first request got no answer")?;
            bail!("the first request was not held: it was answered {} ({})", answer.status, answer.text().trim());
        }
        () = tokio::time::sleep(wait::PATIENCE) => bail!("the app was not woken within {} s", wait::PATIENCE.as_secs()),
    }
    let answer = answer.await?.context("the first request got no answer")?;
    let access = world.envoy()?.access(&id).await?;
    let timeline = Timeline::new(&access, &world.wake, &at_app(world, Some(&id)).await?)?;
    print!("{timeline}");
    println!("   {}\n", described(&answer));
    Ok(timeline.summary())
}

/// Sends a second one.
pub(crate) async fn warm_request(world: &World) -> anyhow::Result<()> {
    println!("2. The same again: the app runs, the gateway forwards");
    let id = request_id();
    let answer = http::request(world.envoy()?.address(), request_to(world, &id)?).await?;
    let access = world.envoy()?.access(&id).await?;
    println!("   {} after {:.2} ms\n", described(&answer), took_ms(&access));
    Ok(())
}

/// Waits for the scale to zero.
pub(crate) async fn back_to_zero(world: &mut World) -> anyhow::Result<()> {
    println!("3. Nobody asks any more");
    let mut since_us = None;
    loop {
        let event = world.event().await?;
        let from_us = *since_us.get_or_insert(event.at_us);
        let step = match event.what {
            What::ScaledToZero => "KEDA scales to zero; the EndpointSlice says terminating",
            What::Endpoints { usable: 0 } => "Envoy has no endpoint left",
            What::ProcessEnded => "the app's process has ended",
            _ => continue,
        };
        println!("   +{:8.2} ms  {step}", ms_between(from_us, event.at_us));
        if event.what == What::ProcessEnded {
            println!();
            return Ok(());
        }
    }
}

/// Shows what the user does, until he ends it.
pub(crate) async fn follow(world: &mut World) -> anyhow::Result<()> {
    println!("4. Your turn; Ctrl-C ends everything");
    println!("   curl -i -H 'Host: {}' http://{}/", world.target.host(), world.envoy()?.address());
    let mut seen = world.envoy()?.access_log()?.len();
    let mut shown_wake = true;
    let mut tick = tokio::time::interval(FOLLOW_INTERVAL);
    loop {
        tokio::select! {
            event = world.event() => match event?.what {
                What::Told => shown_wake = false,
                What::ScaledToZero => println!("\n   KEDA scales to zero"),
                _ => {}
            },
            _ = tick.tick() => {
                world.must_run()?;
                let log = world.envoy()?.access_log()?;
                let new = log.get(seen..).unwrap_or_default();
                seen = log.len();
                if !shown_wake && let Some(first) = new.iter().find(|access| world.wake.was_caused_by(access)) {
                    shown_wake = true;
                    println!("\n   A wake");
                    print!("{}", Timeline::new(first, &world.wake, &at_app(world, None).await?)?);
                }
                requests(new);
            }
        }
    }
}

fn requests(new: &[Access]) {
    if new.len() <= SHOWN_SINGLY {
        for access in new {
            println!("   {} after {:.2} ms", access.status, took_ms(access));
        }
        return;
    }
    let failed = new.iter().filter(|access| access.status != 200).count();
    let slowest = new.iter().map(took_ms).fold(0.0, f64::max);
    println!("   {} requests, {failed} of them not 200, the slowest after {slowest:.2} ms", new.len());
}

/// The request at the app: by its id, or the first one that the process got.
async fn at_app(world: &World, id: Option<&str>) -> anyhow::Result<AppRequest> {
    let log = world.wake.requests().context("no app was started")?;
    wait::until("the request in the app's log", async || {
        let requests = app::read_requests(log).map_err(|error| format!("{error:#}"))?;
        let number = requests.len();
        let wanted = requests.into_iter().find(|request| id.is_none_or(|id| request.id == id));
        wanted.ok_or_else(|| format!("{number} others"))
    })
    .await
}

fn request_to(world: &World, id: &str) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut request = http::get_request(&world.target.host(), "/")?;
    request.headers_mut().insert("x-test-id", id.parse()?);
    Ok(request)
}

fn described(answer: &Answer) -> String {
    format!("{}, X-KEDA-HTTP-Cold-Start: {}", answer.status, answer.header(COLD_START))
}

/// From arrival to the first byte of the answer; 0 where there was none.
fn took_ms(access: &Access) -> f64 {
    access.first_byte_us.map_or(0.0, |first_byte_us| ms_between(access.start_us, first_byte_us))
}
