//! What a worker said last of a route, and what is new in what it says now.
//!
//! There is one of these per worker and route: of two thousand workers and ten thousand routes, twenty million if
//! all of them see traffic. What most routes never have is therefore kept apart.

use super::{
    Ignored,
    endings::{Ending, Packed},
    histogram::Buckets,
    report::{Endings, Said, SaidEnding, SaidRare},
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
        said: &Said<'_>,
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

        let mut rare = None;
        let ended = said.more(&mut rare);
        if rare.is_some() || self.rare.is_some() {
            let rare = Rare::read(rare.unwrap_or_default(), ignored);
            if rare != Rare::default() || self.rare.is_some() {
                let last = self.rare.get_or_insert_default();
                let new = rare.since(last);
                if new != Rare::default() {
                    news.rare = Some(Box::new(new));
                }
                **last = rare;
            }
        }
        packed.clear();
        if !self.end_in_order(ended.clone(), news, packed) {
            packed.clear();
            news.completions.clear();
            self.end(ended, ignored, news, endings);
            endings.iter().for_each(|ending| ending.put(packed));
        }
        self.endings.set(packed);
        if is_baseline {
            news.clear(news.in_flight, news.held);
        }
        news
    }

    /// What is new of how requests ended, with what is to be kept as `packed`: if what is said are the kinds that
    /// were said before, in the same order. That is nearly always so, and needs no table of them.
    fn end_in_order(&self, said: Endings<'_>, news: &mut News, packed: &mut Vec<u8>) -> bool {
        let mut kept = self.endings.bytes();
        for said in said {
            let Some((completion, now)) = ending(said) else { return false };
            let known = Ending::take(&mut kept).filter(|known| known.completion() == completion);
            let Some(mut known) = known else { return false };
            let new = known.update(&now);
            if new.count() > 0 {
                news.completions.push((completion, new));
            }
            known.put(packed);
        }
        packed.extend_from_slice(kept);
        true
    }

    /// The same for any kinds, with what is to be kept as `endings`.
    fn end(&self, said: Endings<'_>, ignored: &Ignored, news: &mut News, endings: &mut Vec<Ending>) {
        endings.clear();
        let mut kept = self.endings.bytes();
        endings.extend(std::iter::from_fn(|| Ending::take(&mut kept)));
        for said in said.take(MAX_COMPLETIONS + 1) {
            let Some((completion, now)) = ending(said) else {
                ignored.histograms.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let Some(known) = Ending::of(endings, completion, MAX_COMPLETIONS + 1) else { continue };
            let new = known.update(&now);
            if new.count() > 0 {
                news.completions.push((completion, new));
            }
        }
    }
}

/// How requests ended, if that can be counted.
fn ending(said: SaidEnding) -> Option<(Completion, Buckets<DURATION_BUCKETS>)> {
    // A label's values must not be a gateway's choice: three digits are a code, or 0 for none.
    let code = u16::try_from(said.code).ok().filter(|code| matches!(code, 0 | 100..=999))?;
    let completion = Completion { method: method(said.method), code };
    Some((completion, said.durations.whole(said.duration_us)?))
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
    fn read(said: SaidRare, ignored: &Ignored) -> Self {
        let (holds, lags) = (said.holds.whole(said.hold_us), said.lags.whole(said.lag_us));
        let unlike = u64::from(holds.is_none()) + u64::from(lags.is_none());
        ignored.histograms.fetch_add(unlike, Ordering::Relaxed);
        Self {
            cold_starts: said.cold_starts,
            rejections: said.rejections,
            expirations: said.expirations,
            mismatches: said.mismatches,
            holds: holds.unwrap_or_default(),
            lags: lags.unwrap_or_default(),
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
