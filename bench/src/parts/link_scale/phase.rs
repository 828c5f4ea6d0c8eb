//! A while in which workers report, KEDA asks and apps are woken: what it cost the scaler, and how late KEDA heard.

use super::{Fleet, keda::Keda, sleepers::Sleepers};
use crate::{figures::percentile, report::Goal, scaler::Scaler, system};
use sluice_tests::objects::Target;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// What goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase<'a> {
    /// What its lines begin with.
    pub(super) what: &'a str,
    pub(super) time: Duration,
    /// Workers report what they count.
    pub(super) reports: bool,
    /// KEDA looks at these, as at apps that run.
    pub(super) looks: &'a [Target],
}

/// Everybody who takes part.
pub(super) struct Cast<'a> {
    pub(super) scaler: &'a Scaler,
    pub(super) fleet: &'a Fleet,
    pub(super) keda: &'a mut Keda,
    pub(super) sleepers: &'a mut Sleepers,
}

/// CPU time of a while.
pub(super) struct Busy {
    scaler: (u32, Duration),
    own: Duration,
}

impl Cast<'_> {
    /// Lets it go on for its time, and says its lines.
    ///
    /// # Errors
    /// If a stream ended or a call failed.
    pub(super) async fn play(
        &mut self,
        Phase { what, time, reports, looks }: Phase<'_>,
        mut line: impl FnMut(String, f64, &'static str, Option<Goal>),
    ) -> anyhow::Result<()> {
        let Self { scaler, fleet, keda, sleepers } = self;
        let mut looking = (!looks.is_empty()).then(|| keda.look_at(looks));
        let lines_before = fleet.lines();
        drop(sleepers.times.take());
        let told = keda.told();
        let (acks, before) = (fleet.shared.acks.load(Ordering::Relaxed), system::resident(scaler.id())?);
        let busy = Busy::begin(scaler)?;
        let begun = Instant::now();
        fleet.report_for(time, reports).await;
        let took = begun.elapsed().as_secs_f64();
        let (cpu, own) = busy.end()?;
        let share = |cpu: Duration| cpu.as_secs_f64() / took * 100.0;
        let goal = reports.then_some(Goal::AtMost(100.0));
        line(format!("{what}: CPU of the scaler"), share(cpu), "% of a core", goal);
        line(format!("{what}: CPU of the workers and KEDA"), share(own), "% of a core", None);
        let acks = fleet.shared.acks.load(Ordering::Relaxed) - acks;
        line(format!("{what}: reports counted"), acks as f64 / took, "1/s", None);
        if reports {
            let each = cpu.as_secs_f64() * 1e6 / acks.max(1) as f64;
            line(format!("{what}: CPU of the scaler per report"), each, "µs", None);
        }
        if let Some(looking) = &mut looking {
            looking.must_run()?;
            let (metrics, activity) = (looking.metrics.take(), looking.activity.take());
            let calls = (metrics.len() + activity.len()) as f64 / took;
            line(format!("{what}: KEDA's calls answered"), calls, "1/s", None);
            for (call, times) in [("GetMetrics", metrics), ("IsActive", activity)] {
                for (name, percent) in [("p50", 50.0), ("p99", 99.0)] {
                    line(format!("{what}: {call}, {name}"), percentile(&times, percent), "ms", None);
                }
            }
        }
        let told = keda.told() - told;
        if told > 0 {
            line(format!("{what}: words on streams of apps that run"), told as f64 / took, "1/s", None);
        }
        keda.must_run()?;
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
        Ok(())
    }
}

// === impl Busy ===

impl Busy {
    pub(super) fn begin(scaler: &Scaler) -> anyhow::Result<Self> {
        let own = system::cpu_with_ended(std::process::id())?;
        // Threads that read the objects end in the midst of it.
        Ok(Self { scaler: (scaler.id(), system::cpu_with_ended(scaler.id())?), own })
    }

    /// The scaler's CPU time since, and this process's.
    pub(super) fn end(self) -> anyhow::Result<(Duration, Duration)> {
        let (id, before) = self.scaler;
        Ok((
            system::cpu_with_ended(id)?.saturating_sub(before),
            system::cpu_with_ended(std::process::id())?.saturating_sub(self.own),
        ))
    }
}
