//! The operator in a real cluster: installed from its manifest, with the rights that are named there and no others,
//! next to the real KEDA and the real scaler.

#[path = "cluster_operator/bench.rs"]
mod bench;
#[path = "cluster_operator/claims.rs"]
mod claims;
#[path = "cluster_operator/conditions.rs"]
mod conditions;
#[path = "cluster_operator/leader.rs"]
mod leader;
#[path = "cluster_operator/moving.rs"]
mod moving;
#[path = "cluster_operator/ownership.rs"]
mod ownership;
#[path = "cluster_operator/paused.rs"]
mod paused;
#[path = "cluster_operator/reading.rs"]
mod reading;
#[path = "cluster_operator/rights.rs"]
mod rights;

use anyhow::{Context, ensure};
use bench::{Bench, LIMIT, http_scaled_object, on_the_bench};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::json;
use sluice_api::{HttpScaledObject, ScaledObject};

#[test]
fn an_http_scaled_object_gets_its_scaled_object_and_takes_it_along() {
    on_the_bench(async |bench| {
        let namespace = bench.app("shop").await?;
        let mut object = http_scaled_object(&namespace, "shop");
        object["metadata"]["labels"] = json!({"team": "a", "tier": "web"});
        object["metadata"]["annotations"] = json!({"note": "by hand"});
        object["spec"]["scaledownPeriod"] = json!(77);
        object["spec"]["initialCooldownPeriod"] = json!(5);
        bench.cluster.apply(&[object.clone()]).await?;
        let ready = bench.ready::<HttpScaledObject>(&namespace, "shop", "True", "Reconciled").await?;
        let status = ready.status.clone().context("no status")?;
        ensure!(status.target_workload.as_deref() == Some("apps/v1/Deployment/shop"), "{status:?}");
        ensure!(status.target_service.as_deref() == Some("shop:http"), "{status:?}");
        ensure!(status.observed_generation == ready.metadata.generation, "{status:?}");
        let types: Vec<&str> = status.conditions.iter().map(|it| it.type_.as_str()).collect();
        // After these: what gateways have shown.
        ensure!(types.starts_with(&["Ready", "Accepted", "ResolvedRefs", "ScaledObjectReady"]), "{types:?}");

        let scaled_objects: Api<ScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let made = scaled_objects.get("shop").await?;
        let owner = &made.owner_references()[0];
        ensure!(Some(&owner.uid) == ready.uid().as_ref() && owner.controller == Some(true), "{owner:?}");
        ensure!(made.labels().get("team").is_some_and(|team| team == "a"), "{:?}", made.labels());
        ensure!(
            made.annotations().get("note").is_some_and(|note| note == "by hand"),
            "{:?}",
            made.annotations()
        );
        let spec = &made.spec;
        ensure!((spec.min_replica_count, spec.max_replica_count) == (Some(0), Some(3)), "{spec:?}");
        ensure!((spec.cooldown_period, spec.initial_cooldown_period) == (Some(77), Some(5)), "{spec:?}");
        ensure!(spec.polling_interval == Some(15), "{spec:?}");
        ensure!(spec.triggers.len() == 1 && spec.triggers[0].type_ == "external-push", "{spec:?}");
        let metadata = serde_json::to_value(&spec.triggers[0].metadata)?;
        ensure!(
            metadata
                == json!({"scalerAddress": "sluice-scaler.sluice-system:9090", "httpScaledObject": "shop"}),
            "{metadata}"
        );

        // What changes there changes here, and what goes there goes here.
        object["metadata"]["labels"] = json!({"team": "b"});
        object["spec"]["replicas"] = json!({"min": 0, "max": 9});
        object["spec"].as_object_mut().context("spec")?.remove("scaledownPeriod");
        bench.cluster.apply(&[object]).await?;
        let changed = |it: Option<&ScaledObject>| {
            it.is_some_and(|it| {
                it.spec.max_replica_count == Some(9)
                    && it.spec.cooldown_period.is_none()
                    && it.labels().get("team").is_some_and(|team| team == "b")
                    && !it.labels().contains_key("tier")
            })
        };
        bench.cluster.wait_for(&scaled_objects, "shop", LIMIT, changed).await?;
        // A user's own field stays; one that follows from the HTTPScaledObject comes back.
        let by_hand =
            json!({"spec": {"maxReplicaCount": 50, "fallback": {"failureThreshold": 3, "replicas": 2}}});
        scaled_objects.patch("shop", &PatchParams::default(), &Patch::Merge(&by_hand)).await?;
        let changed = |it: Option<&ScaledObject>| it.is_some_and(|it| it.spec.max_replica_count == Some(9));
        bench.cluster.wait_for(&scaled_objects, "shop", LIMIT, changed).await?;
        let raw: Api<DynamicObject> = Api::namespaced_with(
            bench.cluster.client(),
            &namespace,
            &ApiResource::erase::<ScaledObject>(&()),
        );
        let raw = raw.get("shop").await?;
        ensure!(raw.data["spec"]["fallback"]["replicas"] == json!(2), "{}", raw.data);
        // One that is deleted by hand comes again.
        let uid = scaled_objects.get("shop").await?.uid();
        scaled_objects.delete("shop", &DeleteParams::default()).await?;
        let another = |it: Option<&ScaledObject>| it.is_some_and(|it| it.uid() != uid);
        bench.cluster.wait_for(&scaled_objects, "shop", LIMIT, another).await?;
        bench.ready::<HttpScaledObject>(&namespace, "shop", "True", "Reconciled").await?;

        bench.events(&namespace, "shop", &["Created", "Updated", "Reconciled"]).await?;
        bench.is_quiet(&namespace, "shop").await?;

        let objects: Api<HttpScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        objects.delete("shop", &DeleteParams::default()).await?;
        bench.cluster.wait_for(&scaled_objects, "shop", LIMIT, |it| it.is_none()).await?;
        bench.end(&namespace).await
    });
}

#[test]
fn skip_deletes_the_scaled_object_and_its_end_brings_it_back() {
    on_the_bench(async |bench| {
        let namespace = bench.app("skip").await?;
        bench.cluster.apply(&[http_scaled_object(&namespace, "skip")]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "skip", "True", "Reconciled").await?;
        let scaled_objects: Api<ScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let annotation = "httpscaledobject.keda.sh/skip-scaledobject-creation";
        bench.annotate(&namespace, "skip", annotation, Some("true")).await?;
        bench.cluster.wait_for(&scaled_objects, "skip", LIMIT, |it| it.is_none()).await?;
        bench.ready::<HttpScaledObject>(&namespace, "skip", "False", "ScaledObjectNotFound").await?;
        // The user's own, as its message says.
        bench
            .cluster
            .apply(&[bench::scaled_object(&namespace, "own", "skip", json!({"httpScaledObject": "skip"}))])
            .await?;
        bench.ready::<HttpScaledObject>(&namespace, "skip", "True", "Reconciled").await?;
        scaled_objects.delete("own", &DeleteParams::default()).await?;
        bench.cluster.wait_for(&scaled_objects, "own", LIMIT, |it| it.is_none()).await?;
        // Any other value is none.
        bench.annotate(&namespace, "skip", annotation, Some("yes")).await?;
        bench.cluster.wait_for(&scaled_objects, "skip", LIMIT, |it| it.is_some()).await?;
        bench.ready::<HttpScaledObject>(&namespace, "skip", "True", "Reconciled").await?;
        bench.events(&namespace, "skip", &["Created", "Deleted"]).await?;
        bench.end(&namespace).await
    });
}

#[test]
fn an_orphan_survives_and_can_be_taken_back() {
    on_the_bench(async |bench| {
        let namespace = bench.app("orphan").await?;
        let object = http_scaled_object(&namespace, "orphan");
        bench.cluster.apply(std::slice::from_ref(&object)).await?;
        bench.ready::<HttpScaledObject>(&namespace, "orphan", "True", "Reconciled").await?;
        let scaled_objects: Api<ScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let uid = scaled_objects.get("orphan").await?.uid();
        let annotation = "httpscaledobject.keda.sh/orphan-scaledobject";
        bench.annotate(&namespace, "orphan", annotation, Some("true")).await?;
        let free = |it: Option<&ScaledObject>| it.is_some_and(|it| it.owner_references().is_empty());
        bench.cluster.wait_for(&scaled_objects, "orphan", LIMIT, free).await?;

        // Without the annotation it is ours again.
        bench.annotate(&namespace, "orphan", annotation, None).await?;
        let owned = |it: Option<&ScaledObject>| it.is_some_and(|it| it.owner_references().len() == 1);
        bench.cluster.wait_for(&scaled_objects, "orphan", LIMIT, owned).await?;

        bench.annotate(&namespace, "orphan", annotation, Some("true")).await?;
        bench.cluster.wait_for(&scaled_objects, "orphan", LIMIT, free).await?;
        let objects: Api<HttpScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        objects.delete("orphan", &DeleteParams::default()).await?;
        bench.cluster.wait_for(&objects, "orphan", LIMIT, |it| it.is_none()).await?;
        // Another object's way through the same controller shows that this one's has ended.
        let other = Bench::second(&object, "second");
        bench.cluster.apply(&[other]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "second", "False", "WorkloadTaken").await?;
        ensure!(scaled_objects.get("orphan").await?.uid() == uid, "it is another one");
        bench.end(&namespace).await
    });
}
