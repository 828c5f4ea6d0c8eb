//! A worker's report, read where it lies.
//!
//! Thousands of workers name hundreds of routes each, several times a second. So no message of its own is made of a
//! route: a report's bytes are checked once, when they come, and read when they are counted; neither takes memory,
//! however long the report is. What is read here is what the filter's encoder writes, fields in the order of their
//! numbers, and whatever fields a later version adds after them. Bytes of any other shape are prost's, which decides
//! whether they are a report at all and writes it anew ([`Report::of`]).

use super::{
    fields::{self, Value},
    histogram::Buckets,
    last::{DURATION_BUCKETS, HOLD_BUCKETS, LAG_BUCKETS},
};
use bytes::Bytes;
use prost::Message as _;
use sluice_proto::link;

/// The fields of `Report`.
const SEQUENCE: u32 = 1;
const COMPLETE: u32 = 2;
const ROUTES: u32 = 3;
/// The first and the last of `RouteCounts` that every route has.
const ROUTE: u32 = 1;
const CONCURRENCY: u32 = 5;
/// The last one of `RouteCounts`.
const COMPLETIONS: u32 = 14;

/// A report whose bytes have been checked.
#[derive(Clone, Debug)]
pub struct Report {
    sequence: u64,
    complete: bool,
    body: Bytes,
}

/// What is said of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said<'a> {
    pub(super) route: u64,
    pub(super) in_flight: u32,
    pub(super) held: u32,
    pub(super) arrivals: u64,
    pub(super) concurrency_us: u64,
    /// The fields that follow.
    more: &'a [u8],
}

/// What is said of a route that is cold or misled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SaidRare {
    pub(super) cold_starts: u64,
    pub(super) rejections: u64,
    pub(super) expirations: u64,
    pub(super) mismatches: u64,
    pub(super) holds: SaidBuckets<HOLD_BUCKETS>,
    pub(super) hold_us: u64,
    pub(super) lags: SaidBuckets<LAG_BUCKETS>,
    pub(super) lag_us: u64,
}

/// What is said of requests that ended one way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SaidEnding {
    pub(super) method: i32,
    pub(super) code: u32,
    pub(super) durations: SaidBuckets<DURATION_BUCKETS>,
    pub(super) duration_us: u64,
}

/// A histogram's counts, of whatever number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SaidBuckets<const N: usize> {
    counts: [u64; N],
    len: usize,
}

/// The routes of a report, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Routes<'a>(&'a [u8]);

/// How a route's requests ended, one way after the other.
#[derive(Clone, Debug)]
pub(super) struct Endings<'a>(&'a [u8]);

// === impl Report ===

impl Report {
    /// The report with these bytes (a `Report` without the message around it), if they are of the usual shape.
    pub fn read(body: Bytes) -> Option<Self> {
        let (mut sequence, mut complete) = (0, false);
        let mut rest: &[u8] = &body;
        while !rest.is_empty() {
            match fields::take(&mut rest)? {
                (SEQUENCE, Value::Varint(value)) => sequence = value,
                (COMPLETE, Value::Varint(value)) => complete = value != 0,
                (ROUTES, Value::Bytes(route)) => Said::read(route)?.check()?,
                (SEQUENCE | COMPLETE | ROUTES, _) => return None,
                _ => {}
            }
        }
        Some(Self { sequence, complete, body })
    }

    /// The same report as bytes.
    pub fn of(report: &link::Report) -> Option<Self> {
        Self::read(report.encode_to_vec().into())
    }

    /// Its number in its stream.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether routes that it does not name are zero.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn routes(&self) -> Routes<'_> {
        Routes(&self.body)
    }
}

// === impl Routes ===

impl<'a> Iterator for Routes<'a> {
    type Item = Said<'a>;

    fn next(&mut self) -> Option<Said<'a>> {
        loop {
            if let (ROUTES, Value::Bytes(route)) = fields::take(&mut self.0)? {
                return Said::read(route);
            }
        }
    }
}

// === impl Said ===

impl<'a> Said<'a> {
    fn read(mut rest: &'a [u8]) -> Option<Self> {
        let mut said = Self::default();
        while !rest.is_empty() {
            let more = rest;
            match fields::take(&mut rest)? {
                (1, Value::Fixed64(value)) => said.route = value,
                // As prost does: what does not fit is cut off.
                (2, Value::Varint(value)) => said.in_flight = value as u32,
                (3, Value::Varint(value)) => said.held = value as u32,
                (4, Value::Varint(value)) => said.arrivals = value,
                (5, Value::Varint(value)) => said.concurrency_us = value,
                (ROUTE..=CONCURRENCY, _) => return None,
                _ => {
                    said.more = more;
                    break;
                }
            }
        }
        Some(said)
    }

    /// Whether all that follows can be read; else it would be lost where it is read.
    fn check(&self) -> Option<()> {
        let (mut rest, mut is_ending) = (self.more, false);
        while !rest.is_empty() {
            match fields::take(&mut rest)? {
                (6..=13, Value::Varint(_)) if !is_ending => {}
                (10 | 12, Value::Bytes(packed)) if !is_ending => check_packed(packed)?,
                (COMPLETIONS, Value::Bytes(ending)) => {
                    is_ending = true;
                    check_ending(ending)?;
                }
                (ROUTE..=COMPLETIONS, _) => return None,
                // Of a later version.
                _ => is_ending = true,
            }
        }
        Some(())
    }

    /// How its requests ended; what else there is goes into `rare`.
    pub(super) fn more(&self, rare: &mut Option<SaidRare>) -> Endings<'a> {
        let mut rest = self.more;
        loop {
            let endings = Endings(rest);
            let Some((number @ 1..COMPLETIONS, value)) = fields::take(&mut rest) else { return endings };
            rare.get_or_insert_default().set(number, value);
        }
    }
}

fn check_packed(mut packed: &[u8]) -> Option<()> {
    // Bytes that are all small are numbers each.
    if packed.iter().any(|byte| *byte > 0x7f) {
        while !packed.is_empty() {
            fields::varint(&mut packed)?;
        }
    }
    Some(())
}

fn check_ending(mut rest: &[u8]) -> Option<()> {
    while !rest.is_empty() {
        match fields::take(&mut rest)? {
            (1..=5, Value::Varint(_)) => {}
            (4, Value::Bytes(packed)) => check_packed(packed)?,
            (1..=5, _) => return None,
            _ => {}
        }
    }
    Some(())
}

// === impl SaidRare ===

impl SaidRare {
    fn set(&mut self, number: u32, value: Value<'_>) {
        let field = match number {
            6 => &mut self.cold_starts,
            7 => &mut self.rejections,
            8 => &mut self.expirations,
            9 => &mut self.mismatches,
            10 => return self.holds.add(value),
            11 => &mut self.hold_us,
            12 => return self.lags.add(value),
            13 => &mut self.lag_us,
            _ => return,
        };
        if let Value::Varint(value) = value {
            *field = value;
        }
    }
}

// === impl Endings ===

impl Iterator for Endings<'_> {
    type Item = SaidEnding;

    fn next(&mut self) -> Option<SaidEnding> {
        loop {
            if let (COMPLETIONS, Value::Bytes(ending)) = fields::take(&mut self.0)? {
                return Some(SaidEnding::read(ending));
            }
        }
    }
}

// === impl SaidEnding ===

impl SaidEnding {
    fn read(mut rest: &[u8]) -> Self {
        let mut said = Self::default();
        while let Some((number, value)) = fields::take(&mut rest) {
            match (number, value) {
                (1, Value::Varint(value)) => said.method = value as i32,
                (2, Value::Varint(value)) => said.code = value as u32,
                (4, value) => said.durations.add(value),
                (5, Value::Varint(value)) => said.duration_us = value,
                // 3: the sum of the counts.
                _ => {}
            }
        }
        said
    }
}

// === impl SaidBuckets ===

impl<const N: usize> Default for SaidBuckets<N> {
    fn default() -> Self {
        Self { counts: [0; N], len: 0 }
    }
}

impl<const N: usize> SaidBuckets<N> {
    /// A list may come in pieces, and each of them packed or a single number.
    fn add(&mut self, value: Value<'_>) {
        match value {
            Value::Varint(count) => self.push(count),
            Value::Bytes(mut packed) => {
                while let Some(count) = fields::varint(&mut packed) {
                    self.push(count);
                }
            }
            Value::Fixed64(_) | Value::Fixed32 => {}
        }
    }

    fn push(&mut self, count: u64) {
        if let Some(place) = self.counts.get_mut(self.len) {
            *place = count;
        }
        self.len += 1;
    }

    /// The histogram. No counts at all are one without observations; `None`: another number of buckets than ours,
    /// from a filter of another version.
    pub(super) fn whole(self, sum_us: u64) -> Option<Buckets<N>> {
        (self.len == 0 || self.len == N).then_some(Buckets { counts: self.counts, sum_us })
    }
}

#[cfg(test)]
mod tests;
