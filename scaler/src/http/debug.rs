//! `/debug/state`: what this replica knows, for people and tests.

use crate::{
    eds::Figures,
    hub::Hub,
    index::{self, Entry, Index, Name, Standing, kind_name},
    keda, ledger,
    source::{self, cluster::WatchReport},
};
use serde::Serialize;
use sluice_core::{
    gate::Hint,
    route::{ClusterPattern, Kind},
    time::Instant,
};
use std::collections::BTreeMap;

/// What this replica knows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Objects, by kind, namespace and name.
    pub routes: Vec<Route>,
    /// Gateways with their workers.
    pub gateways: Vec<Gateway>,
    /// KEDA's streams of activity, the oldest first.
    pub keda_streams: Vec<KedaStream>,
    /// Envoys that ask for endpoints.
    pub eds: Eds,
    /// Watches of the API server; none in standalone mode.
    pub watches: Vec<Watch>,
    /// What is wrong with objects and with where they come from.
    pub problems: Vec<Problem>,
}

/// An object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its name on the link, in hexadecimal.
    pub id: String,
    /// Where its requests go, by the last version of it that could be used.
    pub target: Option<Target>,
    /// What is known of the target: `ready`, `notReady` or `unknown`.
    pub hint: &'static str,
    /// How many of its endpoints are ready.
    pub ready_endpoints: usize,
    /// Whether KEDA is told that it is active.
    pub active: bool,
    /// Requests under way, held ones included.
    pub in_flight: u64,
    /// Requests that wait.
    pub held: u64,
    /// Requests that arrived.
    pub arrivals: u64,
    /// Requests under way as KEDA is told.
    pub concurrency: f64,
    /// Requests per granularity as KEDA is told; null where the object is not scaled by it.
    pub request_rate: Option<f64>,
    /// Requests held and released.
    pub cold_starts: u64,
    /// Requests refused because a limit was full.
    pub rejections: u64,
    /// Requests whose hold reached its deadline.
    pub expirations: u64,
    /// Requests that met the rules and went elsewhere.
    pub mismatches: u64,
    /// What is so, and why.
    pub conditions: Vec<Condition>,
}

/// Where an object's requests go.
#[derive(Debug, Serialize)]
pub struct Target {
    /// The Service.
    pub service: String,
    /// Its port, number or name.
    pub port: String,
    /// The cluster's name in the gateway, `*` for any subset; null while it is not known.
    pub cluster: Option<String>,
}

/// A condition.
#[derive(Debug, Serialize)]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: &'static str,
    /// `True` or `False`.
    pub status: &'static str,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, and how to mend it.
    pub message: String,
}

/// A gateway.
#[derive(Debug, Serialize)]
pub struct Gateway {
    /// Its Envoy's node id.
    pub gateway: String,
    /// Its workers.
    pub workers: Vec<Worker>,
}

/// A gateway's worker.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// What it drew when it started, in hexadecimal.
    pub instance: String,
    /// Its filter's version.
    pub filter_version: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// How long ago it reported; null: never.
    pub last_report_ms_ago: Option<u64>,
    /// How many routes the table has that it was sent.
    pub routes: usize,
    /// Requests that it has under way.
    pub in_flight: u64,
    /// Requests that wait there.
    pub held: u64,
}

/// A stream of KEDA's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KedaStream {
    /// The ScaledObject, `<namespace>/<name>`.
    pub scaled_object: String,
    /// The object that its trigger names, `<kind>/<namespace>/<name>`; null while there is none.
    pub route: Option<String>,
    /// What was told last; null: nothing yet.
    pub last_sent: Option<bool>,
}

/// Envoys that have their endpoints from here.
#[derive(Debug, Serialize)]
pub struct Eds {
    /// Their open streams.
    pub streams: usize,
    /// The clusters that they ask for, each once.
    pub clusters: usize,
    /// How often one did not take over what it was told; the log says why.
    pub rejections: u64,
}

/// One kind's watch.
#[derive(Debug, Serialize)]
pub struct Watch {
    /// Which kind of object.
    pub kind: &'static str,
    /// `listing`, `watching`, `lost` or `notInstalled`.
    pub state: &'static str,
    /// How many objects of the kind are known.
    pub objects: usize,
    /// How often they were all listed, to the end.
    pub lists: u64,
    /// How often something was in the way.
    pub errors: u64,
}

/// Something wrong.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// The file or object.
    pub source: String,
    /// The field's path.
    pub field: String,
    /// What is wrong, and how to mend it.
    pub message: String,
}

// === impl State ===

impl State {
    /// What that replica knows now.
    pub fn of(hub: &Hub) -> Self {
        let now = hub.clock.now();
        let index = hub.index();
        let routes = index
            .entries()
            .map(|(kind, name, entry)| Route::of(hub, &index, now, (kind, name, entry)))
            .collect();
        let streams = hub.streams.all().into_iter().map(|stream| KedaStream::of(&index, stream)).collect();
        drop(index);
        let mut gateways: BTreeMap<String, Vec<Worker>> = BTreeMap::new();
        for worker in hub.ledger.workers(now) {
            gateways.entry(worker.id.gateway.clone()).or_default().push(Worker::of(worker));
        }
        Self {
            routes,
            gateways: gateways.into_iter().map(|(gateway, workers)| Gateway { gateway, workers }).collect(),
            keda_streams: streams,
            eds: Eds::of(hub.eds.figures()),
            watches: hub.watches.report().into_iter().map(Watch::of).collect(),
            problems: hub.problems().into_iter().map(Problem::of).collect(),
        }
    }
}

// === impl Route ===

impl Route {
    fn of(hub: &Hub, index: &Index, now: Instant, (kind, name, entry): (Kind, &Name, &Entry)) -> Self {
        let counted = hub.ledger.find(entry.id);
        let tally = counted.as_ref().map(|route| route.tally());
        let totals = tally.as_ref().map(|tally| tally.totals.clone()).unwrap_or_default();
        let (published, ready_endpoints) = match &entry.standing {
            Standing::Routed { route, ready_endpoints, .. } => (Some(route), *ready_endpoints),
            Standing::Invalid | Standing::Overridden | Standing::Unresolved { .. } => (None, 0),
        };
        let is_rated = entry.spec.as_ref().is_some_and(|spec| spec.metrics.rate.is_some());
        Self {
            kind: kind_name(kind),
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            id: format!("{:016x}", entry.id.0),
            target: entry.spec.as_ref().map(|spec| Target {
                service: spec.target.service.clone(),
                port: match &spec.target.port {
                    index::Port::Number(number) => number.to_string(),
                    index::Port::Name(name) => name.clone(),
                },
                cluster: published.map(|route| cluster(&route.spec.cluster)),
            }),
            hint: match published.map_or(Hint::Unknown, |route| route.hint) {
                Hint::Unknown => "unknown",
                Hint::Ready => "ready",
                Hint::NotReady => "notReady",
            },
            ready_endpoints,
            active: counted.as_ref().is_some_and(|route| route.look(now).is_active),
            in_flight: tally.as_ref().map_or(0, |tally| tally.in_flight()),
            held: tally.as_ref().map_or(0, |tally| tally.held()),
            arrivals: totals.arrivals,
            concurrency: counted.as_ref().map_or(0.0, |route| route.concurrency(now)),
            request_rate: is_rated.then(|| counted.as_ref().map_or(0.0, |route| route.rate(now))),
            cold_starts: totals.cold_starts,
            rejections: totals.rejections,
            expirations: totals.expirations,
            mismatches: totals.mismatches,
            conditions: entry
                .conditions(kind, name, totals.mismatches, index.shadow(entry).as_ref())
                .into_iter()
                .map(Condition::of)
                .collect(),
        }
    }
}

impl Condition {
    fn of(condition: index::Condition) -> Self {
        let index::Condition { type_, status, reason, message } = condition;
        Self { type_, status: if status { "True" } else { "False" }, reason, message }
    }
}

impl Worker {
    fn of(worker: ledger::WorkerState) -> Self {
        Self {
            instance: format!("{:x}", worker.id.instance),
            filter_version: worker.filter_version,
            connected: worker.is_connected,
            last_report_ms_ago: worker
                .last_report
                .map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            routes: worker.routes,
            in_flight: worker.in_flight,
            held: worker.held,
        }
    }
}

impl KedaStream {
    fn of(index: &Index, stream: keda::StreamState) -> Self {
        let keda::StreamState { scaled_object, kind, namespace, name, told } = stream;
        let is_there = index.get(kind, &namespace, &name).is_some();
        let route = is_there.then(|| format!("{}/{namespace}/{name}", kind_name(kind)));
        Self { scaled_object, route, last_sent: told }
    }
}

impl Eds {
    fn of(figures: Figures) -> Self {
        let Figures { streams, clusters, rejections } = figures;
        Self { streams, clusters, rejections }
    }
}

impl Watch {
    fn of(report: WatchReport) -> Self {
        let WatchReport { kind, state, objects, lists, errors } = report;
        Self { kind: kind.name(), state: state.name(), objects, lists, errors }
    }
}

impl Problem {
    fn of(problem: source::Problem) -> Self {
        let source::Problem { source, field, message } = problem;
        Self { source, field, message }
    }
}

/// A cluster's name as people write it.
fn cluster(pattern: &ClusterPattern) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match &pattern.suffix {
        None => text(&pattern.prefix),
        Some(suffix) => format!("{}*{}", text(&pattern.prefix), text(suffix)),
    }
}
