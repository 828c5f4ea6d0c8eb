//! Scaler and operator that look at one namespace, as the first lines of their manifests say: with Roles there, and
//! nothing for the whole cluster.

use super::*;
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::ResourceExt;
use sluice_api::{HttpScaledObject, InterceptorRoute, ScaledObject};
use std::time::Duration;

/// Longest wait for the operator's Pods, and for KEDA.
const LIMIT: Duration = Duration::from_secs(120);

/// A manifest's documents: what is for the whole cluster is for this namespace, which the variable names.
fn scoped(yaml: &str, variable: &str, namespace: &str) -> Result<Vec<Value>> {
    let mut documents = Vec::new();
    let (mut roles, mut named) = (0, 0);
    for document in yaml.split("\n---\n") {
        let mut document: Value = serde_saphyr::from_str(document)?;
        for (everywhere, there) in [("ClusterRole", "Role"), ("ClusterRoleBinding", "RoleBinding")] {
            if document["kind"] == everywhere {
                document["kind"] = json!(there);
                document["metadata"]["namespace"] = json!(namespace);
                roles += 1;
            }
        }
        if let Some(role) = document.pointer_mut("/roleRef/kind") {
            *role = json!("Role");
        }
        let variables = document.pointer_mut("/spec/template/spec/containers/0/env");
        for entry in variables.and_then(Value::as_array_mut).into_iter().flatten() {
            if entry["name"] == variable {
                entry["value"] = json!(namespace);
                named += 1;
            }
        }
        documents.push(document);
    }
    ensure!((roles, named) == (2, 1), "{roles} roles and bindings, {named} times {variable}");
    Ok(documents)
}

fn list(documents: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": documents}).to_string()
}

#[test]
fn in_one_namespace_a_role_there_is_enough_and_without_it_nothing_is_ready() {
    on_the_bed(async |cluster| {
        install_crds(&cluster).await?;
        let (mine, other) = (cluster.namespace("mine").await?, cluster.namespace("other").await?);
        cluster.apply(&[http_scaled_object(&mine, "shop"), http_scaled_object(&other, "elsewhere")]).await?;
        // The binding comes later here.
        let mut bindings = Vec::new();
        let without_binding = |yaml: String| {
            let documents = scoped(&yaml, "KEDA_HTTP_WATCH_NAMESPACE", &mine)?;
            let (binding, rest): (Vec<Value>, Vec<Value>) =
                documents.into_iter().partition(|document| document["kind"] == "RoleBinding");
            bindings = binding;
            Ok(list(&rest))
        };
        let scaler = Scaler::apply(&cluster, without_binding).await?;
        let denied = |state: &Value| {
            let said = problem(state, "watch of Service");
            said.is_some_and(|said| said["message"].to_string().contains("rights of install/scaler.yaml"))
        };
        scaler.until_state("the missing right to be named", denied).await?;
        let (status, text) = scaler.get(REPLICAS[0], "/readyz").await?;
        ensure!(status == 503, "{status}: {text}");
        ensure!(scaler.get(REPLICAS[0], "/livez").await?.0 == 200);
        ensure!(bindings.len() == 1, "{} bindings", bindings.len());
        cluster.apply(&bindings).await?;
        scaler.ready().await?;
        let state = scaler.until_state("every watch", all_watching).await?;
        ensure!(route(&state, "shop").is_some(), "{state:#}");
        ensure!(route(&state, "elsewhere").is_none(), "{state:#}");
        cluster.apply(&[http_scaled_object(&other, "later"), http_scaled_object(&mine, "latest")]).await?;
        let state = scaler.until_state("the latest", |state| route(state, "latest").is_some()).await?;
        ensure!(route(&state, "later").is_none(), "{state:#}");
        for namespace in [&mine, &other] {
            cluster.delete_namespace(namespace).await?;
        }
        scaler.uninstall().await
    });
}

/// An app that is asleep, and the objects that name it.
fn app(namespace: &str) -> [Value; 4] {
    let labels = json!({"app": "shop"});
    [
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop", "namespace": namespace},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "sleep", "args": ["3600"]}]},
            }},
        }),
        service(namespace, "shop"),
        http_scaled_object(namespace, "shop"),
        interceptor_route(namespace, "blog"),
    ]
}

/// Waits until there are conditions, and the one named Ready has this reason.
async fn ready(cluster: &Cluster, namespace: &str, reason: &str) -> Result<()> {
    let objects: Api<HttpScaledObject> = Api::namespaced(cluster.client(), namespace);
    let is = |it: Option<&HttpScaledObject>| {
        let status = it.and_then(|it| it.status.as_ref());
        let conditions = status.into_iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|it| it.type_ == "Ready" && it.reason == reason)
    };
    cluster.wait_for(&objects, "shop", LIMIT, is).await.map(drop)
}

#[test]
fn the_operator_works_in_one_namespace_with_a_role_there_and_touches_no_other() {
    on_the_bed(async |cluster| {
        install_crds(&cluster).await?;
        let (mine, other) = (cluster.namespace("mine").await?, cluster.namespace("other").await?);
        let scaler =
            Scaler::apply(&cluster, |yaml| Ok(list(&scoped(&yaml, "KEDA_HTTP_WATCH_NAMESPACE", &mine)?)))
                .await?;
        scaler.ready().await?;
        let system = scaler.namespace.as_str();
        cluster
            .bed()
            .context("needs the bed")?
            .add_program("sluice-operator", paths::binary("sluice-operator")?);
        cluster.apply(&app(&other)).await?;
        let yaml = scaler.own_addresses("operator.yaml")?;
        let documents = scoped(&yaml, "KEDA_HTTP_OPERATOR_WATCH_NAMESPACE", &mine)?;
        let kinds: Vec<&Value> = documents.iter().map(|document| &document["kind"]).collect();
        ensure!(!kinds.iter().any(|kind| kind.to_string().contains("Cluster")), "{kinds:?}");
        cluster.apply(&documents).await?;
        let deployments: Api<Deployment> = Api::namespaced(cluster.client(), system);
        let available = |it: Option<&Deployment>| {
            let status = it.and_then(|it| it.status.as_ref());
            status.and_then(|status| status.available_replicas) == Some(2)
        };
        cluster.wait_for(&deployments, "sluice-operator", LIMIT, available).await?;

        // All that it does: a ScaledObject that KEDA takes, what becomes of it, the other kind, a deletion.
        cluster.apply(&app(&mine)).await?;
        ready(&cluster, &mine, "Reconciled").await?;
        let scaled_objects: Api<ScaledObject> = Api::namespaced(cluster.client(), &mine);
        let address = scaled_objects.get("shop").await?.spec.triggers[0].metadata["scalerAddress"].clone();
        ensure!(address == format!("sluice-scaler.{system}:9090"), "{address}");
        let routes: Api<InterceptorRoute> = Api::namespaced(cluster.client(), &mine);
        let told = |it: Option<&InterceptorRoute>| it.is_some_and(|it| it.status.is_some());
        cluster.wait_for(&routes, "blog", LIMIT, told).await?;
        let annotation = json!({"metadata": {"annotations": {
            "httpscaledobject.keda.sh/skip-scaledobject-creation": "true",
        }}});
        let objects: Api<HttpScaledObject> = Api::namespaced(cluster.client(), &mine);
        cluster.merge(&objects, "shop", &annotation).await?;
        cluster.wait_for(&scaled_objects, "shop", LIMIT, |it| it.is_none()).await?;
        ready(&cluster, &mine, "ScaledObjectNotFound").await?;

        // What was there before all of this is as it was.
        let theirs: Api<HttpScaledObject> = Api::namespaced(cluster.client(), &other);
        ensure!(theirs.get("shop").await?.status.is_none(), "it looks at {other}");
        let theirs: Api<ScaledObject> = Api::namespaced(cluster.client(), &other);
        ensure!(theirs.get_opt("shop").await?.is_none(), "it writes to {other}");

        // One Lease for each of the operator's namespaces: there is one operator, of two replicas.
        let leases: Api<Lease> = Api::namespaced(cluster.client(), system);
        let lease = leases.get("sluice-operator").await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(cluster.client(), system);
        let operators = ListParams::default().labels("app.kubernetes.io/name=sluice-operator");
        let operators: Vec<String> = pods.list(&operators).await?.iter().map(ResourceExt::name_any).collect();
        ensure!(operators.len() == 2 && operators.contains(&holder), "{holder} of {operators:?}");
        for pod in &operators {
            let log = cluster.bed().context("needs the bed")?.pod_log(system, pod, "operator");
            ensure!(!log.contains("forbidden"), "{pod} was refused something: {log}");
        }
        for namespace in [&mine, &other] {
            cluster.delete_namespace(namespace).await?;
        }
        scaler.uninstall().await
    });
}
