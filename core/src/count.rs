//! What is counted of a route at one worker.
//!
//! Counts are state: a reader who missed some of them has missed nothing once he has the last ones. They
//! tell a request that was shorter than any tick from none at all: arrivals only grow, and the time integral
//! of concurrency keeps what a gauge would lose between two looks.

use crate::time::{Instant, micros};
use std::time::Duration;

/// Upper bounds of the hold-time histogram's buckets in milliseconds; one more bucket lies above the last.
///
/// They reach to ten minutes, the default limit of a hold: cold starts of a minute are common, and the
/// add-on's buckets end at ten seconds.
pub const HOLD_BUCKETS_MS: [u64; 16] =
    [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000];
/// Upper bounds, in milliseconds, of how long after "ready" a worker's cluster became usable.
///
/// istiod's debounce is 100 ms of quiet by default and 10 s at most: the buckets tell its cases apart.
pub const LAG_BUCKETS_MS: [u64; 13] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];
/// Upper bounds, in milliseconds, of a request's duration: the add-on's own buckets.
pub const DURATION_BUCKETS_MS: [u64; 14] =
    [5, 10, 25, 50, 75, 100, 250, 500, 750, 1_000, 2_500, 5_000, 7_500, 10_000];

/// How many pairs of method and status are told apart for one route; further ones are counted as
/// ([`Method::Other`], 0). A client chooses the method and an app the status: neither may grow the memory.
pub const MAX_COMPLETIONS: usize = 64;

/// How many observations fell into each of `N` buckets and above them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<const N: usize> {
    buckets: [u64; N],
    above: u64,
    sum_us: u64,
}

/// A request's method, as far as metrics tell methods apart: those of RFC 9110 and PATCH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Any other one; shown as `_OTHER`.
    #[default]
    Other,
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// CONNECT
    Connect,
    /// OPTIONS
    Options,
    /// TRACE
    Trace,
    /// PATCH
    Patch,
}

/// How a request ended, as far as metrics tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Completion {
    /// The request's method.
    pub method: Method,
    /// The response's status, 0 if there was none.
    pub code: u16,
}

/// The counters and gauges of one route at one worker.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    in_flight: u32,
    held: u32,
    arrivals: u64,
    /// Request-nanoseconds: in 64 bits a thousand requests in flight would wrap it within a year.
    concurrency: u128,
    integrated: Instant,
    /// Requests that were held and then released.
    pub cold_starts: u64,
    /// Requests refused because a limit on holds was full.
    pub rejections: u64,
    /// Requests whose hold reached its deadline.
    pub expirations: u64,
    /// Requests that matched the rules and whose cluster is not the target.
    pub mismatches: u64,
    /// How long the released ones were held.
    pub holds: Histogram<{ HOLD_BUCKETS_MS.len() }>,
    /// How long after "ready" the worker's cluster became usable.
    pub lags: Histogram<{ LAG_BUCKETS_MS.len() }>,
    completions: Vec<(Completion, Histogram<{ DURATION_BUCKETS_MS.len() }>)>,
}

// === impl Histogram ===

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { buckets: [0; N], above: 0, sum_us: 0 }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts `value` into the first bucket whose bound it does not pass.
    pub fn observe(&mut self, bounds_ms: &[u64; N], value: Duration) {
        self.sum_us = self.sum_us.saturating_add(micros(value));
        let bucket = self
            .buckets
            .iter_mut()
            .zip(bounds_ms)
            .find(|(_, bound)| value <= Duration::from_millis(**bound))
            .map_or(&mut self.above, |(count, _)| count);
        *bucket = bucket.saturating_add(1);
    }

    /// The counts per bucket, not cumulative, the one above all bounds last.
    pub fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.buckets.iter().copied().chain([self.above])
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts().fold(0, u64::saturating_add)
    }

    /// The sum of all of them, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }
}

// === impl Method ===

impl Method {
    /// The method of that name; names are case-sensitive (RFC 9110 §9.1).
    pub fn parse(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }
}

// === impl Counts ===

impl Counts {
    /// Requests that have arrived and not ended, held ones included.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Requests that wait.
    pub fn held(&self) -> u32 {
        self.held
    }

    /// Requests that ever arrived.
    pub fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// The time integral of concurrency up to `now`, in request-microseconds.
    pub fn concurrency_us(&self, now: Instant) -> u64 {
        let more = u128::from(self.in_flight).saturating_mul(now.since(self.integrated).as_nanos());
        u64::try_from(self.concurrency.saturating_add(more).checked_div(1_000).unwrap_or(0))
            .unwrap_or(u64::MAX)
    }

    /// How requests ended, and how long they took.
    pub fn completions(
        &self,
    ) -> impl Iterator<Item = &(Completion, Histogram<{ DURATION_BUCKETS_MS.len() }>)> {
        self.completions.iter()
    }

    /// A request has arrived. `new` is false for one that was counted before and is only being placed anew.
    pub(crate) fn enter(&mut self, now: Instant, new: bool) {
        self.integrate(now);
        self.in_flight = self.in_flight.saturating_add(1);
        if new {
            self.arrivals = self.arrivals.saturating_add(1);
        }
    }

    /// A request has gone: ended, or placed elsewhere.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.integrate(now);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub(crate) fn hold(&mut self) {
        self.held = self.held.saturating_add(1);
    }

    pub(crate) fn unhold(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    pub(crate) fn complete(&mut self, completion: Completion, took: Duration) {
        let known = self.completions.iter().position(|(known, _)| *known == completion);
        let completion = match known {
            Some(_) => completion,
            None if self.completions.len() < MAX_COMPLETIONS => completion,
            None => Completion { method: Method::Other, code: 0 },
        };
        if let Some((_, durations)) = self.completions.iter_mut().find(|(known, _)| *known == completion) {
            durations.observe(&DURATION_BUCKETS_MS, took);
        } else {
            let mut durations = Histogram::default();
            durations.observe(&DURATION_BUCKETS_MS, took);
            self.completions.push((completion, durations));
        }
    }

    fn integrate(&mut self, now: Instant) {
        let passed = now.since(self.integrated).as_nanos();
        self.concurrency = self.concurrency.saturating_add(u128::from(self.in_flight).saturating_mul(passed));
        self.integrated = self.integrated.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_request_between_two_readings_is_in_the_integral_and_the_arrivals() {
        let mut counts = Counts::default();
        counts.enter(at(100), true);
        counts.leave(at(103));
        assert_eq!(counts.in_flight(), 0);
        assert_eq!(counts.arrivals(), 1);
        assert_eq!(counts.concurrency_us(at(1_000)), 3_000);
    }

    #[test]
    fn the_integral_goes_on_between_events() {
        let mut counts = Counts::default();
        counts.enter(at(0), true);
        counts.enter(at(10), true);
        assert_eq!(counts.concurrency_us(at(20)), 10_000 + 20_000);
        assert_eq!(counts.concurrency_us(at(30)), 10_000 + 40_000);
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_takes_nothing_away() {
        let mut counts = Counts::default();
        counts.enter(at(50), true);
        counts.enter(at(40), true);
        counts.leave(at(30));
        assert_eq!(counts.concurrency_us(at(50)), 0);
        assert_eq!(counts.in_flight(), 1);
    }

    #[test]
    fn more_leaves_than_arrivals_stop_at_zero() {
        let mut counts = Counts::default();
        counts.leave(at(1));
        counts.unhold();
        assert_eq!((counts.in_flight(), counts.held()), (0, 0));
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_passes_all_is_counted_last() {
        let mut holds = Histogram::default();
        for ms in [5, 6, 600_000, 600_001] {
            holds.observe(&HOLD_BUCKETS_MS, Duration::from_millis(ms));
        }
        let counts: Vec<u64> = holds.counts().collect();
        assert_eq!(counts.first(), Some(&1));
        assert_eq!(counts[1], 1);
        assert_eq!(counts[HOLD_BUCKETS_MS.len() - 1], 1);
        assert_eq!(counts[HOLD_BUCKETS_MS.len()], 1);
        assert_eq!(holds.count(), 4);
        assert_eq!(holds.sum_us(), 1_200_012_000);
    }

    #[test]
    fn statuses_without_end_do_not_grow_the_memory_and_lose_no_request() {
        let mut counts = Counts::default();
        for code in 0..1_000 {
            counts.complete(Completion { method: Method::Get, code }, Duration::from_millis(1));
        }
        assert!(counts.completions().count() <= MAX_COMPLETIONS + 1);
        assert_eq!(counts.completions().map(|(_, took)| took.count()).sum::<u64>(), 1_000);
    }
}
