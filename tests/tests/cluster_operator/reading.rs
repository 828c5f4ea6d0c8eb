//! What the operator reads: without the right to do so, and under definitions that drop a field.

use crate::bench::{Conditions, LIMIT, http_scaled_object, on_the_bench};
use anyhow::{Context, ensure};
use k8s_openapi::{
    api::{events::v1::Event, rbac::v1::ClusterRole},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_api::HttpScaledObject;
use std::time::Duration;

#[test]
fn services_that_cannot_be_read_are_not_said_to_be_missing() {
    on_the_bench(async |bench| {
        let namespace = bench.app("rights").await?;
        let roles: Api<ClusterRole> = Api::all(bench.cluster.client());
        let rules = roles.get("sluice-operator").await?.rules.unwrap_or_default();
        let set = async |rules: &Value| {
            let patch = json!({"rules": rules});
            roles.patch("sluice-operator", &PatchParams::default(), &Patch::Merge(&patch)).await
        };
        let is_of_services = |rule: &k8s_openapi::api::rbac::v1::PolicyRule| {
            rule.resources.as_ref().is_some_and(|all| all.iter().any(|it| it == "services"))
        };
        let fewer: Vec<_> = rules.iter().filter(|rule| !is_of_services(rule)).collect();
        ensure!(fewer.len() + 1 == rules.len(), "{rules:#?}");
        set(&json!(fewer)).await?;
        bench.stop_operators().await?;
        bench.start_operators().await?;
        bench.cluster.apply(&[http_scaled_object(&namespace, "rights")]).await?;
        let object =
            bench.ready::<HttpScaledObject>(&namespace, "rights", "Unknown", "ServicesUnreadable").await?;
        let message = |type_: &str| {
            let condition = object.conditions().iter().find(|condition| condition.type_ == type_);
            condition.map(|condition| condition.message.clone()).unwrap_or_default()
        };
        let said = message("ResolvedRefs");
        ensure!(said.contains("Services cannot be read (") && said.contains("forbidden"), "{said}");
        ensure!(said.contains("give the operator the rights"), "{said}");
        // That KEDA scales the app has nothing to do with it.
        let objects: Api<HttpScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let scaled = |it: Option<&HttpScaledObject>| {
            let conditions = it.map(Conditions::conditions).unwrap_or_default();
            conditions.iter().any(|it| it.type_ == "ScaledObjectReady" && it.status == "True")
        };
        bench.cluster.wait_for(&objects, "rights", LIMIT, scaled).await?;

        set(&json!(rules)).await?;
        bench.ready::<HttpScaledObject>(&namespace, "rights", "True", "Reconciled").await?;
        let events: Api<Event> = Api::namespaced(bench.cluster.client(), &namespace);
        let events = events.list(&ListParams::default()).await?;
        let warned = events.iter().find(|event| {
            event.reporting_controller.as_deref() == Some("sluice-operator")
                && event.type_.as_deref() == Some("Warning")
        });
        ensure!(warned.is_none(), "{warned:#?}");
        // That it was refused something was the point.
        bench.cluster.delete_namespace(&namespace).await
    });
}

/// As the add-on's definition does, which may be there still.
#[test]
fn a_definition_that_drops_the_observed_generation_makes_no_writes() {
    on_the_bench(async |bench| {
        let namespace = bench.app("dropped").await?;
        let resource = ApiResource::erase::<CustomResourceDefinition>(&());
        let definitions: Api<DynamicObject> = Api::all_with(bench.cluster.client(), &resource);
        let name = "httpscaledobjects.http.keda.sh";
        let versions = definitions.get(name).await?.data["spec"]["versions"].clone();
        let mut fewer = versions.clone();
        let status = &mut fewer[0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
        let dropped = status.as_object_mut().context("no status")?.remove("observedGeneration");
        ensure!(dropped.is_some(), "our definition has none");
        let set = async |versions: &Value| {
            let patch = json!({"spec": {"versions": versions}});
            definitions.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await
        };
        set(&fewer).await?;
        bench.cluster.apply(&[http_scaled_object(&namespace, "dropped")]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "dropped", "True", "Reconciled").await?;
        let objects: Api<HttpScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let is_dropped = |it: Option<&HttpScaledObject>| {
            it.is_some_and(|it| it.status.as_ref().is_some_and(|it| it.observed_generation.is_none()))
        };
        // What is stored is read by the definition, too, once that is in force.
        let dropped = async {
            while !is_dropped(objects.get_opt("dropped").await?.as_ref()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(LIMIT, dropped).await.context("the definition is not in force")??;
        bench.is_quiet(&namespace, "dropped").await?;
        set(&versions).await?;
        bench.end(&namespace).await
    });
}
