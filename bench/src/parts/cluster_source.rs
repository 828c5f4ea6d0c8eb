//! A scaler that follows a real API server with many objects: how soon it is ready, what it takes, what changes
//! cost.

use super::Part;
use crate::{bench::Bench, plan::Plan, report::Report, system};
use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sluice_api::HttpScaledObject;
use sluice_tests::{
    cluster::{self, Cluster, bed::Bed},
    http, paths,
    process::Process,
    wait,
};
use std::{
    fmt::Debug,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

/// Namespaces that the objects are spread over.
pub(super) const NAMESPACES: usize = 10;
/// Slices of each Service.
const SLICES: usize = 2;
/// Endpoints of each slice.
const ENDPOINTS: usize = 5;
/// Changes of slices in a second.
const CHANGES: u32 = 100;
/// Writes under way at once, so that filling the API server takes no longer than it must.
const WRITERS: usize = 48;
/// How often a scaler is started, for a median.
const STARTS: usize = 5;

struct Figure {
    name: String,
    rounds: Vec<f64>,
    unit: &'static str,
}

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (plan, dir) = (bench.plan, bench.dir("cluster")?);
    let (figures, measured) = mpsc::channel();
    // The bed has threads of its own: this one would wait in vain for them.
    tokio::task::spawn_blocking(move || {
        let bed = cluster::start(&dir)?;
        let of = Arc::clone(&bed);
        cluster::inside(&bed, async move |cluster| measure(&cluster, &of, plan, &dir, &figures).await)
    })
    .await??;
    for Figure { name, rounds, unit } in measured {
        report.rounds(Part::ClusterSource, name, rounds, unit, None);
    }
    Ok(())
}

async fn measure(
    cluster: &Cluster,
    bed: &Bed,
    plan: Plan,
    dir: &Path,
    figures: &mpsc::Sender<Figure>,
) -> anyhow::Result<()> {
    let objects = plan.routes;
    let say = |name: String, rounds, unit| {
        // The receiver waits for the end of this.
        let _ = figures.send(Figure { name, rounds, unit });
    };
    for plural in ["httpscaledobjects", "interceptorroutes"] {
        let crd = paths::root().join(format!("install/crds/http.keda.sh_{plural}.yaml"));
        cluster.apply_yaml(&std::fs::read_to_string(crd)?).await?;
    }
    let mut namespaces = Vec::new();
    for _ in 0..NAMESPACES {
        namespaces.push(cluster.namespace("many").await?);
    }
    let begun = Instant::now();
    fill(cluster, &namespaces, objects).await?;
    let written = objects * (2 + SLICES);
    eprintln!("bench: {written} objects written in {:.0?}", begun.elapsed());

    let empty = Scaler::start(bed, dir, &["--watch-namespace", "default"]).await?;
    let empty_memory = system::resident(empty.process.id())?;
    drop(empty);
    let mut times = Vec::new();
    let mut memories = Vec::new();
    let mut peaks = Vec::new();
    let mut cpus = Vec::new();
    let mut last = None;
    for _ in 0..STARTS {
        // Ended before the next one: two of them would share the cores.
        drop(last.take());
        let begun = Instant::now();
        let scaler = Scaler::start(bed, dir, &[]).await?;
        times.push(begun.elapsed().as_secs_f64() * 1_000.0);
        cpus.push(system::cpu(scaler.process.id())?.as_secs_f64() * 1_000.0);
        memories.push((system::resident(scaler.process.id())? - empty_memory) / 1e6);
        peaks.push(system::peak(scaler.process.id())? / 1e6);
        scaler.must_know(objects).await?;
        last = Some(scaler);
    }
    let scaler = last.context("no scaler")?;
    let of = format!("{objects} objects, {} slices", objects * SLICES);
    say(format!("{of}: start to ready"), times, "ms");
    say(format!("{of}: CPU of a start"), cpus, "ms");
    say(format!("{of}: memory over that of none"), memories, "MB");
    say(format!("{of}: memory at its highest"), peaks, "MB");
    say("none: memory".to_owned(), vec![empty_memory / 1e6], "MB");

    let idle = scaler
        .busy(async || {
            tokio::time::sleep(plan.idle).await;
            Ok(())
        })
        .await?;
    say(format!("{of}: CPU while nothing changes"), vec![idle], "% of a core");
    let changes = (plan.idle * CHANGES).as_secs() as usize;
    let begun = Instant::now();
    let busy = scaler.busy(async || change(cluster, &namespaces, objects, changes).await).await?;
    let rate = changes as f64 / begun.elapsed().as_secs_f64();
    say(format!("{of}: CPU while {CHANGES} slices change in a second"), vec![busy], "% of a core");
    say("slices that changed in a second".to_owned(), vec![rate], "1/s");
    say(format!("{of}: memory after that"), vec![system::resident(scaler.process.id())? / 1e6], "MB");
    Ok(())
}

/// A scaler beside the API server.
struct Scaler {
    process: Process,
    http: SocketAddr,
}

impl Scaler {
    async fn start(bed: &Bed, dir: &Path, args: &[&str]) -> anyhow::Result<Self> {
        let ports_file: PathBuf = dir.join("scaler-ports.json");
        // Of the one before.
        let _ = std::fs::remove_file(&ports_file);
        let mut command = bed.netns().command(paths::binary("sluice-scaler")?);
        command.env("KUBECONFIG", bed.kubeconfig()).args(args);
        command.args(["--bind", "127.0.0.1", "--port", "0", "--http-port", "0", "--ports-file"]);
        command.arg(&ports_file);
        let mut process = Process::spawn("scaler", &mut command, &dir.join("scaler.log"))?;
        let http = wait::until("the scaler to be ready", async || {
            if let Err(ended) = process.must_run() {
                return Ok(Err(ended));
            }
            let text = std::fs::read_to_string(&ports_file).map_err(|_| "it has no ports")?;
            let ports: Value = serde_json::from_str(&text).map_err(|_| "half a ports file")?;
            let port = ports["http"].as_u64().and_then(|port| u16::try_from(port).ok()).ok_or("no port")?;
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let answer = http::get(address, "/readyz").await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(Ok(address)) } else { Err(answer.text()) }
        })
        .await??;
        Ok(Self { process, http })
    }

    /// What is fast because something is missing is not fast.
    async fn must_know(&self, objects: usize) -> anyhow::Result<()> {
        let state: Value = http::get(self.http, "/debug/state").await?.json()?;
        let routes = state["routes"].as_array().map_or(0, Vec::len);
        let ready =
            |route: &&Value| route["hint"] == "ready" && route["readyEndpoints"] == SLICES * ENDPOINTS;
        let ready = state["routes"].as_array().into_iter().flatten().filter(ready).count();
        ensure!(
            routes == objects && ready == objects,
            "{routes} routes, {ready} of them ready: not {objects}"
        );
        Ok(())
    }

    /// The CPU that it uses while something goes on, as a share of a core in percent.
    async fn busy(&self, work: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
        let (begun, before) = (Instant::now(), system::cpu(self.process.id())?);
        work().await?;
        let used = system::cpu(self.process.id())?.saturating_sub(before);
        Ok(used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0)
    }
}

/// Writes the objects, each with its Service and that one's slices.
async fn fill(cluster: &Cluster, namespaces: &[String], objects: usize) -> anyhow::Result<()> {
    let numbers = futures::stream::iter(0..objects).map(anyhow::Ok);
    numbers
        .try_for_each_concurrent(WRITERS, async |number| {
            let (namespace, name) = place(namespaces, number);
            create::<Service>(cluster, namespace, service(&name)).await?;
            for part in 0..SLICES {
                create::<EndpointSlice>(cluster, namespace, slice(&name, number, part, true)).await?;
            }
            create::<HttpScaledObject>(cluster, namespace, http_scaled_object(&name)).await
        })
        .await
}

/// Flips the readiness of an endpoint, each time in another slice, [`CHANGES`] times a second.
async fn change(
    cluster: &Cluster,
    namespaces: &[String],
    objects: usize,
    count: usize,
) -> anyhow::Result<()> {
    let clock = tokio::time::interval(Duration::from_secs(1) / CHANGES);
    let ticks = futures::stream::try_unfold((clock, 0), async |(mut clock, number)| {
        clock.tick().await;
        anyhow::Ok((number < count).then(|| (number, (clock, number + 1))))
    });
    ticks
        .try_for_each_concurrent(WRITERS, async |number| {
            let (namespace, name) = place(namespaces, number % objects);
            let slices = Api::<EndpointSlice>::namespaced(cluster.client(), namespace);
            let ready = (number / objects) % 2 == 1;
            let changed = json!({"endpoints": slice(&name, number % objects, 0, ready)["endpoints"]});
            let params = PatchParams::default();
            slices.patch(&format!("{name}-0"), &params, &Patch::Merge(changed)).await?;
            Ok(())
        })
        .await
}

pub(super) async fn create<K>(cluster: &Cluster, namespace: &str, object: Value) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let api = Api::<K>::namespaced(cluster.client(), namespace);
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}

pub(super) fn place(namespaces: &[String], number: usize) -> (&str, String) {
    (&namespaces[number % namespaces.len()], format!("app-{number}"))
}

pub(super) fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 80}, {"name": "metrics", "port": 9090}]},
    })
}

fn slice(name: &str, number: usize, part: usize, ready: bool) -> Value {
    let endpoints = (0..ENDPOINTS).map(|endpoint| {
        let address = format!("10.{}.{}.{}", part * ENDPOINTS + endpoint, number / 250 % 250, number % 250);
        json!({
            "addresses": [address],
            "conditions": {"ready": ready || endpoint > 0, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", number % 50),
            "targetRef": {"kind": "Pod", "name": format!("{name}-5d9c7b7c9-{part}{endpoint}"), "uid": "x"},
        })
    });
    let endpoints: Vec<Value> = endpoints.collect();
    json!({
        "metadata": {"name": format!("{name}-{part}"), "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}],
        "endpoints": endpoints,
    })
}

pub(super) fn http_scaled_object(name: &str) -> Value {
    json!({
        "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject",
        "metadata": {"name": name},
        "spec": {
            "hosts": [format!("{name}.example.com")],
            "pathPrefixes": ["/"],
            "scaleTargetRef": {"name": name, "kind": "Deployment", "apiVersion": "apps/v1", "service": name, "port": 80},
            "replicas": {"min": 0, "max": 10},
            "scalingMetric": {"concurrency": {"targetValue": 10}},
        },
    })
}
