//! Many objects against one: requests of one app, while the table has thousands of others.

use super::Part;
use crate::{
    bench::Bench,
    figures::ratios,
    gateway::Kind,
    load::Turn,
    report::{Goal, Report},
    stage::Stage,
    system::{self, Cores},
};

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let many = bench.plan.routes;
    let mut stage = Stage::warm(
        bench,
        &[Kind::Sluice { routes: 1 }, Kind::Sluice { routes: many }],
        1,
        Cores::for_workers(1),
    )
    .await?;
    for (way, count) in stage.ways.iter_mut().zip([1, many]) {
        way.name = format!("{count} routes");
    }
    let turns = super::warm::take_turns(bench, &stage).await?;
    let rates = |turns: &[Turn]| turns.iter().map(|turn| turn.rate).collect::<Vec<f64>>();
    if let [one, lots] = turns.as_slice() {
        let goal = Some(Goal::AtLeast(0.97));
        let name = format!("throughput, {many} routes / 1");
        report.rounds(Part::Routes, name, ratios(&rates(lots), &rates(one)), "", goal);
    }
    if let [one, lots] = stage.gateways.as_slice() {
        // After the same load, so that what traffic itself takes is in both.
        let grown = system::resident(lots.id())? - system::resident(one.id())?;
        let per_vm = grown / lots.vms() as f64;
        report.figure(
            Part::Routes,
            format!("table of {many} routes, memory per VM"),
            per_vm / 1e6,
            "MB",
            None,
        );
        report.figure(Part::Routes, "the same, per route", per_vm / many as f64, "bytes", None);
        if let [Some(one), Some(lots)] = [one, lots].map(|gateway| gateway.scaler()) {
            let grown = system::resident(lots.id())? - system::resident(one.id())?;
            let name = format!("scaler's memory for {many} routes");
            report.figure(Part::Routes, name, grown / 1e6, "MB", None);
        }
    }
    Ok(())
}
