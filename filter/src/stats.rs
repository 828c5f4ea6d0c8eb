//! The filter's metrics among Envoy's own, where they appear as `wasmcustom.sluice_…`.

use crate::host::{Host, MetricKind};
use std::time::Duration;

/// Ids of the defined metrics; a metric that the host did not want is left out.
///
/// All of them are about holds and links: a request that is simply forwarded touches none, each is a host call.
#[derive(Debug, Default)]
pub struct Stats {
    holds: Option<u32>,
    releases: Option<u32>,
    rejections: Option<u32>,
    expirations: Option<u32>,
    mismatches: Option<u32>,
    hold_ms: Option<u32>,
    held: Option<u32>,
    links_up: Option<u32>,
    link_failures: Option<u32>,
    looks: Option<u32>,
}

impl Stats {
    /// Defines them all.
    pub fn define(host: &mut impl Host) -> Self {
        let mut define = |kind, name| host.define_metric(kind, name);
        Self {
            holds: define(MetricKind::Counter, "sluice_holds_total"),
            releases: define(MetricKind::Counter, "sluice_releases_total"),
            rejections: define(MetricKind::Counter, "sluice_rejections_total"),
            expirations: define(MetricKind::Counter, "sluice_expirations_total"),
            mismatches: define(MetricKind::Counter, "sluice_mismatches_total"),
            hold_ms: define(MetricKind::Histogram, "sluice_hold_ms"),
            held: define(MetricKind::Gauge, "sluice_held"),
            links_up: define(MetricKind::Gauge, "sluice_links_up"),
            link_failures: define(MetricKind::Counter, "sluice_link_failures_total"),
            looks: define(MetricKind::Counter, "sluice_looks_total"),
        }
    }

    /// A request begins to wait.
    pub fn held(&self, host: &mut impl Host) {
        add(host, self.holds, 1);
        add(host, self.held, 1);
    }

    /// A request no longer waits, for whatever reason.
    pub fn unheld(&self, host: &mut impl Host) {
        add(host, self.held, -1);
    }

    /// A held request was released.
    pub fn released(&self, host: &mut impl Host, held: Duration) {
        add(host, self.releases, 1);
        if let Some(metric) = self.hold_ms {
            host.record_metric(metric, u64::try_from(held.as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// A request was answered because a limit was full.
    pub fn rejected(&self, host: &mut impl Host) {
        add(host, self.rejections, 1);
    }

    /// A held request was answered at its deadline.
    pub fn expired(&self, host: &mut impl Host) {
        add(host, self.expirations, 1);
    }

    /// A route's rules matched, its cluster did not.
    pub fn mismatched(&self, host: &mut impl Host) {
        add(host, self.mismatches, 1);
    }

    /// A look was made.
    pub fn looked(&self, host: &mut impl Host) {
        add(host, self.looks, 1);
    }

    /// A link came up.
    pub fn link_up(&self, host: &mut impl Host) {
        add(host, self.links_up, 1);
    }

    /// A link that was up went down.
    pub fn link_down(&self, host: &mut impl Host) {
        add(host, self.links_up, -1);
    }

    /// A link could not be opened, or ended.
    pub fn link_failed(&self, host: &mut impl Host) {
        add(host, self.link_failures, 1);
    }
}

fn add(host: &mut impl Host, metric: Option<u32>, by: i64) {
    if let Some(metric) = metric {
        host.add_metric(metric, by);
    }
}
