//! What the run was made on, so that its absolute figures can be read.

use serde::Serialize;
use std::{fmt, fs, thread};

/// A machine, as its kernel describes it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
}

// === impl Machine ===

impl Machine {
    /// The one that this runs on. What it does not say is left empty.
    pub(crate) fn this() -> Self {
        let cpu = value_of("/proc/cpuinfo", "model name");
        let memory_kib: u64 =
            value_of("/proc/meminfo", "MemTotal").trim_end_matches("kB").trim().parse().unwrap_or(0);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu,
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_kib.div_ceil(1024 * 1024),
            kernel: kernel.trim().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cores ({}), {} GiB, Linux {}", self.cores, self.cpu, self.memory_gib, self.kernel)
    }
}

fn value_of(file: &str, key: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}
