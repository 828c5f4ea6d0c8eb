//! What a worker said last of a route, and what is new in what it says now.
//!
//! There is one of these per worker and route: of two thousand workers and ten thousand routes, twenty million if
//! all of them see traffic. What most routes never have is therefore kept apart.

use super::{Ignored, histogram::Buckets};
use sluice_core::count::{
    Completion, DURATION_BUCKETS_MS, HOLD_BUCKETS_MS, LAG_BUCKETS_MS, MAX_COMPLETIONS, Method,
};
use sluice_proto::link;
use std::sync::atomic::Ordering;

/// Buckets of each histogram, the one above all bounds included.
pub(super) const HOLD_BUCKETS: usize = HOLD_BUCKETS_MS.len() + 1;
/// See [`HOLD_BUCKETS`].
pub(super) const LAG_BUCKETS: usize = LAG_BUCKETS_MS.len() + 1;
/// See [`HOLD_BUCKETS`].
pub(super) const DURATION_BUCKETS: usize = DURATION_BUCKETS_MS.len() + 1;

/// What a worker said last.
#[derive(Debug, Default)]
pub(super) struct Last {
    arrivals: u64,
    concurrency_us: u64,
    rare: Option<Box<Rare>>,
    endings: Vec<Ending>,
}

/// How often and how slowly requests ended one way.
#[derive(Debug)]
struct Ending {
    completion: Completion,
    /// The lower halves of the counts: between two reports nobody ends four billion requests.
    counts: [u32; DURATION_BUCKETS],
    sum_us: u64,
}

/// What only cold or misled routes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rare {
    pub(super) cold_starts: u64,
    pub(super) rejections: u64,
    pub(super) expirations: u64,
    pub(super) mismatches: u64,
    pub(super) holds: Buckets<HOLD_BUCKETS>,
    pub(super) lags: Buckets<LAG_BUCKETS>,
}

/// What is new.
#[derive(Debug, Default)]
pub(super) struct News {
    /// What is under way now.
    pub(super) in_flight: u32,
    /// How many of them wait.
    pub(super) held: u32,
    pub(super) arrivals: u64,
    pub(super) concurrency_us: u64,
    pub(super) rare: Option<Box<Rare>>,
    pub(super) completions: Vec<(Completion, Buckets<DURATION_BUCKETS>)>,
}

// === impl Last ===

impl Last {
    /// Takes in what the worker says now. With `is_baseline` its counters are where counting begins: they may be
    /// those of a month, and would else look like a burst. What is under way counts at once all the same.
    pub(super) fn update(&mut self, said: &link::RouteCounts, is_baseline: bool, ignored: &Ignored) -> News {
        let mut news =
            News { in_flight: said.in_flight, held: said.held.min(said.in_flight), ..News::default() };
        // The worker forgot the route for a while, and counts from zero again.
        if said.arrivals < self.arrivals {
            *self = Self::default();
        }
        news.arrivals = said.arrivals - self.arrivals;
        news.concurrency_us = said.concurrency_us.saturating_sub(self.concurrency_us);
        self.arrivals = said.arrivals;
        self.concurrency_us = said.concurrency_us;

        let rare = Rare::read(said, ignored);
        if rare != Rare::default() || self.rare.is_some() {
            let last = self.rare.get_or_insert_default();
            let new = rare.since(last);
            if new != Rare::default() {
                news.rare = Some(Box::new(new));
            }
            **last = rare;
        }
        for said in said.completions.iter().take(MAX_COMPLETIONS + 1) {
            let now = Buckets::read(&said.duration_buckets, said.duration_us);
            // A label's values must not be a gateway's choice: three digits are a code, or 0 for none.
            let code = u16::try_from(said.code).ok().filter(|code| matches!(code, 0 | 100..=999));
            let (Some(code), Some(now)) = (code, now) else {
                ignored.histograms.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let completion = Completion { method: method(said.method), code };
            let has_room = self.endings.len() <= MAX_COMPLETIONS;
            let known = match self.endings.iter_mut().find(|ending| ending.completion == completion) {
                Some(known) => known,
                None if has_room => {
                    // Most routes end in few ways.
                    self.endings.reserve_exact(1);
                    self.endings.push_mut(Ending::new(completion))
                }
                None => continue,
            };
            let new = known.update(&now);
            if new.count() > 0 {
                news.completions.push((completion, new));
            }
        }
        if is_baseline {
            news = News { in_flight: news.in_flight, held: news.held, ..News::default() };
        }
        news
    }
}

// === impl Ending ===

impl Ending {
    fn new(completion: Completion) -> Self {
        Self { completion, counts: [0; DURATION_BUCKETS], sum_us: 0 }
    }

    /// Takes in what is said now; gives what is new.
    fn update(&mut self, now: &Buckets<DURATION_BUCKETS>) -> Buckets<DURATION_BUCKETS> {
        let mut new =
            Buckets { counts: [0; DURATION_BUCKETS], sum_us: now.sum_us.saturating_sub(self.sum_us) };
        for ((new, now), last) in new.counts.iter_mut().zip(now.counts).zip(&mut self.counts) {
            let low = now as u32;
            let more = low.wrapping_sub(*last);
            // Less than before: it began anew.
            *new = u64::from(if more > u32::MAX / 2 { low } else { more });
            *last = low;
        }
        self.sum_us = now.sum_us;
        new
    }
}

// === impl Rare ===

impl Rare {
    fn read(said: &link::RouteCounts, ignored: &Ignored) -> Self {
        fn histogram<const N: usize>(counts: &[u64], sum_us: u64, ignored: &Ignored) -> Buckets<N> {
            Buckets::read(counts, sum_us).unwrap_or_else(|| {
                ignored.histograms.fetch_add(1, Ordering::Relaxed);
                Buckets::default()
            })
        }
        Self {
            cold_starts: said.cold_starts,
            rejections: said.rejections,
            expirations: said.expirations,
            mismatches: said.mismatches,
            holds: histogram(&said.hold_buckets, said.hold_us, ignored),
            lags: histogram(&said.lag_buckets, said.lag_us, ignored),
        }
    }

    fn since(&self, last: &Self) -> Self {
        Self {
            cold_starts: self.cold_starts.saturating_sub(last.cold_starts),
            rejections: self.rejections.saturating_sub(last.rejections),
            expirations: self.expirations.saturating_sub(last.expirations),
            mismatches: self.mismatches.saturating_sub(last.mismatches),
            holds: self.holds.since(&last.holds),
            lags: self.lags.since(&last.lags),
        }
    }
}

fn method(method: i32) -> Method {
    match link::Method::try_from(method).unwrap_or_default() {
        link::Method::Other => Method::Other,
        link::Method::Get => Method::Get,
        link::Method::Head => Method::Head,
        link::Method::Post => Method::Post,
        link::Method::Put => Method::Put,
        link::Method::Delete => Method::Delete,
        link::Method::Connect => Method::Connect,
        link::Method::Options => Method::Options,
        link::Method::Trace => Method::Trace,
        link::Method::Patch => Method::Patch,
    }
}
