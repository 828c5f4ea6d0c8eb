//! Sluice in the cluster as a user installs it: the manifests of `install/` and the EnvoyFilter.

use super::{Gateway, Istio, LIMIT};
use crate::{http, paths, scaler::State, wait};
use anyhow::{Context as _, Result};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
use kube::Api;
use sluice_envoyfilter::{Manifest, Settings};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

/// Its namespace.
const NAMESPACE: &str = "sluice-system";
/// How many scalers `install/scaler.yaml` has.
const REPLICAS: usize = 2;
/// Where a scaler says what it knows.
const HTTP_PORT: u16 = 8080;

/// Pods share one network stack here: each binds its own address. And a test does not wait half a minute for an app
/// to count as idle.
const BIND: &str = "              value: 0.0.0.0\n";
const OWN_BIND: &str = "              valueFrom: {fieldRef: {fieldPath: status.podIP}}
            - name: SLUICE_ACTIVITY_WINDOW
              value: 1s
";

/// Sluice, installed.
#[derive(Clone)]
pub struct Sluice {
    istio: Istio,
}

/// One of the scaler's Pods.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Its number.
    pub number: usize,
    /// Its address.
    pub ip: IpAddr,
}

// === impl Sluice ===

impl Sluice {
    /// Installs the definitions and the scaler, and waits until every replica is ready. No gateway has the filter yet.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn install(istio: &Istio) -> Result<Self> {
        let cluster = istio.cluster();
        let bed = cluster.bed().context("needs the bed")?;
        bed.add_program("sluice-scaler", paths::binary("sluice-scaler")?);
        bed.add_program("sluice-test-app", paths::binary("sluice-test-app")?);
        let folder = paths::root().join("install");
        let crds = folder.join("crds").display().to_string();
        cluster.kubectl(&["apply", "--server-side", "--filename", &crds]).await?;
        cluster
            .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "--filename", &crds])
            .await?;
        for file in ["namespace.yaml", "scaler.yaml"] {
            let yaml = fs::read_to_string(folder.join(file)).with_context(|| file.to_owned())?;
            cluster.apply_yaml(&yaml.replace(BIND, OWN_BIND)).await?;
        }
        let sets = Api::<StatefulSet>::namespaced(cluster.client(), NAMESPACE);
        cluster.wait_for(&sets, "sluice-scaler", LIMIT, is_ready).await.context("the scaler")?;
        Ok(Self { istio: istio.clone() })
    }

    /// The EnvoyFilter that `settings` and the built module make.
    ///
    /// # Errors
    /// If the module is not built.
    pub fn manifest(&self, settings: &Settings) -> Result<Manifest> {
        Ok(Manifest::new(settings, &fs::read(paths::wasm()?)?)?)
    }

    /// Applies an EnvoyFilter as a user does: by plain `kubectl apply`.
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn apply(&self, manifest: &Manifest) -> Result<()> {
        self.istio.cluster().apply_plainly(manifest.yaml()).await
    }

    /// The scaler's Pods.
    ///
    /// # Errors
    /// If one of them is not there.
    pub async fn replicas(&self) -> Result<Vec<Replica>> {
        let pods = Api::<Pod>::namespaced(self.istio.cluster().client(), NAMESPACE);
        let mut replicas = Vec::new();
        for number in 0..REPLICAS {
            let name = format!("sluice-scaler-{number}");
            let pod = pods.get(&name).await?;
            let ip = pod.status.and_then(|status| status.pod_ip).context("no address yet")?.parse()?;
            replicas.push(Replica { number, ip });
        }
        Ok(replicas)
    }

    /// Waits until `is` says of every replica's state that it is as wanted; its `Err` says what is there instead.
    ///
    /// # Errors
    /// If that does not come, with what was seen last.
    pub async fn until(&self, what: &str, is: impl Fn(&State) -> Result<(), String>) -> Result<()> {
        wait::until(format!("every scaler to know {what}"), async || {
            let seen = |error: anyhow::Error| format!("{error:#}");
            for replica in self.replicas().await.map_err(seen)? {
                let state = replica.state().await.map_err(seen)?;
                is(&state).map_err(|seen| format!("sluice-scaler-{}: {seen}", replica.number))?;
            }
            Ok(())
        })
        .await
    }

    /// Waits until the workers of these gateways, and nobody else, are linked to every replica with all routes. An
    /// Envoy's main thread has a VM too, and that one's links are like a worker's.
    ///
    /// # Errors
    /// If they do not come.
    pub async fn linked(&self, gateways: &[&Gateway]) -> Result<()> {
        let wanted = gateways.iter().map(|gateway| gateway.vms()).sum::<usize>();
        self.until(&format!("{wanted} workers"), |state| match state.connected(state.routes.len()) {
            connected if connected == wanted => Ok(()),
            connected => Err(format!("{connected} workers have all routes: {:?}", state.gateways)),
        })
        .await
    }
}

fn is_ready(set: Option<&StatefulSet>) -> bool {
    let status = set.and_then(|set| set.status.as_ref());
    status.and_then(|status| status.ready_replicas).is_some_and(|ready| ready as usize == REPLICAS)
}

// === impl Replica ===

impl Replica {
    /// What it knows.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn state(&self) -> Result<State> {
        let address = SocketAddr::new(self.ip, HTTP_PORT);
        http::get(address, "/debug/state").await?.json().context("/debug/state")
    }
}
