//! What one connection feels.

use super::Part;
use crate::{
    bench::Bench,
    closed_loop,
    figures::{differences, percentile, ratios},
    gateway::Kind,
    report::{Goal, Report},
    stage::Stage,
    system::Cores,
};

/// The percentiles of one way, round by round, in µs.
#[derive(Clone, Debug, Default)]
struct Percentiles {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let stage =
        Stage::warm(bench, &[Kind::Plain, Kind::Empty, Kind::Sluice { routes: 1 }], 1, Cores::shared())
            .await?;
    let stage = stage.and_others(bench);
    let mut ways = vec![Percentiles::default(); stage.ways.len()];
    for round in 0..bench.plan.latency_rounds {
        for (index, way) in stage.turns(round) {
            let times = closed_loop::turn(way, stage.cores, bench.plan.latency_requests).await?;
            if let Some(percentiles) = ways.get_mut(index) {
                percentiles.p50.push(percentile(&times, 50.0));
                percentiles.p99.push(percentile(&times, 99.0));
            }
        }
    }
    for (way, percentiles) in stage.ways.iter().zip(&ways) {
        report.rounds(Part::Latency, format!("{}, p50", way.name), percentiles.p50.clone(), "µs", None);
        report.rounds(Part::Latency, format!("{}, p99", way.name), percentiles.p99.clone(), "µs", None);
    }
    let Some((plain, filtered)) = ways.split_first() else { return Ok(()) };
    for (way, percentiles) in stage.ways.iter().skip(1).zip(filtered) {
        let ours = way.name == Kind::Sluice { routes: 1 }.name();
        let added = differences(&percentiles.p50, &plain.p50);
        let goal = ours.then_some(Goal::AtMost(15.0));
        report.rounds(Part::Latency, format!("{}, added at p50", way.name), added, "µs", goal);
        let ratio = ratios(&percentiles.p99, &plain.p99);
        let goal = ours.then_some(Goal::AtMost(1.2));
        report.rounds(Part::Latency, format!("{}, p99 / plain's", way.name), ratio, "", goal);
    }
    Ok(())
}
