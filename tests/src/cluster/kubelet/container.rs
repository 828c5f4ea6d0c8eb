//! One container: start its process, watch its readiness, start it again when it ends, end it when told.

use std::{
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::Child,
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    probe::{self, Readiness},
    status::{Report, State},
};
use crate::cluster::{netns::NetNamespace, process::spawn_logged};

/// The wait before a container's first restart; kubelet waits 10 s. It doubles up to [`MAX_BACKOFF`].
pub(crate) const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait before a restart; kubelet's is 5 min.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// A container that ran this long has come up: its next restart waits [`FIRST_BACKOFF`] again.
const STEADY: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    /// `workingDir`; `/` where there is none.
    pub(super) folder: Option<String>,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) readiness: Option<Readiness>,
    pub(super) restart: Restart,
    pub(super) log: PathBuf,
}

/// `restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    Always,
    OnFailure,
    Never,
}

/// A container's place in the Pod, and where it reports.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    pub(super) index: usize,
    pub(super) reports: mpsc::UnboundedSender<(usize, Report)>,
}

// === impl Reporter ===

impl Reporter {
    pub(super) fn say(&self, state: State, ready: bool, restarts: u32) {
        // The Pod's task outlives its containers; if it does not, nobody is left to be told.
        let _ = self.reports.send((self.index, Report { state, ready, restarts }));
    }
}

/// Runs the container until its restart policy says it is done, or `stop` holds a grace period.
pub(super) async fn supervise(
    launch: Launch,
    netns: &NetNamespace,
    reporter: Reporter,
    mut stop: watch::Receiver<Option<Duration>>,
) {
    let mut backoff = FIRST_BACKOFF;
    let mut restarts = 0;
    loop {
        let began = Instant::now();
        let state = match start(&launch, netns) {
            Err(error) => State::Waiting { reason: "RunContainerError", message: format!("{error:#}") },
            Ok(mut child) => {
                let since = Timestamp::now();
                reporter.say(State::Running { since }, launch.readiness.is_none(), restarts);
                let ended = tokio::select! {
                    status = child.wait() => status,
                    () = follow_readiness(launch.readiness.as_ref(), since, restarts, &reporter) => return,
                    grace = stopped(&mut stop) => {
                        let status = terminate(&mut child, grace).await;
                        reporter.say(terminated(status), false, restarts);
                        return;
                    }
                };
                match ended {
                    Ok(status) => terminated(status),
                    Err(error) => State::Waiting { reason: "RunContainerError", message: error.to_string() },
                }
            }
        };
        let again = match (launch.restart, &state) {
            (Restart::Never, _) | (Restart::OnFailure, State::Terminated { exit_code: 0, .. }) => false,
            (Restart::Always | Restart::OnFailure, _) => true,
        };
        if !again {
            reporter.say(state, false, restarts);
            return;
        }
        // Never `terminated` here: a Pod whose containers all ended has failed, and its ReplicaSet makes another.
        restarts += 1;
        let message = match state {
            State::Terminated { exit_code, .. } => format!("ended with exit code {exit_code}"),
            State::Waiting { message, .. } => message,
            State::Running { .. } => String::new(),
        };
        reporter.say(State::Waiting { reason: "CrashLoopBackOff", message }, false, restarts);
        if began.elapsed() >= STEADY {
            backoff = FIRST_BACKOFF;
        }
        tokio::select! {
            () = sleep(backoff) => {}
            _ = stopped(&mut stop) => return,
        }
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

fn start(launch: &Launch, netns: &NetNamespace) -> anyhow::Result<Child> {
    let mut command: Command = match &launch.folder {
        Some(folder) => {
            let mut command = netns.command("env");
            command.arg("-C").arg(folder).arg(&launch.program);
            command
        }
        None => netns.command(&launch.program),
    };
    command.args(&launch.args).env_clear().envs(launch.env.iter().map(|(name, value)| (name, value)));
    spawn_logged(command, &launch.log)
}

/// Reports each change of readiness; never ends.
async fn follow_readiness(
    readiness: Option<&Readiness>,
    since: Timestamp,
    restarts: u32,
    reporter: &Reporter,
) {
    let Some(readiness) = readiness else { return std::future::pending().await };
    let mut was = false;
    loop {
        let is = readiness.ready().await;
        if is != was {
            reporter.say(State::Running { since }, is, restarts);
            was = is;
        }
        sleep(probe::PERIOD).await;
    }
}

/// The grace period, once there is one.
async fn stopped(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match stop.wait_for(Option::is_some).await.map(|grace| *grace) {
        Ok(Some(grace)) => grace,
        // The Pod's task is gone: nothing is left to wait for.
        Ok(None) | Err(_) => Duration::ZERO,
    }
}

/// SIGTERM to the process group, SIGKILL after the grace period.
async fn terminate(child: &mut Child, grace: Duration) -> ExitStatus {
    if !grace.is_zero() {
        signal(child, Signal::TERM);
        if let Ok(Ok(status)) = tokio::time::timeout(grace, child.wait()).await {
            return status;
        }
    }
    signal(child, Signal::KILL);
    child.wait().await.unwrap_or_else(|_| ExitStatus::from_raw(Signal::KILL.as_raw()))
}

fn signal(child: &Child, signal: Signal) {
    // No id: it has been waited for already.
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended this moment.
        let _ = kill_process_group(pid, signal);
    }
}

/// 128 + signal when a signal ended it, as a shell and kubelet have it.
fn terminated(status: ExitStatus) -> State {
    let exit_code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    State::Terminated { exit_code, at: Timestamp::now() }
}
