//! Thousands of gateway workers at one scaler: what their reports cost it, how late KEDA hears of an arrival
//! meanwhile, and what happens when all of them come at once.
//!
//! The workers are in this process, which shares the machine's cores with the scaler: its CPU time stands beside
//! the scaler's. Each worker has a connection of its own, as Envoy's have.

mod keda;
mod load;
mod phase;
mod sleepers;
mod wire;
mod worker;

use super::Part;
use crate::{
    bench::Bench,
    report::{Goal, Report},
    scaler::Scaler,
    system::{self, Cores},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use keda::Keda;
use load::Group;
use phase::{Busy, Cast, Phase};
use serde_json::{Value, json};
use sleepers::Sleepers;
use sluice_proto::link::{FromWorker, Hello, PROTOCOL, from_worker, link_client::LinkClient, to_worker};
use sluice_tests::objects::{Objects, Target};
use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tonic::{Request, transport::Endpoint};
use worker::{Shared, Urgent, Worker};

/// How many groups of workers there are: their ticks are spread evenly over time.
const GROUPS: usize = 50;
/// How often a worker reports.
const TICK: Duration = Duration::from_millis(250);
/// Apps that sleep and are woken in turns; the workers' requests are of the other ones.
const SLEEPERS: usize = 100;
/// How long all workers may take to have the table.
const PATIENCE: Duration = Duration::from_secs(180);

/// The file of an object that changes while all others stay as they are, in a file of theirs.
const CHANGING: &str = "changing.yaml";
/// What objects scale by at first: requests at once for a Pod.
const METRIC: u64 = 100;
/// How often that one changes, and how long a change is given: the scaler waits 4 ms for a file's second piece.
const CHANGES: u32 = 50;
const CHANGE_EVERY: Duration = Duration::from_millis(40);

/// All workers, and what they are told to do.
struct Fleet {
    workers: usize,
    shared: Arc<Shared>,
    scaler: watch::Sender<SocketAddr>,
    urgent: Vec<mpsc::UnboundedSender<Urgent>>,
    groups: Vec<(Mutex<Group>, watch::Sender<Bytes>, watch::Sender<Bytes>)>,
    tasks: JoinSet<()>,
}

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (workers, routes) = (bench.plan.links, bench.plan.routes);
    let dir = bench.dir("link-scale")?;
    let objects = Objects::new(dir.join("objects"))?;
    let targets: Vec<Target> = (0..routes).map(|number| Target::new(&format!("app-{number}"))).collect();
    let (changing, others) = targets.split_last().context("no routes")?;
    let all: Vec<Value> = others.iter().flat_map(|target| app(target, METRIC)).collect();
    objects.write("apps.yaml", &all)?;
    objects.write(CHANGING, &app(changing, METRIC))?;
    let mut line = |name: String, value: f64, unit, goal: Option<Goal>| {
        report.figure(Part::LinkScale, name, value, unit, goal);
    };

    let mut scaler = start(&objects, &dir, 0).await?;
    let ids = ids(scaler.grpc(), routes).await?;
    let id = |target: &Target| {
        ids.get(&target.name).copied().with_context(|| format!("{} has no id", target.name))
    };
    let routes_of: Vec<u64> = targets.iter().map(id).collect::<anyhow::Result<_>>()?;
    let (sleeping, awake) = routes_of.split_at(SLEEPERS.min(routes / 2));
    let sleeping: Vec<(Target, u64)> = targets.iter().cloned().zip(sleeping.iter().copied()).collect();
    let empty = system::resident(scaler.id())?;
    line(format!("{routes} routes, no worker: memory"), empty / 1e6, "MB", None);

    // All come at once, with nothing counted yet.
    let mut fleet = Fleet::new(workers, routes, awake, scaler.grpc());
    let busy = Busy::begin(&scaler)?;
    let begun = Instant::now();
    fleet.start();
    let (tabled, _) = fleet.until_linked(begun).await?;
    let of = format!("{workers} workers come at once");
    line(format!("{of}: all have the table after"), tabled, "s", None);
    let (cpu, own) = busy.end()?;
    line(format!("{of}: CPU time of the scaler"), cpu.as_secs_f64(), "s", None);
    line(format!("{of}: CPU time of the workers"), own.as_secs_f64(), "s", None);
    line(format!("{of}: memory at its highest"), system::peak(scaler.id())? / 1e6, "MB", None);
    let linked = system::resident(scaler.id())?;
    line(format!("{workers} workers linked: memory"), linked / 1e6, "MB", None);

    let mut keda = Keda::connect(scaler.grpc()).await?;
    let mut sleepers = Sleepers::start(&keda, &sleeping, &fleet.urgent).await?;
    // Until every worker has named every route there are new lines in each report, and then none.
    let all_named = bench.plan.link_time.min(TICK * load::SHARE as u32);
    let half = bench.plan.link_time / 2;
    let phases = [
        Phase { what: "arrivals alone", time: half, reports: false, looks: &[] },
        Phase { what: "1 % of the routes per tick, new ones", time: all_named, reports: true, looks: &[] },
        Phase { what: "1 % of the routes per tick", time: half, reports: true, looks: &[] },
    ];
    let mut cast = Cast { scaler: &scaler, fleet: &fleet, keda: &mut keda, sleepers: &mut sleepers };
    for phase in phases {
        cast.play(phase, &mut line).await?;
    }

    // All that a KEDA with that many ScaledObjects has open, and asks.
    let quiet = targets.get(sleeping.len()..).unwrap_or_default();
    let alone = change(&scaler, &objects, changing).await?;
    line("an object's metric changes: CPU of the scaler".to_owned(), alone, "ms", None);
    let (before, busy, begun) = (system::resident(scaler.id())?, Busy::begin(&scaler)?, Instant::now());
    cast.keda.open(&targets, quiet).await?;
    let of = format!("{routes} × StreamIsActive, StreamMetricSpec");
    line(format!("{of}: open after"), begun.elapsed().as_secs_f64(), "s", None);
    line(format!("{of}: CPU time of the scaler"), busy.end()?.0.as_secs_f64(), "s", None);
    let grown = system::resident(scaler.id())? - before;
    line(format!("{of}: memory"), grown / 1e6, "MB", None);
    line(format!("{of}: the same, per object"), grown / routes as f64, "bytes", None);
    let open = change(&scaler, &objects, changing).await?;
    line(format!("{of}: an object's metric changes: CPU of the scaler"), open, "ms", None);
    let phases = [
        Phase { what: "KEDA's streams open", time: half, reports: false, looks: &[] },
        Phase { what: "KEDA's streams and calls", time: half, reports: false, looks: &targets },
        Phase {
            what: "KEDA's streams and calls, 1 % of the routes per tick",
            time: half,
            reports: true,
            looks: &targets,
        },
    ];
    for phase in phases {
        cast.play(phase, &mut line).await?;
    }
    drop(sleepers);
    drop(keda);

    // The scaler begins anew, and every worker tells it all that it has ever counted.
    fleet.remember();
    fleet.shared.is_down.store(true, Ordering::Relaxed);
    drop(scaler);
    scaler = start(&objects, &dir, 1).await?;
    let busy = Busy::begin(&scaler)?;
    let begun = Instant::now();
    fleet.move_to(scaler.grpc());
    let (tabled, counted) = fleet.until_linked(begun).await?;
    let of = "scaler restarted";
    line(format!("{of}: all have the table after"), tabled, "s", None);
    line(format!("{of}: all that they counted is known after"), counted, "s", None);
    let (cpu, own) = busy.end()?;
    line(format!("{of}: CPU time of the scaler"), cpu.as_secs_f64(), "s", None);
    line(format!("{of}: CPU time of the workers"), own.as_secs_f64(), "s", None);
    line(format!("{of}: memory at its highest"), system::peak(scaler.id())? / 1e6, "MB", None);
    line(format!("{of}: memory then"), system::resident(scaler.id())? / 1e6, "MB", None);
    line("links that were lost".to_owned(), fleet.shared.lost.load(Ordering::Relaxed) as f64, "", None);
    Ok(())
}

async fn start(objects: &Objects, dir: &Path, number: usize) -> anyhow::Result<Scaler> {
    let dir = dir.join(number.to_string());
    std::fs::create_dir_all(&dir)?;
    let args = ["--activity-window", sleepers::ACTIVITY_WINDOW];
    Scaler::start_with(objects, &Cores::free(), &dir, &args).await
}

/// An app's objects.
fn app(target: &Target, metric: u64) -> Vec<Value> {
    let mut object = target.scaled_object();
    object["spec"]["scalingMetric"] = json!({"concurrency": {"targetValue": metric}});
    [target.service(), object].into_iter().chain(target.endpoint_slices(&[])).collect()
}

/// What it costs the scaler, in ms, that an object's metric changes: gateways hear nothing of that, and KEDA on that
/// object's stream, where it has one.
async fn change(scaler: &Scaler, objects: &Objects, target: &Target) -> anyhow::Result<f64> {
    let busy = Busy::begin(scaler)?;
    for number in 1..=CHANGES {
        objects.write(CHANGING, &app(target, METRIC + u64::from(number % 2)))?;
        tokio::time::sleep(CHANGE_EVERY).await;
    }
    Ok(busy.end()?.0.as_secs_f64() * 1_000.0 / f64::from(CHANGES))
}

/// The routes' ids by their objects' names, as a worker hears them.
async fn ids(scaler: SocketAddr, routes: usize) -> anyhow::Result<HashMap<String, u64>> {
    let channel = Endpoint::from_shared(format!("http://{scaler}"))?.connect().await?;
    let hello = Hello { protocol: PROTOCOL, gateway: "first".to_owned(), ..Hello::default() };
    let hello = FromWorker { message: Some(from_worker::Message::Hello(hello)) };
    // One that never ends: with its end the link's would come.
    let messages = futures::StreamExt::chain(futures::stream::iter([hello]), futures::stream::pending());
    let mut link = LinkClient::new(channel).connect(Request::new(messages)).await?.into_inner();
    let mut ids = HashMap::new();
    while let Some(message) = link.message().await? {
        if let Some(to_worker::Message::Table(table)) = message.message {
            ids.extend(table.upserts.into_iter().map(|route| (route.name, route.id)));
            if table.complete {
                break;
            }
        }
    }
    ensure!(ids.len() == routes, "the table has {} routes", ids.len());
    Ok(ids)
}

// === impl Fleet ===

impl Fleet {
    fn new(workers: usize, routes: usize, ids: &[u64], scaler: SocketAddr) -> Self {
        let (scaler, of) = watch::channel(scaler);
        let shared = Shared {
            scaler: of,
            tabled: watch::Sender::new(0),
            counted: watch::Sender::new(0),
            is_down: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            acks: AtomicU64::new(0),
            routes,
        };
        let groups = (0..GROUPS).map(|number| {
            let none = || watch::Sender::new(Bytes::new());
            (Mutex::new(Group::new(number, ids)), none(), none())
        });
        Self {
            workers,
            shared: Arc::new(shared),
            scaler,
            urgent: Vec::new(),
            groups: groups.collect(),
            tasks: JoinSet::new(),
        }
    }

    fn start(&mut self) {
        for (number, (_, ticks, all)) in (0..self.workers).zip(self.groups.iter().cycle()) {
            let (sender, urgent) = mpsc::unbounded_channel();
            self.urgent.push(sender);
            let worker = Worker {
                number,
                shared: Arc::clone(&self.shared),
                ticks: ticks.subscribe(),
                all: all.subscribe(),
                urgent,
                sleepers: HashMap::new(),
                known: [None; 2],
            };
            self.tasks.spawn(worker.run());
        }
    }

    /// Waits until every worker has the table and was heard; gives how long each took, in seconds.
    async fn until_linked(&self, begun: Instant) -> anyhow::Result<(f64, f64)> {
        let until = async |count: &watch::Sender<usize>, what| {
            let mut count = count.subscribe();
            let all = tokio::time::timeout(PATIENCE, count.wait_for(|count| *count >= self.workers)).await;
            all.with_context(|| format!("not all workers {what}"))??;
            anyhow::Ok(begun.elapsed().as_secs_f64())
        };
        let (tabled, counted) = tokio::join!(
            until(&self.shared.tabled, "have the table"),
            until(&self.shared.counted, "were heard")
        );
        Ok((tabled?, counted?))
    }

    /// Lets every group tick at its own time, with what it counts or with nothing.
    async fn report_for(&self, time: Duration, with: bool) {
        let begun = tokio::time::Instant::now();
        let ticks = (time.as_secs_f64() / TICK.as_secs_f64()).ceil() as u32;
        for tick in 0..ticks {
            for (number, (group, ticks, _)) in (0..).zip(&self.groups) {
                tokio::time::sleep_until(begun + TICK * tick + TICK * number / GROUPS as u32).await;
                if with {
                    ticks.send_replace(lock(group).tick());
                }
            }
        }
        tokio::time::sleep_until(begun + TICK * ticks).await;
    }

    /// What workers say when they come back is all that they have counted.
    fn remember(&self) {
        for (group, _, all) in &self.groups {
            all.send_replace(lock(group).all());
        }
    }

    fn move_to(&self, scaler: SocketAddr) {
        self.shared.tabled.send_replace(0);
        self.shared.counted.send_replace(0);
        self.shared.is_down.store(false, Ordering::Relaxed);
        self.scaler.send_replace(scaler);
    }

    /// How many pairs of worker and route were reported.
    fn lines(&self) -> usize {
        let of_groups = self.groups.iter().cycle().take(self.workers);
        of_groups.map(|(group, ..)| lock(group).lines()).sum()
    }
}

fn lock(group: &Mutex<Group>) -> std::sync::MutexGuard<'_, Group> {
    group.lock().unwrap_or_else(PoisonError::into_inner)
}
