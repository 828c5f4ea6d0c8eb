//! A Pod's status from what its containers report, as kubelet writes it.

use std::net::Ipv4Addr;

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::{Value, json};

use super::super::netns;

/// What is known of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) state: State,
    pub(super) ready: bool,
    /// `restartCount`.
    pub(super) restarts: u32,
}

/// `state` of a container status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting { reason: &'static str, message: String },
    Running { since: Timestamp },
    Terminated { exit_code: i32, at: Timestamp },
}

// === impl Report ===

impl Report {
    pub(super) fn waiting(reason: &'static str, message: impl Into<String>, restarts: u32) -> Self {
        Self { state: State::Waiting { reason, message: message.into() }, ready: false, restarts }
    }
}

/// The `status` to merge into the Pod. `since` is when readiness last changed.
pub(super) fn status(pod: &Pod, ip: Ipv4Addr, reports: &[Report], since: Timestamp) -> Value {
    let ready = reports.iter().all(|report| report.ready);
    let condition = |kind: &str, is: bool| {
        let mut condition = json!({
            "type": kind,
            "status": if is { "True" } else { "False" },
            "lastTransitionTime": since.to_string(),
        });
        if !is {
            condition["reason"] = json!("ContainersNotReady");
        }
        condition
    };
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers).zip(reports);
    json!({"status": {
        "phase": phase(reports),
        "hostIP": netns::NODE_ADDRESS,
        "hostIPs": [{"ip": netns::NODE_ADDRESS}],
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": pod.metadata.creation_timestamp,
        "conditions": [
            condition("PodScheduled", true),
            condition("Initialized", true),
            condition("ContainersReady", ready),
            condition("Ready", ready),
        ],
        "containerStatuses": containers.map(|(container, report)| json!({
            "name": container.name,
            "image": container.image.as_deref().unwrap_or("none"),
            "imageID": "",
            "ready": report.ready,
            "started": matches!(report.state, State::Running { .. }),
            "restartCount": report.restarts,
            "state": state(&report.state),
        })).collect::<Vec<_>>(),
    }})
}

fn phase(reports: &[Report]) -> &'static str {
    let codes = reports.iter().map(|report| match report.state {
        State::Terminated { exit_code, .. } => Some(exit_code),
        State::Waiting { .. } | State::Running { .. } => None,
    });
    match codes.collect::<Option<Vec<_>>>() {
        Some(codes) if codes.iter().all(|&code| code == 0) => "Succeeded",
        Some(_) => "Failed",
        None if reports.iter().any(|report| matches!(report.state, State::Running { .. })) => "Running",
        // A container that has run before and waits for its next start leaves the Pod running.
        None if reports.iter().any(|report| report.restarts > 0) => "Running",
        None => "Pending",
    }
}

fn state(state: &State) -> Value {
    match state {
        State::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
        State::Running { since } => json!({"running": {"startedAt": since.to_string()}}),
        State::Terminated { exit_code, at } => {
            let reason = if *exit_code == 0 { "Completed" } else { "Error" };
            json!({"terminated": {"exitCode": exit_code, "reason": reason, "finishedAt": at.to_string()}})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(state: State, ready: bool) -> Report {
        Report { state, ready, restarts: 0 }
    }

    fn running(ready: bool) -> Report {
        report(State::Running { since: Timestamp::UNIX_EPOCH }, ready)
    }

    fn ended(exit_code: i32) -> Report {
        report(State::Terminated { exit_code, at: Timestamp::UNIX_EPOCH }, false)
    }

    #[test]
    fn phases() {
        assert_eq!(phase(&[running(false), ended(0)]), "Running");
        assert_eq!(phase(&[ended(0), ended(0)]), "Succeeded");
        assert_eq!(phase(&[ended(0), ended(1)]), "Failed");
        assert_eq!(phase(&[Report::waiting("ContainerCreating", "", 0)]), "Pending");
        assert_eq!(phase(&[Report::waiting("CrashLoopBackOff", "", 1)]), "Running");
    }

    #[test]
    fn a_pod_is_ready_when_all_its_containers_are() {
        let pod = serde_json::from_value::<Pod>(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b"}]},
        }))
        .unwrap();
        let ip = Ipv4Addr::new(10, 99, 1, 1);
        let ready = |reports: &[Report]| {
            let status = status(&pod, ip, reports, Timestamp::UNIX_EPOCH);
            status["status"]["conditions"][3]["status"].as_str().map(str::to_owned)
        };
        assert_eq!(ready(&[running(true), running(true)]).as_deref(), Some("True"));
        assert_eq!(ready(&[running(true), running(false)]).as_deref(), Some("False"));
    }
}
