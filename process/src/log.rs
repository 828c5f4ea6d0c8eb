//! Structured logs on standard error.

use crate::typed::{BadValue, typed};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How to log, as typed.
#[derive(Clone, Debug, clap::Args)]
// Otherwise it would be a group of the name that the program's own arguments have.
#[group(skip)]
pub struct Args {
    /// Log as text or json.
    #[arg(long, value_name = "FORMAT", env = "SLUICE_LOG_FORMAT", default_value = "text")]
    log_format: String,

    /// What to log: error, warn, info, debug or trace, also by module (`info,kube=debug`).
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG", default_value = "info")]
    log_level: String,
}

/// How to log.
#[derive(Clone, Debug)]
pub struct Log {
    /// One JSON object a line, not text.
    pub json: bool,
    /// Directives as [`EnvFilter`] reads them.
    filter: String,
}

/// Logs go to standard error from now on, as `log` says. Where another subscriber is there already, it stays.
pub fn start(log: &Log) {
    // The directives have been tried. Of each try that is refused, kube's watcher warns; the programs say once
    // what they cannot follow.
    let filter = EnvFilter::try_new(format!("kube_runtime=error,{}", log.filter)).unwrap_or_default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _ = if log.json { subscriber.json().try_init() } else { subscriber.try_init() };
}

// === impl Args ===

impl Args {
    /// What was typed, as it is used.
    ///
    /// # Errors
    /// A format that there is none of, or directives that do not read.
    pub fn resolve(&self) -> Result<Log, BadValue> {
        let format = typed("--log-format", "SLUICE_LOG_FORMAT", &self.log_format, "text");
        let json = match format.text() {
            "json" => true,
            "text" => false,
            _ => return Err(format.error("text or json")),
        };
        let level = typed("--log-level", "RUST_LOG", &self.log_level, "info");
        match EnvFilter::try_new(level.text()) {
            Ok(_) => Ok(Log { json, filter: level.text().to_owned() }),
            Err(_) => Err(level.error("a level, or levels by module")),
        }
    }
}
