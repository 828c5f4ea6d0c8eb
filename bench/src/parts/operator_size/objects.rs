//! What is written for the operator: definitions, its rights, and the objects.

use super::{super::cluster_source, rights, with_token};
use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use sluice_api::{HttpScaledObject, ScaledObject};
use sluice_tests::{
    cluster::{Cluster, bed::Bed, sluice::NAMESPACE},
    paths,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Writes under way at once, so that filling the API server takes no longer than it must.
const WRITERS: usize = 48;

/// Writes the definitions, ours and KEDA's of ScaledObjects, what the operator may do, and a scaler that can answer; gives the
/// operator's kubeconfig.
pub(super) async fn install(cluster: &Cluster, bed: &Bed, dir: &Path) -> anyhow::Result<PathBuf> {
    let install = paths::root().join("install");
    for crds in [install.join("crds"), bed.program("keda-manifests")?.join("keda.sh_scaledobjects.yaml")] {
        let crds = crds.display().to_string();
        cluster.kubectl(&["apply", "--server-side", "--filename", &crds]).await?;
        cluster
            .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "--filename", &crds])
            .await?;
    }
    let read = |file: &str| std::fs::read_to_string(install.join(file)).with_context(|| file.to_owned());
    cluster.apply_yaml(&read("namespace.yaml")?).await?;
    cluster.apply_yaml(&rights(&read("operator.yaml")?)?).await?;
    // It makes no ScaledObject before somebody can answer KEDA.
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "sluice-scaler-bench", "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": "sluice-scaler"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": 9090}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}],
    });
    cluster.apply(&[slice]).await?;
    let token = cluster.kubectl(&["create", "token", "sluice-operator", "--namespace", NAMESPACE]).await?;
    let config = with_token(&std::fs::read_to_string(bed.kubeconfig())?, token.trim())?;
    let path = dir.join("kubeconfig-operator");
    std::fs::write(&path, config)?;
    Ok(path)
}

/// Makes the namespaces that the objects are spread over.
pub(super) async fn namespaces(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut namespaces = Vec::new();
    for _ in 0..cluster_source::NAMESPACES {
        namespaces.push(cluster.namespace("many").await?);
    }
    Ok(namespaces)
}

/// Writes the objects, each with its Service.
pub(super) async fn fill(cluster: &Cluster, namespaces: &[String], objects: usize) -> anyhow::Result<()> {
    let numbers = futures::stream::iter(0..objects).map(anyhow::Ok);
    numbers
        .try_for_each_concurrent(WRITERS, async |number| {
            let (namespace, name) = cluster_source::place(namespaces, number);
            let (service, object) =
                (cluster_source::service(&name), cluster_source::http_scaled_object(&name));
            cluster_source::create::<Service>(cluster, namespace, service).await?;
            cluster_source::create::<HttpScaledObject>(cluster, namespace, object).await
        })
        .await
}

/// Changes so many objects, another one each time, at that rate.
pub(super) async fn change(
    cluster: &Cluster,
    namespaces: &[String],
    objects: usize,
    count: usize,
    rate: u32,
) -> anyhow::Result<()> {
    let clock = tokio::time::interval(Duration::from_secs(1) / rate);
    let ticks = futures::stream::try_unfold((clock, 0), async |(mut clock, number)| {
        clock.tick().await;
        anyhow::Ok((number < count).then(|| (number, (clock, number + 1))))
    });
    ticks
        .try_for_each_concurrent(WRITERS, async |number| {
            let (namespace, name) = cluster_source::place(namespaces, number % objects);
            let api = Api::<HttpScaledObject>::namespaced(cluster.client(), namespace);
            let changed = json!({"spec": {"replicas": {"max": 11 + number / objects}}});
            api.patch(&name, &PatchParams::default(), &Patch::Merge(changed)).await?;
            Ok(())
        })
        .await
}

/// What is fast because something is missing is not fast.
pub(super) async fn must_be_made(
    cluster: &Cluster,
    namespaces: &[String],
    objects: usize,
) -> anyhow::Result<()> {
    let (mut made, mut told) = (0, 0);
    for namespace in namespaces {
        let all = Api::<ScaledObject>::namespaced(cluster.client(), namespace);
        made += all.list_metadata(&ListParams::default()).await?.items.len();
        let all = Api::<HttpScaledObject>::namespaced(cluster.client(), namespace);
        let is_told = |object: &HttpScaledObject| {
            object.status.as_ref().is_some_and(|status| !status.conditions.is_empty())
        };
        told += all.list(&ListParams::default()).await?.items.iter().filter(|it| is_told(it)).count();
    }
    ensure!(
        made == objects && told == objects,
        "{made} ScaledObjects, and {told} HTTPScaledObjects with a status: not {objects}"
    );
    Ok(())
}
