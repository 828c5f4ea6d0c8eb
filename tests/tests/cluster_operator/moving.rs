//! What the add-on has left behind.

use crate::bench::{LIMIT, http_scaled_object, on_the_bench};
use anyhow::ensure;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, PostParams},
    core::ApiResource,
};
use serde_json::json;
use sluice_api::{HttpScaledObject, ScaledObject};

#[test]
fn the_add_ons_scaled_object_becomes_ours_and_its_finalizer_is_in_nobodys_way() {
    on_the_bench(async |bench| {
        let namespace = bench.app("moving").await?;
        bench.stop_operators().await?;

        let mut object = http_scaled_object(&namespace, "moving");
        object["metadata"]["finalizers"] = json!(["httpscaledobject.http.keda.sh"]);
        bench.cluster.apply(&[object]).await?;
        let objects: Api<HttpScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let uid = objects.get("moving").await?.uid();
        // As the add-on makes it: not applied, and with what the object asked for then.
        let resource = ApiResource::erase::<ScaledObject>(&());
        let raw: Api<DynamicObject> = Api::namespaced_with(bench.cluster.client(), &namespace, &resource);
        let theirs = serde_json::from_value(json!({
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": {
                "name": "moving", "namespace": namespace, "labels": {"of": "before"},
                "ownerReferences": [{
                    "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject", "name": "moving", "uid": uid,
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {
                "scaleTargetRef": {"name": "moving"},
                "pollingInterval": 15,
                "cooldownPeriod": 99,
                "maxReplicaCount": 7,
                "advanced": {"restoreToOriginalReplicaCount": true},
                "triggers": [{"type": "external-push", "metadata": {
                    "scalerAddress": "keda-add-ons-http-external-scaler.keda:9090", "httpScaledObject": "moving",
                }}],
            },
        }))?;
        let manager = PostParams { field_manager: Some("operator".to_owned()), ..PostParams::default() };
        let before = raw.create(&manager, &theirs).await?;
        bench.start_operators().await?;
        bench.ready::<HttpScaledObject>(&namespace, "moving", "True", "Reconciled").await?;
        let scaled_objects: Api<ScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let after = scaled_objects.get("moving").await?;
        ensure!(after.uid() == before.uid(), "it is another one, and the app was scaled meanwhile");
        let address = &after.spec.triggers[0].metadata["scalerAddress"];
        ensure!(address == "sluice-scaler.sluice-system:9090", "{address}");
        ensure!(
            (after.spec.max_replica_count, after.spec.cooldown_period) == (Some(3), None),
            "{:#?}",
            after.spec
        );
        ensure!(!after.labels().contains_key("of"), "{:?}", after.labels());

        objects.delete("moving", &DeleteParams::default()).await?;
        bench.cluster.wait_for(&objects, "moving", LIMIT, |it| it.is_none()).await?;
        bench.cluster.wait_for(&scaled_objects, "moving", LIMIT, |it| it.is_none()).await?;
        bench.end(&namespace).await
    });
}
