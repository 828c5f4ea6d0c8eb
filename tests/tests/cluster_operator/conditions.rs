//! What an object's status says of what is wrong, and that it says otherwise once it is mended.

use crate::bench::{self, Bench, Conditions, LIMIT, http_scaled_object, on_the_bench};
use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_api::{HttpScaledObject, InterceptorRoute, ScaledObject};
use std::time::Duration;

fn message(object: &impl Conditions, type_: &str) -> String {
    let condition = object.conditions().iter().find(|condition| condition.type_ == type_);
    condition.map(|condition| condition.message.clone()).unwrap_or_default()
}

#[test]
fn a_target_that_is_missing_is_named_until_it_is_there() {
    on_the_bench(async |bench| {
        let namespace = bench.app("target").await?;
        let mut object = http_scaled_object(&namespace, "target");
        object["spec"]["scaleTargetRef"]["service"] = json!("later");
        bench.cluster.apply(&[object]).await?;
        let said = bench.ready::<HttpScaledObject>(&namespace, "target", "False", "ServiceNotFound").await?;
        let said = message(&said, "Ready");
        ensure!(said.contains(&format!("there is no Service {namespace}/later; create it")), "{said}");

        let service = |port: Value| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "later", "namespace": namespace},
                "spec": {"ports": [port]}})
        };
        bench.cluster.apply(&[service(json!({"name": "web", "port": 80}))]).await?;
        let said = bench.ready::<HttpScaledObject>(&namespace, "target", "False", "PortNotFound").await?;
        let said = message(&said, "Ready");
        ensure!(said.contains("no port http (it has 80 (web))"), "{said}");
        bench.cluster.apply(&[service(json!({"name": "http", "port": 80}))]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "target", "True", "Reconciled").await?;
        bench.events(&namespace, "target", &["ServiceNotFound", "PortNotFound", "Reconciled"]).await?;
        bench.end(&namespace).await
    });
}

#[test]
fn a_workload_that_is_missing_is_named_until_it_is_there() {
    on_the_bench(async |bench| {
        let namespace = bench.app("workload").await?;
        let mut object = http_scaled_object(&namespace, "workload");
        object["spec"]["scaleTargetRef"]["name"] = json!("ghost");
        bench.cluster.apply(&[object.clone()]).await?;
        let said =
            bench.ready::<HttpScaledObject>(&namespace, "workload", "False", "WorkloadNotFound").await?;
        let said = message(&said, "ScaledObjectReady");
        ensure!(said.contains(&format!("there is no Deployment {namespace}/ghost; create it")), "{said}");
        object["spec"]["scaleTargetRef"]["name"] = json!("workload");
        bench.cluster.apply(&[object]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "workload", "True", "Reconciled").await?;
        bench.end(&namespace).await
    });
}

#[test]
fn an_invalid_value_is_named_and_the_rest_applies() {
    on_the_bench(async |bench| {
        let namespace = bench.app("invalid").await?;
        let mut object = http_scaled_object(&namespace, "invalid");
        object["spec"]["hosts"] = json!(["shop.*.example.com"]);
        bench.cluster.apply(&[object]).await?;
        let object = bench.ready::<HttpScaledObject>(&namespace, "invalid", "False", "InvalidSpec").await?;
        let said = message(&object, "Accepted");
        ensure!(said.contains("spec.hosts") && said.contains("shop.*.example.com"), "{said}");
        // It is scaled nevertheless, and the other conditions say so.
        let objects: Api<HttpScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let scaled = |it: Option<&HttpScaledObject>| {
            it.is_some_and(|it| {
                let mut all = it.conditions().iter();
                all.any(|it| it.type_ == "ScaledObjectReady" && it.status == "True")
            })
        };
        bench.cluster.wait_for(&objects, "invalid", LIMIT, scaled).await?;
        bench.end(&namespace).await
    });
}

#[test]
fn an_interceptor_route_says_whether_anything_scales_its_app() {
    on_the_bench(async |bench| {
        let namespace = bench.app("route").await?;
        bench
            .cluster
            .apply(&[json!({
                "apiVersion": "http.keda.sh/v1beta1", "kind": "InterceptorRoute",
                "metadata": {"name": "route", "namespace": namespace},
                "spec": {
                    "target": {"service": "route", "port": 80},
                    "rules": [{"hosts": ["route.example.com"]}],
                    "scalingMetric": {"concurrency": {"targetValue": 10}},
                },
            })])
            .await?;
        let said =
            bench.ready::<InterceptorRoute>(&namespace, "route", "False", "ScaledObjectNotFound").await?;
        let said = message(&said, "Ready");
        ensure!(
            said.contains("scalerAddress: sluice-scaler.sluice-system:9090 and interceptorRoute: route"),
            "{said}"
        );

        let mut own = bench::scaled_object(&namespace, "own", "route", json!({"interceptorRoute": "route"}));
        let good = own.clone();
        own["spec"]["triggers"][0]["metadata"]["scalerAddress"] =
            json!("keda-add-ons-http-external-scaler.keda:9090");
        bench.cluster.apply(&[own]).await?;
        bench.ready::<InterceptorRoute>(&namespace, "route", "False", "OtherScaler").await?;
        bench.cluster.apply(&[good]).await?;
        bench.ready::<InterceptorRoute>(&namespace, "route", "True", "Reconciled").await?;

        // An HTTPScaledObject of its name has nothing to do with it any more.
        bench.cluster.apply(&[http_scaled_object(&namespace, "route")]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "route", "False", "Overridden").await?;
        let routes: Api<InterceptorRoute> = Api::namespaced(bench.cluster.client(), &namespace);
        routes.delete("route", &DeleteParams::default()).await?;
        let scaled_objects: Api<ScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        bench.ready::<HttpScaledObject>(&namespace, "route", "False", "WorkloadTaken").await?;
        scaled_objects.delete("own", &DeleteParams::default()).await?;
        bench.ready::<HttpScaledObject>(&namespace, "route", "True", "Reconciled").await?;
        bench.end(&namespace).await
    });
}

/// Under the add-on's older definitions, say, or none of the rules that ours have.
#[test]
fn an_object_that_does_not_read_is_told_so_and_stops_no_other() {
    on_the_bench(async |bench| {
        let namespace = bench.app("unreadable").await?;
        let resource = ApiResource::erase::<
            k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        >(&());
        let definitions: Api<DynamicObject> = Api::all_with(bench.cluster.client(), &resource);
        let name = "httpscaledobjects.http.keda.sh";
        let versions = definitions.get(name).await?.data["spec"]["versions"].clone();
        let mut loose = versions.clone();
        loose[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["scaleTargetRef"] =
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let set = async |versions: &Value| {
            let patch = json!({"spec": {"versions": versions}});
            definitions.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await
        };
        set(&loose).await?;
        let mut bad = http_scaled_object(&namespace, "bad");
        bad["spec"]["scaleTargetRef"] =
            json!({"name": "unreadable", "service": "unreadable", "port": "http"});
        let stored = async {
            // Until the API server goes by the loose definition, it refuses.
            while bench.cluster.apply(std::slice::from_ref(&bad)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, stored).await.context("the bad object is not taken")?;
        let resource = ApiResource::erase::<HttpScaledObject>(&());
        let objects: Api<DynamicObject> = Api::namespaced_with(bench.cluster.client(), &namespace, &resource);
        let said = async |status: &str, reason: &str| -> Result<String> {
            let said = async {
                loop {
                    let object = objects.get("bad").await?;
                    let conditions = object.data["status"]["conditions"].clone();
                    let conditions: Vec<Condition> = serde_json::from_value(conditions).unwrap_or_default();
                    let mut ready = conditions.into_iter().filter(|it| it.type_ == "Ready");
                    if let Some(ready) = ready.find(|it| it.status == status && it.reason == reason) {
                        return anyhow::Ok(ready.message);
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(LIMIT, said)
                .await
                .with_context(|| format!("Ready is not {status}, {reason}"))?
        };
        let message = said("False", "Unreadable").await?;
        ensure!(message.contains("spec.scaleTargetRef.port: invalid type: string \"http\""), "{message}");
        // One that is deleted does not stay for the add-on's sake.
        let mut gone = Bench::second(&bad, "gone");
        gone["metadata"]["finalizers"] = json!(["httpscaledobject.http.keda.sh"]);
        bench.cluster.apply(&[gone]).await?;
        objects.delete("gone", &DeleteParams::default()).await?;
        bench.cluster.wait_for(&objects, "gone", LIMIT, |it| it.is_none()).await?;
        // Others go on, those that are new as well.
        bench.cluster.apply(&[http_scaled_object(&namespace, "unreadable")]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "unreadable", "True", "Reconciled").await?;
        // Mended, it is as any other: its workload has a ScaledObject already.
        bad["spec"]["scaleTargetRef"] = json!({"name": "unreadable", "service": "unreadable", "port": 80});
        bench.cluster.apply(&[bad]).await?;
        said("False", "WorkloadTaken").await?;
        objects.delete("bad", &DeleteParams::default()).await?;
        set(&versions).await?;
        bench.end(&namespace).await
    });
}
