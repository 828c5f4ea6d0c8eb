//! `docs/debugging.md`: what its commands print is what it says they do. `SLUICE_GENERATE=1` writes it anew.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::Api;
use serde_json::{Value, json};
use sluice_tests::{
    cluster::istio::{self, App, Istio, Options, World},
    paths, wait,
};
use std::{env, fmt::Write as _, fs, net::Ipv4Addr};

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
        ["kubectl", .., "|", _, _, _] => shell(world, command).await?,
        ["istioctl", "proxy-status", arguments @ ..] => proxy_status(world, arguments).await?,
        ["kubectl", arguments @ ..] => world.cluster.kubectl(arguments).await?,
        ["istioctl", arguments @ ..] => world.istio.istioctl(arguments).await?,
        _ => anyhow::bail!("{command}: neither kubectl nor istioctl"),
    };
    let printed = match serde_json::from_str::<Value>(&printed) {
        Ok(state) => serde_json::to_string_pretty(&own_route(state, &world.namespace))?,
        Err(_) => printed,
    };
    let mut tidy = String::new();
    for line in printed.trim_end().lines() {
        let renamed = page_names(&page_names(line, gateway, "$GATEWAY"), &world.namespace, NAMESPACE);
        writeln!(tidy, "{}", renamed.trim_end())?;
    }
    Ok(tidy)
}

/// A command that goes through another program.
async fn shell(world: &World, command: &str) -> Result<String> {
    let bed = world.cluster.bed().context("needs the bed")?;
    let words = command.split(' ').map(|word| own_names(word, &world.namespace)).collect::<Vec<_>>();
    let mut shell = tokio::process::Command::from(bed.netns().command("bash"));
    let folder = bed.program("kubectl")?.parent().context("kubectl is nowhere")?.display().to_string();
    shell.env("PATH", format!("{folder}:{}", env::var("PATH").unwrap_or_default()));
    let output = shell.env("KUBECONFIG", bed.kubeconfig()).arg("-c").arg(words.join(" ")).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// istioctl forwards a port of istiod's Pod, which the bed's kubelet cannot.
async fn proxy_status(world: &World, arguments: &[&str]) -> Result<String> {
    let services = Api::<Service>::namespaced(world.cluster.client(), istio::NAMESPACE);
    let address =
        services.get("istiod").await?.spec.and_then(|spec| spec.cluster_ip).context("no address")?;
    let address = format!("{address}:15010");
    let all = [&["proxy-status"], arguments, &["--xds-address", &address, "--plaintext"]].concat();
    world.istio.istioctl(&all).await
}

/// A word of the page with the test's namespace in it.
fn own_names(word: &str, namespace: &str) -> String {
    if word == NAMESPACE {
        return namespace.to_owned();
    }
    word.replace(&format!(".{NAMESPACE}."), &format!(".{namespace}."))
}

/// A line with a name of the page's instead of the test's, its columns where they were.
fn page_names(line: &str, own: &str, page: &str) -> String {
    let (mut renamed, mut rest) = (String::new(), line);
    for word in line.split_inclusive(' ') {
        rest = &rest[word.len()..];
        let replaced = word.replace(own, page);
        let lost = word.len().saturating_sub(replaced.len());
        renamed.push_str(&replaced);
        // In a sentence there is one space between words, and nothing stands below another.
        if rest.starts_with(' ') {
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
        if line.trim_start().starts_with("Last Transition Time:") {
            return "Last Transition Time:".to_owned();
        }
        if let Some(name) = accidental.into_iter().find(|name| line.trim_start().starts_with(name)) {
            return name.to_owned();
        }
        // EndpointSlices have a random end.
        let words = line.split_whitespace().map(|it| match it.split_once('-') {
            Some(("shop", _)) => "shop-ID".to_owned(),
            Some(("istiod", _)) => "istiod-ID".to_owned(),
            _ if it.parse::<Ipv4Addr>().is_ok() => "ADDRESS".to_owned(),
            _ => word(it),
        });
        words.collect::<Vec<_>>().join(" ")
    };
    output.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_pages_commands_print_what_it_says_and_access_logs_too() {
    istio::run("debugging", async |world| {
        let env = vec![("ENABLE_DEBUG_ENDPOINT_AUTH", "false")];
        Istio::start_with(&world.cluster, &Options { env, ..Options::default() }).await?;
        listed(&world).await?;
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
            if before.contains("\n## 5.") {
                scaled_but_not_ready(&world, &app).await?;
            }
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
        app.start_after(0).await?;
        ensure!(held.await??.status == 200, "the app did not wake");
        access_log(&world, &gateway).await?;
        telemetry(&world, &gateway, &page).await
    });
}

/// Waits until istiod has the gateway: it was started anew.
async fn listed(world: &World) -> Result<()> {
    // istioctl says to istiod which address it has, and looks for one on interfaces that are no loopback.
    const INTERFACE: &str =
        "ip link add bed0 type bridge && ip link set bed0 up && ip addr add 10.99.250.99/32 dev bed0";
    let bed = world.cluster.bed().context("needs the bed")?;
    let mut command = tokio::process::Command::from(bed.netns().command("sh"));
    let done = command.args(["-c", INTERFACE]).output().await?;
    ensure!(done.status.success(), "ip: {}", String::from_utf8_lossy(&done.stderr));
    wait::until("istioctl proxy-status to list the gateway with its filter", async || {
        let listed = proxy_status(world, &[]).await.map_err(|error| format!("{error:#}"))?;
        if listed.contains("istio-ingressgateway-") && listed.contains("ECDS") { Ok(()) } else { Err(listed) }
    })
    .await
}

/// From here on there is the operator, and so KEDA; the app's Pods do not listen.
async fn scaled_but_not_ready(world: &World, app: &App) -> Result<()> {
    const BIND: &str = "              value: 0.0.0.0\n";
    const OWN_BIND: &str = "              valueFrom: {fieldRef: {fieldPath: status.podIP}}\n";
    app.start_after(u32::MAX).await?;
    let bed = world.cluster.bed().context("needs the bed")?;
    bed.add_program("sluice-operator", paths::binary("sluice-operator")?);
    let yaml = fs::read_to_string(paths::root().join("install/operator.yaml"))?;
    world.cluster.apply_yaml(&yaml.replace(BIND, OWN_BIND)).await?;
    let get = async |what: &str, path: &str| {
        let path = format!("jsonpath={path}");
        let get = ["get", what, "--namespace", &world.namespace, "--output", &path];
        world.cluster.kubectl(&get).await.unwrap_or_else(|error| format!("{error:#}"))
    };
    let condition = |name: &str| format!("{{.items[*].status.conditions[?(@.type==\"{name}\")].status}}");
    wait::until("KEDA to scale the app", async || {
        let seen = [
            get("httpscaledobject", &condition("Ready")).await,
            get("httpscaledobject", &condition("GatewayLinked")).await,
            get("scaledobject", &condition("Ready")).await,
            get("scaledobject", &condition("Active")).await,
            get("pods", "{.items[*].status.phase}").await,
            get("hpa", "{.items[*].status.currentMetrics[*].type}").await,
            get("deployment", "{.items[*].status.unavailableReplicas}").await,
        ];
        if seen == ["True", "True", "True", "True", "Running", "External", "1"] {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await
}

/// The page's provider and its Telemetry object.
async fn telemetry(world: &World, gateway: &str, page: &str) -> Result<()> {
    let mut yaml = page.split("\n```yaml\n").skip(1).filter_map(|it| Some(it.split_once("\n```")?.0));
    let (mesh, object) = (yaml.next().context("no mesh config")?, yaml.next().context("no Telemetry")?);
    let mesh: Value = serde_saphyr::from_str(mesh)?;
    let providers = mesh["meshConfig"]["extensionProviders"].clone();
    change_mesh(world, "extensionProviders", providers).await?;
    world.cluster.apply_plainly(object).await?;
    let app = world.app("metered").await?;
    world
        .gateway
        .says("/config_dump?resource=dynamic_listeners", "the provider's format", |page| {
            page.contains("by-telemetry=")
        })
        .await?;
    woken(world, &app).await?;
    let wanted = format!("by-telemetry=\"{}/metered released ", world.namespace);
    logged(world, gateway, &wanted).await
}

async fn change_mesh(world: &World, field: &str, value: Value) -> Result<()> {
    let maps = Api::<ConfigMap>::namespaced(world.cluster.client(), istio::NAMESPACE);
    let before = maps.get("istio").await?.data.unwrap_or_default();
    let mut mesh: Value = serde_json::from_str(before.get("mesh").context("no mesh")?)?;
    mesh[field] = value;
    world.cluster.merge(&maps, "istio", &json!({"data": {"mesh": mesh.to_string()}})).await.map(drop)
}

/// A request that has to wait for the app, which KEDA wakes.
async fn woken(world: &World, app: &App) -> Result<()> {
    let answer = world.get(&app.host(), "/").await?;
    ensure!(answer.status == 200 && answer.header("x-keda-http-cold-start") == "true", "{answer:?}");
    Ok(())
}

async fn logged(world: &World, gateway: &str, wanted: &str) -> Result<()> {
    let bed = world.cluster.bed().context("needs the bed")?.clone();
    wait::until("the access log to say it", async || {
        let log = bed.pod_log(istio::NAMESPACE, gateway, "istio-proxy");
        if log.contains(wanted) { Ok(()) } else { Err(log) }
    })
    .await
}

/// The line of `docs/istio.md`, in the mesh configuration. After the page's commands: it would be in their output.
async fn access_log(world: &World, gateway: &str) -> Result<()> {
    let page = fs::read_to_string(paths::root().join("docs/istio.md"))?;
    let (_, format) = page.split_once("accessLogFormat: ").context("docs/istio.md has no accessLogFormat")?;
    let format: String = serde_json::from_str(format.lines().next().context("an empty format")?)?;
    change_mesh(world, "accessLogFormat", json!(format)).await?;

    let app = world.app("logged").await?;
    world
        .gateway
        .says("/config_dump?resource=dynamic_listeners", "the format", |page| page.contains("wasm.sluice"))
        .await?;
    woken(world, &app).await?;
    logged(world, gateway, &format!("{}/logged released ", world.namespace)).await
}
