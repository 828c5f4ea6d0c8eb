//! An app that sleeps and wakes: Deployment, Service, HTTPScaledObject, and the objects that route to it.

use super::{Istio, LIMIT};
use crate::wait;
use anyhow::Result;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

/// An app of a test. Its Service's port is 80.
#[derive(Clone)]
pub struct App {
    istio: Istio,
    /// Its namespace.
    pub namespace: String,
    /// The name of all its objects.
    pub name: String,
}

// === impl App ===

impl App {
    /// Makes Deployment (asleep) and Service. Nothing routes to it, and Sluice does not know it.
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn create(istio: &Istio, namespace: &str, name: &str) -> Result<Self> {
        let app = Self { istio: istio.clone(), namespace: namespace.to_owned(), name: name.to_owned() };
        istio.cluster().apply(&[app.deployment(), app.service()]).await?;
        Ok(app)
    }

    /// The host that is this app's alone.
    pub fn host(&self) -> String {
        format!("{}.{}.example.com", self.name, self.namespace)
    }

    /// The Service's name in full.
    pub fn service_host(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.name, self.namespace)
    }

    /// The Envoy cluster that istiod makes of the Service.
    pub fn cluster_name(&self) -> String {
        format!("outbound|80||{}", self.service_host())
    }

    fn metadata(&self) -> Value {
        json!({"name": self.name, "namespace": self.namespace, "labels": {"app": self.name}})
    }

    fn deployment(&self) -> Value {
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self.metadata(),
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": self.name}},
                "template": {
                    "metadata": {"labels": {"app": self.name}},
                    "spec": {
                        "terminationGracePeriodSeconds": 5,
                        "containers": [{
                            "name": "app",
                            "image": "sluice-test-app",
                            "args": [
                                "--listen", "$(POD_IP):8080",
                                // As a preStop hook would: longer than the gateway takes to hear of it.
                                "--end-delay-ms", "$(END_DELAY_MS)",
                                "--start-delay-ms", "$(START_DELAY_MS)",
                            ],
                            "env": [
                                super::field("POD_IP", "status.podIP"),
                                {"name": "START_DELAY_MS", "value": "0"},
                                {"name": "END_DELAY_MS", "value": "3000"},
                            ],
                            "ports": [{"name": "web", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "web"}},
                        }],
                    },
                },
            },
        })
    }

    fn service(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(),
            "spec": {
                "selector": {"app": self.name},
                "ports": [{"name": "http", "port": 80, "targetPort": "web"}],
            },
        })
    }

    /// An HTTPScaledObject for these hosts and path prefixes; without either it is found by the chosen cluster.
    pub fn scaled_object(&self, hosts: &[&str], prefixes: &[&str]) -> Value {
        let mut spec = json!({
            "scaleTargetRef": {
                "apiVersion": "apps/v1", "kind": "Deployment", "name": self.name,
                "service": self.name, "port": 80,
            },
            "replicas": {"min": 0, "max": 1},
        });
        if !hosts.is_empty() {
            spec["hosts"] = json!(hosts);
        }
        if !prefixes.is_empty() {
            spec["pathPrefixes"] = json!(prefixes);
        }
        json!({
            "apiVersion": "http.keda.sh/v1alpha1",
            "kind": "HTTPScaledObject",
            "metadata": self.metadata(),
            "spec": spec,
        })
    }

    /// What lets KEDA ask the scaler for this app.
    pub fn keda_scaled_object(&self) -> Value {
        json!({
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": self.metadata(),
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name},
                "minReplicaCount": 0,
                "maxReplicaCount": 1,
                "pollingInterval": 1,
                "cooldownPeriod": 1,
                "triggers": [{"type": "external-push", "metadata": {
                    "scalerAddress": "sluice-scaler.sluice-system:9090",
                    "httpScaledObject": self.name,
                }}],
            },
        })
    }

    /// A VirtualService of [`Self::host`] behind a Gateway, with routes of one's own.
    pub fn virtual_service(&self, gateway: &str, routes: Value) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": self.metadata(),
            "spec": {"hosts": [self.host()], "gateways": [gateway], "http": routes},
        })
    }

    /// The one route of a VirtualService that has no other.
    pub fn route(&self) -> Value {
        json!([{"route": [self.destination()]}])
    }

    /// The Service as a VirtualService's destination.
    pub fn destination(&self) -> Value {
        json!({"destination": {"host": self.service_host(), "port": {"number": 80}}})
    }

    /// Sets how many Pods there should be, as KEDA does.
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn scale(&self, replicas: u32) -> Result<()> {
        let deployments = Api::<Deployment>::namespaced(self.istio.cluster().client(), &self.namespace);
        let patch = json!({"spec": {"replicas": replicas}});
        self.istio.cluster().merge(&deployments, &self.name, &patch).await.map(drop)
    }

    /// Waits until a Pod is ready, as its Deployment has it.
    ///
    /// # Errors
    /// If it does not come.
    pub async fn awake(&self) -> Result<()> {
        let deployments = Api::<Deployment>::namespaced(self.istio.cluster().client(), &self.namespace);
        let ready = |deployment: Option<&Deployment>| {
            let status = deployment.and_then(|deployment| deployment.status.as_ref());
            status.and_then(|status| status.ready_replicas).is_some_and(|ready| ready > 0)
        };
        self.istio.cluster().wait_for(&deployments, &self.name, LIMIT, ready).await.map(drop)
    }

    /// Takes its Pods away without a word to their processes, as when a node dies or the kernel runs out of memory:
    /// SIGKILL, and there are to be none instead of them.
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn crash(&self) -> Result<()> {
        self.scale(0).await?;
        let pods = Api::<Pod>::namespaced(self.istio.cluster().client(), &self.namespace);
        for pod in self.pods().await? {
            match pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Waits until no Pod is left, ending ones included.
    ///
    /// # Errors
    /// If one stays.
    pub async fn asleep(&self) -> Result<()> {
        wait::until(format!("{} to be asleep", self.name), async || match self.pods().await {
            Ok(pods) if pods.is_empty() => Ok(()),
            Ok(pods) => Err(format!("{} pods", pods.len())),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
    }

    /// Has its Pods take so long (in ms) before they listen; those that run are replaced.
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn start_after(&self, delay_ms: u32) -> Result<()> {
        self.set_variable("START_DELAY_MS", delay_ms).await
    }

    /// Has its Pods go on serving so long (in ms) after SIGTERM; those that run are replaced.
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn end_after(&self, delay_ms: u32) -> Result<()> {
        self.set_variable("END_DELAY_MS", delay_ms).await
    }

    async fn set_variable(&self, name: &str, value: u32) -> Result<()> {
        let deployments = Api::<Deployment>::namespaced(self.istio.cluster().client(), &self.namespace);
        let env = json!([{"name": name, "value": value.to_string()}]);
        let container = json!({"name": "app", "env": env});
        let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        deployments.patch(&self.name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        Ok(())
    }

    /// Its Pods, ending ones included.
    ///
    /// # Errors
    /// If the API server does not say.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let pods = Api::<Pod>::namespaced(self.istio.cluster().client(), &self.namespace);
        Ok(pods.list(&ListParams::default().labels(&format!("app={}", self.name))).await?.items)
    }
}
