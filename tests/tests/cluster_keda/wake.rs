//! From zero to one and back.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_tests::{
    cluster::sluice::{self, App, Gateway, Settings, Sluice, audit},
    http::Answer,
};

/// An app with an HTTPScaledObject, asleep, whose ScaledObject the operator has made and KEDA follows.
pub(crate) async fn sleeping(sluice: &Sluice, name: &str, spec: serde_json::Value) -> Result<App> {
    let namespace = sluice.cluster().namespace(name).await?;
    let app = App::create(sluice, &namespace, name).await?;
    sluice.cluster().apply(&[app.http_scaled_object(spec)]).await?;
    app.scaled_object_ready().await?;
    sluice.until_keda_listens(&[&app]).await?;
    Ok(app)
}

/// It was answered by the app, after a wait for it.
pub(crate) fn ensure_cold(answer: &Answer) -> Result<()> {
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    ensure!(answer.text().starts_with("sluice-test-app"), "{}", answer.text());
    ensure!(answer.header("x-keda-http-cold-start") == "true", "{:?}", answer.headers);
    Ok(())
}

#[test]
fn the_first_request_wakes_a_deployment_at_zero_and_it_goes_back() {
    sluice::run(Settings::default(), async |sluice| {
        let bed = sluice.cluster().bed().context("needs the bed")?.clone();
        let app = sleeping(&sluice, "first", json!({})).await?;
        ensure!(app.pods().await?.is_empty(), "it has Pods before anybody has asked for it");
        let gateway = Gateway::start(&sluice, 2, &[&app]).await?;
        let answer = gateway.spawn_get(&app, "/", "first").await??;
        ensure_cold(&answer)?;
        app.until_ready(1).await?;

        let arrived = gateway.envoy.access("first").await?;
        let scales = audit::scales(&bed, &app.namespace, &app.name)?;
        let written = scales.first().context("KEDA has written no scale")?.at_us();
        let answered = arrived.first_byte_us.context("no answer in the access log")?;
        println!(
            "arrival to the write of the scale: {:.1} ms; to the answer's first byte: {:.1} ms",
            (written.saturating_sub(arrived.start_us)) as f64 / 1e3,
            (answered - arrived.start_us) as f64 / 1e3
        );

        let warm = gateway.get(&app, "/").await?;
        ensure!(warm.status == 200 && warm.header("x-keda-http-cold-start") == "false", "{warm:?}");
        app.asleep().await?;
        ensure_cold(&gateway.get(&app, "/").await?)?;
        sluice.cluster().delete_namespace(&app.namespace).await
    });
}
