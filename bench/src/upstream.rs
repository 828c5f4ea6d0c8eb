//! The app behind every gateway.

use crate::{bench::Bench, system::Cores};
use sluice_tests::{paths, process::Process, wait};
use std::{fs, net::SocketAddr, process::Command};

/// A running app, or the address of one that is not ours.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    // None where somebody else runs it.
    _process: Option<Process>,
}

// === impl Upstream ===

impl Upstream {
    /// The app that was named, else one of our own.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) async fn fast(bench: &Bench, cores: &Cores) -> anyhow::Result<Self> {
        match bench.upstream {
            Some(address) => Ok(Self { address, _process: None }),
            None => Self::start(bench, cores, &[]).await,
        }
    }

    /// An app that takes requests and never answers.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) async fn silent(bench: &Bench, cores: &Cores) -> anyhow::Result<Self> {
        Self::start(bench, cores, &["--silent"]).await
    }

    async fn start(bench: &Bench, cores: &Cores, args: &[&str]) -> anyhow::Result<Self> {
        let dir = bench.dir("upstream")?;
        let address_file = dir.join("address.txt");
        let mut command = Command::new(paths::binary("sluice-bench-upstream")?);
        command.args(args).arg("--address-file").arg(&address_file);
        let log = dir.join("upstream.log");
        let mut process = cores.others(|| Process::spawn("upstream", &mut command, &log))?;
        let address = wait::until("the upstream to listen", async || {
            if let Err(ended) = process.must_run() {
                return Ok(Err(ended));
            }
            let text = fs::read_to_string(&address_file).map_err(|_| "it has no address")?;
            Ok(Ok(text.trim().parse().map_err(|_| "half an address")?))
        })
        .await??;
        Ok(Self { address, _process: Some(process) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
