//! The real KEDA in the bed: its own CRDs, RBAC, Services and APIService, and Deployments of ours, since the
//! stand-in for kubelet wants programs that bind their Pod's address.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::{
    ByteString, api::apps::v1::Deployment, kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::Api;
use serde_json::{Value, json};

use super::{Cluster, bed::Bed};

/// KEDA's namespace, as in its own manifests.
pub const NAMESPACE: &str = "keda";
/// The Secret that KEDA's own manifests mount, with `ca.crt`, `tls.crt`, `tls.key`.
const CERTS: &str = "kedaorg-certs";
/// Longest wait for both Deployments and the aggregated API; about 3 s on two idle cores.
const LIMIT: Duration = Duration::from_secs(120);

/// Installs KEDA and waits until it runs and answers for external metrics.
pub(super) async fn install(cluster: &Cluster, bed: &Bed) -> Result<()> {
    parts(cluster, bed).await.context("KEDA does not start")
}

async fn parts(cluster: &Cluster, bed: &Bed) -> Result<()> {
    let manifests = bed.program("keda-manifests")?;
    cluster
        .apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})])
        .await?;
    cluster.kubectl(&["apply", "--server-side", "--filename", &manifests.display().to_string()]).await?;

    let names = ["keda-operator", "keda-metrics-apiserver"]
        .map(|name| [format!("{name}.{NAMESPACE}.svc"), format!("{name}.{NAMESPACE}.svc.cluster.local")])
        .concat();
    let names = names.iter().map(String::as_str).collect::<Vec<_>>();
    let identity = bed.authority().identity("keda", &names)?;
    let ca = bed.authority().cert();
    cluster
        .apply(&[
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": CERTS, "namespace": NAMESPACE},
                "stringData": {"ca.crt": ca, "tls.crt": identity.cert, "tls.key": identity.key},
            }),
            api_service(&ca),
            deployment("keda-operator", operator()),
            deployment("keda-metrics-apiserver", adapter()),
        ])
        .await?;

    for name in ["keda-operator", "keda-metrics-apiserver"] {
        let deployments = Api::<Deployment>::namespaced(cluster.client(), NAMESPACE);
        cluster.wait_for(&deployments, name, LIMIT, available).await?;
    }
    let services = Api::<APIService>::all(cluster.client());
    cluster.wait_for(&services, "v1beta1.external.metrics.k8s.io", LIMIT, api_available).await?;
    Ok(())
}

fn available(deployment: Option<&Deployment>) -> bool {
    let status = deployment.and_then(|deployment| deployment.status.as_ref());
    status.and_then(|status| status.available_replicas).is_some_and(|replicas| replicas > 0)
}

fn api_available(service: Option<&APIService>) -> bool {
    let conditions = service.and_then(|service| service.status.as_ref()?.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Available" && condition.status == "True")
}

/// KEDA's own APIService with the authority of our certificate; cert rotation, which would patch it in, is off.
fn api_service(ca: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
        "spec": {
            "service": {"name": "keda-metrics-apiserver", "namespace": NAMESPACE},
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": ByteString(ca.as_bytes().to_vec()),
        },
    })
}

fn operator() -> Value {
    json!({
        "name": "keda-operator",
        "image": "keda-operator",
        "args": [
            // KEDA's own defaults are wildcards, and the Pods here share a network stack.
            "--metrics-bind-address=$(POD_IP):8080",
            "--health-probe-bind-address=$(POD_IP):8081",
            "--metrics-service-bind-address=$(POD_IP):9666",
            "--cert-dir=/certs",
            "--enable-cert-rotation=false",
            "--leader-elect",
            "--zap-log-level=info",
            "--zap-encoder=console",
            "--zap-time-encoding=rfc3339nano",
        ],
        "env": env(),
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8081}},
        "volumeMounts": [{"name": "certificates", "mountPath": "/certs"}],
    })
}

fn adapter() -> Value {
    json!({
        "name": "keda-metrics-apiserver",
        "image": "keda-adapter",
        "args": [
            "--bind-address=$(POD_IP)",
            "--secure-port=6443",
            // Its Prometheus endpoint binds the wildcard whatever one says: a port that nothing else here has.
            "--port=18088",
            // It looks for files in /var/run/secrets where these are not given.
            "--lister-kubeconfig=$(KUBECONFIG)",
            "--authentication-kubeconfig=$(KUBECONFIG)",
            "--authorization-kubeconfig=$(KUBECONFIG)",
            "--client-ca-file=/certs/ca.crt",
            "--tls-cert-file=/certs/tls.crt",
            "--tls-private-key-file=/certs/tls.key",
            "--cert-dir=/certs",
            "--zap-log-level=info",
        ],
        "env": env(),
        "readinessProbe": {"tcpSocket": {"port": 6443}},
        "volumeMounts": [{"name": "certificates", "mountPath": "/certs"}],
    })
}

/// Leader election has KEDA's defaults (15, 10 and 2 s): whoever comes after a KEDA that has ended waits for its Lease, but
/// with shorter ones a busy machine is enough for KEDA to lose it, and to forget on the way which apps were active.
fn env() -> Value {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!([
        field("POD_IP", "status.podIP"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        {"name": "WATCH_NAMESPACE", "value": ""},
        // KEDA would look for it in /var/run/secrets.
        {"name": "KEDA_CLUSTER_OBJECT_NAMESPACE", "value": NAMESPACE},
    ])
}

fn deployment(name: &str, container: Value) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": "keda-operator",
                    "terminationGracePeriodSeconds": 10,
                    "containers": [container],
                    "volumes": [{"name": "certificates", "secret": {"secretName": CERTS}}],
                },
            },
        },
    })
}
