//! A new gateway Pod: when it serves, and what it takes then.

use super::objects::{CONNECT_TIMEOUT, OWN_SETTINGS, PROBE_HOST, ROOT};
use crate::{
    istio::{self, ADMIN_PORT, Probe},
    system,
};
use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::{Value, json};
use sluice_tests::{
    cluster::{Cluster, istio::Gateway},
    http, wait,
};
use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

/// How often is looked whether the next thing has happened.
const LOOK: Duration = Duration::from_millis(2);
/// A start that takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(300);

/// What a start took, in ms after the process's, and what there is afterwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Envoy says that it is LIVE: it has all of its configuration.
    pub(super) live_ms: f64,
    /// Its port takes connections.
    pub(super) listens_ms: f64,
    /// A request was answered with 200.
    pub(super) serves_ms: f64,
    /// The CPU that it took, in ms.
    pub(super) cpu_ms: f64,
    /// What Envoy calls allocated, in MB.
    pub(super) allocated_mb: f64,
    /// What is in RAM, in MB.
    pub(super) resident_mb: f64,
}

/// What has to be in a gateway's configuration: what is fast because something is missing is not fast.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) apps: usize,
    pub(super) filter: bool,
    pub(super) own_settings: bool,
    pub(super) isolation: bool,
}

/// Ends the gateway's Pod and starts a new one. `settle` waits for what the gateway has to do besides.
pub(super) async fn start(
    cluster: &Cluster,
    gateway: &Gateway,
    settle: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<Start> {
    let old = gateway.address(80).await.ok();
    scale(cluster, gateway, 0).await?;
    wait::until("the gateway to be gone", async || {
        match gateway.pods().await.map_err(|error| format!("{error:#}"))?.len() {
            0 => Ok(()),
            pods => Err(format!("{pods} Pods")),
        }
    })
    .await?;
    // It ends within the 2 s that its Pod gives it; the port is the same for the next one.
    if let Some(address) = old {
        wait::until("its port to be free", async || match TcpStream::connect(address).await {
            Ok(_) => Err("it takes connections".to_owned()),
            Err(_) => Ok(()),
        })
        .await?;
    }
    scale(cluster, gateway, 1).await?;
    let (pid, ip) = wait::until("the gateway's process", async || {
        let pods = gateway.pods().await.map_err(|error| format!("{error:#}"))?;
        let (name, ip) = pods.into_iter().next().ok_or("no Pod")?;
        let pid = istio::process(&["--config-yaml", &name]).map_err(|error| format!("{error:#}"))?;
        Ok((pid, ip))
    })
    .await?;
    let (seen, age) = (Instant::now(), system::age(pid)?);
    let after = |moment: Instant| (moment.duration_since(seen) + age).as_secs_f64() * 1_000.0;
    let port = gateway.options().ports.first().context("a gateway without ports")?.1;
    let listener = SocketAddr::new(ip, port);

    // Listening comes before LIVE, or right after it: both are looked for at once.
    let (mut live, mut listens, mut serves) = (None, None, None);
    while live.is_none() || serves.is_none() {
        ensure!(
            seen.elapsed() < LIMIT,
            "after {LIMIT:?}: live {live:?}, listens {listens:?}, serves {serves:?}"
        );
        if live.is_none() && is_live(ip).await {
            live = Some(Instant::now());
        }
        if listens.is_none() && TcpStream::connect(listener).await.is_ok() {
            listens = Some(Instant::now());
        }
        if listens.is_some() && serves.is_none() {
            let answer = http::request(listener, http::get_request(PROBE_HOST, "/")?).await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                serves = Some(Instant::now());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    let cpu_ms = system::cpu(pid)?.as_secs_f64() * 1_000.0;
    settle().await?;
    let allocated = Probe::new(gateway, "server.memory_allocated").await?.value().await?;
    Ok(Start {
        live_ms: after(live.context("not live")?),
        listens_ms: after(listens.context("no listener")?),
        serves_ms: after(serves.context("no answer")?),
        cpu_ms,
        allocated_mb: allocated as f64 / 1e6,
        resident_mb: system::resident(pid)? / 1e6,
    })
}

async fn is_live(ip: IpAddr) -> bool {
    let answer = http::get(SocketAddr::new(ip, ADMIN_PORT), "/ready").await;
    answer.is_ok_and(|answer| answer.status == 200)
}

async fn scale(cluster: &Cluster, gateway: &Gateway, replicas: u32) -> anyhow::Result<()> {
    let deployments = Api::<Deployment>::namespaced(cluster.client(), ROOT);
    cluster
        .merge(&deployments, &gateway.options().name, &json!({"spec": {"replicas": replicas}}))
        .await
        .map(drop)
}

/// Waits until the gateway has all that it should have, and nothing else.
pub(super) async fn until(gateway: &Gateway, expected: Expected) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        match check(gateway, expected).await {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > LIMIT => return Err(error),
            // A dump of all of it is megabytes: not asked for all the time.
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

async fn check(gateway: &Gateway, expected: Expected) -> anyhow::Result<()> {
    let clusters = gateway.config("ClustersConfigDump").await?.to_string();
    let apps = clusters.matches("\"outbound|80||app-").count();
    // A cluster has its name in it twice or so: itself, and what it asks endpoints for.
    ensure!(apps >= expected.apps, "{apps} clusters of {} apps", expected.apps);
    let own = clusters.matches(&format!("\"{CONNECT_TIMEOUT:.3?}\"")).count();
    let wanted = if expected.own_settings { expected.apps.div_ceil(OWN_SETTINGS) } else { 0 };
    ensure!(own == wanted, "{own} clusters with settings of their own, not {wanted}");

    let routes = gateway.config("RoutesConfigDump").await?.to_string();
    let hosts = routes.matches("\"app-").count();
    ensure!(hosts >= expected.apps, "{hosts} virtual hosts of {} apps", expected.apps);
    let enabled = routes.matches("\"typed_per_filter_config\"").count();
    let wanted = if expected.isolation { expected.apps } else { 0 };
    ensure!(enabled == wanted, "{enabled} virtual hosts with the filter enabled, not {wanted}");

    let listeners: Value = gateway.config("ListenersConfigDump").await?;
    let listeners = listeners.to_string();
    let (there, disabled) = (listeners.contains("\"sluice\""), listeners.contains("\"disabled\":true"));
    ensure!(
        (there, disabled) == (expected.filter, expected.isolation),
        "the filter is there: {there}, disabled: {disabled}"
    );
    Ok(())
}
