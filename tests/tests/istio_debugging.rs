//! `docs/debugging.md`: what its commands print is what it says they do. `SLUICE_GENERATE=1` writes it anew.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::{Value, json};
use sluice_tests::{
    cluster::istio::{self, World},
    paths, wait,
};
use std::{env, fmt::Write as _, fs};

const PAGE: &str = "docs/debugging.md";
const MEND: &str = "SLUICE_GENERATE=1 cargo test -p sluice-tests --test istio_debugging";
/// The page's name of the test's namespace.
const NAMESPACE: &str = "demo";

/// A block of the page: what stands before its output, the command, the output.
struct Block<'a> {
    before: &'a str,
    command: &'a str,
    output: &'a str,
}

/// The blocks, and what follows the last one.
fn blocks(page: &str) -> Result<(Vec<Block<'_>>, &str)> {
    const BEGIN: &str = "```console\n$ ";
    let (mut blocks, mut rest) = (Vec::new(), page);
    while let Some(at) = rest.find(BEGIN) {
        let (before, after) = rest.split_at(at + BEGIN.len());
        let (block, after) = after.split_once("```\n").context("a block without an end")?;
        let (command, output) = block.split_once('\n').context("a block without a command")?;
        blocks.push(Block { before, command, output });
        rest = after;
    }
    Ok((blocks, rest))
}

/// What a command prints, in the page's names.
async fn run(world: &World, gateway: &str, dump: &str, command: &str) -> Result<String> {
    let real = command.replace('\'', "").replace("$GATEWAY", gateway).replace("gateway.json", dump);
    let words = real.split(' ').map(|word| own_names(word, &world.namespace)).collect::<Vec<_>>();
    let words = words.iter().map(String::as_str).collect::<Vec<_>>();
    let printed = match words.as_slice() {
        ["kubectl", "exec", .., "GET", path] => world.gateway.admin(&format!("/{path}")).await?,
        ["kubectl", arguments @ ..] => world.cluster.kubectl(arguments).await?,
        ["istioctl", arguments @ ..] => world.istio.istioctl(arguments).await?,
        _ => anyhow::bail!("{command}: neither kubectl nor istioctl"),
    };
    let printed = match serde_json::from_str::<Value>(&printed) {
        Ok(state) => serde_json::to_string_pretty(&own_route(state, &world.namespace))?,
        Err(_) => printed,
    };
    let printed = printed.replace(gateway, "$GATEWAY");
    let mut tidy = String::new();
    for line in printed.trim_end().lines() {
        writeln!(tidy, "{}", page_names(line, &world.namespace).trim_end())?;
    }
    Ok(tidy)
}

/// A word of the page with the test's namespace in it.
fn own_names(word: &str, namespace: &str) -> String {
    if word == NAMESPACE {
        return namespace.to_owned();
    }
    word.replace(&format!(".{NAMESPACE}."), &format!(".{namespace}."))
}

/// A line with the page's name instead of the test's namespace, its columns where they were.
fn page_names(line: &str, namespace: &str) -> String {
    let mut renamed = String::new();
    for word in line.split_inclusive(' ') {
        let shorter = word.replace(namespace, NAMESPACE);
        let lost = word.len() - shorter.len();
        renamed.push_str(&shorter);
        // In a sentence there is one space between words, and nothing stands below another.
        if lost > 0 && line.contains("   ") {
            renamed.push_str(&" ".repeat(lost));
        }
    }
    renamed
}

fn own_route(state: Value, namespace: &str) -> Value {
    let routes = state["routes"].as_array().into_iter().flatten();
    routes.filter(|route| route["namespace"] == namespace).cloned().collect()
}

/// The output without what differs from one run to the next: how wide the columns are, ids, and times.
fn without_the_accidental(output: &str) -> String {
    let word = |word: &str| {
        let is_age = word.starts_with(|c: char| c.is_ascii_digit())
            && word.ends_with(['s', 'm', 'h'])
            && word.chars().all(|c| c.is_ascii_digit() || "smh".contains(c));
        if is_age { "AGE".to_owned() } else { word.to_owned() }
    };
    let line = |line: &str| {
        // What begins so has a value of this run.
        let accidental = [
            "\"id\":",
            "\"concurrency\":",
            "wasmcustom.sluice_looks_total:",
            "wasmcustom.sluice_link_failures_total:",
        ];
        if let Some(name) = accidental.into_iter().find(|name| line.trim_start().starts_with(name)) {
            return name.to_owned();
        }
        // EndpointSlices have a random end.
        let words = line.split_whitespace().map(|it| match it.split_once('-') {
            Some(("shop", _)) => "shop-ID".to_owned(),
            _ => word(it),
        });
        words.collect::<Vec<_>>().join(" ")
    };
    output.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_pages_commands_print_what_it_says_and_access_logs_too() {
    istio::run("debugging", async |world| {
        let app = world.app("shop").await?;
        let held = world.send(&app.host(), "/");
        world.held(&app, 1).await?;
        let dump = world.cluster.bed().context("needs the bed")?.folder("debugging")?.join("gateway.json");
        fs::write(&dump, world.gateway.admin("/config_dump?include_eds").await?)?;
        let (gateway, _) = world.gateway.pods().await?.into_iter().next().context("no gateway")?;

        let path = paths::root().join(PAGE);
        let page = fs::read_to_string(&path)?;
        let (blocks, end) = blocks(&page)?;
        ensure!(blocks.len() > 5, "{PAGE} has {} commands only", blocks.len());
        let (mut anew, mut wrong) = (String::new(), Vec::new());
        for Block { before, command, output } in blocks {
            let printed = run(&world, &gateway, &dump.display().to_string(), command).await;
            let printed = printed.with_context(|| command.to_owned())?;
            if without_the_accidental(&printed) != without_the_accidental(output) {
                wrong.push(format!("$ {command}\n{printed}instead of\n{output}"));
            }
            write!(anew, "{before}{command}\n{printed}```\n")?;
        }
        if env::var_os("SLUICE_GENERATE").is_some() {
            fs::write(&path, anew + end)?;
        } else {
            ensure!(
                wrong.is_empty(),
                "{PAGE} is not what the commands print; write it anew: {MEND}\n{}",
                wrong.join("\n")
            );
        }
        app.scale(1).await?;
        ensure!(held.await??.status == 200, "the app did not wake");
        access_log(&world, &gateway).await
    });
}

/// The line of `docs/istio.md`, in the mesh configuration. After the page's commands: it would be in their output.
async fn access_log(world: &World, gateway: &str) -> Result<()> {
    let page = fs::read_to_string(paths::root().join("docs/istio.md"))?;
    let (_, format) = page.split_once("accessLogFormat: ").context("docs/istio.md has no accessLogFormat")?;
    let format: String = serde_json::from_str(format.lines().next().context("an empty format")?)?;
    let maps = Api::<ConfigMap>::namespaced(world.cluster.client(), istio::NAMESPACE);
    let before = maps.get("istio").await?.data.unwrap_or_default();
    let mut mesh: Value = serde_json::from_str(before.get("mesh").context("no mesh")?)?;
    mesh["accessLogFormat"] = json!(format);
    world.cluster.merge(&maps, "istio", &json!({"data": {"mesh": mesh.to_string()}})).await?;

    let app = world.app("logged").await?;
    world
        .gateway
        .says("/config_dump?resource=dynamic_listeners", "the format", |page| page.contains("wasm.sluice"))
        .await?;
    world.wake(&app, &app.host(), "/").await?;
    let bed = world.cluster.bed().context("needs the bed")?.clone();
    let wanted = format!("{}/logged released ", world.namespace);
    wait::until("the access log to say it", async || {
        let log = bed.pod_log(istio::NAMESPACE, gateway, "istio-proxy");
        if log.contains(&wanted) { Ok(()) } else { Err(log) }
    })
    .await
}
