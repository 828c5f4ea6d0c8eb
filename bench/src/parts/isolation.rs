//! Throughput of a host that is none of Sluice's, with the filter in the chain: disabled but on the virtual hosts of
//! objects, and, beside it, enabled for all.

use super::{Part, warm::take_turns};
use crate::{
    bench::Bench,
    figures::ratios,
    gateway::Kind,
    load::Turn,
    report::{Goal, Report},
    stage::Stage,
    system::Cores,
};

const ISOLATED: Kind = Kind::Unmanaged { isolated: true };
const NOT_ISOLATED: Kind = Kind::Unmanaged { isolated: false };

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let kinds = [Kind::Plain, ISOLATED, NOT_ISOLATED];
    let stage = Stage::warm(bench, &kinds, 1, Cores::for_workers(1)).await?;
    // Free is only worth something where the filter is at work for whom it should be.
    for gateway in stage.gateways.iter().skip(1) {
        gateway.holds_for_managed().await?;
    }
    let turns = take_turns(bench, &stage).await?;
    let of = |of: fn(&Turn) -> Option<f64>| {
        turns.iter().map(|turns| turns.iter().filter_map(of).collect()).collect::<Vec<Vec<f64>>>()
    };
    let (rates, cpu) = (of(|turn| Some(turn.rate)), of(|turn| turn.cpu_us));
    for (way, rates) in stage.ways.iter().zip(&rates) {
        report.rounds(Part::Isolation, &way.name, rates.clone(), "req/s", None);
    }
    for (way, cpu) in stage.ways.iter().zip(&cpu) {
        report.rounds(Part::Isolation, format!("{}, CPU per request", way.name), cpu.clone(), "µs", None);
    }
    let ([plain, others @ ..], [plain_cpu, others_cpu @ ..]) = (rates.as_slice(), cpu.as_slice()) else {
        return Ok(());
    };
    for ((way, rates), cpu) in stage.ways.iter().skip(1).zip(others).zip(others_cpu) {
        let goal = (way.name == ISOLATED.name()).then_some(Goal::AtLeast(0.99));
        let name = format!("{} / plain", way.name);
        report.rounds(Part::Isolation, name, ratios(rates, plain), "", goal);
        let name = format!("plain / {}, CPU per request", way.name);
        report.rounds(Part::Isolation, name, ratios(plain_cpu, cpu), "", None);
    }
    Ok(())
}
