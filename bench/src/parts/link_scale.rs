//! Thousands of gateway workers at one scaler: what their reports cost it, how late KEDA hears of an arrival
//! meanwhile, and what happens when all of them come at once.
//!
//! The workers are in this process, which shares the machine's cores with the scaler: its CPU time stands beside
//! the scaler's. Each worker has a connection of its own, as Envoy's have.

mod load;
mod sleepers;
mod wire;
mod worker;

use super::Part;
use crate::{
    bench::Bench,
    figures::percentile,
    report::{Goal, Report},
    scaler::Scaler,
    system::{self, Cores},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use load::Group;
use serde_json::Value;
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

/// All workers, and what they are told to do.
struct Fleet {
    workers: usize,
    shared: Arc<Shared>,
    scaler: watch::Sender<SocketAddr>,
    urgent: Vec<mpsc::UnboundedSender<Urgent>>,
    groups: Vec<(Mutex<Group>, watch::Sender<Bytes>, watch::Sender<Bytes>)>,
    tasks: JoinSet<()>,
}

/// CPU time of a while.
struct Busy {
    scaler: (u32, Duration),
    own: Duration,
}

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (workers, routes) = (bench.plan.links, bench.plan.routes);
    let dir = bench.dir("link-scale")?;
    let objects = Objects::new(dir.join("objects"))?;
    let targets: Vec<Target> = (0..routes).map(|number| Target::new(&format!("app-{number}"))).collect();
    let all: Vec<Value> = targets
        .iter()
        .flat_map(|target| {
            [target.service(), target.scaled_object()].into_iter().chain(target.endpoint_slices(&[]))
        })
        .collect();
    objects.write("apps.yaml", &all)?;
    let mut line = |name: String, value: f64, unit, goal| {
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

    let mut sleepers = Sleepers::start(scaler.grpc(), &sleeping, &fleet.urgent).await?;
    // Until every worker has named every route there are new lines in each report, and then none.
    let all_named = bench.plan.link_time.min(TICK * load::SHARE as u32);
    let phases = [
        (false, "arrivals alone", bench.plan.link_time / 2),
        (true, "1 % of the routes per tick, new ones", all_named),
        (true, "1 % of the routes per tick", bench.plan.link_time / 2),
    ];
    for (with, what, time) in phases {
        let lines_before = fleet.lines();
        drop(sleepers.times.take());
        let (acks, before) = (fleet.shared.acks.load(Ordering::Relaxed), system::resident(scaler.id())?);
        let busy = Busy::begin(&scaler)?;
        let begun = Instant::now();
        fleet.report_for(time, with).await;
        let took = begun.elapsed().as_secs_f64();
        let (cpu, own) = busy.end()?;
        let share = |cpu: Duration| cpu.as_secs_f64() / took * 100.0;
        let goal = with.then_some(Goal::AtMost(100.0));
        line(format!("{what}: CPU of the scaler"), share(cpu), "% of a core", goal);
        line(format!("{what}: CPU of the workers and KEDA"), share(own), "% of a core", None);
        let acks = fleet.shared.acks.load(Ordering::Relaxed) - acks;
        line(format!("{what}: reports counted"), acks as f64 / took, "1/s", None);
        if with {
            let each = cpu.as_secs_f64() * 1e6 / acks.max(1) as f64;
            line(format!("{what}: CPU of the scaler per report"), each, "µs", None);
        }
        let times = sleepers.times.take();
        sleepers.must_run()?;
        line(format!("{what}: arrivals"), times.len() as f64, "", None);
        for (name, percent, goal) in [("p50", 50.0, None), ("p99", 99.0, Some(20.0)), ("worst", 100.0, None)]
        {
            let name = format!("{what}: arrival to `true`, {name}");
            line(name, percentile(&times, percent), "ms", goal.map(Goal::AtMost));
        }
        let lines = fleet.lines() - lines_before;
        if lines > 0 {
            let grown = system::resident(scaler.id())? - before;
            line(format!("{what}: lines (worker × route)"), lines as f64, "", None);
            line(format!("{what}: memory for them"), grown / 1e6, "MB", None);
            line(format!("{what}: the same, per line"), grown / lines as f64, "bytes", None);
        }
    }
    drop(sleepers);

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

// === impl Busy ===

impl Busy {
    fn begin(scaler: &Scaler) -> anyhow::Result<Self> {
        let own = system::cpu_with_ended(std::process::id())?;
        // Threads that read the objects end in the midst of it.
        Ok(Self { scaler: (scaler.id(), system::cpu_with_ended(scaler.id())?), own })
    }

    /// The scaler's CPU time since, and this process's.
    fn end(self) -> anyhow::Result<(Duration, Duration)> {
        let (id, before) = self.scaler;
        Ok((
            system::cpu_with_ended(id)?.saturating_sub(before),
            system::cpu_with_ended(std::process::id())?.saturating_sub(self.own),
        ))
    }
}
