//! What the operator has not made it leaves alone; and nothing is made before the scaler can answer for it.

use crate::bench::{self, LIMIT, SYSTEM, http_scaled_object, on_the_bench};
use anyhow::{Context, ensure};
use k8s_openapi::api::{apps::v1::StatefulSet, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use sluice_api::{HttpScaledObject, ScaledObject};
use std::time::Duration;

#[test]
fn somebody_elses_scaled_object_of_that_name_is_left_alone() {
    on_the_bench(async |bench| {
        let namespace = bench.app("foreign").await?;
        let scaled_objects: Api<ScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        // Even one that looks like ours.
        let theirs =
            bench::scaled_object(&namespace, "foreign", "foreign", json!({"httpScaledObject": "foreign"}));
        bench.cluster.apply(&[theirs]).await?;
        let before = scaled_objects.get("foreign").await?;
        bench.cluster.apply(&[http_scaled_object(&namespace, "foreign")]).await?;
        let object = bench.ready::<HttpScaledObject>(&namespace, "foreign", "False", "NotOurs").await?;
        let conditions = object.status.context("no status")?.conditions;
        ensure!(
            conditions[0].message.contains("Delete or rename it, or set the annotation"),
            "{conditions:?}"
        );
        let after = scaled_objects.get("foreign").await?;
        ensure!(after.uid() == before.uid() && after.spec == before.spec, "{after:#?}");
        ensure!(after.owner_references().is_empty(), "{:?}", after.owner_references());
        let ours = |entry: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
            entry.manager.as_deref() == Some("sluice-operator")
        };
        ensure!(!after.managed_fields().iter().any(ours), "{:#?}", after.managed_fields());

        scaled_objects.delete("foreign", &DeleteParams::default()).await?;
        bench.ready::<HttpScaledObject>(&namespace, "foreign", "True", "Reconciled").await?;
        ensure!(scaled_objects.get("foreign").await?.uid() != before.uid(), "it is the old one");
        bench.end(&namespace).await
    });
}

#[test]
fn a_workload_that_another_scaled_object_scales_is_not_scaled_twice() {
    on_the_bench(async |bench| {
        let namespace = bench.app("taken").await?;
        let scaled_objects: Api<ScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        bench.cluster.apply(&[http_scaled_object(&namespace, "taken")]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "taken", "True", "Reconciled").await?;
        let mut second = http_scaled_object(&namespace, "second");
        second["spec"]["scaleTargetRef"] = json!({"name": "taken", "service": "taken", "port": 80});
        bench.cluster.apply(&[second]).await?;
        let object = bench.ready::<HttpScaledObject>(&namespace, "second", "False", "WorkloadTaken").await?;
        let conditions = object.status.context("no status")?.conditions;
        let said = "ScaledObject taken (of HTTPScaledObject taken) scales Deployment taken too";
        ensure!(conditions[0].message.contains(said), "{conditions:?}");
        ensure!(scaled_objects.get_opt("second").await?.is_none(), "it was made nevertheless");
        // The first one's was there first, and stays well.
        bench.ready::<HttpScaledObject>(&namespace, "taken", "True", "Reconciled").await?;
        let objects: Api<HttpScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        objects.delete("taken", &DeleteParams::default()).await?;
        bench.ready::<HttpScaledObject>(&namespace, "second", "True", "Reconciled").await?;
        bench.end(&namespace).await
    });
}

#[test]
fn keda_is_told_of_an_app_when_the_scaler_can_answer_for_it() {
    on_the_bench(async |bench| {
        let namespace = bench.app("early").await?;
        let scalers: Api<StatefulSet> = Api::namespaced(bench.cluster.client(), SYSTEM);
        let scale = async |replicas: i32| {
            let patch = json!({"spec": {"replicas": replicas}});
            scalers.patch("sluice-scaler", &PatchParams::default(), &Patch::Merge(&patch)).await
        };
        scale(0).await?;
        let slices: Api<EndpointSlice> = Api::namespaced(bench.cluster.client(), SYSTEM);
        let of_scaler = ListParams::default().labels("kubernetes.io/service-name=sluice-scaler");
        let away = async {
            while slices.list(&of_scaler).await?.iter().any(|slice| !slice.endpoints.is_empty()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(LIMIT, away).await.context("the scaler does not go away")??;
        bench.cluster.apply(&[http_scaled_object(&namespace, "early")]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "early", "False", "ScalerNotReady").await?;
        let scaled_objects: Api<ScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        ensure!(scaled_objects.get_opt("early").await?.is_none(), "it was made nevertheless");
        scale(2).await?;
        bench.ready::<HttpScaledObject>(&namespace, "early", "True", "Reconciled").await?;
        bench.end(&namespace).await
    });
}
