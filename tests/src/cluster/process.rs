//! A program of the control plane: started in the namespace, its output in a file, killed with the bed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::process::Child;

/// How often a condition is looked at while somebody waits for it.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// A running program and its log.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command`; its output is appended to `log`, so that the story of a restarted program stays together.
    pub(super) fn spawn(name: &str, command: Command, log: &Path) -> Result<Self> {
        let child = spawn_logged(command, log).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child })
    }

    /// Kills it (as a crash would) and waits until it is gone.
    pub(super) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Waits until `ready` says yes.
    ///
    /// # Errors
    /// When the program ends first, or `limit` passes: with the end of its log.
    pub(super) async fn until<F>(&mut self, limit: Duration, mut ready: impl FnMut() -> F) -> Result<()>
    where
        F: Future<Output = bool>,
    {
        let deadline = tokio::time::Instant::now() + limit;
        while !ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, tail(&self.log, 30));
            }
            if tokio::time::Instant::now() >= deadline {
                bail!("{} is not ready after {limit:?}:\n{}", self.name, tail(&self.log, 30));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Spawns with standard output and error appended to `log`, in a process group of its own (a signal to the group
/// reaches what a shell started), and killed when dropped.
pub(super) fn spawn_logged(mut command: Command, log: &Path) -> Result<Child> {
    let file = File::options().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut command = tokio::process::Command::from(command);
    Ok(command.process_group(0).kill_on_drop(true).spawn()?)
}

/// The last `lines` lines of a file; empty when there is none.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all = text.lines().collect::<Vec<_>>();
    all[all.len().saturating_sub(lines)..].join("\n")
}
