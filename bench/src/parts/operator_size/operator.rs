//! The operator as a process beside the API server.

use crate::{istio, system};
use anyhow::bail;
use serde_json::Value;
use sluice_tests::{
    cluster::{bed::Bed, sluice::NAMESPACE},
    http, paths,
    process::Process,
    wait,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

/// How long ten thousand objects may take.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// After so long without a write and without a look at an object it is at rest.
const REST: Duration = Duration::from_secs(3);

/// A running operator.
pub(super) struct Operator {
    process: Process,
    port: u16,
}

impl Operator {
    /// Starts one and waits until it has read everything.
    pub(super) async fn start(bed: &Bed, dir: &Path, kubeconfig: &Path) -> anyhow::Result<Self> {
        let ports_file = dir.join("operator-ports.json");
        // Of the one before.
        let _ = std::fs::remove_file(&ports_file);
        let mut command = bed.netns().command(paths::binary("sluice-operator")?);
        command.env("KUBECONFIG", kubeconfig).args(["--leader-elect", "false", "--namespace", NAMESPACE]);
        command.args(["--bind", "127.0.0.1", "--http-port", "0", "--ports-file"]).arg(&ports_file);
        let mut process = Process::spawn("operator", &mut command, &dir.join("operator.log"))?;
        let port = wait::until("the operator to have read everything", async || {
            if let Err(ended) = process.must_run() {
                return Ok(Err(ended));
            }
            let text = std::fs::read_to_string(&ports_file).map_err(|_| "it has no port")?;
            let ports: Value = serde_json::from_str(&text).map_err(|_| "half a ports file")?;
            let port = ports["http"].as_u64().and_then(|port| u16::try_from(port).ok()).ok_or("no port")?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let answer = http::get(address, "/readyz").await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(Ok(port)) } else { Err(answer.text()) }
        })
        .await??;
        Ok(Self { process, port })
    }

    /// Waits until it has made so many objects of that kind.
    pub(super) async fn until_written(&self, kind: &str, objects: usize) -> anyhow::Result<()> {
        let wanted = format!("kind=\"{kind}\"");
        self.until(async |metrics| {
            let made = metrics.sum("sluice_operator_writes_total", |labels| {
                labels.contains(&wanted) && labels.contains("operation=\"create\"")
            });
            made >= objects as f64
        })
        .await
    }

    /// Waits until it has looked at so many HTTPScaledObjects.
    pub(super) async fn until_looked_at(&self, objects: usize) -> anyhow::Result<()> {
        self.until(async |metrics| {
            let looks = metrics.sum("sluice_operator_reconciles_total", |labels| {
                labels.contains("kind=\"HTTPScaledObject\"") && labels.contains("result=\"ok\"")
            });
            looks >= objects as f64
        })
        .await
    }

    /// Waits until it does nothing any more; since when.
    pub(super) async fn until_rests(&self) -> anyhow::Result<Instant> {
        let mut last = (f64::NAN, Instant::now());
        self.until(async |metrics| {
            let all = |name| metrics.sum(name, |_| true);
            let now = all("sluice_operator_writes_total") + all("sluice_operator_reconciles_total");
            if now != last.0 {
                last = (now, Instant::now());
            }
            last.1.elapsed() > REST
        })
        .await?;
        Ok(last.1)
    }

    async fn until(&self, mut is_so: impl AsyncFnMut(istio::Metrics) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let metrics = istio::metrics(IpAddr::from(Ipv4Addr::LOCALHOST), self.port).await?;
            if is_so(metrics).await {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("waited {} s for the operator", PATIENCE.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The CPU that it uses while something goes on.
    pub(super) async fn busy(
        &self,
        work: impl AsyncFnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Duration> {
        let before = system::cpu(self.process.id())?;
        work().await?;
        Ok(system::cpu(self.process.id())?.saturating_sub(before))
    }

    /// The CPU that it has used since its start.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        system::cpu_with_ended(self.process.id())
    }

    /// The most memory that it has had in RAM, in bytes.
    pub(super) fn peak(&self) -> anyhow::Result<f64> {
        system::peak(self.process.id())
    }

    /// The memory that it has in RAM, in bytes.
    pub(super) fn resident(&self) -> anyhow::Result<f64> {
        system::resident(self.process.id())
    }
}
