//! Prometheus metrics.

use crate::envoy_filter::Outcome;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::fmt;

/// What [`Metrics::text`] is.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Family<Reconcile, Counter>,
    writes: Family<Written, Counter>,
    envoy_filters: Family<Applied, Gauge>,
    /// Whether this replica leads.
    pub(crate) leader: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Applied {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Written {
    kind: &'static str,
    operation: &'static str,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("sluice_operator");
        let reconciles = Family::default();
        registry.register("reconciles", "Objects looked at, by what came of it", reconciles.clone());
        let writes = Family::default();
        registry.register("writes", "Writes to the API server", writes.clone());
        let envoy_filters = Family::default();
        registry.register(
            "envoy_filters",
            "EnvoyFilters that are wanted, by whether they are applied",
            envoy_filters.clone(),
        );
        let leader = Gauge::default();
        registry.register("leader", "1 on the replica that works, 0 on those that stand by", leader.clone());
        Self { registry, reconciles, writes, envoy_filters, leader }
    }

    /// An object was looked at.
    pub(crate) fn reconciled(&self, kind: &'static str, result: &'static str) {
        self.reconciles.get_or_create(&Reconcile { kind, result }).inc();
    }

    /// An object of that kind was written.
    pub(crate) fn wrote(&self, kind: &'static str, operation: &'static str) {
        self.writes.get_or_create(&Written { kind, operation }).inc();
    }

    /// What became of all EnvoyFilters that are wanted.
    pub(crate) fn envoy_filters<'a>(&self, outcomes: impl Iterator<Item = &'a Outcome>) {
        let mut counts = [("applied", 0), ("foreign", 0), ("failed", 0)];
        for outcome in outcomes {
            let state = match outcome {
                Outcome::Applied => 0,
                Outcome::Foreign(_) => 1,
                Outcome::Failed(_) => 2,
            };
            if let Some((_, count)) = counts.get_mut(state) {
                *count += 1;
            }
        }
        for (state, count) in counts {
            self.envoy_filters.get_or_create(&Applied { state }).set(count);
        }
    }

    /// All of them, as they are now.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
