//! The app as a process: what a pod's container is in a cluster.

use crate::{
    envoy::last_lines,
    http, paths,
    process::{Process, Signal},
    wait,
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A running `sluice-test-app`.
#[derive(Debug)]
pub struct App {
    process: Process,
    address: SocketAddr,
    requests: PathBuf,
}

/// How it is started.
#[derive(Clone, Debug, Default)]
pub struct AppOptions {
    /// How long it takes to begin listening, as an app that has something to load.
    pub start_delay: Duration,
}

/// A line of the app's request log: a request whose head has arrived at the app.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AppRequest {
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// The how-manieth request of this process it is.
    pub sequence: u64,
    /// The how-manieth connection it came on.
    pub connection: u64,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The request's `x-test-id`, empty if there was none.
    pub id: String,
}

// === impl App ===

impl App {
    /// Starts the process. It does not listen yet: see [`Self::ready`].
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(name: &str, options: &AppOptions, dir: &Path) -> anyhow::Result<Starting> {
        let address_file = dir.join(format!("{name}-address.txt"));
        let log = dir.join(format!("{name}.log"));
        let requests = dir.join(format!("{name}-requests.jsonl"));
        // Left by an earlier process of this name.
        for file in [&address_file, &requests] {
            if file.exists() {
                fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
            }
        }
        let mut command = Command::new(paths::binary("sluice-test-app")?);
        command
            .args(["--start-delay-ms", &options.start_delay.as_millis().to_string()])
            .arg("--address-file")
            .arg(&address_file)
            .arg("--request-log")
            .arg(&requests);
        let process = Process::spawn(name, &mut command, &log)?;
        Ok(Starting { name: name.to_owned(), process, address_file, log, requests })
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// If it does not; with the end of its log.
    pub async fn start(name: &str, options: &AppOptions, dir: &Path) -> anyhow::Result<Self> {
        Self::spawn(name, options, dir)?.ready().await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests whose heads have arrived so far, in that order.
    ///
    /// # Errors
    /// If a line cannot be read.
    pub fn requests(&self) -> anyhow::Result<Vec<AppRequest>> {
        read_requests(&self.requests)
    }

    /// Asks it to end (SIGTERM): it finishes what it has and takes nothing new. Waits for that.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.ended().await?;
        Ok(())
    }
}

/// An app that was started and may not listen yet.
#[derive(Debug)]
pub struct Starting {
    name: String,
    process: Process,
    address_file: PathBuf,
    log: PathBuf,
    requests: PathBuf,
}

// === impl Starting ===

impl Starting {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where it writes what arrives.
    pub fn requests(&self) -> &Path {
        &self.requests
    }

    /// Waits until it answers `/healthz`, as kubelet's readiness probe does (but looks more often).
    ///
    /// # Errors
    /// If it ends or does not answer; with the end of its log.
    pub async fn ready(mut self) -> anyhow::Result<App> {
        let what = format!("{} to answer /healthz", self.name);
        let process = &mut self.process;
        let address_file = &self.address_file;
        let address = wait::until(what, async || {
            if let Err(ended) = process.must_run() {
                return Ok(Err(ended));
            }
            let address = fs::read_to_string(address_file).map_err(|_| "it has no address")?;
            let address: SocketAddr = address.trim().parse().map_err(|_| "half an address")?;
            let answer = http::get(address, "/healthz").await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(Ok(address)) } else { Err(format!("it says {}", answer.status)) }
        })
        .await
        .and_then(|address| address)
        .with_context(|| last_lines(&self.log))?;
        Ok(App { process: self.process, address, requests: self.requests })
    }
}

/// The requests in an app's request log, in order of arrival.
///
/// # Errors
/// If it cannot be read.
pub fn read_requests(log: &Path) -> anyhow::Result<Vec<AppRequest>> {
    let text = fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    whole
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("request log: {line}")))
        .collect()
}
