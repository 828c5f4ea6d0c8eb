//! Several HTTPScaledObjects for one workload: one of them has it scaled, and the others say which.

use crate::bench::{Bench, LIMIT, SYSTEM, http_scaled_object, on_the_bench};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::ApiResource,
};
use serde_json::{Value, json};
use sluice_api::{HttpScaledObject, ScaledObject};
use std::time::Duration;

fn said(object: &HttpScaledObject) -> String {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.next().map(|ready| ready.message.clone()).unwrap_or_default()
}

/// An object of another name for the app.
fn second(namespace: &str, name: &str, app: &str) -> Value {
    let mut object = Bench::second(&http_scaled_object(namespace, app), name);
    object["spec"]["hosts"] = json!([format!("{name}.example.com")]);
    object
}

async fn scale_operator(bench: &Bench, replicas: i32) -> Result<()> {
    let operators: Api<Deployment> = Api::namespaced(bench.cluster.client(), SYSTEM);
    let patch = json!({"spec": {"replicas": replicas}});
    operators.patch("sluice-operator", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    let away = async {
        while replicas == 0 && !bench.operators().await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LIMIT, away).await.context("the operator does not end")?
}

#[test]
fn of_two_objects_in_one_apply_one_has_the_workload_scaled_and_the_other_after_it() {
    on_the_bench(async |bench| {
        let namespace = bench.app("pair").await?;
        let objects: Api<HttpScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let scaled_objects: Api<ScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        bench
            .cluster
            .apply(&[http_scaled_object(&namespace, "pair"), second(&namespace, "pair-too", "pair")])
            .await?;
        let younger =
            bench.ready::<HttpScaledObject>(&namespace, "pair-too", "False", "WorkloadTaken").await?;
        bench.ready::<HttpScaledObject>(&namespace, "pair", "True", "Reconciled").await?;
        ensure!(said(&younger).contains("HTTPScaledObject pair"), "{}", said(&younger));
        ensure!(scaled_objects.get_opt("pair-too").await?.is_none(), "there are two ScaledObjects");

        objects.delete("pair", &DeleteParams::default()).await?;
        bench.ready::<HttpScaledObject>(&namespace, "pair-too", "True", "Reconciled").await?;

        // One that is for another workload, and comes to be for this one.
        let mut moved = second(&namespace, "moved", "pair");
        moved["spec"]["scaleTargetRef"]["name"] = json!("former");
        bench.cluster.apply(std::slice::from_ref(&moved)).await?;
        bench.ready::<HttpScaledObject>(&namespace, "moved", "False", "WorkloadNotFound").await?;
        moved["spec"]["scaleTargetRef"]["name"] = json!("pair");
        bench.cluster.apply(&[moved]).await?;
        let object = bench.ready::<HttpScaledObject>(&namespace, "moved", "False", "WorkloadTaken").await?;
        let ends = "Until then ScaledObject moved scales Deployment former, as before";
        ensure!(said(&object).ends_with(ends), "{}", said(&object));
        let its = scaled_objects.get("moved").await?.spec.scale_target_ref.name;
        ensure!(its == "former", "{its}");
        objects.delete("pair-too", &DeleteParams::default()).await?;
        bench.ready::<HttpScaledObject>(&namespace, "moved", "True", "Reconciled").await?;
        let its = scaled_objects.get("moved").await?.spec.scale_target_ref.name;
        ensure!(its == "pair", "{its}");
        bench.end(&namespace).await
    });
}

/// As the add-on makes them, where nobody refuses the second one.
#[test]
fn where_two_are_there_the_younger_ones_goes_and_no_pod_with_it() {
    on_the_bench(async |bench| {
        let namespace = bench.app("both").await?;
        scale_operator(&bench, 0).await?;
        let objects: Api<HttpScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let resource = ApiResource::erase::<ScaledObject>(&());
        let raw: Api<DynamicObject> = Api::namespaced_with(bench.cluster.client(), &namespace, &resource);
        let deployments: Api<Deployment> = Api::namespaced(bench.cluster.client(), &namespace);
        let mut older = http_scaled_object(&namespace, "both");
        older["spec"]["replicas"] = json!({"min": 1, "max": 3});
        let mut younger = second(&namespace, "both-too", "both");
        younger["spec"]["replicas"] = json!({"min": 1, "max": 3});
        bench.cluster.apply(&[older, younger]).await?;
        let manager = PostParams { field_manager: Some("operator".to_owned()), ..PostParams::default() };
        // The younger one's first, while the app is asleep: that is what KEDA would restore.
        for name in ["both-too", "both"] {
            let uid = objects.get(name).await?.uid();
            let theirs = serde_json::from_value(json!({
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ScaledObject",
                "metadata": {"name": name, "namespace": namespace, "ownerReferences": [{
                    "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject", "name": name, "uid": uid,
                    "controller": true, "blockOwnerDeletion": true,
                }]},
                "spec": {
                    "scaleTargetRef": {"name": "both"},
                    "pollingInterval": 15,
                    "minReplicaCount": 1,
                    "maxReplicaCount": 3,
                    "advanced": {"restoreToOriginalReplicaCount": true},
                    "triggers": [{"type": "external-push", "metadata": {
                        "scalerAddress": "sluice-scaler.sluice-system:9090", "httpScaledObject": name,
                    }}],
                },
            }))?;
            raw.create(&manager, &theirs).await?;
            let seen = |it: Option<&DynamicObject>| {
                it.is_some_and(|it| it.data["status"]["originalReplicaCount"].is_number())
            };
            bench.cluster.wait_for(&raw, name, LIMIT, seen).await?;
        }
        let original = raw.get("both-too").await?.data["status"]["originalReplicaCount"].clone();
        ensure!(original == json!(0), "KEDA would restore {original}");
        let awake = |it: Option<&Deployment>| {
            it.is_some_and(|it| it.spec.as_ref().and_then(|spec| spec.replicas) == Some(1))
        };
        let before = bench.cluster.wait_for(&deployments, "both", LIMIT, awake).await?.context("gone")?;

        scale_operator(&bench, 2).await?;
        bench.ready::<HttpScaledObject>(&namespace, "both-too", "False", "WorkloadTaken").await?;
        bench.cluster.wait_for(&raw, "both-too", LIMIT, |it| it.is_none()).await?;
        bench.ready::<HttpScaledObject>(&namespace, "both", "True", "Reconciled").await?;
        let after = deployments.get("both").await?;
        ensure!(after.metadata.generation == before.metadata.generation, "it was scaled: {:?}", after.spec);
        let restores =
            raw.get("both").await?.data["spec"]["advanced"]["restoreToOriginalReplicaCount"].clone();
        ensure!(restores == json!(true), "the older one's is another now: {restores}");
        bench.events(&namespace, "both-too", &["Deleted", "WorkloadTaken"]).await?;
        bench.end(&namespace).await
    });
}
