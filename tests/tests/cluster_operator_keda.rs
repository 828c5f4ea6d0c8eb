//! KEDA goes while the operator runs, and comes back. In a bed of its own: whoever shares it would miss KEDA, too.

use anyhow::{Context, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use sluice_api::{HttpScaledObject, ScaledObject};
use sluice_tests::cluster::sluice::{self, App, LIMIT, Settings};

/// The message of the condition Ready, if it is so for this reason.
fn ready<'a>(object: Option<&'a HttpScaledObject>, status: &str, reason: &str) -> Option<&'a str> {
    let conditions = &object?.status.as_ref()?.conditions;
    let ready = conditions.iter().find(|it| it.type_ == "Ready")?;
    (ready.status == status && ready.reason == reason).then_some(ready.message.as_str())
}

#[test]
fn without_keda_objects_say_so_and_with_it_they_are_scaled_again() {
    sluice::run(Settings::default(), async |sluice| {
        let cluster = sluice.cluster();
        let namespace = cluster.namespace("without").await?;
        let app = App::create(&sluice, &namespace, "app").await?;
        let objects: Api<HttpScaledObject> = Api::namespaced(cluster.client(), &namespace);
        let is = async |status: &str, reason: &str| -> anyhow::Result<String> {
            let is = |it: Option<&HttpScaledObject>| ready(it, status, reason).is_some();
            let object = cluster.wait_for(&objects, "app", LIMIT, is).await;
            let object = object.with_context(|| format!("Ready is not {status}, {reason}"))?;
            Ok(ready(object.as_ref(), status, reason).unwrap_or_default().to_owned())
        };
        cluster.apply(&[app.http_scaled_object(json!({}))]).await?;
        is("True", "Reconciled").await?;

        let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client());
        let name = "scaledobjects.keda.sh";
        let keda = definitions.get(name).await?;
        definitions.delete(name, &DeleteParams::default()).await?;
        cluster.wait_for(&definitions, name, LIMIT, |it| it.is_none()).await?;
        let said = is("False", "KedaNotFound").await?;
        ensure!(said.contains("(the cluster has no scaledobjects.keda.sh); install KEDA"), "{said}");

        let mut again = CustomResourceDefinition { spec: keda.spec.clone(), ..Default::default() };
        again.metadata.name = Some(name.to_owned());
        again.metadata.labels = Some(keda.labels().clone());
        definitions.create(&PostParams::default(), &again).await?;
        let scaled_objects: Api<ScaledObject> = Api::namespaced(cluster.client(), &namespace);
        let established = |it: Option<&CustomResourceDefinition>| {
            let conditions = it.and_then(|it| it.status.as_ref()?.conditions.as_ref());
            conditions.into_iter().flatten().any(|it| it.type_ == "Established" && it.status == "True")
        };
        cluster.wait_for(&definitions, name, LIMIT, established).await?;
        is("True", "Reconciled").await?;
        ensure!(scaled_objects.get_opt("app").await?.is_some(), "there is no ScaledObject");
        cluster.delete_namespace(&namespace).await
    });
}
