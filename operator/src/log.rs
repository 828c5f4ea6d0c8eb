//! Structured logs on standard error.

use crate::config::Log;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Logs go to standard error from now on, as `log` says. Where another subscriber is there already, it stays.
pub fn start(log: &Log) {
    // The configuration has tried these directives.
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _ = if log.json { subscriber.json().try_init() } else { subscriber.try_init() };
}
