//! Throughput and CPU per request while the app is awake.

use super::Part;
use crate::{
    bench::Bench,
    figures::ratios,
    gateway::Kind,
    load::{self, Turn},
    report::{Goal, Report},
    stage::Stage,
    system::Cores,
};

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    for workers in [1, 2] {
        let stage = Stage::warm(
            bench,
            &[Kind::Plain, Kind::Empty, Kind::Sluice { routes: 1 }],
            workers,
            Cores::for_workers(workers),
        )
        .await?;
        let stage = stage.and_others(bench);
        let turns = take_turns(bench, &stage).await?;
        say(report, workers, &stage, &turns);
    }
    Ok(())
}

/// For each way its turns, round by round.
pub(super) async fn take_turns(bench: &Bench, stage: &Stage) -> anyhow::Result<Vec<Vec<Turn>>> {
    let mut turns = vec![Vec::new(); stage.ways.len()];
    for round in 0..bench.plan.load_rounds {
        for (index, way) in stage.turns(round) {
            let turn = load::turn(way, stage.cores, bench.plan.load_turn).await?;
            if let Some(turns) = turns.get_mut(index) {
                turns.push(turn);
            }
        }
    }
    Ok(turns)
}

fn say(report: &mut Report, workers: u32, stage: &Stage, turns: &[Vec<Turn>]) {
    let with = if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") };
    let rates: Vec<Vec<f64>> =
        turns.iter().map(|turns| turns.iter().map(|turn| turn.rate).collect()).collect();
    for (way, rates) in stage.ways.iter().zip(&rates) {
        report.rounds(Part::Warm, format!("{with}: {}", way.name), rates.clone(), "req/s", None);
    }
    let [plain, empty, sluice, others @ ..] = rates.as_slice() else { return };
    // With two workers on two cores load and app take their share of them: what the ratio says is weaker then,
    // and the goal is one worker's.
    let goal = (workers == 1).then_some(Goal::AtLeast(0.85));
    report.rounds(Part::Warm, format!("{with}: Sluice / plain"), ratios(sluice, plain), "", goal);
    let goal = Some(Goal::AtLeast(0.95));
    report.rounds(Part::Warm, format!("{with}: Sluice / empty"), ratios(sluice, empty), "", goal);
    report.rounds(Part::Warm, format!("{with}: empty / plain"), ratios(empty, plain), "", None);
    for (way, rates) in stage.ways.iter().skip(3).zip(others) {
        report.rounds(Part::Warm, format!("{with}: {} / plain", way.name), ratios(rates, plain), "", None);
    }
    say_cpu(report, &with, stage, turns);
}

fn say_cpu(report: &mut Report, with: &str, stage: &Stage, turns: &[Vec<Turn>]) {
    let cpu_of = |turns: &Vec<Turn>| turns.iter().map(|turn| turn.cpu_us).collect::<Option<Vec<f64>>>();
    let plain = turns.first().and_then(cpu_of).unwrap_or_default();
    for (way, turns) in stage.ways.iter().zip(turns) {
        if let Some(cpu) = cpu_of(turns) {
            let name = format!("{with}: {}, CPU per request", way.name);
            report.rounds(Part::Warm, name, cpu.clone(), "µs", None);
            if way.name != Kind::Plain.name() {
                // What the throughput would be if nothing but the gateway were in the way: other programs on
                // the machine disturb this one least.
                let name = format!("{with}: plain / {}, CPU per request", way.name);
                report.rounds(Part::Warm, name, ratios(&plain, &cpu), "", None);
            }
        }
        let helpers: Option<Vec<f64>> = turns.iter().map(|turn| turn.helper_us).collect();
        if let Some(helpers) = helpers {
            let name = format!("{with}: {}, its scaler's CPU per request", way.name);
            report.rounds(Part::Warm, name, helpers, "µs", None);
        }
    }
}
