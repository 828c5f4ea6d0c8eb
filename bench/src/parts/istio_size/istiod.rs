//! What a change costs istiod, and when it is at work in the gateway.

use super::objects::{Apps, FILTER_HEADER, PROBE_HOST, ROOT, ROUTE_HEADER};
use crate::{
    istio::{self, Metrics},
    system,
};
use anyhow::{Context as _, ensure};
use sluice_tests::{
    cluster::{Cluster, istio::Gateway},
    http::{self, Http1},
    wait,
};
use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// istiod's port for metrics.
const METRICS_PORT: u16 = 15014;
/// How often the gateway is asked whether a change has come.
const LOOK: Duration = Duration::from_millis(2);

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A VirtualService: what users do, and what a new app is.
    Route,
    /// An EnvoyFilter: what an object's own settings are. istiod forgets everything that it has ready for the gateway.
    Filter,
}

/// What changes of a kind cost, each figure for one of them.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    /// From before the write to an answer of the gateway's that shows it, in ms; each.
    pub(super) waits_ms: Vec<f64>,
    /// istiod's CPU, in ms.
    pub(super) cpu_ms: f64,
    /// What istiod calls the time of a push, all types of resources together, in ms.
    pub(super) push_ms: f64,
    /// Of it, clusters.
    pub(super) clusters_ms: f64,
    /// Of it, routes.
    pub(super) routes_ms: f64,
    /// What it sent, in kB.
    pub(super) sent_kb: f64,
}

/// istiod's process.
pub(super) struct Istiod {
    ip: IpAddr,
    pid: u32,
}

impl Change {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Route => "a VirtualService changes",
            Self::Filter => "an EnvoyFilter changes",
        }
    }
}

impl Istiod {
    pub(super) async fn find(cluster: &Cluster) -> anyhow::Result<Self> {
        let (_, ip) = istio::pod_ip(cluster, ROOT, "istiod").await?;
        // There may be another bed on this machine, and its istiod has the same address in its own network.
        let bed = cluster.bed().context("needs the bed")?;
        let dir = bed.kubeconfig().parent().context("a kubeconfig without a folder")?;
        let pid = istio::process(&["discovery", "--grpcAddr=", &dir.display().to_string()])?;
        Ok(Self { ip: ip.parse()?, pid })
    }

    async fn metrics(&self) -> anyhow::Result<Metrics> {
        istio::metrics(self.ip, METRICS_PORT).await
    }

    /// Makes so many changes, each when the one before is at work.
    pub(super) async fn change(
        &self,
        apps: &Apps,
        gateway: &Gateway,
        change: Change,
        times: usize,
    ) -> anyhow::Result<Cost> {
        // The first one is not counted: what another kind of change, or a start, has left to do is in it.
        self.change_once(apps, gateway, change).await?;
        let (before, cpu_before) = (self.settled(0.0).await?, system::cpu(self.pid)?);
        let mut waits_ms = Vec::new();
        for _ in 0..times {
            waits_ms.push(self.change_once(apps, gateway, change).await?);
        }
        let after = self.settled(pushes(&before) + times as f64).await?;
        let cpu = system::cpu(self.pid)?.saturating_sub(cpu_before);
        let each = |name: &str, labels: &str| {
            let sum = |metrics: &Metrics| metrics.sum(name, |it| it.contains(labels));
            (sum(&after) - sum(&before)) / times as f64
        };
        Ok(Cost {
            waits_ms,
            cpu_ms: cpu.as_secs_f64() * 1_000.0 / times as f64,
            push_ms: each("pilot_xds_push_time_sum", "") * 1_000.0,
            clusters_ms: each("pilot_xds_push_time_sum", "type=\"cds\"") * 1_000.0,
            routes_ms: each("pilot_xds_push_time_sum", "type=\"rds\"") * 1_000.0,
            sent_kb: each("pilot_xds_config_size_bytes_sum", "") / 1_000.0,
        })
    }

    /// Waits until it makes no pushes.
    pub(super) async fn rests(&self) -> anyhow::Result<()> {
        self.settled(0.0).await.map(drop)
    }

    /// Its metrics when it has made so many pushes and makes none any more.
    async fn settled(&self, least: f64) -> anyhow::Result<Metrics> {
        let mut last = (f64::NAN, Instant::now());
        wait::until(format!("istiod to have made {least} pushes and rest"), async || {
            let metrics = self.metrics().await.map_err(|error| format!("{error:#}"))?;
            let now = pushes(&metrics);
            if now != last.0 {
                last = (now, Instant::now());
            }
            // Longer than its debounce.
            let rests = last.1.elapsed() > Duration::from_millis(300);
            if now >= least && rests { Ok(metrics) } else { Err(format!("{now}")) }
        })
        .await
    }

    async fn change_once(&self, apps: &Apps, gateway: &Gateway, change: Change) -> anyhow::Result<f64> {
        // Never the value that is there already.
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let value = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
        let address = gateway.address(80).await?;
        let mut connection = Http1::connect(address).await?;
        let begun = Instant::now();
        let header = match change {
            Change::Route => apps.change_route(&value).await.map(|()| ROUTE_HEADER)?,
            Change::Filter => apps.change_filter(&value).await.map(|()| FILTER_HEADER)?,
        };
        // Longer than `wait` has patience for: it is measured, however long it takes.
        loop {
            let answer = connection.send(http::get_request(PROBE_HOST, "/")?).await?;
            ensure!(answer.status == 200, "{PROBE_HOST}: {} {}", answer.status, answer.text());
            if answer.header(header) == value {
                return Ok(begun.elapsed().as_secs_f64() * 1_000.0);
            }
            ensure!(begun.elapsed() < Duration::from_secs(300), "no {value} in {:?}", answer.headers);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Its memory in RAM, in MB.
    pub(super) fn memory_mb(&self) -> anyhow::Result<f64> {
        Ok(system::resident(self.pid)? / 1e6)
    }
}

fn pushes(metrics: &Metrics) -> f64 {
    metrics.sum("pilot_proxy_convergence_time_count", |_| true)
}
