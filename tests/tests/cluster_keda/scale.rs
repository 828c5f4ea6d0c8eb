//! From one to many and back, by KEDA's HPA and its metrics adapter.

use crate::{
    load::Load,
    wake::{ensure_cold, sleeping},
};
use anyhow::Result;
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
};
use serde_json::json;
use sluice_api::ScaledObject;
use sluice_tests::cluster::sluice::{self, App, Gateway, Settings, Sluice};
use std::time::Duration;

/// The HPA waits five minutes before it takes a Pod away, to see whether the load comes back. A user may change
/// that in the ScaledObject, also in the one that the operator has made.
async fn scale_down_at_once(sluice: &Sluice, app: &App) -> Result<()> {
    let resource = ApiResource::erase::<ScaledObject>(&());
    let objects: Api<DynamicObject> =
        Api::namespaced_with(sluice.cluster().client(), &app.namespace, &resource);
    let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
    let patch = json!({"spec": {"advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}}}});
    sluice.cluster().merge(&objects, &app.name, &patch).await.map(drop)
}

/// Up to `most` Pods under `heavy` load, down to one under `light` load, and to none without any.
async fn up_and_down(
    gateway: &Gateway,
    app: &App,
    heavy: impl FnOnce(&Gateway, &App) -> Load,
    light: impl FnOnce(&Gateway, &App) -> Load,
) -> Result<()> {
    ensure_cold(&gateway.get(app, "/").await?)?;
    let load = heavy(gateway, app);
    app.until_ready(3).await?;
    let light = light(gateway, app);
    load.end().await?;
    app.until_ready(1).await?;
    light.end().await?;
    app.asleep().await
}

#[test]
fn concurrency_scales_from_one_to_many_and_back() {
    sluice::run(Settings::default(), async |sluice| {
        let spec = json!({"replicas": {"max": 3}, "scalingMetric": {"concurrency": {"targetValue": 2}}});
        let app = sleeping(&sluice, "crowd", spec).await?;
        scale_down_at_once(&sluice, &app).await?;
        let gateway = Gateway::start(&sluice, 2, &[&app]).await?;
        let clients = |clients| {
            move |gateway: &Gateway, app: &App| {
                Load::start(gateway, app, "/slow?ms=200", clients, Duration::ZERO)
            }
        };
        up_and_down(&gateway, &app, clients(6), clients(1)).await?;
        sluice.cluster().delete_namespace(&app.namespace).await
    });
}

#[test]
fn request_rate_scales_from_one_to_many_and_back() {
    sluice::run(Settings::default(), async |sluice| {
        let rate = json!({"targetValue": 10, "window": "5s", "granularity": "1s"});
        let app = sleeping(
            &sluice,
            "rate",
            json!({"replicas": {"max": 3}, "scalingMetric": {"requestRate": rate}}),
        )
        .await?;
        scale_down_at_once(&sluice, &app).await?;
        let gateway = Gateway::start(&sluice, 2, &[&app]).await?;
        // 40 requests a second, then 4.
        let clients = |clients| {
            move |gateway: &Gateway, app: &App| {
                Load::start(gateway, app, "/", clients, Duration::from_millis(250))
            }
        };
        up_and_down(&gateway, &app, clients(10), clients(1)).await?;
        sluice.cluster().delete_namespace(&app.namespace).await
    });
}

#[test]
fn an_interceptor_route_with_a_scaled_object_of_the_users_own_does_the_same() {
    sluice::run(Settings::default(), async |sluice| {
        let namespace = sluice.cluster().namespace("route").await?;
        let app = App::create(&sluice, &namespace, "route").await?;
        let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
        let more = json!({
            "maxReplicaCount": 3,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
        });
        let metric = json!({"scalingMetric": {"concurrency": {"targetValue": 2}}});
        sluice.cluster().apply(&[app.interceptor_route(metric), app.scaled_object(more)]).await?;
        app.scaled_object_ready().await?;
        sluice.until_keda_listens(&[&app]).await?;
        let gateway = Gateway::start(&sluice, 2, &[&app]).await?;
        let clients = |clients| {
            move |gateway: &Gateway, app: &App| {
                Load::start(gateway, app, "/slow?ms=200", clients, Duration::ZERO)
            }
        };
        up_and_down(&gateway, &app, clients(6), clients(1)).await?;
        ensure_cold(&gateway.get(&app, "/").await?)?;
        sluice.cluster().delete_namespace(&app.namespace).await
    });
}
