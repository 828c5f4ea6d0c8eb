//! What an object says of what gateways have shown: none is linked, one is, requests go elsewhere, an older object has
//! them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Resource, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;
use serde_json::json;
use sluice_api::{HttpScaledObject, InterceptorRoute};
use sluice_tests::cluster::sluice::{self, App, Gateway, Settings, Sluice};
use std::{fmt::Debug, time::Duration};

/// The operator asks from time to time, and a gateway of another test is missed only after some of that.
const LIMIT: Duration = Duration::from_secs(150);

/// Waits until an object has such a condition, and gives it, and what `Ready` says.
async fn said<K>(sluice: &Sluice, app: &App, type_: &str, reason: &str) -> Result<(Condition, Condition)>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Conditions
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let objects: Api<K> = Api::namespaced(sluice.cluster().client(), &app.namespace);
    let find = |it: &K, type_: &str| it.conditions().iter().find(|it| it.type_ == type_).cloned();
    let is = |it: Option<&K>| it.and_then(|it| find(it, type_)).is_some_and(|it| it.reason == reason);
    let object = sluice.cluster().wait_for(&objects, &app.name, LIMIT, is).await;
    let object = object.with_context(|| format!("{type_} is not {reason}"))?.context("gone")?;
    find(&object, type_).zip(find(&object, "Ready")).context("no Ready")
}

trait Conditions {
    fn conditions(&self) -> &[Condition];
}

impl Conditions for HttpScaledObject {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }
}

impl Conditions for InterceptorRoute {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }
}

#[test]
fn an_object_says_what_gateways_have_shown() {
    sluice::run(Settings::default(), async |sluice| {
        let namespace = sluice.cluster().namespace("evidence").await?;
        let app = App::create(&sluice, &namespace, "shop").await?;
        // Nobody's, though its host is the shop's by the shop's own words.
        let other = App::create(&sluice, &namespace, "other").await?;
        let object = app.http_scaled_object(json!({"hosts": [app.host(), other.host()]}));
        sluice.cluster().apply(&[object]).await?;
        app.scaled_object_ready().await?;

        let (linked, ready) = said::<HttpScaledObject>(&sluice, &app, "GatewayLinked", "NoGateway").await?;
        ensure!(linked.status == "False" && linked.message.contains("Apply the EnvoyFilter"), "{linked:?}");
        ensure!(ready.status == "True", "{ready:?}");
        ensure!(ready.message.starts_with("requests are neither counted nor held"), "{ready:?}");

        let gateway = Gateway::start(&sluice, 1, &[&app, &other]).await?;
        let (linked, ready) = said::<HttpScaledObject>(&sluice, &app, "GatewayLinked", "Linked").await?;
        ensure!(linked.status == "True", "{linked:?}");
        ensure!(ready.message.starts_with("requests through linked gateways are counted"), "{ready:?}");
        let answer = gateway.get(&app, "/").await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());

        let answer = gateway.get(&other, "/").await?;
        ensure!(answer.status == 503, "nobody holds it: {} {}", answer.status, answer.text());
        let (astray, ready) =
            said::<HttpScaledObject>(&sluice, &app, "TargetMismatch", "RoutedElsewhere").await?;
        ensure!(astray.status == "True" && astray.message.contains("Point the route"), "{astray:?}");
        ensure!(ready.status == "True" && ready.message.contains("(see TargetMismatch)"), "{ready:?}");

        // Were both of one second, the greater name would be the first.
        let again = App::new(&sluice, &namespace, "again");
        let route = json!({
            "target": {"service": app.name, "port": 80},
            "rules": [{"hosts": [app.host()]}],
        });
        sluice.cluster().apply(&[again.interceptor_route(route)]).await?;
        let (conflict, _) = said::<InterceptorRoute>(&sluice, &again, "Conflicted", "ShadowedBy").await?;
        let who = format!("HTTPScaledObject {namespace}/shop");
        ensure!(conflict.status == "True" && conflict.message.contains(&who), "{conflict:?}");
        let objects: Api<HttpScaledObject> = Api::namespaced(sluice.cluster().client(), &namespace);
        let older = objects.get("shop").await?;
        ensure!(older.conditions().iter().all(|it| it.type_ != "Conflicted"), "{:?}", older.conditions());
        sluice.cluster().delete_namespace(&namespace).await
    });
}
