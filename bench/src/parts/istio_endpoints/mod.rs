//! From an EndpointSlice that says "ready" to the first byte at the app, through the real istiod: with its own debounce,
//! and with endpoints taken out of it. And, in the same run, istiod's own delivery: what no gateway can be faster than.

mod shop;

use super::Part;
use crate::{
    bench::Bench,
    figures::{median, percentile},
    istio,
    report::{Goal, Report},
};
use serde_json::{Value, json};
use shop::Shop;
use sluice_tests::cluster::{
    Cluster,
    istio::{NAMESPACE, Options},
};
use std::{path::Path, sync::mpsc};

/// Wakes for each round of a case: fifty in a full run.
const WAKES_PER_ROUND: usize = 10;

/// Whether istiod collects changes of endpoints as it does all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Debounce {
    /// For 100 ms, its default.
    Default,
    /// Not at all: `PILOT_ENABLE_EDS_DEBOUNCE=false`.
    Off,
}

/// How an app's Pod comes to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pod {
    /// It is ready as soon as it has an address.
    AtOnce,
    /// It was listed as not ready for longer than a second.
    Later,
    /// It was listed as not ready, for less than a second.
    Soon,
    /// The same where Envoy collects changes of health, as it does by itself.
    SoonMerged,
}

/// What was seen in one case, in ms after the slice's write began.
#[derive(Debug)]
struct Seen {
    debounce: Debounce,
    pod: Pod,
    /// The write was answered.
    written: Vec<f64>,
    /// The first byte at the app of a request that waited.
    arrived: Vec<f64>,
    /// Envoy has a usable host, without anybody waiting. Only of [`Pod::AtOnce`].
    delivered: Vec<f64>,
    /// The scaler's own figure: its word "ready" to the worker's cluster usable. The mean.
    lag_ms: f64,
}

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (rounds, dir) = (bench.plan.wakes / WAKES_PER_ROUND, bench.dir("istio-endpoints")?);
    let (says, seen) = mpsc::channel();
    let log = dir.join("requests.jsonl");
    let ended = istio::on_bed(&dir, async move |cluster| {
        for debounce in [Debounce::Default, Debounce::Off] {
            measure(&cluster, debounce, rounds, &log, &says).await?;
        }
        Ok(())
    })
    .await;
    // What was seen before something failed took minutes.
    seen.into_iter().for_each(|seen| say(report, &seen));
    ended
}

fn say(report: &mut Report, seen: &Seen) {
    let with = match seen.debounce {
        Debounce::Default => "istiod's debounce",
        Debounce::Off => "no debounce",
    };
    let pod = match seen.pod {
        Pod::AtOnce => "ready at once",
        Pod::Later => "listed, ready later",
        Pod::Soon => "listed, ready within 1 s",
        Pod::SoonMerged => "listed, ready within 1 s, with Envoy's merge window",
    };
    let mut line = |name: &str, value: f64, most: Option<f64>| {
        let name = format!("{with}, {pod}: {name}");
        report.figure(Part::IstioEndpoints, name, value, "ms", most.map(Goal::AtMost));
    };
    let most = match seen.debounce {
        // istiod's 100 ms, and 10 ms.
        Debounce::Default => 110.0,
        Debounce::Off => 15.0,
    };
    line("first byte at the app, p50", percentile(&seen.arrived, 50.0), Some(most));
    line("first byte at the app, p99", percentile(&seen.arrived, 99.0), None);
    line("scaler's `sluice_endpoint_lag_seconds`, mean", seen.lag_ms, None);
    if seen.pod == Pod::AtOnce {
        line(
            "usable in Envoy without a request (istiod's own), p50",
            percentile(&seen.delivered, 50.0),
            None,
        );
        line(
            "usable in Envoy without a request (istiod's own), p99",
            percentile(&seen.delivered, 99.0),
            None,
        );
        let more = median(&seen.arrived) - median(&seen.delivered);
        line("first byte, later than that, p50", more, Some(10.0));
        line("the slice's write, p50", percentile(&seen.written, 50.0), None);
    }
}

async fn measure(
    cluster: &Cluster,
    debounce: Debounce,
    rounds: usize,
    log: &Path,
    says: &mpsc::Sender<Seen>,
) -> anyhow::Result<()> {
    let env = match debounce {
        Debounce::Default => Vec::new(),
        Debounce::Off => vec![("PILOT_ENABLE_EDS_DEBOUNCE", "false")],
    };
    let options = Options { env, ..Options::default() };
    let shop = Shop::open(istio::world(cluster, &options, "endpoints").await?, log).await?;
    // The first endpoint of a Service that istiod has seen none of since it started is a push of everything, with the
    // debounce of all others. Not counted.
    shop.deliver().await?;
    for pod in [Pod::AtOnce, Pod::Later, Pod::Soon] {
        // The receiver waits for the end of this.
        let _ = says.send(shop.look(debounce, pod, rounds).await?);
    }
    let merged = merged();
    cluster.apply(std::slice::from_ref(&merged)).await?;
    let wanted = |page: &str| page.contains(r#""update_merge_window": "1s""#);
    let page = "/config_dump?resource=dynamic_active_clusters";
    shop.world.gateway.says(page, "clusters that collect changes of health", wanted).await?;
    let _ = says.send(shop.look(debounce, Pod::SoonMerged, rounds).await?);
    let [name, namespace] = ["name", "namespace"].map(|it| merged["metadata"][it].as_str());
    let arguments = ["delete", "envoyfilter", name.unwrap_or_default(), "-n", namespace.unwrap_or_default()];
    cluster.kubectl(&arguments).await?;
    cluster.delete_namespace(&shop.world.namespace).await
}

/// Has Envoy do what it does without Sluice's EnvoyFilter: collect changes of endpoints' health for a second after a
/// change of the cluster's endpoints. A Pod that istiod has listed as not ready becomes ready by such a change.
fn merged() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"name": "bench-merged", "namespace": NAMESPACE},
        "spec": {
            "priority": 1_000,
            "workloadSelector": {"labels": {"istio": "ingressgateway"}},
            "configPatches": [{
                "applyTo": "CLUSTER",
                "match": {"context": "GATEWAY"},
                "patch": {
                    "operation": "MERGE",
                    "value": {"common_lb_config": {"update_merge_window": "1s"}},
                },
            }],
        },
    })
}
