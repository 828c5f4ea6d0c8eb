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

const SLUICE: Kind = Kind::Sluice { routes: 1 };

/// The percentiles of one way, round by round, in µs.
#[derive(Clone, Debug, Default)]
struct Percentiles {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    // As with a client elsewhere: the gateway's core has gone idle when a request comes, and is woken for it.
    let apart = measure(bench, report, "", Cores::for_workers(1)).await?;
    say_added(report, "", &apart, Some(Goal::AtMost(15.0)), Some(Goal::AtMost(1.2)));
    // Waking a core takes longer than what is measured, and not always equally long; this is without it.
    let together = measure(bench, report, "one core: ", Cores::one()).await?;
    say_added(report, "one core: ", &together, None, None);
    Ok(())
}

/// The ways by name, plain Envoy first.
async fn measure(
    bench: &Bench,
    report: &mut Report,
    prefix: &str,
    cores: Cores,
) -> anyhow::Result<Vec<(String, Percentiles)>> {
    let stage = Stage::warm(bench, &[Kind::Plain, Kind::Empty, SLUICE], 1, cores).await?.and_others(bench);
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
    let names = stage.ways.iter().map(|way| way.name.clone());
    let ways: Vec<_> = names.zip(ways).collect();
    for (name, percentiles) in &ways {
        report.rounds(Part::Latency, format!("{prefix}{name}, p50"), percentiles.p50.clone(), "µs", None);
        report.rounds(Part::Latency, format!("{prefix}{name}, p99"), percentiles.p99.clone(), "µs", None);
    }
    Ok(ways)
}

fn say_added(
    report: &mut Report,
    prefix: &str,
    ways: &[(String, Percentiles)],
    p50: Option<Goal>,
    p99: Option<Goal>,
) {
    let Some(((_, plain), filtered)) = ways.split_first() else { return };
    for (name, percentiles) in filtered {
        // The goals are ours alone.
        let ours = *name == SLUICE.name();
        let added = differences(&percentiles.p50, &plain.p50);
        let line = format!("{prefix}{name}, added at p50");
        report.rounds(Part::Latency, line, added, "µs", p50.filter(|_| ours));
        let ratio = ratios(&percentiles.p99, &plain.p99);
        let line = format!("{prefix}{name}, p99 / plain's");
        report.rounds(Part::Latency, line, ratio, "", p99.filter(|_| ours));
    }
}
