//! `docs/standalone.md`, tried as it is written.

use sluice_tests::{
    app::{App, AppOptions},
    envoy::{self, Envoy},
    http,
    logs::LogDir,
    objects::{Condition, Objects, Target},
    paths,
    scaler::Scaler,
    wait,
};
use std::{fs, process::Command};

/// What the document calls its scalers.
const SCALERS: [&str; 2] = ["scaler-0.internal", "scaler-1.internal"];

/// The blocks of the document that are in this language.
fn blocks(language: &str) -> Vec<String> {
    let text = fs::read_to_string(paths::root().join("docs/standalone.md")).unwrap();
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    blocks.map(str::to_owned).collect()
}

/// The block that has this in it.
fn block(language: &str, has: &str) -> String {
    let mut found: Vec<String> = blocks(language).into_iter().filter(|block| block.contains(has)).collect();
    assert_eq!(found.len(), 1, "one block of {language} with {has}");
    found.remove(0)
}

/// Replaces what is there, and fails if it is not.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the document does not say {from:?}");
    text.replace(from, to)
}

/// The document's Envoy with the module where it is.
fn bootstrap() -> String {
    let module = paths::wasm().unwrap();
    replace(&block("yaml", "static_resources"), "/etc/envoy/sluice_filter.wasm", module.to_str().unwrap())
}

#[test]
fn the_configuration_is_one_that_envoy_takes() {
    let mut logs = LogDir::of_this_test().unwrap();
    let file = logs.path().join("envoy.yaml");
    fs::write(&file, bootstrap()).unwrap();
    let output = Command::new(envoy::envoy(None).unwrap())
        .args(["--mode", "validate", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    if !output.status.success() {
        logs.keep();
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn it_holds_and_wakes_and_answers() {
    let logs = LogDir::of_this_test().unwrap();
    let dir = logs.path();
    let objects = Objects::new(dir.join("objects")).unwrap();
    fs::write(objects.dir().join("shop.yaml"), block("yaml", "kind: HTTPScaledObject")).unwrap();
    let console = block("console", "sluice-scaler");
    let template = console.split('\'').nth(1).expect("the template is in quotes");
    let args = ["--cluster-template", template].map(str::to_owned);
    let mut envoy_yaml = bootstrap();
    let mut scalers = Vec::new();
    for host in SCALERS {
        let scaler = Scaler::start(host, objects.dir(), &args, dir).await.unwrap();
        let named = format!("{{address: {host}, port_value: 9090}}");
        let (ip, port) = (scaler.grpc().ip(), scaler.grpc().port());
        envoy_yaml = replace(&envoy_yaml, &named, &format!("{{address: {ip}, port_value: {port}}}"));
        scalers.push(scaler);
    }
    envoy_yaml = replace(&envoy_yaml, "127.0.0.1, port_value: 9901", "127.0.0.1, port_value: 0");
    envoy_yaml = replace(&envoy_yaml, "0.0.0.0, port_value: 8080", "127.0.0.1, port_value: 0");
    let file = dir.join("envoy.yaml");
    fs::write(&file, envoy_yaml).unwrap();
    let envoy =
        Envoy::run(&envoy::envoy(None).unwrap(), 1, &file, &dir.join("access.log"), dir).await.unwrap();

    let get = |path| http::request(envoy.address(), http::get_request("shop.example.com", path).unwrap());
    let held = tokio::spawn(get("/cold"));
    wait::until("a held request", async || {
        let state = scalers[0].state().await.map_err(|error| format!("{error:#}"))?;
        let route = state.route("default", "shop").ok_or_else(|| format!("{:?}", state.problems))?;
        if route.held == 1 && route.active { Ok(()) } else { Err(format!("{route:?}")) }
    })
    .await
    .unwrap();
    let app = App::start("app", &AppOptions::default(), dir).await.unwrap();
    let shop = Target { namespace: "default".to_owned(), name: "shop".to_owned(), port: 80 };
    objects.endpoints(&shop, &[(app.address(), Condition::Ready)]).unwrap();
    let answer = held.await.unwrap().unwrap();
    let said = (answer.status.as_u16(), answer.header("x-keda-http-cold-start"));
    assert_eq!(said, (200, "true"));
    assert_eq!(get("/warm").await.unwrap().status, 200);
}
