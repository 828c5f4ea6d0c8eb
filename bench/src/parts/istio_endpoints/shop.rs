//! The app whose readiness is written by hand, and what is looked at while it becomes ready.

use super::{Debounce, Pod, Seen};
use crate::istio::{self, Probe, pod_ip};
use anyhow::{Context as _, bail, ensure};
use http_body_util::Full;
use hyper::Request;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use serde_json::{Value, json};
use sluice_tests::{
    app::AppRequest,
    clock,
    cluster::istio::{GATEWAY, World},
    http, wait,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Longer than Envoy collects changes of health for: its `update_merge_window`, 1 s.
const LATER: Duration = Duration::from_millis(1_200);
/// After so long without another lag there comes none.
const LAST_REPORT: Duration = Duration::from_secs(3);
/// The app, its Service, its slice.
const NAME: &str = "shop";
/// The app's port.
const PORT: u16 = 8080;

/// An app that is always there, and a slice that says whether it is.
pub(super) struct Shop {
    pub(super) world: World,
    ip: String,
    pod: String,
    log: PathBuf,
}

// === impl Shop ===

impl Shop {
    pub(super) async fn look(&self, debounce: Debounce, pod: Pod, rounds: usize) -> anyhow::Result<Seen> {
        let (mut written, mut arrived, mut delivered) = (Vec::new(), Vec::new(), Vec::new());
        let before = self.lags().await?;
        for _ in 0..rounds {
            let (written_ms, arrived_ms) = self.wake(pod).await?;
            written.push(written_ms);
            arrived.push(arrived_ms);
            if pod == Pod::AtOnce {
                // In turns: what disturbs one disturbs the other.
                delivered.push(self.deliver().await?);
            }
        }
        // Gateways report every 250 ms. One that was without its scaler for a moment has counted less.
        let mut last = (f64::NAN, Instant::now());
        let (count, sum) = wait::until("the gateway to report every lag", async || {
            let now = self.lags().await.map_err(|error| format!("{error:#}"))?;
            let (count, sum) = (now.0 - before.0, now.1 - before.1);
            if count != last.0 {
                last = (count, Instant::now());
            }
            let is_all = count >= rounds as f64 || (count > 0.0 && last.1.elapsed() > LAST_REPORT);
            if is_all { Ok((count, sum)) } else { Err(format!("{count}")) }
        })
        .await?;
        Ok(Seen { debounce, pod, written, arrived, delivered, lag_ms: sum / count * 1_000.0 })
    }

    pub(super) async fn open(world: World, log: &Path) -> anyhow::Result<Self> {
        let namespace = &world.namespace;
        // Each namespace's app has a log of its own.
        let log = log.with_file_name(format!("{namespace}.jsonl"));
        let metadata = json!({"name": NAME, "namespace": namespace});
        let (host, service) = (Self::host(&world), format!("{NAME}.{namespace}.svc.cluster.local"));
        world
            .cluster
            .apply(&[
                istio::app("always", namespace, PORT, &log),
                json!({
                    "apiVersion": "v1", "kind": "Service", "metadata": metadata,
                    "spec": {"ports": [{"name": "http", "port": 80, "targetPort": PORT}]},
                }),
                json!({
                    "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata,
                    "spec": {
                        "hosts": [host], "gateways": [GATEWAY],
                        "http": [{"route": [{"destination": {"host": service, "port": {"number": 80}}}]}],
                    },
                }),
                json!({
                    "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject", "metadata": metadata,
                    "spec": {
                        "hosts": [host],
                        "scaleTargetRef": {
                            "apiVersion": "apps/v1", "kind": "Deployment", "name": "always",
                            "service": NAME, "port": 80,
                        },
                        "replicas": {"min": 0, "max": 1},
                    },
                }),
            ])
            .await?;
        let (pod, ip) = pod_ip(&world.cluster, namespace, "always").await?;
        world.routed(&host).await?;
        let shop = Self { world, ip, pod, log };
        shop.world.cluster.apply(&[shop.slice(&[])]).await?;
        shop.world
            .sluice
            .until(NAME, |state| match state.route(&shop.world.namespace, NAME) {
                Some(_) => Ok(()),
                None => Err(format!("{:?} {:?}", state.routes, state.problems)),
            })
            .await?;
        shop.world.sluice.linked(&[&shop.world.gateway]).await?;
        Ok(shop)
    }

    fn host(world: &World) -> String {
        format!("{NAME}.{}.example.com", world.namespace)
    }

    /// The app's slice, with as many endpoints as are given, ready or not.
    fn slice(&self, endpoints: &[bool]) -> Value {
        let endpoints = endpoints.iter().map(|ready| {
            json!({
                "addresses": [self.ip],
                "conditions": {"ready": ready, "serving": ready, "terminating": false},
                "targetRef": {"kind": "Pod", "name": self.pod, "namespace": self.world.namespace},
            })
        });
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": NAME, "namespace": self.world.namespace,
                "labels": {
                    "kubernetes.io/service-name": NAME,
                    "endpointslice.kubernetes.io/managed-by": "sluice-bench",
                },
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": PORT}],
            "endpoints": endpoints.collect::<Value>(),
        })
    }

    /// Writes the slice by a merge, as whoever has it already does: one request to the API server.
    async fn say(&self, endpoints: &[bool]) -> anyhow::Result<()> {
        let slices = Api::<EndpointSlice>::namespaced(self.world.cluster.client(), &self.world.namespace);
        let patch = json!({"endpoints": self.slice(endpoints)["endpoints"]});
        self.world.cluster.merge(&slices, NAME, &patch).await.map(drop)
    }

    fn stat(&self, name: &str) -> String {
        format!("cluster.outbound|80||{NAME}.{}.svc.cluster.local;.{name}", self.world.namespace)
    }

    /// As before a Pod is ready: it is in the slice or not, and the gateway knows of it.
    async fn until_not_ready(&self, pod: Pod) -> anyhow::Result<()> {
        if pod == Pod::AtOnce {
            return self.until_gone().await;
        }
        self.say(&[false]).await?;
        self.until_stat(&self.stat("membership_total"), 1).await?;
        self.until_stat(&self.stat("membership_healthy"), 0).await?;
        if pod == Pod::Later {
            tokio::time::sleep(LATER).await;
        }
        Ok(())
    }

    /// As after the last Pod is gone.
    async fn until_gone(&self) -> anyhow::Result<()> {
        self.say(&[]).await?;
        self.until_stat(&self.stat("membership_total"), 0).await?;
        self.until_hint("notReady").await
    }

    async fn until_hint(&self, wanted: &str) -> anyhow::Result<()> {
        let namespace = &self.world.namespace;
        self.world
            .sluice
            .until(&format!("the hint {wanted}"), |state| match state.route(namespace, NAME) {
                Some(route) if route.hint == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await
    }

    async fn until_stat(&self, name: &str, wanted: u64) -> anyhow::Result<()> {
        let mut probe = Probe::new(&self.world.gateway, name).await?;
        wait::until(format!("{name} to be {wanted}"), async || match probe.value().await {
            Ok(value) if value == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    /// A request waits, the slice says ready: when that was written, and when the request came to the app.
    async fn wake(&self, pod: Pod) -> anyhow::Result<(f64, f64)> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let id = format!("wake-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let request = Request::get("/").header("host", Self::host(&self.world)).header("x-test-id", &id);
        let request = request.body(Full::default())?;
        let address = self.world.address().await?;
        let mut answer = tokio::spawn(http::request(address, request));
        tokio::select! {
            held = self.until_stat("wasmcustom.sluice_held", 1) => held?,
            answer = &mut answer => bail!("{id}: answered instead of held: {:?}", answer??),
        }
        self.until_not_ready(pod).await?;
        let from_us = clock::now_us();
        self.say(&[true]).await?;
        let written_us = clock::now_us();
        let answer = answer.await??;
        ensure!(answer.status == 200, "{id}: {} {}", answer.status, answer.text());
        ensure!(answer.header("x-keda-http-cold-start") == "true", "{id}: it was not held");
        let arrived_us = self.arrival(&id)?;
        self.until_gone().await?;
        Ok((clock::ms_between(from_us, written_us), clock::ms_between(from_us, arrived_us)))
    }

    fn arrival(&self, id: &str) -> anyhow::Result<u64> {
        let text = fs::read_to_string(&self.log).with_context(|| self.log.display().to_string())?;
        for line in text.lines().rev() {
            let request: AppRequest = serde_json::from_str(line)?;
            if request.id == id {
                return Ok(request.at_us);
            }
        }
        bail!("the app never saw {id}")
    }

    /// Nobody waits, the slice says ready: when Envoy has a usable host.
    pub(super) async fn deliver(&self) -> anyhow::Result<f64> {
        self.until_gone().await?;
        let mut probe = Probe::new(&self.world.gateway, &self.stat("membership_healthy")).await?;
        ensure!(probe.value().await? == 0, "an endpoint that is not ready is healthy");
        let from_us = clock::now_us();
        self.say(&[true]).await?;
        // Without a pause, since it is the moment that counts: a look takes under a millisecond.
        while probe.value().await? == 0 {}
        let usable_us = clock::now_us();
        self.until_gone().await?;
        Ok(clock::ms_between(from_us, usable_us))
    }

    /// How many lags a scaler has counted for the app, and the sum of them in seconds.
    async fn lags(&self) -> anyhow::Result<(f64, f64)> {
        let replica = self.world.sluice.replicas().await?.into_iter().next().context("no scaler")?;
        let page = istio::metrics(replica.ip, 8080).await?;
        let of_shop = |labels: &str| labels.contains(&self.world.namespace);
        let sum = |name: &str| page.sum(name, of_shop);
        Ok((sum("sluice_endpoint_lag_seconds_count"), sum("sluice_endpoint_lag_seconds_sum")))
    }
}
