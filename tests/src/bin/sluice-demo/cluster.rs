//! `--cluster`: the same on a real Kubernetes with the real KEDA, left up to be looked at.
//!
//! Real: etcd, API server, controllers, KEDA, Envoy with the filter, scaler, operator, the app's process. Stood in
//! for: kubelet, kube-proxy and DNS (`tests/src/cluster`).

use crate::{Args, world};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, runtime::watcher};
use serde_json::json;
use sluice_tests::{
    clock,
    cluster::{
        self, Cluster,
        bed::Bed,
        sluice::{App, Gateway, Settings, Sluice, audit},
    },
    logs::LogDir,
    paths, process, wait,
};
use std::{net::TcpListener, sync::Arc, time::Duration};

/// The app's namespace.
const NAMESPACE: &str = "demo";
/// The app.
const NAME: &str = "hello";

/// Runs it until Ctrl-C, or with `--once` until the first cold start is over. To be called where no runtime is.
///
/// # Errors
/// If something does not start or does not do as it should; where the logs are.
pub(crate) fn run(args: &Args) -> Result<()> {
    let listener = world::listen(args.listener())?;
    let mut logs = LogDir::at(paths::target().join("demo").join(format!("cluster-{}", std::process::id())))?;
    println!("Sluice on a real Kubernetes with the real KEDA");
    println!("   starting etcd, API server, controllers and KEDA …");
    let result = cluster::start(logs.path()).and_then(|bed| {
        let args = args.clone();
        let inner = bed.clone();
        cluster::inside(&bed, async move |cluster| until_asked(&args, &cluster, &inner, listener).await)
    });
    if result.is_err() {
        logs.keep();
    }
    result.with_context(|| format!("it did not go as it should; all logs are in {}", logs.path().display()))
}

async fn until_asked(args: &Args, cluster: &Cluster, bed: &Arc<Bed>, listener: TcpListener) -> Result<()> {
    let asked_to_end = process::asked_to_end()?;
    tokio::select! {
        shown = show(args, cluster, bed, listener) => shown,
        () = asked_to_end => {
            println!("\nending everything");
            Ok(())
        }
    }
}

async fn show(args: &Args, cluster: &Cluster, bed: &Arc<Bed>, listener: TcpListener) -> Result<()> {
    println!("   installing Sluice from install/ …");
    let sluice = Sluice::install(cluster, &Settings::default()).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    cluster.apply(&[namespace]).await?;
    let app = App::create(&sluice, NAMESPACE, NAME).await?;
    app.start_after(Duration::from_millis(args.app_start_ms)).await?;
    let spec = json!({
        "scaledownPeriod": args.cooldown_ms.div_ceil(1000),
        "replicas": {"max": 3},
        "scalingMetric": {"concurrency": {"targetValue": 5}},
    });
    cluster.apply(&[app.http_scaled_object(spec)]).await?;
    app.scaled_object_ready().await?;
    sluice.until_keda_listens(&[&app]).await?;
    let mut gateway = Gateway::start(&sluice, args.workers, &[&app]).await?;
    let address = gateway.open_outside(listener)?;

    println!("   it is up:\n");
    println!("   export KUBECONFIG={}", bed.kubeconfig_outside().display());
    println!("   kubectl get pods -A");
    println!("   kubectl -n {NAMESPACE} get httpscaledobjects,scaledobjects,deployments");
    println!("   curl -i -H 'Host: {}' http://{address}/\n", app.host());

    println!("1. A request to the app, which has no Pod");
    println!("{}", cold_start(&gateway, bed, &app).await?);
    if args.once {
        return Ok(());
    }
    println!(
        "2. Yours, until Ctrl-C. Without a request for {} s it goes back to zero",
        args.cooldown_ms.div_ceil(1000)
    );
    println!("   (KEDA looks every 15 s).");
    tokio::select! {
        followed = follow(cluster, &app) => followed,
        ended = gateway_ends(&mut gateway) => ended,
    }
}

/// The first request. Returns the line for machines.
async fn cold_start(gateway: &Gateway, bed: &Arc<Bed>, app: &App) -> Result<String> {
    let id = world::request_id();
    let answer = gateway.spawn_get(app, "/", &id).await??;
    ensure!(answer.status == 200, "the first request was answered {}: {}", answer.status, answer.text());
    ensure!(
        answer.header("x-keda-http-cold-start") == "true",
        "the first request was answered without a wait for its app"
    );
    let access = gateway.envoy.access(&id).await?;
    let scale = wait::until("KEDA's write in the audit log", async || {
        let scales = audit::scales(bed, &app.namespace, &app.name).map_err(|error| format!("{error:#}"))?;
        scales.into_iter().next().ok_or_else(|| "none".to_owned())
    })
    .await?;
    let answered = access.first_byte_us.context("the access log has no answer")?;
    let ms = |us: u64| clock::ms_between(access.start_us, us);
    Ok(format!("cold-start status=200 held_ms={:.1} scale_ms={:.1}", ms(answered), ms(scale.at_us())))
}

/// Says how many Pods there are, whenever it changes.
async fn follow(cluster: &Cluster, app: &App) -> Result<()> {
    use futures::StreamExt as _;
    use kube::runtime::WatchStreamExt as _;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), &app.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", app.name));
    let mut changes = std::pin::pin!(watcher(deployments, config).default_backoff().touched_objects());
    let mut told = None;
    while let Some(change) = changes.next().await {
        // A watch that breaks begins again.
        let Ok(deployment) = change else { continue };
        let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        let ready = deployment.status.and_then(|status| status.ready_replicas).unwrap_or(0);
        if told != Some((wanted, ready)) {
            println!("   {NAMESPACE}/{NAME}: {wanted} wanted, {ready} ready");
            told = Some((wanted, ready));
        }
    }
    Ok(())
}

async fn gateway_ends(gateway: &mut Gateway) -> Result<()> {
    let mut looks = tokio::time::interval(Duration::from_millis(200));
    loop {
        looks.tick().await;
        gateway.envoy.must_run()?;
    }
}
