//! What every part needs: the plan, the binaries, and a folder.

use crate::{
    args::{Args, OtherPath},
    plan::Plan,
};
use anyhow::{Context as _, bail, ensure};
use sluice_tests::{envoy, http, logs::LogDir, paths};
use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

/// One run.
#[derive(Debug)]
pub(crate) struct Bench {
    /// How much of everything.
    pub(crate) plan: Plan,
    /// Ways that somebody else has set up.
    pub(crate) others: Vec<OtherPath>,
    /// The app that those lead to; none: one of our own.
    pub(crate) upstream: Option<SocketAddr>,
    /// Envoy.
    pub(crate) envoy: PathBuf,
    /// Sluice's module.
    pub(crate) filter: PathBuf,
    /// The module that does nothing.
    pub(crate) empty_filter: PathBuf,
    dirs: AtomicU64,
    logs: LogDir,
}

// === impl Bench ===

impl Bench {
    /// Looks whether everything is there before anything is measured.
    ///
    /// # Errors
    /// If something is not; says what to do.
    pub(crate) fn new(args: &Args) -> anyhow::Result<Self> {
        Command::new("wrk").arg("-v").output().context("wrk is missing, which makes the load: install it")?;
        let empty_filter = paths::target().join("filter/sluice_empty_filter.wasm");
        if !empty_filter.is_file() {
            bail!("{} is not built; run ./wasm-build.sh sluice-empty-filter", empty_filter.display());
        }
        Ok(Self {
            plan: args.plan(),
            others: args.paths.clone(),
            upstream: args.upstream,
            envoy: envoy::envoy(None)?,
            filter: paths::wasm()?,
            empty_filter,
            dirs: AtomicU64::new(0),
            logs: LogDir::at(paths::target().join("bench").join(std::process::id().to_string()))?,
        })
    }

    /// Asks every other way for an answer, so that none of them is found dead in the middle of a run.
    ///
    /// # Errors
    /// If one does not answer with success; names it.
    pub(crate) async fn try_others(&self) -> anyhow::Result<()> {
        for other in &self.others {
            if self.upstream.is_none() {
                let name = &other.name;
                eprintln!(
                    "bench: --path without --upstream: {name} leads to another app than the gateways here"
                );
            }
            let request = http::get_request(&other.host, &other.path)?;
            let answer = http::request(other.address, request).await;
            let answer = answer.with_context(|| format!("--path {}", other.name))?;
            ensure!(answer.status == 200, "--path {}: it answers with {}", other.name, answer.status);
        }
        Ok(())
    }

    /// A folder that nobody else has, for the files of `name`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let number = self.dirs.fetch_add(1, Ordering::Relaxed);
        self.logs.dir(&format!("{number}-{name}"))
    }
}
