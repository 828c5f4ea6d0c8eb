//! The demo, as somebody at a terminal runs it (without the building).

use sluice_tests::{paths, wait};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    process::{Child, Command, Output, Stdio},
};

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(paths::binary("sluice-demo").unwrap());
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn described(output: &Output) -> String {
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A running process as the kernel names it: its id, and when it started, since ids are used again.
fn process(id: u32) -> Option<(u32, String)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The fields after the name, which may have anything in it: the state first, the start time as the 20th.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Ended, and only not yet asked for by whoever has inherited it.
    let is_zombie = fields.first() == Some(&"Z");
    (!is_zombie).then_some((id, fields.get(19)?.to_string()))
}

fn descendants(id: u32) -> BTreeSet<(u32, String)> {
    let mut found = BTreeSet::new();
    let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().filter_map(Result::ok);
    for task in tasks {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            found.extend(process(child));
            found.extend(descendants(child));
        }
    }
    found
}

/// Reads until a line has `wanted` in it.
fn read_until(lines: &mut impl Iterator<Item = std::io::Result<String>>, wanted: &str) -> Vec<String> {
    let mut read = Vec::new();
    for line in lines {
        read.push(line.unwrap());
        if read.last().unwrap().contains(wanted) {
            return read;
        }
    }
    panic!("the demo ended before it wrote {wanted:?}; it wrote {read:#?}");
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn once_ends_with_the_line_for_machines() {
    let output = demo(&["--once"]).output().unwrap();
    assert!(output.status.success(), "{}", described(&output));
    let stdout = text(&output.stdout);
    let last = stdout.lines().last().unwrap_or_default();
    let fields: Vec<&str> = last.split(' ').collect();
    let [name, status, measured @ ..] = fields.as_slice() else { panic!("the last line is {last:?}") };
    assert_eq!((*name, *status), ("cold-start", "status=200"), "{stdout}");
    let names: Vec<&str> = measured
        .iter()
        .map(|field| {
            let (name, ms) = field.split_once('=').unwrap();
            let ms: f64 = ms.parse().unwrap();
            // Told before it arrived, or at the app before its endpoint: then a clock or a column is wrong.
            assert!(ms > 0.0, "{last}");
            name
        })
        .collect();
    assert_eq!(names, ["held_ms", "told_ms", "release_ms"]);
}

#[test]
fn a_port_that_is_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = demo(&["--once", "--port", &port.to_string()]).output().unwrap();
    assert!(!output.status.success());
    let stderr = text(&output.stderr);
    assert!(stderr.contains(&format!("port {port}")) && stderr.contains("--port"), "{stderr}");
}

#[tokio::test]
async fn ctrl_c_leaves_nothing_running() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = demo(&["--port", &free.to_string(), "--cooldown-ms", "600000"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The app runs from here on, and stays up for the cooldown.
    read_until(&mut lines, "2. ");
    let started = descendants(child.id());
    // Envoy, the scaler, the stand-in and the app that it started.
    assert!(started.len() >= 4, "{started:?}");
    signal(&child, "INT");
    let status = child.wait().unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(status.success(), "{status}: {stderr}");
    let left: Vec<_> =
        started.iter().filter(|(id, start)| process(*id).is_some_and(|now| now.1 == *start)).collect();
    assert!(left.is_empty(), "still running: {left:?}");
}

#[tokio::test]
async fn a_demo_that_is_killed_takes_everything_with_it() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = demo(&["--port", &free.to_string(), "--cooldown-ms", "600000"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    read_until(&mut lines, "2. ");
    let started = descendants(child.id());
    assert!(started.len() >= 4, "{started:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    wait::until("all its processes to be gone", async || {
        let left: Vec<_> =
            started.iter().filter(|(id, start)| process(*id).is_some_and(|now| now.1 == *start)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await
    .unwrap();
}
