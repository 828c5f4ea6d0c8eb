//! What is used up while nothing goes on.

use super::Part;
use crate::{
    bench::Bench,
    gateway::Kind,
    report::Report,
    stage::Stage,
    system::{self, Cores},
};
use std::time::{Duration, Instant};

/// After the last request a worker still reports what it counted, and the scaler's activity window ends later
/// still, which costs one message. From then on nothing should happen.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let routes = bench.plan.routes;
    let stage = Stage::warm(bench, &[Kind::Plain, Kind::Sluice { routes }], 2, Cores::free()).await?;
    // The one place where time itself is what is wanted.
    tokio::time::sleep(SETTLE).await;
    let measured: Vec<(String, Vec<u32>)> = stage
        .ways
        .iter()
        .flat_map(|way| {
            let gateway = (format!("{} gateway, 2 workers", way.name), way.pids.clone());
            let scaler = (format!("{}'s scaler, {routes} routes", way.name), way.helpers.clone());
            [gateway, scaler]
        })
        .filter(|(_, pids)| !pids.is_empty())
        .collect();
    let begun = Instant::now();
    let before: Vec<Duration> =
        measured.iter().map(|(_, pids)| system::cpu_of_all(pids)).collect::<anyhow::Result<_>>()?;
    tokio::time::sleep(bench.plan.idle).await;
    let length = begun.elapsed();
    for ((name, pids), before) in measured.iter().zip(before) {
        let used = system::cpu_of_all(pids)?.saturating_sub(before);
        let share = used.as_secs_f64() / length.as_secs_f64();
        report.figure(Part::Idle, name.clone(), share * 100.0, "% of a core", None);
    }
    Ok(())
}
