//! ScaledObjects that somebody has paused, by KEDA's own annotations.

use crate::bench::{Conditions, LIMIT, http_scaled_object, on_the_bench};
use anyhow::ensure;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use sluice_api::{HttpScaledObject, ScaledObject};

fn said(object: &HttpScaledObject) -> &str {
    let mut ready = object.conditions().iter().filter(|condition| condition.type_ == "Ready");
    ready.next().map_or("", |ready| &ready.message)
}

#[test]
fn a_pause_is_said_until_it_ends() {
    on_the_bench(async |bench| {
        let namespace = bench.app("pause").await?;
        bench.cluster.apply(&[http_scaled_object(&namespace, "pause")]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "pause", "True", "Reconciled").await?;
        for annotation in ["autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-scale-out"] {
            bench.annotate(&namespace, "pause", annotation, Some("true")).await?;
            let object = bench.ready::<HttpScaledObject>(&namespace, "pause", "False", "Paused").await?;
            let mend = format!("take the annotation {annotation} off HTTPScaledObject pause");
            ensure!(said(&object).contains(&mend), "{}", said(&object));
            bench.annotate(&namespace, "pause", annotation, None).await?;
            bench.ready::<HttpScaledObject>(&namespace, "pause", "True", "Reconciled").await?;
        }

        // On the ScaledObject itself, where it is nobody else's.
        let scaled_objects: Api<ScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let annotate = async |value: Option<&str>| {
            let patch = json!({"metadata": {"annotations": {"autoscaling.keda.sh/paused-replicas": value}}});
            scaled_objects.patch("pause", &PatchParams::default(), &Patch::Merge(&patch)).await
        };
        annotate(Some("0")).await?;
        let object = bench.ready::<HttpScaledObject>(&namespace, "pause", "False", "Paused").await?;
        let mend = "take the annotation autoscaling.keda.sh/paused-replicas off ScaledObject pause";
        ensure!(said(&object).contains(mend), "{}", said(&object));
        annotate(None).await?;
        bench.ready::<HttpScaledObject>(&namespace, "pause", "True", "Reconciled").await?;

        // An app that wakes, and only stays awake, is well.
        bench.annotate(&namespace, "pause", "autoscaling.keda.sh/paused-scale-in", Some("true")).await?;
        let objects: Api<HttpScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let told = |it: Option<&HttpScaledObject>| {
            it.is_some_and(|it| {
                let mut all = it.conditions().iter();
                let ready = all.any(|it| it.type_ == "Ready" && it.status == "True");
                ready && said(it).contains("only up: scaling in is paused")
            })
        };
        bench.cluster.wait_for(&objects, "pause", LIMIT, told).await?;
        bench.end(&namespace).await
    });
}
