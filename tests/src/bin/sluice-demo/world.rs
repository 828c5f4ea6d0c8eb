//! What the demo runs.

use crate::{Args, timeline::Wake};
use anyhow::{Context as _, bail};
use serde_json::json;
use sluice_tests::{
    clock,
    eds::EdsFile,
    envoy::{self, AppCluster, Config, Eds, Envoy, Filter, Protocol, Route, Upstream},
    logs::LogDir,
    objects::{Objects, Target},
    paths,
    process::{Process, Signal},
    scaler::Scaler,
    standin::Event,
    wait,
};
use std::{
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    process::Command,
};
use tokio::sync::mpsc;

/// All processes, and what the stand-in tells.
pub(crate) struct World {
    pub(crate) target: Target,
    pub(crate) wake: Wake,
    /// Envoy has its endpoints from one, and not from the scaler.
    pub(crate) has_control_plane: bool,
    parts: Option<Parts>,
    logs: LogDir,
}

struct Parts {
    standin: Process,
    events: mpsc::UnboundedReceiver<Event>,
    envoy: Envoy,
    scaler: Scaler,
}

// === impl World ===

impl World {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let logs = LogDir::at(paths::target().join("demo").join(std::process::id().to_string()))?;
        let target = Target { namespace: "demo".to_owned(), name: "hello".to_owned(), port: 8080 };
        Ok(Self { target, wake: Wake::default(), has_control_plane: false, parts: None, logs })
    }

    pub(crate) async fn start(&mut self, args: &Args) -> anyhow::Result<()> {
        let listener = args.listener();
        // Envoy binds its listener with SO_REUSEPORT and would share a port silently with another Envoy.
        drop(listen(listener)?);
        let dir = self.logs.path();
        let objects = Objects::new(dir.join("objects"))?;
        objects.add(&self.target)?;
        // The default keeps an app up for half a minute after its last request: long to watch.
        let scaler_args = ["--activity-window", "1s", "--shutdown-delay", "0s"].map(str::to_owned);
        let scaler = Scaler::start("scaler", objects.dir(), &scaler_args, dir).await?;
        self.has_control_plane = args.endpoint_lag_ms.is_some();
        let eds = match args.endpoint_lag_ms {
            Some(_) => {
                let file = EdsFile::create(&dir.join("eds"), &self.target.cluster())?;
                Eds::File(file.path().to_owned())
            }
            None => Eds::Scalers(Protocol::StateOfTheWorld),
        };
        let config = Config {
            listener,
            filter: Some(Filter { wasm: paths::wasm()?, config: json!({"scalers": ["sluice-scaler-0"]}) }),
            scalers: vec![("sluice-scaler-0".to_owned(), scaler.grpc())],
            routes: vec![Route {
                domains: vec![self.target.host(), format!("{}:*", self.target.host())],
                cluster: self.target.cluster(),
            }],
            apps: vec![AppCluster {
                name: self.target.cluster(),
                eds: eds.clone(),
                upstream: Upstream::AsDownstream,
            }],
            access_log: dir.join("access.log"),
        };
        let envoy = Envoy::start(&envoy::envoy(None)?, args.workers, &config, dir).await?;
        let (standin, events) = self.start_standin(args, &scaler, &objects, &eds)?;
        wait_until_all_are_linked(&scaler, args.workers).await?;
        self.parts = Some(Parts { standin, events, envoy, scaler });
        Ok(())
    }

    fn start_standin(
        &self,
        args: &Args,
        scaler: &Scaler,
        objects: &Objects,
        eds: &Eds,
    ) -> anyhow::Result<(Process, mpsc::UnboundedReceiver<Event>)> {
        let dir = self.logs.path();
        let mut command = Command::new(paths::binary("sluice-standin")?);
        command
            .args(["--scaler", &scaler.grpc().to_string()])
            .arg("--objects")
            .arg(objects.dir())
            .arg("--logs")
            .arg(dir)
            .args(["--namespace", &self.target.namespace, "--name", &self.target.name])
            .args(["--port", &self.target.port.to_string()])
            .args(["--polling-interval-ms", "250"])
            .args(["--cooldown-ms", &args.cooldown_ms.to_string()])
            .args(["--app-start-ms", &args.app_start_ms.to_string()]);
        if let (Eds::File(path), Some(lag)) = (eds, args.endpoint_lag_ms) {
            command.arg("--eds").arg(path).args(["--endpoint-lag-ms", &lag.to_string()]);
        }
        let (process, output) = Process::spawn_piped("standin", &mut command, &dir.join("standin.log"))?;
        let (sender, events) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    // Nobody listens any more when the demo ends.
                    Ok(event) => _ = sender.send(event),
                    Err(error) => eprintln!("demo: the stand-in wrote {line:?}: {error}"),
                }
            }
        });
        Ok((process, events))
    }

    fn parts(&self) -> anyhow::Result<&Parts> {
        self.parts.as_ref().context("nothing runs yet")
    }

    pub(crate) fn envoy(&self) -> anyhow::Result<&Envoy> {
        Ok(&self.parts()?.envoy)
    }

    pub(crate) fn scaler(&self) -> anyhow::Result<&Scaler> {
        Ok(&self.parts()?.scaler)
    }

    pub(crate) fn logs(&self) -> String {
        self.logs.path().display().to_string()
    }

    /// The next thing that the stand-in did, taken into [`Self::wake`].
    pub(crate) async fn event(&mut self) -> anyhow::Result<Event> {
        let parts = self.parts.as_mut().context("nothing runs yet")?;
        let Some(event) = parts.events.recv().await else { bail!("the stand-in ended") };
        self.wake.add(&event);
        Ok(event)
    }

    /// Fails if something ended that should run.
    pub(crate) fn must_run(&mut self) -> anyhow::Result<()> {
        let parts = self.parts.as_mut().context("nothing runs yet")?;
        parts.envoy.must_run()?;
        parts.scaler.must_run()?;
        parts.standin.must_run()
    }

    /// Ends everything. When something failed, the logs stay.
    pub(crate) async fn end(mut self, shown: anyhow::Result<()>) -> anyhow::Result<()> {
        if let Some(mut parts) = self.parts.take() {
            // First, so that it ends its app; the rest is killed when dropped.
            parts.standin.signal(Signal::TERM)?;
            parts.standin.ended().await?;
        }
        if shown.is_err() {
            self.logs.keep();
        }
        shown.with_context(|| {
            format!("it did not go as it should; all logs are in {}", self.logs.path().display())
        })
    }
}

async fn wait_until_all_are_linked(scaler: &Scaler, workers: u32) -> anyhow::Result<()> {
    let links = workers as usize + 1;
    let what = "the gateway's workers and KEDA's stream to be linked to the scaler";
    wait::until(what, async || {
        let state = scaler.state().await.map_err(|error| format!("{error:#}"))?;
        let (connected, streams) = (state.connected(1), state.keda_streams.len());
        if connected == links && streams == 1 {
            return Ok(());
        }
        Err(format!("{connected} of {links} workers, {streams} of 1 streams; problems: {:?}", state.problems))
    })
    .await
}

/// Listens at the gateway's address.
///
/// # Errors
/// If it is in use; names the port and the flag.
pub(crate) fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "port {} (the gateway's, on {}) is in use by another program; end that one or take another port: ./demo.sh --port {}",
            address.port(),
            address.ip(),
            address.port().checked_add(1).unwrap_or(8081),
        ),
        Err(error) => {
            Err(error).with_context(|| format!("cannot listen on {address} (the gateway's address)"))
        }
    }
}

/// A name for a request that nothing else has.
pub(crate) fn request_id() -> String {
    format!("demo-{}", clock::now_us())
}
