//! One replica works, the other takes over when it ends.

use crate::bench::{LIMIT, SYSTEM, http_scaled_object, on_the_bench};
use anyhow::{Context, ensure};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{Api, api::DeleteParams};
use serde_json::json;
use sluice_api::{HttpScaledObject, ScaledObject};

#[test]
fn a_leader_that_ends_hands_over() {
    on_the_bench(async |bench| {
        let namespace = bench.app("handover").await?;
        let first = bench.leader().await?;
        let pods: Api<Pod> = Api::namespaced(bench.cluster.client(), SYSTEM);
        let names = bench.operators().await?;
        let second = names.iter().find(|name| **name != first).context("there is one replica only")?;
        ensure!(bench.get(&first, "/readyz").await?.trim() == "leading", "{first} leads");
        ensure!(bench.get(second, "/readyz").await?.trim() == "standing by", "{second} stands by");
        ensure!(bench.get(second, "/livez").await?.trim() == "ok", "{second} lives");
        ensure!(bench.get(&first, "/metrics").await?.contains("sluice_operator_leader 1"), "{first} leads");
        ensure!(
            bench.get(second, "/metrics").await?.contains("sluice_operator_leader 0"),
            "{second} stands by"
        );

        // The Lease is good for an hour: only one that is handed back can be taken now.
        pods.delete(&first, &DeleteParams::default()).await?;
        let leases: Api<Lease> = Api::namespaced(bench.cluster.client(), SYSTEM);
        let taken = |lease: Option<&Lease>| {
            let holder = lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref());
            holder.is_some_and(|holder| !holder.is_empty() && holder != first)
        };
        bench.cluster.wait_for(&leases, "sluice-operator", LIMIT, taken).await?;
        let log = bench.log(&first);
        ensure!(log.contains("handed the Lease back"), "{log}");
        bench.cluster.apply(&[http_scaled_object(&namespace, "handover")]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "handover", "True", "Reconciled").await?;
        bench.end(&namespace).await
    });
}

#[test]
fn it_goes_on_after_the_api_server_was_away() {
    on_the_bench(async |bench| {
        let namespace = bench.app("away").await?;
        bench.cluster.apply(&[http_scaled_object(&namespace, "away")]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "away", "True", "Reconciled").await?;
        let bed = bench.cluster.bed().context("needs the bed")?;
        bed.stop_api_server().await?;
        bed.start_api_server().await?;
        let mut after = http_scaled_object(&namespace, "after");
        after["spec"]["scaleTargetRef"]["name"] = json!("after");
        bench.cluster.apply(&[after]).await?;
        let scaled_objects: Api<ScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        bench.cluster.wait_for(&scaled_objects, "after", LIMIT, |it| it.is_some()).await?;
        bench.ready::<HttpScaledObject>(&namespace, "after", "False", "ServiceNotFound").await?;
        // An API server that has just started does not know its own roles yet, and refuses: not asked here.
        bench.cluster.delete_namespace(&namespace).await
    });
}
