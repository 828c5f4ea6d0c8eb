//! The operator brings the filter into Istio's ingress gateway, and keeps it there.

use anyhow::{Context as _, Result, ensure};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject},
};
use serde_json::{Value, json};
use sluice_envoyfilter::Settings;
use sluice_tests::cluster::istio::{
    self, World,
    operator::{self, Operator, Options, envoy_filters, spec_when},
};

/// What the manifest says that is applied by hand with the same settings.
fn by_hand(world: &World) -> Result<Value> {
    Ok(world.sluice.manifest(&Settings::default())?.value()["spec"].clone())
}

fn filters(world: &World) -> Api<DynamicObject> {
    envoy_filters(&world.cluster, istio::NAMESPACE)
}

/// Who has applied it, by its managed fields.
fn is_applied_by(object: &DynamicObject, manager: &str) -> bool {
    object
        .managed_fields()
        .iter()
        .any(|entry| entry.manager.as_deref() == Some(manager) && entry.operation.as_deref() == Some("Apply"))
}

#[test]
fn the_filter_comes_by_the_operator_and_a_request_waits_for_its_app() {
    operator::run("applied", Options::default(), async |world, operator| {
        let wanted = by_hand(&world)?;
        let is = |it: &DynamicObject| it.data["spec"] == wanted && is_applied_by(it, "sluice-operator");
        spec_when(&filters(&world), "sluice", "as the manifest", is).await?;
        operator.counts("sluice_operator_envoy_filters{state=\"applied\"} 1").await?;
        // Only the leader writes.
        let writers = operator.metrics().await?;
        let writers =
            writers.iter().filter(|text| text.contains("writes_total{kind=\"EnvoyFilter\"")).count();
        ensure!(writers <= 1, "{writers} replicas write");

        // KEDA wakes it: the operator has made its ScaledObject, too.
        let app = world.app("shop").await?;
        let answer = world.get(&app.host(), "/a").await?;
        let said = (answer.status.as_u16(), answer.header("x-keda-http-cold-start"));
        ensure!(said == (200, "true"), "{answer:?}");
        Ok(())
    });
}

#[test]
fn what_is_changed_or_deleted_by_hand_is_put_back() {
    operator::run("back", Options::default(), async |world, operator| {
        let (filters, wanted) = (filters(&world), by_hand(&world)?);
        let is =
            |it: &DynamicObject| it.data["spec"] == wanted && it.labels().contains_key("sluice.dev/part");
        spec_when(&filters, "sluice", "as the manifest", is).await?;
        for change in [
            json!({"spec": {"priority": 7}}),
            json!({"spec": {"configPatches": []}}),
            // What server-side apply would leave alone: it is somebody else's field.
            json!({"spec": {"workloadSelector": {"labels": {"only": "some"}}}}),
            json!({"metadata": {"labels": {"sluice.dev/part": null, "app.kubernetes.io/managed-by": null}}}),
        ] {
            let before = filters.get("sluice").await?.resource_version();
            let changed = world.cluster.merge(&filters, "sluice", &change).await?;
            ensure!(changed.resource_version() != before, "{change} changed nothing");
            spec_when(&filters, "sluice", &format!("as before {change}"), is).await?;
        }
        operator.event("sluice", "Updated").await?;

        let uid = filters.get("sluice").await?.uid();
        filters.delete("sluice", &DeleteParams::default()).await?;
        let again = |it: &DynamicObject| is(it) && it.uid() != uid;
        spec_when(&filters, "sluice", "there again", again).await?;
        operator.event("sluice", "Created").await?;

        // What others write beside it stays, and nothing is written for it.
        let note = json!({"metadata": {"annotations": {"team": "edge"}}});
        let noted = world.cluster.merge(&filters, "sluice", &note).await?;
        // The next change has its turn after this one.
        world.cluster.merge(&filters, "sluice", &json!({"spec": {"priority": 8}})).await?;
        spec_when(&filters, "sluice", "as before", is).await?;
        let there = filters.get("sluice").await?;
        ensure!(there.annotations().get("team").is_some_and(|team| team == "edge"), "{there:?}");
        ensure!(noted.metadata.generation.zip(there.metadata.generation).is_some_and(|(a, b)| a + 2 == b));

        let app = world.app("shop").await?;
        let answer = world.get(&app.host(), "/").await?;
        ensure!(answer.status == 200 && answer.header("x-keda-http-cold-start") == "true", "{answer:?}");
        Ok(())
    });
}

#[test]
fn somebody_elses_is_left_alone_until_it_is_handed_over() {
    operator::run("foreign", Options::default(), async |world, operator| {
        let filters = filters(&world);
        let there = |it: &DynamicObject| is_applied_by(it, "sluice-operator");
        spec_when(&filters, "sluice", "the operator's", there).await?;
        operator.scale(0).await?;
        filters.delete("sluice", &DeleteParams::default()).await?;
        // As a user does who knows of no operator, with a setting of his own.
        let settings = Settings { priority: 50, ..Settings::default() };
        world.sluice.apply(&world.sluice.manifest(&settings)?).await?;
        let before = filters.get("sluice").await?;
        operator.scale(2).await?;
        operator.counts("sluice_operator_envoy_filters{state=\"foreign\"} 1").await?;
        operator.event("sluice", "NotOurs").await?;
        let logs = operator.logs().await?;
        let said = logs.lines().find(|line| line.contains("was not made by the operator"));
        let said = said.context("the log says nothing of it")?;
        ensure!(said.contains("app.kubernetes.io/managed-by=sluice-operator"), "{said}");
        let after = filters.get("sluice").await?;
        ensure!(after.resource_version() == before.resource_version(), "it was written: {after:?}");

        // As the log says.
        let label = ["label", "envoyfilter", "sluice", "--namespace", istio::NAMESPACE];
        let label = [&label[..], &["app.kubernetes.io/managed-by=sluice-operator"]].concat();
        world.cluster.kubectl(&label).await?;
        let wanted = by_hand(&world)?;
        let taken = |it: &DynamicObject| it.data["spec"] == wanted && there(it) && it.uid() == before.uid();
        spec_when(&filters, "sluice", "taken over, and not made anew", taken).await?;
        operator.counts("sluice_operator_envoy_filters{state=\"applied\"} 1").await
    });
}

/// One that the operator has made for a part of it that does not want it any more, and one that only looks like it.
#[test]
fn what_is_no_longer_wanted_is_deleted_and_a_copy_of_it_is_not() {
    operator::run("unwanted", Options::default(), async |world, operator| {
        let filters = filters(&world);
        let there = |it: &DynamicObject| is_applied_by(it, "sluice-operator");
        spec_when(&filters, "sluice", "the operator's", there).await?;
        let object = |name: &str| {
            json!({
                "apiVersion": "networking.istio.io/v1alpha3",
                "kind": "EnvoyFilter",
                "metadata": {"name": name, "namespace": istio::NAMESPACE, "labels": {
                    "app.kubernetes.io/managed-by": "sluice-operator", "sluice.dev/part": "filter",
                }},
                "spec": {"priority": 1, "workloadSelector": {"labels": {"istio": "nobody"}}, "configPatches": []},
            })
        };
        // A copy, as kubectl makes one; and one with another name from the time before a setting was changed.
        world.cluster.apply(&[object("copy")]).await?;
        let before = kube::api::PatchParams::apply("sluice-operator");
        filters.patch("before", &before, &kube::api::Patch::Apply(&object("before"))).await?;
        world
            .cluster
            .wait_for(&filters, "before", std::time::Duration::from_secs(60), |it| it.is_none())
            .await?;
        operator.event("before", "Deleted").await?;
        ensure!(filters.get_opt("copy").await?.is_some(), "the copy is gone");
        filters.delete("copy", &DeleteParams::default()).await?;
        Ok(())
    });
}

/// Another replica takes over: it finds all as it has to be, and goes on putting it back.
#[test]
fn the_next_leader_goes_on() {
    operator::run("leader", Options::default(), async |world, operator: Operator| {
        let (filters, wanted) = (filters(&world), by_hand(&world)?);
        let is = |it: &DynamicObject| it.data["spec"] == wanted;
        spec_when(&filters, "sluice", "as the manifest", is).await?;
        let before = filters.get("sluice").await?;
        operator.scale(0).await?;
        operator.scale(1).await?;
        operator.counts("sluice_operator_envoy_filters{state=\"applied\"} 1").await?;
        let after = filters.get("sluice").await?;
        ensure!(after.resource_version() == before.resource_version(), "it was written without a reason");
        world.cluster.merge(&filters, "sluice", &json!({"spec": {"priority": 9}})).await?;
        spec_when(&filters, "sluice", "as before", is).await?;
        operator.scale(2).await
    });
}
