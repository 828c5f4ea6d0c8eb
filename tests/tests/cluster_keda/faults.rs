//! Parts die in the middle of holds and of warm traffic. Nothing is lost, and it goes on by itself.

use crate::{load::Load, wake::ensure_cold};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use sluice_tests::{
    cluster::{
        keda,
        sluice::{self, App, Gateway, LIMIT, NAMESPACE, Settings, Sluice},
    },
    http::Answer,
};
use std::time::Duration;
use tokio::task::JoinHandle;

/// What every fault meets.
struct Scene {
    sluice: Sluice,
    namespace: String,
    gateway: Gateway,
    /// Awake all the time, through its traffic alone.
    warm: App,
    /// Asleep, and woken again and again.
    cold: App,
    /// Nobody has heard of it yet.
    late: App,
    load: Load,
}

type Waiting = Vec<JoinHandle<Result<Answer>>>;

impl Scene {
    async fn set(sluice: &Sluice, name: &str) -> Result<Self> {
        let namespace = sluice.cluster().namespace(name).await?;
        let warm = App::create(sluice, &namespace, "warm").await?;
        let cold = App::create(sluice, &namespace, "cold").await?;
        let late = App::create(sluice, &namespace, "late").await?;
        let objects = [warm.http_scaled_object(json!({})), cold.http_scaled_object(json!({}))];
        sluice.cluster().apply(&objects).await?;
        for app in [&warm, &cold] {
            app.scaled_object_ready().await?;
        }
        sluice.until_keda_listens(&[&warm, &cold]).await?;
        let gateway = Gateway::start(sluice, 2, &[&warm, &cold, &late]).await?;
        let load = Load::start(&gateway, &warm, "/", 4, Duration::from_millis(20));
        warm.until_ready(1).await?;
        Ok(Self { sluice: sluice.clone(), namespace, gateway, warm, cold, late, load })
    }

    /// Requests to the app that sleeps, which are held once this returns.
    async fn hold(&self, held: u64) -> Result<Waiting> {
        let before = self.gateway.envoy.stat("wasmcustom.sluice_held").await?;
        let waiting = (0..held)
            .map(|number| self.gateway.spawn_get(&self.cold, "/", &format!("held-{number}")))
            .collect();
        self.gateway.until_held(before + held).await?;
        Ok(waiting)
    }

    /// Warm traffic goes on: more answers than there were.
    async fn warm_goes_on(&self) -> Result<()> {
        let before = self.load.answered();
        sluice_tests::wait::until("more answers of the app that is awake", async || {
            match self.load.answered() {
                now if now >= before + 20 => Ok(()),
                now => Err(format!("{now} after {before}")),
            }
        })
        .await
    }

    /// Everything is as it was: the app sleeps again by itself, and wakes; none of the warm requests was lost.
    async fn end(self) -> Result<()> {
        self.cold.asleep().await?;
        ensure_cold(&self.gateway.get(&self.cold, "/").await?)?;
        self.gateway.linked(&self.sluice).await?;
        // A new app's way through operator, KEDA and scaler.
        self.sluice.cluster().apply(&[self.late.http_scaled_object(json!({}))]).await?;
        ensure_cold(&self.gateway.get(&self.late, "/").await?)?;
        ensure!(self.warm.replicas().await? == 1, "the app that is awake was scaled");
        let answered = self.load.end().await?;
        println!("{answered} warm requests, all answered with 200");
        self.sluice.cluster().delete_namespace(&self.namespace).await
    }
}

async fn all_cold(waiting: Waiting) -> Result<()> {
    for answer in waiting {
        ensure_cold(&answer.await??)?;
    }
    Ok(())
}

#[test]
fn keda_is_killed() {
    sluice::run(Settings::default(), async |sluice| {
        let scene = Scene::set(&sluice, "kill-keda").await?;
        sluice.crash(keda::NAMESPACE, "app=keda-operator").await?;
        let waiting = scene.hold(5).await?;
        scene.warm_goes_on().await?;
        all_cold(waiting).await?;
        scene.end().await
    });
}

#[test]
fn keda_is_killed_while_the_app_starts() {
    sluice::run(Settings::default(), async |sluice| {
        let scene = Scene::set(&sluice, "kill-starting").await?;
        slow_start(&scene.cold).await?;
        let waiting = scene.hold(5).await?;
        scaled_up(&sluice, &scene.cold).await?;
        sluice.crash(keda::NAMESPACE, "app=keda-operator").await?;
        all_cold(waiting).await?;
        scene.warm_goes_on().await?;
        scene.end().await
    });
}

#[test]
fn the_api_server_is_killed_and_comes_back() {
    sluice::run(Settings::default(), async |sluice| {
        let bed = sluice.cluster().bed().context("needs the bed")?.clone();
        let scene = Scene::set(&sluice, "kill-api").await?;
        bed.stop_api_server().await?;
        let waiting = scene.hold(5).await?;
        scene.warm_goes_on().await?;
        bed.start_api_server().await?;
        all_cold(waiting).await?;
        scene.warm_goes_on().await?;
        scene.end().await
    });
}

#[test]
fn one_scaler_is_killed_and_then_the_other() {
    sluice::run(Settings::default(), async |sluice| {
        let scene = Scene::set(&sluice, "kill-scaler").await?;
        slow_start(&scene.cold).await?;
        for replica in ["sluice-scaler-0", "sluice-scaler-1"] {
            // In the middle of holds…
            let waiting = scene.hold(5).await?;
            sluice.crash(NAMESPACE, &format!("statefulset.kubernetes.io/pod-name={replica}")).await?;
            // … and while it is away.
            let more = scene.gateway.spawn_get(&scene.cold, "/", "while-away");
            all_cold(waiting).await?;
            ensure_cold(&more.await??)?;
            scene.warm_goes_on().await?;
            sluice.ready().await?;
            scene.gateway.linked(&sluice).await?;
            scene.cold.asleep().await?;
        }
        scene.end().await
    });
}

#[test]
fn the_operator_that_leads_is_killed() {
    sluice::run(Settings::default(), async |sluice| {
        let scene = Scene::set(&sluice, "kill-operator").await?;
        let leases: Api<Lease> = Api::namespaced(sluice.cluster().client(), NAMESPACE);
        let led = |lease: Option<&Lease>| holder(lease).is_some_and(|holder| !holder.is_empty());
        let lease = sluice.cluster().wait_for(&leases, "sluice-operator", LIMIT, led).await?;
        let leader = holder(lease.as_ref()).context("nobody leads")?.to_owned();
        let waiting = scene.hold(5).await?;
        let pods: Api<k8s_openapi::api::core::v1::Pod> =
            Api::namespaced(sluice.cluster().client(), NAMESPACE);
        pods.delete(&leader, &kube::api::DeleteParams::default().grace_period(0)).await?;
        all_cold(waiting).await?;
        scene.warm_goes_on().await?;
        scene.end().await?;
        let other = |lease: Option<&Lease>| {
            holder(lease).is_some_and(|holder| !holder.is_empty() && holder != leader)
        };
        sluice.cluster().wait_for(&leases, "sluice-operator", LIMIT, other).await.map(drop)
    });
}

fn holder(lease: Option<&Lease>) -> Option<&str> {
    lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref())
}

/// Has the app's Pods take so long to start that something can happen meanwhile.
async fn slow_start(app: &App) -> Result<()> {
    app.start_after(Duration::from_secs(2)).await
}

/// Waits until KEDA has written the scale.
async fn scaled_up(sluice: &Sluice, app: &App) -> Result<()> {
    let deployments =
        Api::<k8s_openapi::api::apps::v1::Deployment>::namespaced(sluice.cluster().client(), &app.namespace);
    let is = |it: Option<&k8s_openapi::api::apps::v1::Deployment>| {
        it.and_then(|it| it.spec.as_ref()?.replicas) == Some(1)
    };
    sluice.cluster().wait_for(&deployments, &app.name, LIMIT, is).await.map(drop)
}
