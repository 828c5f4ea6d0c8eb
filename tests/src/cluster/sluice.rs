//! Sluice in the cluster as a user installs it, behind a plain Envoy: scaler and operator from the manifests of
//! `install/` with exactly their rights, and a gateway that has its endpoints from the scalers.
//!
//! Layout: [`Sluice`] what is installed · [`Gateway`] the Envoy · [`App`] what sleeps and wakes · [`audit`] what
//! was written to the API server, by whom and when.

mod app;
pub mod audit;
mod gateway;

pub use app::App;
pub use gateway::Gateway;

use super::{Cluster, bed::Bed, keda};
use crate::{http, paths, scaler::State, wait};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{Pod, Service},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Where everything of Sluice is.
pub const NAMESPACE: &str = "sluice-system";
/// How many scalers `install/scaler.yaml` has.
pub const REPLICAS: usize = 2;
/// Longest wait for anything. Garbage collection, for one, looks for new kinds only every 30 s.
pub const LIMIT: Duration = Duration::from_secs(180);
/// The scaler's HTTP port.
const HTTP_PORT: u16 = 8080;
/// The scaler's gRPC port.
const GRPC_PORT: u16 = 9090;

/// Pods share one network stack here: each has to bind its own address.
const BIND: &str = "            - name: SLUICE_BIND\n              value: 0.0.0.0\n";

/// What [`apply_tls`] applies where there is to be no TLS: `docs/keda-tls.md`, "To go back".
const PLAIN: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: sluice-scaler, namespace: sluice-system}
---
apiVersion: v1
kind: Service
metadata: {name: sluice-scaler, namespace: sluice-system}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: sluice-operator, namespace: sluice-system}
"#;

/// How Sluice is to be installed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The scaler's environment besides what the manifest says.
    pub scaler: Vec<(&'static str, String)>,
    /// The operator's environment besides what the manifest says.
    pub operator: Vec<(&'static str, String)>,
    /// Whether KEDA calls the scaler over mutual TLS.
    pub tls: bool,
}

/// Sluice, installed.
#[derive(Clone)]
pub struct Sluice {
    cluster: Cluster,
}

/// One of the scaler's Pods.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
}

/// Runs a test with Sluice installed on the bed. Somebody's cluster is passed over: there, Pods cannot be processes
/// of this machine.
pub fn run<F>(settings: Settings, test: impl FnOnce(Sluice) -> F + Send + 'static)
where
    F: Future<Output = Result<()>>,
{
    if super::passes_over() {
        return;
    }
    super::run(async move |cluster| test(Sluice::install(&cluster, &settings).await?).await);
}

// === impl Settings ===

impl Default for Settings {
    /// As installed, but that an app counts as idle after a second without a request, not after 30, and that a
    /// scaler told to end does so at once.
    fn default() -> Self {
        let scaler = [("SLUICE_ACTIVITY_WINDOW", "1s"), ("KEDA_HTTP_SHUTDOWN_DELAY", "0s")];
        Self {
            scaler: scaler.map(|(name, value)| (name, value.to_owned())).to_vec(),
            operator: Vec::new(),
            tls: false,
        }
    }
}

// === impl Sluice ===

impl Sluice {
    /// Installs the definitions, the scaler and the operator, and waits until all replicas are ready.
    ///
    /// # Errors
    /// If something does not become ready.
    pub async fn install(cluster: &Cluster, settings: &Settings) -> Result<Self> {
        let bed = cluster.bed().context("needs the bed")?;
        for program in ["sluice-operator", "sluice-scaler", "sluice-test-app"] {
            bed.add_program(program, paths::binary(program)?);
        }
        let folder = paths::root().join("install");
        let crds = folder.join("crds").display().to_string();
        cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "--filename", &crds]).await?;
        cluster
            .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "--filename", &crds])
            .await?;
        cluster.apply_yaml(&fs::read_to_string(folder.join("namespace.yaml"))?).await?;
        for (file, more) in [("scaler.yaml", &settings.scaler), ("operator.yaml", &settings.operator)] {
            let yaml = fs::read_to_string(folder.join(file)).with_context(|| file.to_owned())?;
            ensure!(yaml.contains(BIND), "install/{file} has no SLUICE_BIND of 0.0.0.0 any more");
            cluster.apply_yaml(&yaml.replace(BIND, &variables(more))).await.context(file)?;
        }
        if settings.tls {
            cluster.apply(&certificates(bed)?).await?;
            apply_tls(cluster, &fs::read_to_string(folder.join("tls.yaml"))?).await.context("tls.yaml")?;
        } else {
            // A test before this one may have had it.
            apply_tls(cluster, PLAIN).await?;
        }
        let sluice = Self { cluster: cluster.clone() };
        sluice.ready().await?;
        Ok(sluice)
    }

    /// Waits until all replicas of scaler and operator run as they were installed last, and are ready.
    ///
    /// # Errors
    /// If they do not.
    pub async fn ready(&self) -> Result<()> {
        let sets = Api::<StatefulSet>::namespaced(self.cluster.client(), NAMESPACE);
        self.cluster.wait_for(&sets, "sluice-scaler", LIMIT, set_ready).await.context("the scaler")?;
        let deployments = Api::<Deployment>::namespaced(self.cluster.client(), NAMESPACE);
        let operator = self.cluster.wait_for(&deployments, "sluice-operator", LIMIT, deployment_ready).await;
        operator.context("the operator").map(drop)
    }

    /// The cluster that it is installed in.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The scaler's Pods.
    ///
    /// # Errors
    /// If one of them is not there.
    pub async fn replicas(&self) -> Result<Vec<Replica>> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), NAMESPACE);
        let mut replicas = Vec::new();
        for number in 0..REPLICAS {
            let name = format!("sluice-scaler-{number}");
            let ip = pods.get(&name).await?.status.and_then(|status| status.pod_ip);
            let ip = ip.with_context(|| format!("{name} has no address yet"))?.parse()?;
            replicas.push(Replica { name, ip });
        }
        Ok(replicas)
    }

    /// The operator's Pods.
    ///
    /// # Errors
    /// If the API server does not say.
    pub async fn operators(&self) -> Result<Vec<Pod>> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), NAMESPACE);
        let operators = ListParams::default().labels("app.kubernetes.io/name=sluice-operator");
        Ok(pods.list(&operators).await?.items)
    }

    /// Takes Pods away as a crash of their node would: SIGKILL, without a word.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn crash(&self, namespace: &str, selector: &str) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), namespace);
        let list = pods.list(&ListParams::default().labels(selector)).await?;
        ensure!(list.items.iter().any(|_| true), "no Pod {selector} in {namespace}");
        for pod in list {
            pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
        }
        Ok(())
    }

    /// Where gateways reach each scaler: its own Service.
    async fn links(&self) -> Result<Vec<(String, SocketAddr)>> {
        let services = Api::<Service>::namespaced(self.cluster.client(), NAMESPACE);
        let mut links = Vec::new();
        for number in 0..REPLICAS {
            let name = format!("sluice-scaler-{number}");
            let service = services.get(&name).await?;
            let ip = service.spec.and_then(|spec| spec.cluster_ip);
            let ip = ip.with_context(|| format!("the Service {name} has no address"))?.parse()?;
            links.push((name, SocketAddr::new(ip, GRPC_PORT)));
        }
        Ok(links)
    }

    /// Waits until `is` says of every replica's state that it is as wanted; its `Err` says what is there instead.
    ///
    /// # Errors
    /// If that does not come, with what was seen last.
    pub async fn until(
        &self,
        what: impl fmt::Display,
        is: impl Fn(&State) -> Result<(), String>,
    ) -> Result<()> {
        wait::until(format!("every scaler to know {what}"), async || {
            for (name, state) in self.states().await.map_err(|error| format!("{error:#}"))? {
                is(&state).map_err(|seen| format!("{name}: {seen}"))?;
            }
            Ok(())
        })
        .await
    }

    /// What each replica knows.
    ///
    /// # Errors
    /// If one does not answer.
    pub async fn states(&self) -> Result<Vec<(String, State)>> {
        let mut states = Vec::new();
        for replica in self.replicas().await? {
            states.push((replica.name.clone(), replica.state().await.context(replica.name)?));
        }
        Ok(states)
    }

    /// Waits until KEDA listens for these apps, so that it hears of their next request.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn until_keda_listens(&self, apps: &[&App]) -> Result<()> {
        wait::until("KEDA to follow every app", async || {
            let states = self.states().await.map_err(|error| format!("{error:#}"))?;
            let streams: Vec<_> = states
                .iter()
                .flat_map(|(_, state)| &state.keda_streams)
                .map(|it| &it.scaled_object)
                .collect();
            match apps.iter().find(|app| !streams.contains(&&app.path())) {
                Some(app) => Err(format!("no stream for {} among {streams:?}", app.path())),
                None => Ok(()),
            }
        })
        .await
    }
}

/// Applies what is different with TLS, under the name that `docs/keda-tls.md` gives.
async fn apply_tls(cluster: &Cluster, yaml: &str) -> Result<()> {
    let file = cluster.bed().context("needs the bed")?.folder("tls")?.join("tls.yaml");
    fs::write(&file, yaml)?;
    let file = file.display().to_string();
    let arguments =
        ["apply", "--server-side", "--force-conflicts", "--field-manager=sluice-tls", "--filename", &file];
    cluster.kubectl(&arguments).await.map(drop)
}

/// The Secrets that `install/tls.yaml` wants.
fn certificates(bed: &Bed) -> Result<[Value; 2]> {
    let secret = |name: &str, namespace: &str, names: &[&str]| -> Result<Value> {
        let identity = bed.authority().identity(name, names)?;
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": {"ca.crt": bed.authority().cert(), "tls.crt": identity.cert, "tls.key": identity.key},
        }))
    };
    Ok([
        secret("sluice-scaler-tls", NAMESPACE, &["sluice-scaler.sluice-system"])?,
        secret("sluice-scaler-client", keda::NAMESPACE, &["keda"])?,
    ])
}

/// The environment in place of [`BIND`], as YAML.
fn variables(more: &[(&'static str, String)]) -> String {
    let mut env = vec![
        json!({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
        json!({"name": "SLUICE_BIND", "value": "$(POD_IP)"}),
    ];
    env.extend(more.iter().map(|(name, value)| json!({"name": name, "value": value})));
    env.iter().map(|variable: &Value| format!("            - {variable}\n")).collect()
}

fn set_ready(set: Option<&StatefulSet>) -> bool {
    let Some((set, status)) = set.and_then(|set| Some((set, set.status.as_ref()?))) else { return false };
    status.observed_generation == set.metadata.generation
        && status.update_revision == status.current_revision
        && status.ready_replicas == i32::try_from(REPLICAS).ok()
}

fn deployment_ready(deployment: Option<&Deployment>) -> bool {
    let Some((deployment, status)) = deployment.and_then(|it| Some((it, it.status.as_ref()?))) else {
        return false;
    };
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    status.observed_generation == deployment.metadata.generation
        && status.updated_replicas == replicas
        && status.replicas == replicas
        && status.available_replicas == replicas
}

// === impl Replica ===

impl Replica {
    /// What it knows.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn state(&self) -> Result<State> {
        http::get(SocketAddr::new(self.ip, HTTP_PORT), "/debug/state").await?.json().context("/debug/state")
    }
}
