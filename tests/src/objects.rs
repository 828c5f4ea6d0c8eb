//! The API server's part: the objects that the scaler reads, as YAML files in a folder.

use crate::paths;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// An app as Kubernetes names it, with one Service port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The namespace.
    pub namespace: String,
    /// The Service's name, and the HTTPScaledObject's.
    pub name: String,
    /// The Service's port.
    pub port: u16,
}

/// Whether an endpoint of an EndpointSlice can be used, as kubelet and the EndpointSlice controller say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The pod passes its readiness probe.
    Ready,
    /// It does not (yet).
    NotReady,
    /// The pod is being deleted: still serving, no longer ready.
    Terminating,
}

/// The folder that `sluice-scaler --config-dir` reads.
#[derive(Clone, Debug)]
pub struct Objects {
    dir: PathBuf,
}

// === impl Target ===

impl Target {
    /// An app in the namespace `default` behind port 8080.
    pub fn new(name: &str) -> Self {
        Self { namespace: "default".to_owned(), name: name.to_owned(), port: 8080 }
    }

    /// Its cluster's name under the scaler's default template.
    pub fn cluster(&self) -> String {
        format!("outbound|{}||{}.{}.svc.cluster.local", self.port, self.name, self.namespace)
    }

    /// A host that is this app's alone.
    pub fn host(&self) -> String {
        format!("{}.{}.example.com", self.name, self.namespace)
    }

    /// The Service.
    pub fn service(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": self.metadata(),
            "spec": {"ports": [{"name": "http", "port": self.port}], "selector": {"app": self.name}},
        })
    }

    /// An HTTPScaledObject for [`Self::host`].
    pub fn scaled_object(&self) -> Value {
        json!({
            "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject", "metadata": self.metadata(),
            "spec": {
                "hosts": [self.host()],
                "scaleTargetRef": {
                    "apiVersion": "apps/v1", "kind": "Deployment", "name": self.name,
                    "service": self.name, "port": self.port,
                },
            },
        })
    }

    /// The Service's EndpointSlices: one per endpoint, because the endpoints of a slice share its ports, and here
    /// every process has a port of its own. Without endpoints one empty slice is left, as in a cluster.
    pub fn endpoint_slices(&self, endpoints: &[(SocketAddr, Condition)]) -> Vec<Value> {
        if endpoints.is_empty() {
            return vec![self.endpoint_slice(self.port, json!([]))];
        }
        endpoints
            .iter()
            .map(|(address, condition)| {
                let endpoint = json!({
                    "addresses": [address.ip().to_string()],
                    "conditions": {
                        "ready": *condition == Condition::Ready,
                        "serving": *condition != Condition::NotReady,
                        "terminating": *condition == Condition::Terminating,
                    },
                });
                self.endpoint_slice(address.port(), json!([endpoint]))
            })
            .collect()
    }

    fn endpoint_slice(&self, port: u16, endpoints: Value) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{port}", self.name), "namespace": self.namespace,
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            "endpoints": endpoints,
        })
    }

    fn metadata(&self) -> Value {
        json!({"name": self.name, "namespace": self.namespace})
    }
}

// === impl Objects ===

impl Objects {
    /// A folder.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(dir: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a file of one or many objects in one step. JSON is YAML.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, file: &str, objects: &[Value]) -> anyhow::Result<()> {
        let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
        paths::write_atomically(&self.dir.join(file), &text)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// If it is not there.
    pub fn remove(&self, file: &str) -> anyhow::Result<()> {
        let path = self.dir.join(file);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// Writes an app's Service and HTTPScaledObject, and an EndpointSlice without endpoints.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn add(&self, target: &Target) -> anyhow::Result<()> {
        self.add_with(target, target.scaled_object())
    }

    /// As [`Self::add`], with an HTTPScaledObject or InterceptorRoute of one's own.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn add_with(&self, target: &Target, object: Value) -> anyhow::Result<()> {
        self.endpoints(target, &[])?;
        self.write(&format!("{}-{}.yaml", target.namespace, target.name), &[target.service(), object])
    }

    /// Writes an app's EndpointSlice.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn endpoints(&self, target: &Target, endpoints: &[(SocketAddr, Condition)]) -> anyhow::Result<()> {
        let file = format!("{}-{}-endpoints.yaml", target.namespace, target.name);
        self.write(&file, &target.endpoint_slices(endpoints))
    }
}

/// `base` with `change` merged into it, `null` taking away.
pub fn changed(mut base: Value, change: &Value) -> Value {
    match (base.as_object_mut(), change) {
        (Some(fields), Value::Object(changes)) => {
            for (field, change) in changes {
                match change {
                    Value::Null => drop(fields.remove(field)),
                    change => {
                        let old = fields.remove(field).unwrap_or_default();
                        fields.insert(field.clone(), changed(old, change));
                    }
                }
            }
            base
        }
        (None, Value::Object(_)) => changed(json!({}), change),
        (_, change) => change.clone(),
    }
}
