//! The operator, installed, and what all its tests ask.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::Pod,
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Resource,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    core::{ApiResource, NamespaceResourceScope},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_api::HttpScaledObject;
use sluice_tests::{
    cluster::{self, Cluster, Guard, bed::Bed, sluice::audit::OPERATOR},
    paths, wait,
};
use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

/// Longest wait for anything here.
///
/// Garbage collection looks for new kinds every 30 s, and not at all while the aggregated API is away.
pub(super) const LIMIT: Duration = Duration::from_secs(180);
/// Where everything of Sluice is.
pub(super) const SYSTEM: &str = "sluice-system";

/// A cluster with Sluice in it.
pub(super) struct Bench {
    pub(super) cluster: Cluster,
    bed: Arc<Bed>,
    /// How long the operator's logs were when the test began: tests share it.
    logged: BTreeMap<String, usize>,
}

/// Runs a test where the operator is installed from its manifest. That takes the bed: in somebody's cluster it
/// would be in the way of the operator that may be there. Owners are guarded: the manifest has the right that that takes.
pub(super) fn on_the_bench<F>(test: impl FnOnce(Bench) -> F + Send + 'static)
where
    F: Future<Output = Result<()>>,
{
    if cluster::passes_over() {
        return;
    }
    cluster::run_with(Guard::Owners, async |cluster| {
        let bed = cluster.bed().context("needs the bed")?.clone();
        let mut bench = Bench { cluster, bed, logged: BTreeMap::new() };
        bench.install().await?;
        for pod in bench.operators().await? {
            bench.logged.insert(pod.clone(), bench.log(&pod).len());
        }
        test(bench).await
    });
}

/// An HTTPScaledObject for [`Bench::app`].
pub(super) fn http_scaled_object(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "http.keda.sh/v1alpha1",
        "kind": "HTTPScaledObject",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "hosts": [format!("{namespace}.example.com")],
            "scaleTargetRef": {"name": name, "service": name, "portName": "http"},
            "replicas": {"min": 0, "max": 3},
        },
    })
}

/// A ScaledObject as a user writes it.
pub(super) fn scaled_object(namespace: &str, name: &str, workload: &str, keys: Value) -> Value {
    let mut metadata = json!({"scalerAddress": "sluice-scaler.sluice-system.svc.cluster.local:9090"});
    for (key, value) in keys.as_object().into_iter().flatten() {
        metadata[key] = value.clone();
    }
    json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "scaleTargetRef": {"name": workload},
            "triggers": [{"type": "external-push", "metadata": metadata}],
        },
    })
}

/// An object of ours, with its conditions.
pub(super) trait Conditions {
    fn conditions(&self) -> &[Condition];
}

impl Conditions for HttpScaledObject {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }
}

impl Conditions for sluice_api::InterceptorRoute {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }
}

// === impl Bench ===

impl Bench {
    /// Applies the manifests as they are. What differs is what the bed's kubelet asks for: each Pod binds its own
    /// address. And nobody may take over from a leader by waiting, so that a handover is one.
    async fn install(&self) -> Result<()> {
        for program in ["sluice-operator", "sluice-scaler"] {
            self.bed.add_program(program, paths::binary(program)?);
        }
        let mut manifests = vec!["namespace.yaml".to_owned()];
        for file in fs::read_dir(paths::root().join("install/crds"))? {
            manifests.push(format!("crds/{}", file?.file_name().to_string_lossy()));
        }
        manifests.extend(["scaler.yaml".to_owned(), "operator.yaml".to_owned()]);
        for manifest in manifests {
            let text = fs::read_to_string(paths::root().join("install").join(&manifest))?;
            let text = text.replace(
                "            - name: SLUICE_BIND\n              value: 0.0.0.0\n",
                "            - name: POD_IP\n              valueFrom: {fieldRef: {fieldPath: status.podIP}}\n            \
                 - name: SLUICE_BIND\n              value: $(POD_IP)\n            \
                 - name: KEDA_HTTP_OPERATOR_LEADER_ELECTION_LEASE_DURATION\n              value: 1h\n",
            );
            self.cluster.apply_yaml(&text).await.with_context(|| manifest.clone())?;
        }
        self.owners_are_known().await?;
        let scalers = Api::<StatefulSet>::namespaced(self.cluster.client(), SYSTEM);
        let ready = |it: Option<&StatefulSet>| {
            it.is_some_and(|it| it.status.as_ref().is_some_and(|status| status.ready_replicas == Some(2)))
        };
        self.cluster.wait_for(&scalers, "sluice-scaler", LIMIT, ready).await?;
        let operators = Api::<Deployment>::namespaced(self.cluster.client(), SYSTEM);
        let ready = |it: Option<&Deployment>| {
            it.is_some_and(|it| it.status.as_ref().is_some_and(|status| status.available_replicas == Some(2)))
        };
        self.cluster.wait_for(&operators, "sluice-operator", LIMIT, ready).await?;
        Ok(())
    }

    /// Waits until the API server takes an HTTPScaledObject as an owner from the operator: the kind is new to it.
    async fn owners_are_known(&self) -> Result<()> {
        let mut owned = scaled_object("default", "owned", "owned", json!({"httpScaledObject": "owned"}));
        owned["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject", "name": "owned", "uid": "owned",
            "blockOwnerDeletion": true,
        }]);
        let url = "/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects?dryRun=All";
        wait::until("HTTPScaledObjects to be known as owners", async || {
            let request = http::Request::post(url)
                .header("content-type", "application/json")
                .header("impersonate-user", OPERATOR)
                .body(owned.to_string().into_bytes())
                .map_err(|error| error.to_string())?;
            self.cluster.client().request_text(request).await.map(drop).map_err(|error| error.to_string())
        })
        .await
    }

    /// A namespace with an app that is asleep: a Deployment and a Service of that name, with ports 80 and `http`.
    pub(super) async fn app(&self, name: &str) -> Result<String> {
        let namespace = self.cluster.namespace(name).await?;
        let labels = json!({"app": name});
        self.cluster
            .apply(&[
                json!({
                    "apiVersion": "apps/v1", "kind": "Deployment",
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
                        "metadata": {"labels": labels},
                        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
                            {"name": "main", "image": "sleep", "args": ["3600"]}
                        ]},
                    }},
                }),
                json!({
                    "apiVersion": "v1", "kind": "Service",
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
                }),
            ])
            .await?;
        Ok(namespace)
    }

    /// The same object under another name.
    pub(super) fn second(object: &Value, name: &str) -> Value {
        let mut second = object.clone();
        second["metadata"]["name"] = json!(name);
        second
    }

    /// Waits until the condition Ready is as wanted; a message that says what to do belongs to it.
    pub(super) async fn ready<K>(&self, namespace: &str, name: &str, status: &str, reason: &str) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Conditions
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let objects: Api<K> = Api::namespaced(self.cluster.client(), namespace);
        let is = |it: Option<&K>| {
            it.is_some_and(|it| {
                let mut ready = it.conditions().iter().filter(|condition| condition.type_ == "Ready");
                ready.any(|ready| {
                    ready.status == status
                        && ready.reason == reason
                        && ready.observed_generation == it.meta().generation
                })
            })
        };
        let object = self.cluster.wait_for(&objects, name, LIMIT, is).await;
        object.with_context(|| format!("Ready is not {status}, {reason}"))?.context("gone")
    }

    /// Sets an annotation, or takes it away.
    pub(super) async fn annotate(
        &self,
        namespace: &str,
        name: &str,
        annotation: &str,
        value: Option<&str>,
    ) -> Result<()> {
        let objects: Api<HttpScaledObject> = Api::namespaced(self.cluster.client(), namespace);
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        objects.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// Waits for Events of ours about an object, with these reasons.
    pub(super) async fn events(&self, namespace: &str, name: &str, reasons: &[&str]) -> Result<()> {
        let events: Api<Event> = Api::namespaced(self.cluster.client(), namespace);
        for reason in reasons {
            let found = async {
                loop {
                    let all = events.list(&ListParams::default()).await?;
                    let is = |event: &&Event| {
                        event.reporting_controller.as_deref() == Some("sluice-operator")
                            && event.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some(name)
                            && event.reason.as_deref() == Some(reason)
                    };
                    if all.iter().any(|event| is(&event)) {
                        return anyhow::Ok(());
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(LIMIT, found).await.with_context(|| format!("no Event {reason}"))??;
        }
        Ok(())
    }

    /// Looks at an object again and again without a reason, and finds that nothing is written.
    pub(super) async fn is_quiet(&self, namespace: &str, name: &str) -> Result<()> {
        let resource = ApiResource::erase::<HttpScaledObject>(&());
        let objects: Api<DynamicObject> = Api::namespaced_with(self.cluster.client(), namespace, &resource);
        let resource = ApiResource::erase::<sluice_api::ScaledObject>(&());
        let scaled: Api<DynamicObject> = Api::namespaced_with(self.cluster.client(), namespace, &resource);
        let writes = |metrics: &str| -> Vec<String> {
            let writes = metrics.lines().filter(|line| line.starts_with("sluice_operator_writes_total"));
            let mut writes: Vec<String> = writes.map(str::to_owned).collect();
            writes.sort();
            writes
        };
        let looks = |metrics: &str| -> u64 {
            let prefix = "sluice_operator_reconciles_total{kind=\"HTTPScaledObject\",result=\"ok\"} ";
            let line = metrics.lines().find_map(|line| line.strip_prefix(prefix));
            line.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        // What came before may still be under way: the object's last write, and the word of it.
        let quiet = async {
            loop {
                let before = self.leader_metrics().await?;
                let rounds = looks(&before) + 3;
                while looks(&self.leader_metrics().await?) < rounds {
                    // An annotation on the ScaledObject is somebody else's, and wakes the object.
                    let patch = json!({"metadata": {"annotations": {"poke": uuid()}}});
                    scaled.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                if writes(&self.leader_metrics().await?) == writes(&before) {
                    return anyhow::Ok(());
                }
            }
        };
        let outcome = tokio::time::timeout(LIMIT, quiet).await;
        let now = objects.get(name).await?;
        outcome.with_context(|| format!("something is written again and again: {:#?}", now.data))?
    }

    /// The Pod that leads, by the Lease.
    pub(super) async fn leader(&self) -> Result<String> {
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
            Api::namespaced(self.cluster.client(), SYSTEM);
        let held = |it: Option<&k8s_openapi::api::coordination::v1::Lease>| {
            holder(it).is_some_and(|holder| !holder.is_empty())
        };
        let lease = self.cluster.wait_for(&leases, "sluice-operator", LIMIT, held).await?;
        holder(lease.as_ref()).map(str::to_owned).context("nobody leads")
    }

    /// What the leader's `/metrics` says.
    pub(super) async fn leader_metrics(&self) -> Result<String> {
        let leader = self.leader().await?;
        self.get(&leader, "/metrics").await
    }

    /// A page of an operator's Pod.
    pub(super) async fn get(&self, pod: &str, path: &str) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client(), SYSTEM);
        let address = pods.get(pod).await?.status.and_then(|status| status.pod_ip).context("no address")?;
        let url = format!("http://{address}:8080{path}");
        let arguments = ["-sS", "--fail-with-body", "--max-time", "10", &url];
        let output =
            tokio::process::Command::from(self.bed.netns().command("curl")).args(arguments).output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{url}: {text} {}", String::from_utf8_lossy(&output.stderr));
        Ok(text)
    }

    /// The log of a Pod of the operator.
    pub(super) fn log(&self, pod: &str) -> String {
        self.bed.pod_log(SYSTEM, pod, "operator")
    }

    /// The names of the operator's Pods.
    pub(super) async fn operators(&self) -> Result<Vec<String>> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client(), SYSTEM);
        let operators = ListParams::default().labels("app.kubernetes.io/name=sluice-operator");
        Ok(pods.list(&operators).await?.into_iter().filter_map(|pod| pod.metadata.name).collect())
    }

    /// Ends the operator, and waits until it has gone.
    pub(super) async fn stop_operators(&self) -> Result<()> {
        self.scale_operators(0).await?;
        let away = async {
            while !self.operators().await?.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(LIMIT, away).await.context("the operator does not end")?
    }

    /// Starts it again.
    pub(super) async fn start_operators(&self) -> Result<()> {
        self.scale_operators(2).await
    }

    async fn scale_operators(&self, replicas: i32) -> Result<()> {
        let operators: Api<Deployment> = Api::namespaced(self.cluster.client(), SYSTEM);
        let patch = json!({"spec": {"replicas": replicas}});
        operators.patch("sluice-operator", &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// The end of a test: its namespace goes, and the operator was refused nothing.
    pub(super) async fn end(&self, namespace: &str) -> Result<()> {
        for pod in self.operators().await? {
            let log = self.log(&pod);
            let log = log.get(self.logged.get(&pod).copied().unwrap_or(0)..).unwrap_or_default();
            if let Some(line) = log.lines().find(|line| is_refusal(line)) {
                bail!("{pod} was refused something: {line}");
            }
        }
        self.cluster.delete_namespace(namespace).await
    }
}

fn holder(lease: Option<&k8s_openapi::api::coordination::v1::Lease>) -> Option<&str> {
    lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref())
}

/// A value that is new.
fn uuid() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// What it says of somebody else's refusals is information; and a namespace that is going takes nothing from anybody.
fn is_refusal(line: &str) -> bool {
    line.contains("forbidden") && !line.contains(r#""level":"INFO""#) && !line.contains("being terminated")
}
