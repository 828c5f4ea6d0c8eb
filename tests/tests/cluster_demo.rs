//! `./demo.sh --cluster`, as somebody at a terminal runs it (without the building).

use sluice_tests::{
    cluster::{passes_over, programs::Programs},
    paths,
};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    process::{Command, Output, Stdio},
};

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(paths::binary("sluice-demo").unwrap());
    command.arg("--cluster").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The processes that work on files in this folder, by their command lines or, as Pods do, their environment.
fn processes_of(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let of_process = |file: &str| text(&fs::read(process.path().join(file)).unwrap_or_default());
        let line = of_process("cmdline").replace('\0', " ");
        if line.contains(folder) || of_process("environ").contains(folder) {
            found.push(line);
        }
    }
    found
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

#[test]
fn it_is_left_up_for_kubectl_and_curl_and_ctrl_c_leaves_nothing() {
    if passes_over() {
        return;
    }
    let kubectl = Programs::build().unwrap().get("kubectl").unwrap().to_owned();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = demo(&["--port", &free.to_string()]).spawn().unwrap();
    // Read from as long as the demo runs: it goes on writing.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    for line in lines.by_ref() {
        said.push(line);
        // Its own request is over.
        if said.last().unwrap().starts_with("2. ") {
            break;
        }
    }
    let printed = |prefix: &str| {
        let line = said.iter().find_map(|line| line.trim().strip_prefix(prefix));
        line.unwrap_or_else(|| panic!("no {prefix:?} in {said:#?}")).to_owned()
    };
    let cold = printed("cold-start ");
    assert!(cold.starts_with("status=200 held_ms="), "{cold}");
    let kubeconfig = printed("export KUBECONFIG=");
    let folder = kubeconfig.strip_suffix("/kubeconfig-outside").unwrap();
    // As printed, in a shell of one's own.
    let get = printed("kubectl -n demo ");
    let got =
        run(Command::new(kubectl).args(["-n", "demo"]).args(get.split(' ')).env("KUBECONFIG", &kubeconfig));
    let objects = text(&got.stdout);
    for kind in ["httpscaledobject.http.keda.sh/hello", "scaledobject.keda.sh/hello", "deployment.apps/hello"]
    {
        assert!(objects.contains(kind), "{objects} {}", text(&got.stderr));
    }
    let got = run(Command::new("sh").args(["-c", &format!("curl -sS --max-time 60 {}", printed("curl "))]));
    let answer = text(&got.stdout);
    assert!(
        answer.contains("200 OK") && answer.contains("x-keda-http-cold-start"),
        "{answer} {}",
        text(&got.stderr)
    );

    let running = processes_of(folder);
    for program in ["etcd", "keda-operator", "envoy", "sluice-scaler", "sluice-operator", "sluice-test-app"] {
        assert!(running.iter().any(|line| line.contains(program)), "no {program}: {running:#?}");
    }
    let sent = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let status = child.wait().unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(status.success(), "{status}: {stderr}");
    assert!(processes_of(folder).is_empty(), "{:#?}", processes_of(folder));
    assert!(!fs::exists(folder).unwrap(), "{folder} is left");
}

#[test]
fn a_port_that_is_in_use_is_named_before_anything_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = run(&mut demo(&["--port", &port.to_string()]));
    assert!(!output.status.success());
    let stderr = text(&output.stderr);
    assert!(stderr.contains(&format!("port {port}")) && stderr.contains("--port"), "{stderr}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
}
