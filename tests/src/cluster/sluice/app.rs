//! An app that sleeps and wakes: Deployment, Service, and the objects by which Sluice and KEDA know it.

use super::{LIMIT, NAMESPACE, Sluice};
use crate::wait;
use anyhow::{Context as _, Result};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api,
    api::{ApiResource, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_api::ScaledObject;
use std::time::Duration;

/// An app of a test. Its Service's port is 80.
#[derive(Clone)]
pub struct App {
    sluice: Sluice,
    /// Its namespace.
    pub namespace: String,
    /// The name of all its objects.
    pub name: String,
}

// === impl App ===

impl App {
    /// Makes Deployment (asleep) and Service. Sluice and KEDA do not know it.
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn create(sluice: &Sluice, namespace: &str, name: &str) -> Result<Self> {
        let app = Self::new(sluice, namespace, name);
        sluice.cluster().apply(&app.workload()).await?;
        Ok(app)
    }

    /// An app of which there is nothing yet.
    pub fn new(sluice: &Sluice, namespace: &str, name: &str) -> Self {
        Self { sluice: sluice.clone(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The host that is this app's alone.
    pub fn host(&self) -> String {
        format!("{}.{}.example.com", self.name, self.namespace)
    }

    /// `namespace/name`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Its cluster in Envoy, as the scaler's default template has it.
    pub fn cluster_name(&self) -> String {
        format!("outbound|80||{}.{}.svc.cluster.local", self.name, self.namespace)
    }

    fn metadata(&self) -> Value {
        json!({"name": self.name, "namespace": self.namespace, "labels": {"app": self.name}})
    }

    /// Its Deployment, with nobody in it, and its Service.
    pub fn workload(&self) -> [Value; 2] {
        let deployment = json!({
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
                            // It goes on a little when told to end, as with a preStop hook: longer than the
                            // gateway takes to hear of it.
                            "args": ["--listen", "$(POD_IP):8080", "--end-delay-ms", "500"],
                            "env": [
                                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                            ],
                            "ports": [{"name": "web", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "web"}},
                        }],
                    },
                },
            },
        });
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(),
            "spec": {
                "selector": {"app": self.name},
                "ports": [{"name": "http", "port": 80, "targetPort": "web"}],
            },
        });
        [deployment, service]
    }

    /// Its HTTPScaledObject: 0 to 1 Pods, back after a second. `more` is merged into the spec.
    pub fn http_scaled_object(&self, more: Value) -> Value {
        let mut spec = json!({
            "hosts": [self.host()],
            "scaleTargetRef": {
                "apiVersion": "apps/v1", "kind": "Deployment", "name": self.name,
                "service": self.name, "port": 80,
            },
            "replicas": {"min": 0, "max": 1},
            "scaledownPeriod": 1,
        });
        merge(&mut spec, more);
        json!({
            "apiVersion": "http.keda.sh/v1alpha1",
            "kind": "HTTPScaledObject",
            "metadata": self.metadata(),
            "spec": spec,
        })
    }

    /// Its InterceptorRoute. `more` is merged into the spec.
    pub fn interceptor_route(&self, more: Value) -> Value {
        let mut spec = json!({
            "target": {"service": self.name, "port": 80},
            "rules": [{"hosts": [self.host()]}],
            "scalingMetric": {"concurrency": {"targetValue": 100}},
        });
        merge(&mut spec, more);
        json!({
            "apiVersion": "http.keda.sh/v1beta1",
            "kind": "InterceptorRoute",
            "metadata": self.metadata(),
            "spec": spec,
        })
    }

    /// A ScaledObject as a user writes it for an InterceptorRoute; looked at every second, so that a test need not
    /// wait for KEDA's 30 s. `more` is merged into the spec.
    pub fn scaled_object(&self, more: Value) -> Value {
        let mut spec = json!({
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name},
            "minReplicaCount": 0,
            "maxReplicaCount": 1,
            "pollingInterval": 1,
            "cooldownPeriod": 1,
            "triggers": [{"type": "external-push", "metadata": {
                "scalerAddress": format!("sluice-scaler.{NAMESPACE}:9090"),
                "interceptorRoute": self.name,
            }}],
        });
        merge(&mut spec, more);
        json!({
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": self.metadata(),
            "spec": spec,
        })
    }

    /// Waits until its ScaledObject is one that KEDA works with.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn scaled_object_ready(&self) -> Result<()> {
        let resource = ApiResource::erase::<ScaledObject>(&());
        let objects: Api<kube::api::DynamicObject> =
            Api::namespaced_with(self.sluice.cluster().client(), &self.namespace, &resource);
        wait::until(format!("KEDA to take over the ScaledObject {}", self.path()), async || {
            let object = objects.get_opt(&self.name).await.map_err(|error| error.to_string())?;
            let object = object.ok_or("there is none")?;
            let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
            if conditions.iter().any(is) { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await
    }

    /// Has its next Pods take so long before they listen.
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn start_after(&self, delay: Duration) -> Result<()> {
        let delay = delay.as_millis().to_string();
        let args = ["--listen", "$(POD_IP):8080", "--end-delay-ms", "500", "--start-delay-ms", &delay];
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "args": args}]}}}});
        self.deployments().patch(&self.name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        Ok(())
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.sluice.cluster().client(), &self.namespace)
    }

    /// How many Pods there are to be.
    ///
    /// # Errors
    /// If the API server does not say.
    pub async fn replicas(&self) -> Result<i32> {
        let deployment = self.deployments().get(&self.name).await?;
        deployment.spec.and_then(|spec| spec.replicas).context("a Deployment without replicas")
    }

    /// Waits until that many Pods are ready, as its Deployment has it, and no others are to be.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn until_ready(&self, wanted: i32) -> Result<()> {
        let is = |it: Option<&Deployment>| {
            it.is_some_and(|it| {
                let ready = it.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
                it.spec.as_ref().and_then(|spec| spec.replicas) == Some(wanted) && ready == wanted
            })
        };
        let deployment = self.sluice.cluster().wait_for(&self.deployments(), &self.name, LIMIT, is).await;
        deployment.with_context(|| format!("{wanted} ready Pods")).map(drop)
    }

    /// Waits until it has been scaled to zero and no Pod is left, ending ones included.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn asleep(&self) -> Result<()> {
        self.until_ready(0).await?;
        wait::until(format!("{} to be asleep", self.path()), async || match self.pods().await {
            Ok(pods) if pods.is_empty() => Ok(()),
            Ok(pods) => Err(format!("{} Pods", pods.len())),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
    }

    /// Its Pods, ending ones included.
    ///
    /// # Errors
    /// If the API server does not say.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let pods = Api::<Pod>::namespaced(self.sluice.cluster().client(), &self.namespace);
        Ok(pods.list(&ListParams::default().labels(&format!("app={}", self.name))).await?.items)
    }
}

/// JSON merge patch.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from,
    }
}
