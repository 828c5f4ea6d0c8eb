//! The real Istio in the bed: istiod, and gateways that are the real Envoy under it.
//!
//! istiod runs as a Pod like everything else, so a test can restart it or change its environment as a user would:
//! through its Deployment. What differs from an installation of Istio's own:
//!
//! * xDS is plain (port 15010) and mesh TLS is off: nobody issues certificates. Injection and validation webhooks are
//!   off, since nothing is injected here.
//! * Gateways are Envoy alone, without istio-agent next to it, except where a test asks for it
//!   ([`GatewayOptions::agent`]).
//! * The gateways are Envoy as Envoy's project releases it, of the line that this Istio carries. It lacks Istio's own
//!   extensions, and an EnvoyFilter of the bed's takes them out of the gateways' chains.
//! * Pods share one network stack, and a gateway's listeners bind the wildcard: each gateway needs ports of its own.

mod agent;
mod app;
mod gateway;
pub mod operator;
mod sluice;
mod world;

use super::{Cluster, programs::Programs};
use crate::envoy;
use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::{Value, json};
use std::time::Duration;

pub use app::App;
pub use gateway::{Gateway, GatewayOptions};
pub use sluice::{Replica, Sluice};
pub use world::{GATEWAY, World, gateway_object, run, run_behind};

/// The mesh's root namespace, where istiod runs.
pub const NAMESPACE: &str = "istio-system";

/// What a start may take. istiod alone is ready in 3 s; the machine may be busy.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// The Envoy line of the Istio that `tests/cluster/versions.env` names.
const ENVOY_LINE: &str = "1.39.";

/// The Istio release that the gateways say they are.
const RELEASE: &str = "1.31.0";

/// How istiod is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Variables of its environment, for example `PILOT_ENABLE_EDS_DEBOUNCE`.
    pub env: Vec<(&'static str, &'static str)>,
    /// Fields of the mesh configuration.
    pub mesh: Value,
}

/// A running istiod.
#[derive(Clone)]
pub struct Istio {
    cluster: Cluster,
}

// === impl Istio ===

impl Istio {
    /// Installs Istio with istiod's defaults, or waits until it is as asked where it is installed: a test may call
    /// this first whatever ran before it.
    ///
    /// # Errors
    /// If there is no bed, a program cannot be built, or istiod does not become ready.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        Self::start_with(cluster, &Options::default()).await
    }

    /// As [`Self::start`], with options; those of another start are forgotten.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(cluster: &Cluster, options: &Options) -> Result<Self> {
        let bed = cluster.bed().context("Istio is tested on the bed, not on a cluster of one's own")?;
        let programs = tokio::task::spawn_blocking(|| Programs::build_parts(&["istio"])).await??;
        for name in ["istiod", "istioctl", "pilot-agent", "istio-bootstrap"] {
            bed.add_program(name, programs.get(name)?);
        }
        let version = envoy::tested_versions()?.into_iter().find(|version| version.starts_with(ENVOY_LINE));
        let version = version.context("tests/versions.env names no Envoy of this Istio's line")?;
        bed.add_program("envoy", envoy::envoy(Some(version))?);

        let manifests = programs.get("istio-manifests")?.display().to_string();
        cluster.kubectl(&["apply", "--server-side", "--filename", &manifests]).await?;
        // Objects of a kind are refused until the API server serves it.
        cluster
            .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "--filename", &manifests])
            .await?;
        cluster.apply(&objects(options)).await?;
        let deployments = Api::<Deployment>::namespaced(cluster.client(), NAMESPACE);
        cluster.wait_for(&deployments, "istiod", LIMIT, rolled_out).await.context("istiod")?;
        Ok(Self { cluster: cluster.clone() })
    }

    /// The cluster that it runs in.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Runs istioctl as admin; what it prints on standard output.
    ///
    /// # Errors
    /// With what it said when it fails.
    pub async fn istioctl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.run_program("istioctl", arguments).await
    }
}

/// Whether the Deployment's Pods are all of its latest template, and ready.
pub(super) fn rolled_out(deployment: Option<&Deployment>) -> bool {
    let Some(deployment) = deployment else { return false };
    let (Some(spec), Some(status)) = (&deployment.spec, &deployment.status) else { return false };
    let wanted = spec.replicas.unwrap_or(1);
    let all = [status.updated_replicas, status.ready_replicas, status.available_replicas, status.replicas];
    status.observed_generation == deployment.metadata.generation
        && all.into_iter().all(|count| count.unwrap_or(0) == wanted)
}

fn objects(options: &Options) -> Vec<Value> {
    let mut mesh = json!({
        "rootNamespace": NAMESPACE,
        // Nobody serves certificates here.
        "enableAutoMtls": false,
        "accessLogFile": "/dev/stdout",
    });
    for (field, value) in options.mesh.as_object().into_iter().flatten() {
        mesh[field] = value.clone();
    }
    let metadata = json!({"name": "istiod", "namespace": NAMESPACE, "labels": {"app": "istiod"}});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        // Its own roles are many, and none of what is tested here.
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "istiod"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "istiod", "namespace": NAMESPACE}],
        }),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "istio", "namespace": NAMESPACE},
            "data": {"mesh": mesh.to_string(), "meshNetworks": "networks: {}"},
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "selector": {"app": "istiod"},
                "ports": [
                    {"name": "grpc-xds", "port": 15010},
                    {"name": "http-monitoring", "port": 15014},
                ],
            },
        }),
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 1,
                // Two of them would both write status.
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": {"app": "istiod"}},
                "template": {
                    "metadata": {"labels": {"app": "istiod"}},
                    "spec": {
                        "serviceAccountName": "istiod",
                        "terminationGracePeriodSeconds": 2,
                        "containers": [istiod(options)],
                    },
                },
            },
        }),
        without_istios_own_filters(),
    ]
}

fn istiod(options: &Options) -> Value {
    let mut env = vec![
        field("POD_IP", "status.podIP"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        json!({"name": "PILOT_CERT_PROVIDER", "value": "istiod"}),
        // The released Envoy does not have this extension.
        json!({"name": "PILOT_ENABLE_METADATA_EXCHANGE", "value": "false"}),
        json!({"name": "INJECTION_WEBHOOK_CONFIG_NAME", "value": ""}),
        json!({"name": "VALIDATION_WEBHOOK_CONFIG_NAME", "value": ""}),
    ];
    env.extend(options.env.iter().map(|(name, value)| json!({"name": name, "value": value})));
    json!({
        "name": "discovery",
        "image": "istiod",
        "args": [
            "discovery",
            "--kubeconfig=$(KUBECONFIG)",
            "--domain=cluster.local",
            "--clusterID=Kubernetes",
            // Its own defaults are wildcards, and the Pods here share a network stack.
            "--httpAddr=$(POD_IP):8080",
            "--httpsAddr=",
            "--grpcAddr=$(POD_IP):15010",
            "--secureGRPCAddr=",
            "--monitoringAddr=$(POD_IP):15014",
            "--ctrlz_address=$(POD_IP)",
            "--keepaliveMaxServerConnectionAge=30m",
        ],
        "env": env,
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
    })
}

pub(super) fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

/// The filters of Istio's that the released Envoy does not have; it would refuse the listeners that name them.
fn without_istios_own_filters() -> Value {
    let patches = ["istio.metadata_exchange", "istio.alpn", "istio.stats"].map(|name| {
        json!({
            "applyTo": "HTTP_FILTER",
            "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": {
                "name": "envoy.filters.network.http_connection_manager",
                "subFilter": {"name": name},
            }}}},
            "patch": {"operation": "REMOVE"},
        })
    });
    json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "bed-without-istios-own-filters", "namespace": NAMESPACE},
        "spec": {"priority": -100, "configPatches": patches},
    })
}
