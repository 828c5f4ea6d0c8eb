//! The end: graceful, bounded, and at once when told twice.

use crate::bed::{APP, Bed, app, counts, within};
use std::{
    path::Path,
    process::{ExitStatus, Stdio},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

#[tokio::test]
async fn streams_end_with_ok() {
    let mut bed = Bed::start().await;
    bed.write("app.yaml", APP);
    bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    let mut keda = bed.keda().await;
    let mut active = within(keda.stream_is_active(app())).await.unwrap().into_inner();
    let mut specs = within(keda.stream_metric_spec(app())).await.unwrap().into_inner();
    let mut worker = bed.worker(1).await;
    worker.report(vec![counts(1, 1, 1)]).await;
    bed.stop();
    within(async { while active.message().await.unwrap().is_some() {} }).await;
    within(async { while specs.message().await.unwrap().is_some() {} }).await;
    within(async { while worker.next().await.unwrap().is_some() {} }).await;
    bed.ended().await.unwrap();
}

#[tokio::test]
async fn during_the_delay_it_is_not_ready_and_everything_goes_on() {
    let mut bed = Bed::with(&["--shutdown-delay=1h"]).await;
    bed.write("app.yaml", APP);
    bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    let mut keda = bed.keda().await;
    let mut active = within(keda.stream_is_active(app())).await.unwrap().into_inner();
    assert!(!within(active.message()).await.unwrap().unwrap().result);
    bed.stop();
    let (_, why) = within(async {
        loop {
            let (status, body) = bed.get("/readyz").await;
            if status == 503 {
                return (status, body);
            }
        }
    })
    .await;
    assert_eq!(why, "shutting down\n");
    assert_eq!(bed.get("/livez").await.0, 200);
    let mut worker = bed.worker(1).await;
    worker.report(vec![]).await;
    worker.report(vec![counts(1, 1, 1)]).await;
    assert!(within(active.message()).await.unwrap().unwrap().result, "a new worker's request wakes its app");
}

/// The program itself.
struct Program {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Program {
    fn start(dir: &Path, flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sluice-scaler"))
            .args(["--bind=127.0.0.1", "--port=0", "--http-port=0", "--config-dir"])
            .arg(dir)
            .args(flags)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log }
    }

    async fn says(&mut self, text: &str) -> String {
        within(async {
            loop {
                let line = self.log.next_line().await.unwrap().expect("it says so before it ends");
                if line.contains(text) {
                    return line;
                }
            }
        })
        .await
    }

    async fn terminate(&self) {
        let pid = self.child.id().unwrap().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
        assert!(status.success());
    }

    async fn ended(mut self) -> ExitStatus {
        within(self.child.wait()).await.unwrap()
    }
}

#[tokio::test]
async fn a_signal_ends_the_program_with_zero() {
    let dir = tempfile::tempdir().unwrap();
    let ports = dir.path().join("ports");
    let flag = format!("--ports-file={}", ports.display());
    let mut program = Program::start(dir.path(), &["--shutdown-delay=0s", &flag]);
    program.says("listening").await;
    program.terminate().await;
    program.says("ended").await;
    assert_eq!(program.ended().await.code(), Some(0));
    let ports: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(ports).unwrap()).unwrap();
    assert!(ports["grpc"].as_u64().unwrap() > 0 && ports["http"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &["--shutdown-delay=1h"]);
    program.says("listening").await;
    program.terminate().await;
    program.says("going on for the delay").await;
    program.terminate().await;
    program.says("at once").await;
    assert_eq!(program.ended().await.code(), Some(1));
}

#[tokio::test]
async fn a_configuration_that_cannot_work_has_an_exit_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    for (flags, says) in [
        (&["--activity-window=soon"][..], "--activity-window (SLUICE_ACTIVITY_WINDOW)"),
        (&["--no-such-flag"][..], "--no-such-flag"),
    ] {
        let mut program = Program::start(dir.path(), flags);
        program.says(says).await;
        assert_eq!(program.ended().await.code(), Some(64));
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let flag = format!("--http-port={}", taken.local_addr().unwrap().port());
    let mut program = Program::start(dir.path(), &[&flag]);
    let line = program.says("cannot listen on").await;
    assert!(line.contains("--http-port"), "{line}");
    assert_eq!(program.ended().await.code(), Some(1));
}

#[tokio::test]
async fn logs_are_json_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &["--log-format=json"]);
    let line = program.says("listening").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["level"], "INFO");
}
