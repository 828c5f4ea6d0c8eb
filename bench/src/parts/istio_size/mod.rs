//! Many apps behind a gateway of the real Istio: what a change costs istiod, what the gateway takes, how soon a new
//! one serves. Without Sluice, with its filter, with EnvoyFilters for the apps that have settings of their own, and
//! with the filter enabled for each app's virtual host only.
//!
//! Layout: [`objects`] what is written · [`istiod`] changes · [`starts`] new gateways.

mod istiod;
mod objects;
mod starts;

use super::Part;
use crate::{bench::Bench, figures::median, istio, plan::Plan, report::Report};
use istiod::{Change, Cost, Istiod};
use objects::Apps;
use serde_json::Value;
use sluice_envoyfilter::Settings;
use sluice_tests::cluster::{
    Cluster,
    istio::{Gateway, Options, Sluice},
};
use starts::{Expected, Start};
use std::{collections::BTreeMap, path::Path, sync::mpsc};

/// Growth over the apps' own that counts as faster than theirs, and is not just a busy machine.
const FASTER: f64 = 1.2;

/// What there is of Sluice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Variant {
    /// Nothing in istiod or the gateway; the scaler runs.
    Without,
    /// The one EnvoyFilter with the module.
    Filter,
    /// And one for each app with settings of its own, one app in ten.
    OwnSettings,
    /// The filter, enabled on the virtual hosts of the apps only.
    Isolation,
}

/// What was seen of one variant at one size.
struct Seen {
    apps: usize,
    variant: Variant,
    starts: Vec<Start>,
    changes: Vec<(Change, Cost)>,
    istiod_mb: f64,
}

/// A figure of that.
struct Figure {
    name: String,
    samples: Vec<f64>,
    unit: &'static str,
    /// With the same without Sluice.
    is_compared: bool,
}

struct World<'a> {
    cluster: &'a Cluster,
    plan: Plan,
    apps: Apps,
    sluice: Sluice,
    gateway: Gateway,
    istiod: Istiod,
}

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (plan, dir) = (bench.plan, bench.dir("istio-size")?);
    let (says, seen) = mpsc::channel();
    let log = dir.join("probe.jsonl");
    let ended = istio::on_bed(&dir, async move |cluster| measure(&cluster, plan, &log, &says).await).await;
    // What was seen before something failed took minutes.
    let seen: Vec<Seen> = seen.into_iter().collect();
    say(report, &seen);
    say_growth(report, &seen);
    ended
}

async fn measure(cluster: &Cluster, plan: Plan, log: &Path, says: &mpsc::Sender<Seen>) -> anyhow::Result<()> {
    let (_, sluice, gateway) = istio::mesh(cluster, &Options::default()).await?;
    let apps = Apps::new(cluster, log).await?;
    let istiod = Istiod::find(cluster).await?;
    let world = World { cluster, plan, apps, sluice, gateway, istiod };
    let mut there = 0;
    for &apps in plan.apps {
        world.apps.fill(there..apps).await?;
        there = apps;
        for variant in [Variant::Without, Variant::Filter, Variant::OwnSettings, Variant::Isolation] {
            eprintln!("bench: istio-size: {apps} apps, {}", variant.name());
            // The receiver waits for the end of this.
            let _ = says.send(world.look(apps, variant).await?);
        }
    }
    Ok(())
}

// === impl World ===

impl World<'_> {
    async fn look(&self, apps: usize, variant: Variant) -> anyhow::Result<Seen> {
        let filters = self.filters(apps, variant)?;
        self.apps.create(&filters).await?;
        let expected = Expected {
            apps,
            filter: variant != Variant::Without,
            own_settings: variant == Variant::OwnSettings,
            isolation: variant == Variant::Isolation,
        };
        // With the gateway that is there: a new one would begin with what istiod has so far.
        starts::until(&self.gateway, expected).await?;
        self.istiod.rests().await?;
        let mut starts = Vec::new();
        for _ in 0..self.plan.gateway_starts {
            starts
                .push(starts::start(self.cluster, &self.gateway, async || self.settle(variant).await).await?);
        }
        starts::until(&self.gateway, expected).await?;
        let mut changes = Vec::new();
        for change in [Change::Route, Change::Filter] {
            let cost = self.istiod.change(&self.apps, &self.gateway, change, self.plan.changes).await?;
            changes.push((change, cost));
        }
        let istiod_mb = self.istiod.memory_mb()?;
        self.apps.delete(&filters).await?;
        Ok(Seen { apps, variant, starts, changes, istiod_mb })
    }

    fn filters(&self, apps: usize, variant: Variant) -> anyhow::Result<Vec<Value>> {
        let settings = Settings { isolation: variant == Variant::Isolation, ..Settings::default() };
        let mut filters = match variant {
            Variant::Without => return Ok(Vec::new()),
            Variant::Filter => Vec::new(),
            Variant::OwnSettings => self.apps.own_settings(apps)?,
            Variant::Isolation => objects::isolation(apps)?,
        };
        filters.push(self.sluice.manifest(&settings)?.value().clone());
        Ok(filters)
    }

    /// Waits until the gateway's workers have the whole route table: it is part of what the gateway takes.
    async fn settle(&self, variant: Variant) -> anyhow::Result<()> {
        match variant {
            Variant::Without => Ok(()),
            _ => self.sluice.linked(&[&self.gateway]).await,
        }
    }
}

// === impl Variant ===

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Self::Without => "without Sluice",
            Self::Filter => "Sluice",
            Self::OwnSettings => "own settings",
            Self::Isolation => "isolation",
        }
    }
}

// === impl Seen ===

impl Seen {
    fn figures(&self) -> Vec<Figure> {
        let start = |of: fn(&Start) -> f64| self.starts.iter().map(of).collect::<Vec<_>>();
        let mut figures = vec![
            Figure::of("new gateway, start to LIVE", start(|it| it.live_ms), "ms"),
            Figure::of("new gateway, start to listening", start(|it| it.listens_ms), "ms"),
            Figure::compared("new gateway, start to the first 200", start(|it| it.serves_ms), "ms"),
            Figure::compared("new gateway, CPU until then", start(|it| it.cpu_ms), "ms"),
            Figure::compared("gateway, memory allocated", start(|it| it.allocated_mb), "MB"),
            Figure::compared("gateway, memory in RAM", start(|it| it.resident_mb), "MB"),
        ];
        for (change, cost) in &self.changes {
            let name = |what: &str| format!("{}, {what}", change.name());
            figures.extend([
                Figure::compared(name("at work in the gateway after"), cost.waits_ms.clone(), "ms"),
                Figure::compared(name("istiod's CPU"), vec![cost.cpu_ms], "ms"),
                Figure::compared(name("istiod's push"), vec![cost.push_ms], "ms"),
                Figure::of(name("of it clusters"), vec![cost.clusters_ms], "ms"),
                Figure::of(name("of it routes"), vec![cost.routes_ms], "ms"),
                Figure::of(name("sent"), vec![cost.sent_kb], "kB"),
            ]);
        }
        figures.push(Figure::compared("istiod, memory in RAM", vec![self.istiod_mb], "MB"));
        figures
    }
}

// === impl Figure ===

impl Figure {
    fn of(name: impl Into<String>, samples: Vec<f64>, unit: &'static str) -> Self {
        Self { name: name.into(), samples, unit, is_compared: false }
    }

    fn compared(name: impl Into<String>, samples: Vec<f64>, unit: &'static str) -> Self {
        Self { is_compared: true, ..Self::of(name, samples, unit) }
    }
}

fn say(report: &mut Report, all: &[Seen]) {
    let mut without = BTreeMap::new();
    for seen in all {
        for Figure { name, samples, unit, is_compared } in seen.figures() {
            let of = format!("{} apps, {}: {name}", seen.apps, seen.variant.name());
            let value = median(&samples);
            report.rounds(Part::IstioSize, of.clone(), samples, unit, None);
            if seen.variant == Variant::Without {
                without.insert((seen.apps, name), value);
            } else if let Some(plain) = without.get(&(seen.apps, name)).filter(|_| is_compared) {
                report.figure(Part::IstioSize, format!("{of}, over without"), value / plain, "", None);
            }
        }
    }
}

/// What grows faster than the apps from one number of them to the next: its growth over theirs. (All else grows with
/// them, or less.)
fn say_growth(report: &mut Report, all: &[Seen]) {
    let mut before: BTreeMap<(Variant, String), (usize, f64)> = BTreeMap::new();
    for seen in all {
        for Figure { name, samples, .. } in seen.figures().into_iter().filter(|it| it.is_compared) {
            let (of, value) = (format!("{}: {name}", seen.variant.name()), median(&samples));
            if let Some((apps, smaller)) = before.insert((seen.variant, name), (seen.apps, value)) {
                let growth = value / smaller / (seen.apps as f64 / apps as f64);
                if growth > FASTER {
                    let what = format!("{of}, growth from {apps} to {} apps over theirs", seen.apps);
                    report.figure(Part::IstioSize, what, growth, "", None);
                }
            }
        }
    }
}
