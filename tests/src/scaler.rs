//! The scaler as a process, and what it says of itself.

use crate::{
    envoy::last_lines,
    http, paths,
    process::{Process, Signal},
    wait,
};
use anyhow::Context as _;
use serde::Deserialize;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

/// A running `sluice-scaler` in standalone mode.
#[derive(Debug)]
pub struct Scaler {
    process: Process,
    start: Start,
    ports: Ports,
}

#[derive(Clone, Debug)]
struct Start {
    name: String,
    config_dir: PathBuf,
    dir: PathBuf,
    args: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Ports {
    grpc: u16,
    http: u16,
}

/// What `/debug/state` says, as far as tests ask.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The routes.
    pub routes: Vec<RouteState>,
    /// The gateways.
    pub gateways: Vec<GatewayState>,
    /// KEDA's open streams.
    #[serde(default)]
    pub keda_streams: Vec<KedaStream>,
    /// Envoys that have their endpoints from it.
    #[serde(default)]
    pub eds: EdsState,
    /// What is wrong with the objects.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// Envoys that have their endpoints from a scaler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdsState {
    /// Their open streams.
    pub streams: u64,
    /// The clusters that they ask for, each once.
    pub clusters: u64,
    /// How often one did not take over what it was told.
    pub rejections: u64,
}

/// A route, summed over all workers.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteState {
    /// The object's kind.
    pub kind: String,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// What is known of the target: `ready`, `notReady` or `unknown`.
    pub hint: String,
    /// How many endpoints are ready.
    pub ready_endpoints: u64,
    /// Whether KEDA is told that it is active.
    pub active: bool,
    /// Requests that have arrived and not ended.
    pub in_flight: u64,
    /// Those of them that wait.
    pub held: u64,
    /// Requests that ever arrived.
    pub arrivals: u64,
    /// Requests that were held and then released.
    pub cold_starts: u64,
    /// Requests per granularity over the window, where the object has that metric.
    #[serde(default)]
    pub request_rate: Option<f64>,
    /// Requests refused because a limit was full.
    pub rejections: u64,
    /// Requests answered at their deadline.
    pub expirations: u64,
}

/// A gateway.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayState {
    /// Its workers.
    pub workers: Vec<WorkerState>,
}

/// A worker's VM.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerState {
    /// Its number.
    pub instance: String,
    /// Whether its stream is open.
    pub connected: bool,
    /// How many routes it was sent.
    pub routes: u64,
    /// Requests at this worker that have arrived and not ended.
    pub in_flight: u64,
    /// Those of them that wait.
    pub held: u64,
}

/// A stream of KEDA's.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KedaStream {
    /// The ScaledObject, as namespace/name.
    pub scaled_object: String,
    /// What was sent last.
    pub last_sent: Option<bool>,
}

/// Something that is wrong with an object.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The file or object.
    pub source: String,
    /// The field.
    pub field: String,
    /// What is wrong, and the mend.
    pub message: String,
}

// === impl Scaler ===

impl Scaler {
    /// Starts a scaler that reads `config_dir`, on free ports, and waits until it is ready.
    ///
    /// Writes `NAME.log` into `dir`. `args` are further flags.
    ///
    /// # Errors
    /// If it does not start; with the end of its log.
    pub async fn start(name: &str, config_dir: &Path, args: &[String], dir: &Path) -> anyhow::Result<Self> {
        let start = Start {
            name: name.to_owned(),
            config_dir: config_dir.to_owned(),
            dir: dir.to_owned(),
            args: args.to_vec(),
        };
        let (process, ports) = start.run(Ports { grpc: 0, http: 0 }).await?;
        Ok(Self { process, start, ports })
    }

    /// Where the link and KEDA's protocol are.
    pub fn grpc(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.grpc))
    }

    /// Where `/debug/state` and `/metrics` are.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.http))
    }

    /// Kills it (SIGKILL): nothing is said to anybody.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn stop(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.ended().await
    }

    /// Starts it again after it has ended, on the same ports, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process.kill();
        (self.process, self.ports) = self.start.run(self.ports).await?;
        Ok(())
    }

    /// What it knows.
    ///
    /// # Errors
    /// If it does not say.
    pub async fn state(&self) -> anyhow::Result<State> {
        http::get(self.http(), "/debug/state").await?.json().context("/debug/state")
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// If it has ended.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        self.process.must_run()
    }
}

// === impl Start ===

impl Start {
    async fn run(&self, ports: Ports) -> anyhow::Result<(Process, Ports)> {
        let ports_file = self.dir.join(format!("{}-ports.json", self.name));
        if ports_file.exists() {
            fs::remove_file(&ports_file)?;
        }
        let log = self.dir.join(format!("{}.log", self.name));
        let mut command = Command::new(paths::binary("sluice-scaler")?);
        command
            .arg("--config-dir")
            .arg(&self.config_dir)
            .args(["--bind", "127.0.0.1"])
            .args(["--port", &ports.grpc.to_string(), "--http-port", &ports.http.to_string()])
            .arg("--ports-file")
            .arg(&ports_file)
            .args(&self.args);
        let mut process = Process::spawn(&self.name, &mut command, &log)?;
        let what = format!("{} to be ready", self.name);
        let ports = wait::until(what, async || {
            if let Err(ended) = process.must_run() {
                return Ok(Err(ended));
            }
            let text = fs::read_to_string(&ports_file).map_err(|_| "it has no ports")?;
            let ports: Ports = serde_json::from_str(&text).map_err(|_| "half a ports file")?;
            let http = SocketAddr::from(([127, 0, 0, 1], ports.http));
            let answer = http::get(http, "/readyz").await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(Ok(ports)) } else { Err(format!("/readyz says {}", answer.text())) }
        })
        .await
        .and_then(|ports| ports)
        .with_context(|| last_lines(&log))?;
        Ok((process, ports))
    }
}

// === impl State ===

impl State {
    /// The workers whose streams are open and that were sent `routes` routes.
    pub fn connected(&self, routes: usize) -> usize {
        self.gateways
            .iter()
            .flat_map(|gateway| &gateway.workers)
            .filter(|worker| worker.connected && worker.routes == routes as u64)
            .count()
    }

    /// A route by its object's name.
    pub fn route(&self, namespace: &str, name: &str) -> Option<&RouteState> {
        self.routes.iter().find(|route| route.namespace == namespace && route.name == name)
    }
}
