//! The scaler beside a gateway under test: on cores that are not the gateway's, and with its process known.

use crate::system::Cores;
use anyhow::{Context as _, bail};
use serde::Deserialize;
use sluice_tests::{
    http,
    objects::{Objects, Target},
    paths,
    process::Process,
    scaler::State,
    wait,
};
use std::{fs, net::SocketAddr, path::Path, process::Command};

/// A running scaler.
#[derive(Debug)]
pub(crate) struct Scaler {
    process: Process,
    ports: Ports,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Ports {
    grpc: u16,
    http: u16,
}

// === impl Scaler ===

impl Scaler {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// If it does not start; with its log.
    pub(crate) async fn start(objects: &Objects, cores: &Cores, dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(objects, cores, dir, &[]).await
    }

    /// As [`Self::start`], with further flags.
    ///
    /// # Errors
    /// If it does not start; with its log.
    pub(crate) async fn start_with(
        objects: &Objects,
        cores: &Cores,
        dir: &Path,
        args: &[&str],
    ) -> anyhow::Result<Self> {
        let (ports_file, log) = (dir.join("scaler-ports.json"), dir.join("scaler.log"));
        let mut command = Command::new(paths::binary("sluice-scaler")?);
        command
            .arg("--config-dir")
            .arg(objects.dir())
            .args(["--bind", "127.0.0.1", "--port", "0", "--http-port", "0", "--ports-file"])
            .arg(&ports_file)
            .args(args);
        let mut process = cores.others(|| Process::spawn("scaler", &mut command, &log))?;
        let ready = wait::until("the scaler to be ready", async || {
            // One that ended is no reason to wait longer: the Ok carries the error out.
            if let Err(ended) = process.must_run() {
                return Ok(Err(ended));
            }
            let text = fs::read_to_string(&ports_file).map_err(|_| "it has no ports")?;
            let ports: Ports = serde_json::from_str(&text).map_err(|_| "half a ports file")?;
            let answer =
                http::get(loopback(ports.http), "/readyz").await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(Ok(ports)) } else { Err(format!("/readyz says {}", answer.text())) }
        })
        .await
        .and_then(|ready| ready);
        match ready {
            Ok(ports) => Ok(Self { process, ports }),
            Err(error) => bail!("{error:#}\n{}", fs::read_to_string(&log).unwrap_or_default()),
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where the link is.
    pub(crate) fn grpc(&self) -> SocketAddr {
        loopback(self.ports.grpc)
    }

    /// Waits until every VM of a gateway is linked and was sent the whole table.
    ///
    /// # Errors
    /// If it does not come to that.
    pub(crate) async fn until_linked(&self, vms: usize, routes: usize) -> anyhow::Result<()> {
        wait::until(format!("{vms} links with {routes} routes"), async || {
            let state = self.state().await.map_err(|error| format!("{error:#}"))?;
            let connected = state.connected(routes);
            if connected == vms { Ok(()) } else { Err(format!("{connected}: {:?}", state.gateways)) }
        })
        .await
    }

    /// Waits until it has read that the app is ready.
    ///
    /// # Errors
    /// If it does not come to that.
    pub(crate) async fn until_ready(&self, target: &Target) -> anyhow::Result<()> {
        wait::until("the scaler to call the app ready", async || {
            let state = self.state().await.map_err(|error| format!("{error:#}"))?;
            let route = state.route(&target.namespace, &target.name).ok_or("it has no such route")?;
            if route.hint == "ready" { Ok(()) } else { Err(route.hint.clone()) }
        })
        .await
    }

    async fn state(&self) -> anyhow::Result<State> {
        http::get(loopback(self.ports.http), "/debug/state").await?.json().context("/debug/state")
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
