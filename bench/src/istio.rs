//! What the parts with the real Istio share: its bed, what a gateway and istiod say of themselves.

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_envoyfilter::Settings;
use sluice_tests::{
    cluster::{
        self, Cluster,
        istio::{GATEWAY, Gateway, GatewayOptions, Istio, NAMESPACE, Options, Sluice, World, gateway_object},
    },
    http::{self, Http1},
    wait,
};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

/// Envoy's own pages.
pub(crate) const ADMIN_PORT: u16 = 15000;
/// What a start may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs `work` on a bed of its own, which is gone afterwards.
///
/// # Errors
/// Those of the bed's start and of `work`.
pub(crate) async fn on_bed<F>(
    dir: &Path,
    work: impl FnOnce(Cluster) -> F + Send + 'static,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let dir = dir.to_owned();
    // The bed has threads of its own: this one would wait in vain for them.
    tokio::task::spawn_blocking(move || cluster::inside(&cluster::start(&dir)?, work)).await?
}

/// istiod as asked, Sluice's scaler, and Istio's gateway, which has no filter yet and nothing to listen on.
///
/// # Errors
/// If something does not become ready.
pub(crate) async fn mesh(cluster: &Cluster, options: &Options) -> anyhow::Result<(Istio, Sluice, Gateway)> {
    let istio = Istio::start_with(cluster, options).await?;
    let sluice = Sluice::install(&istio).await?;
    let gateway = istio.gateway(GatewayOptions::default()).await?;
    speak_to_istiod(cluster, &gateway).await?;
    Ok((istio, sluice, gateway))
}

/// What a test of the main job begins with, with an istiod of one's own options.
///
/// # Errors
/// If something does not become ready.
pub(crate) async fn world(cluster: &Cluster, options: &Options, name: &str) -> anyhow::Result<World> {
    let (istio, sluice, gateway) = mesh(cluster, options).await?;
    sluice.apply(&sluice.manifest(&Settings::default())?).await?;
    let namespace = cluster.namespace(name).await?;
    let selector = json!({"istio": "ingressgateway"});
    cluster.apply(&[gateway_object(GATEWAY, &namespace, &selector)]).await?;
    Ok(World { cluster: cluster.clone(), istio, sluice, gateway, namespace })
}

/// Has the gateway ask istiod incrementally, as istio-agent does since Istio 1.22: it is sent what changed, not all. And
/// without the bed's stand-in for kube-proxy in between, which has work of its own when there are many Services.
async fn speak_to_istiod(cluster: &Cluster, gateway: &Gateway) -> anyhow::Result<()> {
    let (_, istiod) = pod_ip(cluster, NAMESPACE, "istiod").await?;
    let options = gateway.options();
    let deployments = Api::<Deployment>::namespaced(cluster.client(), &options.namespace);
    let deployment = serde_json::to_value(deployments.get(&options.name).await?)?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let args = container["args"].to_string();
    let delta = args.replace(r#"\"api_type\":\"GRPC\""#, r#"\"api_type\":\"DELTA_GRPC\""#);
    ensure!(args != delta, "the bed's gateway has no ADS where the bench looks for it");
    let direct = delta.replace("istiod.istio-system.svc.cluster.local", &istiod);
    ensure!(direct != delta, "the bed's gateway has no istiod where the bench looks for it");
    let args: Value = serde_json::from_str(&direct)?;
    let patch =
        json!({"spec": {"template": {"spec": {"containers": [{"name": container["name"], "args": args}]}}}});
    deployments.patch(&options.name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
    let rolled_out = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|it| Some((it.metadata.generation?, it.status.as_ref()?)));
        status.is_some_and(|(generation, status)| {
            let ready = [status.updated_replicas, status.ready_replicas, status.replicas];
            status.observed_generation == Some(generation) && ready == [Some(1); 3]
        })
    };
    cluster.wait_for(&deployments, &options.name, LIMIT, rolled_out).await.context("the gateway")?;
    Ok(())
}

/// A Deployment of one Pod of the test app, which is there all the time.
pub(crate) fn app(name: &str, namespace: &str, port: u16, requests: &Path) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                    "name": "app",
                    "image": "sluice-test-app",
                    "args": ["--listen", format!("$(POD_IP):{port}"), "--request-log", requests],
                    "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": port}},
                }]},
            },
        },
    })
}

/// Waits for the one Pod with `app: NAME` to be ready; its name and address.
///
/// # Errors
/// If it does not come.
pub(crate) async fn pod_ip(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
) -> anyhow::Result<(String, String)> {
    let pods = Api::<Pod>::namespaced(cluster.client(), namespace);
    wait::until(format!("a Pod of {name}"), async || {
        let list = pods.list(&ListParams::default().labels(&format!("app={name}"))).await;
        let list = list.map_err(|error| error.to_string())?.items;
        let pod = list.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none()).ok_or("none")?;
        let status = pod.status.as_ref().ok_or("no status")?;
        let ready = status.conditions.iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
        let ip = status.pod_ip.clone().filter(|_| ready).ok_or("not ready")?;
        Ok((pod.name_any(), ip))
    })
    .await
}

/// The process whose command line has all of these.
///
/// # Errors
/// If there is none, or more than one.
pub(crate) fn process(words: &[&str]) -> anyhow::Result<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that has ended meanwhile is none.
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if words.iter().all(|word| line.contains(word)) {
            found.push(pid);
        }
    }
    match found.as_slice() {
        [pid] => Ok(*pid),
        _ => bail!("{} processes with {words:?} in their command line: {found:?}", found.len()),
    }
}

/// A stat of a gateway's, read over and over on one connection.
pub(crate) struct Probe {
    connection: Http1,
    name: String,
    path: String,
}

impl Probe {
    /// # Errors
    /// If the gateway has no Pod, or does not take the connection.
    pub(crate) async fn new(gateway: &Gateway, name: &str) -> anyhow::Result<Self> {
        let (_, ip) = gateway.pods().await?.into_iter().next().context("the gateway has no Pod")?;
        let connection = Http1::connect(SocketAddr::new(ip, ADMIN_PORT)).await?;
        // The filter is a regular expression in a query.
        let pattern = name.replace('.', "[.]").replace('|', "%5B%7C%5D").replace(';', "%3B");
        Ok(Self { connection, name: name.to_owned(), path: format!("/stats?filter=^{pattern}$") })
    }

    /// # Errors
    /// If Envoy does not answer, or has none of that name.
    pub(crate) async fn value(&mut self) -> anyhow::Result<u64> {
        let request: Request<Full<Bytes>> = http::get_request("admin", &self.path)?;
        let answer = self.connection.send(request).await?.text();
        let value = answer.lines().find_map(|line| line.strip_prefix(&self.name)?.strip_prefix(": "));
        Ok(value.with_context(|| format!("no {}", self.name))?.parse()?)
    }
}

/// A page of metrics in Prometheus' text format.
pub(crate) struct Metrics(String);

/// # Errors
/// If nobody answers there.
pub(crate) async fn metrics(ip: IpAddr, port: u16) -> anyhow::Result<Metrics> {
    let answer = http::get(SocketAddr::new(ip, port), "/metrics").await?;
    ensure!(answer.status == 200, "/metrics: {}", answer.status);
    Ok(Metrics(answer.text()))
}

impl Metrics {
    /// The sum of the samples of this name whose labels are as wanted.
    pub(crate) fn sum(&self, name: &str, wanted: impl Fn(&str) -> bool) -> f64 {
        let samples = self.0.lines().filter_map(|line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            let is_it = labels.is_empty() || labels.starts_with('{');
            (is_it && wanted(labels)).then(|| value.parse::<f64>().ok()).flatten()
        });
        samples.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_name_and_label() {
        let page = "# TYPE a counter\na_count 7\na{x=\"1\",le=\"2\"} 3\na{x=\"2\"} 4.5\na 1\n";
        let metrics = Metrics(page.to_owned());
        assert_eq!(metrics.sum("a", |_| true), 8.5);
        assert_eq!(metrics.sum("a", |labels| labels.contains("x=\"2\"")), 4.5);
        assert_eq!(metrics.sum("b", |_| true), 0.0);
    }
}
