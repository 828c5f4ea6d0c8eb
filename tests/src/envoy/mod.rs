//! The real Envoy as a child process.

mod config;
mod install;

pub(crate) use config::socket_address;
pub use config::{AppCluster, Config, Eds, Filter, LISTENER, Protocol, Route, Upstream};
pub use install::{envoy, pinned_version, tested_versions};

use crate::{http, process::Process, wait};
use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    access_log: PathBuf,
}

/// A line of the access log: one request that has ended.
#[derive(Clone, Debug)]
pub struct Access {
    /// When the request arrived, in microseconds since 1970.
    pub start_us: u64,
    /// When it was sent to the app, if it was.
    pub released_us: Option<u64>,
    /// When the answer began, if it did.
    pub first_byte_us: Option<u64>,
    /// The status, 0 if there was none.
    pub status: u16,
    /// Envoy's own word on how it ended.
    pub details: String,
    /// The authority.
    pub authority: String,
    /// The request's `x-test-id`, empty if there was none.
    pub id: String,
    /// What the filter did with it, if it did more than to forward it.
    pub sluice: Option<String>,
}

#[derive(Deserialize)]
struct RawAccess {
    start: String,
    released_after_us: Option<Value>,
    first_byte_after_us: Option<Value>,
    status: Option<Value>,
    details: Option<String>,
    authority: Option<String>,
    id: Option<String>,
    sluice: Option<String>,
}

// === impl Envoy ===

impl Envoy {
    /// Starts `binary` with `workers` workers and waits until it listens.
    ///
    /// Writes `envoy.json` and `envoy.log` into `dir`.
    ///
    /// # Errors
    /// If it does not start; with the last lines that it wrote.
    pub async fn start(binary: &Path, workers: u32, config: &Config, dir: &Path) -> anyhow::Result<Self> {
        let bootstrap = dir.join("envoy.json");
        fs::write(&bootstrap, serde_json::to_vec_pretty(&config.bootstrap())?)?;
        Self::run(binary, workers, &bootstrap, &config.access_log, dir).await
    }

    /// Starts `binary` with this bootstrap, JSON or YAML, and waits until it listens. `access_log`: where that one
    /// writes it.
    ///
    /// Writes `envoy.log` into `dir`.
    ///
    /// # Errors
    /// If it does not start; with the last lines that it wrote.
    pub async fn run(
        binary: &Path,
        workers: u32,
        bootstrap: &Path,
        access_log: &Path,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let admin_file = dir.join("envoy-admin.txt");
        let log = dir.join("envoy.log");
        let mut command = Command::new(binary);
        command
            .args(["--concurrency", &workers.to_string(), "--disable-hot-restart"])
            // Envoy's own 10 s are long to wait for a line.
            .args(["--file-flush-interval-msec", "50"])
            .args(["--log-level", "info", "--log-format", "%Y-%m-%d %T.%f [%l][%t][%n] %v"])
            .arg("-c")
            .arg(bootstrap)
            .arg("--admin-address-path")
            .arg(&admin_file);
        // "wasm:debug" or the like, for a person in search of something.
        if let Some(levels) = std::env::var_os("SLUICE_ENVOY_LOG") {
            command.arg("--component-log-level").arg(levels);
        }
        let mut process = Process::spawn("envoy", &mut command, &log)?;
        let started = Self::wait_for_listener(&mut process, &admin_file).await;
        let (admin, address) = started.with_context(|| last_lines(&log))?;
        Ok(Self { process, address, admin, access_log: access_log.to_owned() })
    }

    async fn wait_for_listener(
        process: &mut Process,
        admin_file: &Path,
    ) -> anyhow::Result<(SocketAddr, SocketAddr)> {
        // An Envoy that ended is no reason to wait longer: the Ok carries the error out.
        wait::until("Envoy to listen", async || {
            if let Err(ended) = process.must_run() {
                return Ok(Err(ended));
            }
            let admin = fs::read_to_string(admin_file).map_err(|_| "no admin address")?;
            let admin: SocketAddr = admin.trim().parse().map_err(|_| "half an admin address")?;
            let ready = http::get(admin, "/ready").await.map_err(|error| error.to_string())?;
            if ready.text().trim() != "LIVE" {
                return Err(format!("it is {}", ready.text().trim()));
            }
            let address = listener_address(admin).await.map_err(|error| error.to_string())?;
            Ok(Ok((admin, address)))
        })
        .await?
    }

    /// Where the listener is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin API is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// If it has ended.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        self.process.must_run()
    }

    /// A counter or gauge by its full name; 0 if Envoy does not have it (yet).
    ///
    /// # Errors
    /// If the admin API does not answer.
    pub async fn stat(&self, name: &str) -> anyhow::Result<u64> {
        let stats = http::get(self.admin, &format!("/stats?filter={}", exactly(name))).await?;
        let text = stats.text();
        let Some(value) = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")) else {
            return Ok(0);
        };
        value.trim().parse().with_context(|| format!("{name} is {value}"))
    }

    /// Requests that the listener has received and not yet answered.
    ///
    /// # Errors
    /// If the admin API does not answer.
    pub async fn active_requests(&self) -> anyhow::Result<u64> {
        self.stat(&format!("http.{LISTENER}.downstream_rq_active")).await
    }

    /// The endpoints of a cluster that may be sent requests, as the main thread knows them.
    ///
    /// # Errors
    /// If the admin API does not answer.
    pub async fn usable_endpoints(&self, cluster: &str) -> anyhow::Result<u64> {
        self.stat(&format!("cluster.{cluster}.membership_healthy")).await
    }

    /// All requests that have ended and were written so far (Envoy writes every 50 ms).
    ///
    /// # Errors
    /// If a line cannot be read.
    pub fn access_log(&self) -> anyhow::Result<Vec<Access>> {
        let text = fs::read_to_string(&self.access_log).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
        whole.lines().map(Access::parse).collect()
    }

    /// The line of the request with this `x-test-id`.
    ///
    /// # Errors
    /// If it does not come.
    pub async fn access(&self, id: &str) -> anyhow::Result<Access> {
        wait::until(format!("the access log's line of request {id}"), async || {
            let log = self.access_log().map_err(|error| error.to_string())?;
            let lines = log.len();
            log.into_iter().find(|line| line.id == id).ok_or_else(|| format!("{lines} other lines"))
        })
        .await
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

// === impl Access ===

impl Access {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let raw: RawAccess = serde_json::from_str(line).with_context(|| format!("access log: {line}"))?;
        let (seconds, micros) =
            raw.start.split_once('.').context("access log: start without microseconds")?;
        ensure!(micros.len() == 6, "access log: start is {}", raw.start);
        let start_us = seconds.parse::<u64>()? * 1_000_000 + micros.parse::<u64>()?;
        let after = |us: Option<Value>| number(us).map(|us| start_us + us);
        Ok(Self {
            start_us,
            released_us: after(raw.released_after_us),
            first_byte_us: after(raw.first_byte_after_us),
            status: number(raw.status).and_then(|status| u16::try_from(status).ok()).unwrap_or(0),
            details: raw.details.unwrap_or_default(),
            authority: raw.authority.unwrap_or_default(),
            id: raw.id.unwrap_or_default(),
            sluice: raw.sluice,
        })
    }
}

/// Envoy writes a command that stands alone as a number on some lines and as text on others.
fn number(value: Option<Value>) -> Option<u64> {
    match value? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// A regular expression for this name alone, as a query's value. Names of clusters have `|` in them.
fn exactly(name: &str) -> String {
    let literal = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' { c.to_string() } else { format!("%5C%{:02X}", c as u32) }
    };
    format!("%5E{}%24", name.chars().map(literal).collect::<String>())
}

async fn listener_address(admin: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listeners: Value = http::get(admin, "/listeners?format=json").await?.json()?;
    let address = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let port = address["port_value"].as_u64().context("Envoy has no listener yet")?;
    Ok(SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?)))
}

/// The end of a log, for an error.
pub(crate) fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.iter().skip(lines.len().saturating_sub(8)).copied().collect::<Vec<_>>().join("\n");
    format!("the end of {}:\n{tail}", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_line_is_read() {
        let line = r#"{"start":"1700000000.000250","released_after_us":1500,"first_byte_after_us":"2000",
            "status":200,"details":"via_upstream","flags":"-","authority":"a","id":null}"#;
        let access = Access::parse(line).unwrap();
        assert_eq!(access.start_us, 1_700_000_000_000_250);
        assert_eq!(access.released_us, Some(1_700_000_000_001_750));
        assert_eq!(access.first_byte_us, Some(1_700_000_000_002_250));
        assert_eq!((access.status, access.id.as_str()), (200, ""));
    }

    #[test]
    fn a_name_is_asked_for_literally() {
        assert_eq!(exactly("a.b|c_1"), "%5Ea%5C%2Eb%5C%7Cc_1%24");
    }

    #[test]
    fn what_never_reached_the_app_was_not_released() {
        let access =
            Access::parse(r#"{"start":"1.000000","status":"504","released_after_us":null}"#).unwrap();
        assert_eq!((access.status, access.released_us), (504, None));
    }
}
