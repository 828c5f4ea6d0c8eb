//! Requests that come so seldom that a rate of them is next to nothing.
//!
//! Two things make the add-on miss them: it rounds a rate like one in an hour to zero, and KEDA asks it at intervals,
//! between which a short request has come and gone.

use crate::wake::{ensure_cold, sleeping};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_tests::cluster::sluice::{self, App, Gateway, Settings, Sluice, audit};
use std::time::Duration;

/// A minute, a cooldown of five minutes (KEDA's default) and half a minute for which a request counts as activity
/// (ours), each divided by thirty. KEDA's polling interval stays at 15 s, half an hour in that measure: all that
/// keeps the app awake are the edges that the scaler tells by itself.
const MINUTE: Duration = Duration::from_secs(2);
/// See [`MINUTE`].
const COOLDOWN_SECONDS: u32 = 10;
/// So many of these minutes: longer than the cooldown and two polling intervals.
const REQUESTS: u32 = 21;

async fn stays_awake(sluice: &Sluice, name: &str, metric: Value) -> Result<()> {
    let bed = sluice.cluster().bed().context("needs the bed")?.clone();
    let spec = json!({"scaledownPeriod": COOLDOWN_SECONDS, "scalingMetric": metric});
    let app = sleeping(sluice, name, spec).await?;
    let gateway = Gateway::start(sluice, 1, &[&app]).await?;
    ensure_cold(&gateway.get(&app, "/").await?)?;
    let mut minutes = tokio::time::interval(MINUTE);
    for number in 1..=REQUESTS {
        minutes.tick().await;
        let answer = gateway.get(&app, "/").await?;
        let cold = answer.header("x-keda-http-cold-start");
        ensure!(answer.status == 200 && cold == "false", "request {number}: {answer:?}");
    }
    let scales = audit::scales(&bed, &app.namespace, &app.name)?;
    ensure!(scales.len() == 1, "it was scaled again: {scales:#?}");
    // And not for ever.
    app.asleep().await?;
    sluice.cluster().delete_namespace(&app.namespace).await
}

#[test]
fn one_request_a_minute_keeps_an_app_awake() {
    sluice::run(Settings::default(), async |sluice| {
        stays_awake(&sluice, "seldom", json!({"concurrency": {"targetValue": 100}})).await
    });
}

#[test]
fn one_request_a_minute_keeps_an_app_awake_that_has_only_a_rate() {
    sluice::run(Settings::default(), async |sluice| {
        let rate = json!({"targetValue": 100, "window": "1m", "granularity": "1s"});
        stays_awake(&sluice, "seldom-rate", json!({"requestRate": rate})).await
    });
}

/// An hour without a request leaves a window of one hour empty; so it is too when there never was one. What then
/// comes is one request in the whole window, a rate of 0.00028, as after any hour. The second wake is the one where
/// the window is not empty, and no request in it is new.
#[test]
fn one_request_in_a_window_of_an_hour_wakes_an_app_that_has_only_a_rate() {
    sluice::run(Settings::default(), async |sluice| {
        let rate = json!({"targetValue": 100, "window": "1h", "granularity": "1s"});
        let app = sleeping(&sluice, "hour", json!({"scalingMetric": {"requestRate": rate}})).await?;
        let gateway = Gateway::start(&sluice, 1, &[&app]).await?;
        ensure_cold(&gateway.get(&app, "/").await?)?;
        // Long before the window has passed.
        app.asleep().await?;
        ensure_cold(&gateway.get(&app, "/").await?)?;
        app.asleep().await?;
        sluice.cluster().delete_namespace(&app.namespace).await
    });
}

/// The request waits, so no request has been answered that could be counted; and it goes on waiting for longer than
/// the window.
#[test]
fn a_held_request_wakes_an_app_that_has_only_a_rate() {
    sluice::run(Settings::default(), async |sluice| {
        let namespace = sluice.cluster().namespace("only-rate").await?;
        let app = App::create(&sluice, &namespace, "only-rate").await?;
        let rate = json!({"targetValue": 100, "window": "1s", "granularity": "1s"});
        let route =
            app.interceptor_route(json!({"scalingMetric": {"requestRate": rate, "concurrency": null}}));
        sluice.cluster().apply(&[route]).await?;
        let gateway = Gateway::start(&sluice, 1, &[&app]).await?;
        let waiting = gateway.spawn_get(&app, "/", "early");
        gateway.until_held(1).await?;
        // The request is an old one by the time that KEDA hears of the app at all.
        sluice
            .until("a request that has left the window", |state| {
                let route = state.route(&app.namespace, &app.name).ok_or("no route")?;
                if route.request_rate == Some(0.0) && route.held == 1 {
                    Ok(())
                } else {
                    Err(format!("{route:?}"))
                }
            })
            .await?;
        sluice.cluster().apply(&[app.scaled_object(json!({}))]).await?;
        ensure_cold(&waiting.await??)?;
        app.asleep().await?;
        sluice.cluster().delete_namespace(&app.namespace).await
    });
}
