//! An object says when its gateway hears late of endpoints, what to set for it, and when that is mended.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use sluice_api::{HttpScaledObject, InterceptorRoute};
use sluice_tests::{
    cluster::istio::{
        App, GATEWAY, Istio, Options, World,
        operator::{self, SYSTEM},
    },
    paths, wait,
};
use std::{fmt::Debug, fs, time::Duration};

const CONDITION: &str = "EndpointsPrompt";
/// The operator asks from time to time.
const LIMIT: Duration = Duration::from_secs(90);
/// As many as the scaler remembers, and some that may be disturbed.
const MOST_WAKES: usize = 10;

/// As an app of [`World::app`], but with an InterceptorRoute; nobody scales it.
async fn routed(world: &World, name: &str) -> Result<App> {
    let app = App::create(&world.istio, &world.namespace, name).await?;
    let route = json!({
        "apiVersion": "http.keda.sh/v1beta1",
        "kind": "InterceptorRoute",
        "metadata": {"name": name, "namespace": world.namespace},
        "spec": {
            "target": {"service": name, "port": 80},
            "rules": [{"hosts": [app.host()]}],
            "scalingMetric": {"concurrency": {"targetValue": 10}},
        },
    });
    world.cluster.apply(&[app.virtual_service(GATEWAY, app.route()), route]).await?;
    world.known(&app).await?;
    Ok(app)
}

/// Wakes the app, and has it sleep again, so that the next wake is another one.
async fn wake(world: &World, app: &App) -> Result<()> {
    world.wake(app, &app.host(), "/").await?;
    world
        .sluice
        .until("that nobody wants the app", |state| match state.route(&app.namespace, &app.name) {
            // KEDA would wake it at once.
            Some(route) if !route.active => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
    app.scale(0).await?;
    app.asleep().await?;
    world
        .sluice
        .until("that the app sleeps", |state| match state.route(&app.namespace, &app.name) {
            Some(route) if route.hint == "notReady" => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
    let endpoints = format!("cluster.{};.membership_total", app.cluster_name());
    wait::until("the gateway to have no endpoint", async || match world.gateway.stat(&endpoints).await {
        Ok(0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// An object of either kind.
trait Object: Clone + Debug + DeserializeOwned + Send + Sync + 'static
where
    Self: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    fn conditions(&self) -> &[Condition];

    fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions().iter().find(|it| it.type_ == type_)
    }
}

impl Object for HttpScaledObject {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }
}

impl Object for InterceptorRoute {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }
}

/// The condition once it is `wanted`.
async fn said<K: Object>(
    world: &World,
    objects: &Api<K>,
    name: &str,
    wanted: impl Fn(&Condition) -> bool,
) -> Result<Condition> {
    let is = |it: Option<&K>| it.and_then(|it| it.condition(CONDITION)).is_some_and(&wanted);
    let seen = world.cluster.wait_for(objects, name, LIMIT, is).await;
    let object = objects.get(name).await?;
    seen.with_context(|| format!("{:?}", object.conditions()))?;
    object.condition(CONDITION).cloned().context("it has gone again")
}

/// Scalers that know of no wake.
async fn new_scalers(world: &World) -> Result<()> {
    let pods = Api::<Pod>::namespaced(world.cluster.client(), SYSTEM);
    let scalers = ListParams::default().labels("app.kubernetes.io/name=sluice-scaler");
    let before = pods.list(&scalers).await?.items;
    for pod in &before {
        pods.delete(pod.metadata.name.as_deref().unwrap_or_default(), &DeleteParams::default()).await?;
    }
    wait::until("other scalers", async || {
        let now = pods.list(&scalers).await.map_err(|error| error.to_string())?.items;
        let uid = |pod: &Pod| pod.metadata.uid.clone();
        let is_new = |pod: &&Pod| before.iter().all(|it| uid(it) != uid(pod));
        if now.iter().filter(is_new).count() == before.len() { Ok(()) } else { Err(format!("{}", now.len())) }
    })
    .await?;
    let sets = Api::<StatefulSet>::namespaced(world.cluster.client(), SYSTEM);
    let ready = |set: Option<&StatefulSet>| {
        let status = set.and_then(|set| set.status.as_ref());
        status.and_then(|status| status.ready_replicas) == Some(2)
    };
    world.cluster.wait_for(&sets, "sluice-scaler", LIMIT, ready).await?;
    world.sluice.linked(&[&world.gateway]).await
}

#[test]
fn late_endpoints_are_in_the_status_until_istiod_sends_them_at_once() {
    operator::run("lag", operator::Options::default(), async |world, operator| {
        let (app, other) = (world.app("shop").await?, routed(&world, "other").await?);
        let objects = Api::<HttpScaledObject>::namespaced(world.cluster.client(), &world.namespace);
        let routes = Api::<InterceptorRoute>::namespaced(world.cluster.client(), &world.namespace);
        // Of the same name, elsewhere: nobody wakes it.
        let elsewhere = world.cluster.namespace("lag-elsewhere").await?;
        let sleeper = App::create(&world.istio, &elsewhere, "shop").await?;
        world.cluster.apply(&[sleeper.scaled_object(&[&sleeper.host()], &[])]).await?;
        for _ in 0..2 {
            wake(&world, &app).await?;
            wake(&world, &other).await?;
        }
        let object = objects.get("shop").await?;
        ensure!(object.condition(CONDITION).is_none(), "two wakes are not enough: {object:?}");
        wake(&world, &app).await?;
        wake(&world, &other).await?;
        let late = said(&world, &objects, "shop", |it| it.status == "False").await?;
        ensure!(late.reason == "Late", "{late:?}");
        for words in ["PILOT_ENABLE_EDS_DEBOUNCE=false", "last 3 wakes", "50 to 200 ms"] {
            ensure!(late.message.contains(words), "{}", late.message);
        }
        let page = fs::read_to_string(paths::root().join("docs/istio.md"))?;
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(
            words(&page).contains(&words(&late.message)),
            "docs/istio.md does not have: {}",
            late.message
        );
        let object = objects.get("shop").await?;
        ensure!(object.condition("Ready").is_some_and(|it| it.status == "True"), "{object:?}");
        let of_route = said(&world, &routes, "other", |it| it.status == "False").await?;
        ensure!(of_route.message == late.message, "{}", of_route.message);

        // Neither scalers that have not seen these wakes nor another operator take it back.
        new_scalers(&world).await?;
        operator.scale(0).await?;
        operator.scale(2).await?;
        let change = json!({"spec": {"replicas": {"max": 2}}});
        let generation = world.cluster.merge(&objects, "shop", &change).await?.metadata.generation;
        let kept = said(&world, &objects, "shop", |it| it.observed_generation == generation).await?;
        ensure!(kept == Condition { observed_generation: generation, ..late }, "{kept:?}");

        let env = vec![("PILOT_ENABLE_EDS_DEBOUNCE", "false")];
        Istio::start_with(&world.cluster, &Options { env, ..Options::default() }).await?;
        // The first endpoint of a Service that an istiod sees since it started is a push of everything, after the
        // debounce of all others; so it takes one wake more.
        for _ in 0..MOST_WAKES {
            wake(&world, &app).await?;
            let object = objects.get("shop").await?;
            if object.condition(CONDITION).is_some_and(|it| it.status == "True") {
                break;
            }
        }
        let prompt = said(&world, &objects, "shop", |it| it.status == "True").await?;
        ensure!(prompt.reason == "Prompt", "{prompt:?}");
        // Of one app's wakes nobody else's object says anything.
        said(&world, &routes, "other", |it| it.message == of_route.message).await?;
        let elsewheres = Api::<HttpScaledObject>::namespaced(world.cluster.client(), &elsewhere);
        let object = elsewheres.get("shop").await?;
        ensure!(
            !object.conditions().is_empty() && object.condition(CONDITION).is_none(),
            "{:?}",
            object.conditions()
        );
        world.cluster.delete_namespace(&elsewhere).await
    });
}
