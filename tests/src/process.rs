//! A child process that cannot outlive its owner.

use crate::wait;
use anyhow::{Context as _, bail};
use rustix::process::{Pid, kill_process};
use std::{
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

pub use rustix::process::Signal;

/// A running child; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

// === impl Process ===

impl Process {
    /// Starts a command that writes both its outputs to `log`.
    ///
    /// The child is in a process group of its own, so that Ctrl-C in a terminal reaches the owner alone, which
    /// then ends its children in order. If the owner is killed, the kernel kills the child.
    ///
    /// # Errors
    /// If the log cannot be made or the program not be started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file);
        Self::spawn_raw(name, command)
    }

    /// Starts a command whose standard output the caller reads.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn spawn_piped(
        name: &str,
        command: &mut Command,
        log: &Path,
    ) -> anyhow::Result<(Self, std::process::ChildStdout)> {
        let file = File::options().create(true).append(true).open(log)?;
        command.stdout(Stdio::piped()).stderr(file);
        let mut process = Self::spawn_raw(name, command)?;
        let stdout = process.child.stdout.take().context("the child has no standard output")?;
        Ok((process, stdout))
    }

    fn spawn_raw(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt as _;
        command.stdin(Stdio::null()).process_group(0);
        die_with_owner(command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. To a process that has ended it does nothing.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        // Not reaped yet means that the id is still this process's.
        if self.exited()?.is_some() {
            return Ok(());
        }
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.with_context(|| format!("{} has no process id", self.name))?;
        kill_process(id, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn exited(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot ask for {}", self.name))
    }

    /// Fails if it has ended: what waits for a process to do something asks this between looks.
    ///
    /// # Errors
    /// If it has ended; names its exit status.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status})", self.name),
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        wait::until_now(format!("{} to end", self.name), || match self.exited() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only if it has ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(target_os = "linux")]
fn die_with_owner(command: &mut Command) {
    use rustix::process::set_parent_process_death_signal;
    use std::os::unix::process::CommandExt as _;
    #[expect(
        unsafe_code,
        reason = "pre_exec is unsafe: between fork and exec only async-signal-safe calls are allowed"
    )]
    // SAFETY: the closure makes one system call (prctl), allocates nothing and touches no lock.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_owner(_command: &mut Command) {}

/// Waits for a signal that asks this process to end: Ctrl-C, SIGTERM, or the terminal's closing.
///
/// # Errors
/// If the signals cannot be listened to. They are from this call on, not only once the future is polled.
pub fn asked_to_end() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}
