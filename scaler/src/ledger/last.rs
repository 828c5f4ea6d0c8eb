//! What a worker said last of a route, and what is new in what it says now.
//!
//! There is one of these per worker and route: of two thousand workers and ten thousand routes, twenty million if
//! all of them see traffic. What most routes never have is therefore kept apart.

use super::{
    Ignored,
    endings::{Ending, Packed},
    histogram::Buckets,
};
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
    endings: Packed,
}

/// Room to work in, for one line after the other.
#[derive(Debug, Default)]
pub(super) struct Room {
    news: News,
    endings: Vec<Ending>,
    packed: Vec<u8>,
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
    pub(super) fn update<'a>(
        &mut self,
        said: &link::RouteCounts,
        is_baseline: bool,
        ignored: &Ignored,
        room: &'a mut Room,
    ) -> &'a News {
        let Room { news, endings, packed } = room;
        news.clear(said.in_flight, said.held.min(said.in_flight));
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
        if !said.completions.is_empty() {
            self.endings.unpack(endings);
            for said in said.completions.iter().take(MAX_COMPLETIONS + 1) {
                let now = Buckets::read(&said.duration_buckets, said.duration_us);
                // A label's values must not be a gateway's choice: three digits are a code, or 0 for none.
                let code = u16::try_from(said.code).ok().filter(|code| matches!(code, 0 | 100..=999));
                let (Some(code), Some(now)) = (code, now) else {
                    ignored.histograms.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                let completion = Completion { method: method(said.method), code };
                let Some(known) = Ending::of(endings, completion, MAX_COMPLETIONS + 1) else { continue };
                let new = known.update(&now);
                if new.count() > 0 {
                    news.completions.push((completion, new));
                }
            }
            self.endings.pack(endings, packed);
        }
        if is_baseline {
            news.clear(news.in_flight, news.held);
        }
        news
    }
}

// === impl News ===

impl News {
    /// Nothing new but what is under way.
    fn clear(&mut self, in_flight: u32, held: u32) {
        let mut completions = std::mem::take(&mut self.completions);
        completions.clear();
        *self = Self { in_flight, held, completions, ..Self::default() };
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
