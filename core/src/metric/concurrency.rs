//! Requests under way, averaged over time.

use crate::time::{Instant, nanos};
use std::time::Duration;

/// Into how many parts the window is divided; the oldest counts by the share of it that is still inside.
const PARTS: u32 = 20;
/// The parts of a window that does not begin with a part: one more.
const KEPT: usize = PARTS as usize + 1;
/// Over less than this nothing is averaged: the first moments of a window say nothing.
const LEAST: Duration = Duration::from_secs(1);

/// The mean of a route's concurrency over a sliding window, over all workers.
///
/// The add-on tells a gauge, read twice a second: a request of 50 ms is then missed nine times of ten, and a
/// burst at the wrong moment counts as if it lasted. The mean is what that gauge is on average, without the
/// noise; what waits counts in full besides, since nothing will serve it before there are more replicas.
///
/// A worker that has nothing new to say is silent: what it had under way is taken to go on, until its next
/// word corrects that.
#[derive(Clone, Debug)]
pub struct ConcurrencyWindow {
    window: Duration,
    since: Instant,
    /// Request-nanoseconds of the last parts of the time until `until`, each at its number modulo [`KEPT`].
    parts: [f64; KEPT],
    until: Instant,
    in_flight: u64,
    held: u64,
}

/// What one worker adds to a [`ConcurrencyWindow`]: what it said last, and when.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    told: Instant,
    in_flight: u32,
    held: u32,
}

// === impl Share ===

impl Share {
    /// A worker that has said nothing yet: what comes counts from now on.
    pub fn new(now: Instant) -> Self {
        Self { told: now, in_flight: 0, held: 0 }
    }

    /// Requests under way there when it last spoke.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How many of them waited.
    pub fn held(&self) -> u32 {
        self.held
    }
}

// === impl ConcurrencyWindow ===

impl ConcurrencyWindow {
    /// How far back KEDA's polls and the HPA's reads look: less than the HPA's 15 s between two reads, so that
    /// each read is of its own time.
    pub const DEFAULT: Duration = Duration::from_secs(10);

    /// A window that begins now, with nothing under way. No window is shorter than a second.
    pub fn new(now: Instant, window: Duration) -> Self {
        Self { window: window.max(LEAST), since: now, parts: [0.0; KEPT], until: now, in_flight: 0, held: 0 }
    }

    /// A worker has said that `request_us` request-microseconds have passed since its last word, and that
    /// `in_flight` requests are under way there now, `held` of which wait.
    pub fn observe(&mut self, now: Instant, share: &mut Share, request_us: u64, in_flight: u32, held: u32) {
        let now = self.advance(now);
        let span = nanos(now.since(share.told));
        let from = share.told.max(self.kept_since(now));
        let inside = nanos(now.since(from)) as f64;
        let said = request_us as f64 * 1e3 * if span > 0 { inside / span as f64 } else { 1.0 };
        let believed = f64::from(share.in_flight) * inside;
        self.spread(from, now, said - believed);
        self.change(share, Share { told: now, in_flight, held });
    }

    /// A worker is gone, and what it had under way with it.
    pub fn leave(&mut self, now: Instant, mut share: Share) {
        let now = self.advance(now);
        self.change(&mut share, Share::new(now));
    }

    /// The higher one of the mean and what waits now. While the window is younger than it is long, the mean is
    /// over its age. Zero exactly if nothing was under way during the window.
    pub fn value(&self, now: Instant) -> f64 {
        self.mean(now).max(self.held as f64)
    }

    /// Requests under way now, those that wait included.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Requests that wait now.
    pub fn held(&self) -> u64 {
        self.held
    }

    fn mean(&self, now: Instant) -> f64 {
        let now = now.max(self.until);
        let begin = before(now, nanos(self.window));
        let (part, last) = (self.part(), self.number(self.until));
        let mut total = self.in_flight as f64 * nanos(now.since(self.until.max(begin))) as f64;
        for number in self.number(begin).max(oldest(last))..=last {
            let start = number.saturating_mul(part);
            let end = start.saturating_add(part).min(self.until.as_nanos());
            let inside = end.saturating_sub(start.max(begin.as_nanos()));
            // All of it, or what lies after the window's beginning.
            let share = if begin.as_nanos() <= start {
                1.0
            } else {
                inside as f64 / end.saturating_sub(start).max(1) as f64
            };
            total += self.get(number) * share;
        }
        // Integrals are told in whole request-microseconds: less than that is what rounding has left.
        if total < 500.0 {
            return 0.0;
        }
        total / nanos(now.since(self.since).max(LEAST).min(self.window)) as f64
    }

    /// Brings the parts up to `now`; gives the later one of the two.
    fn advance(&mut self, now: Instant) -> Instant {
        let from = self.until;
        let now = now.max(from);
        let (old, new) = (self.number(from), self.number(now));
        for number in old.saturating_add(1).max(oldest(new))..=new {
            self.change_part(number, |_| 0.0);
        }
        self.until = now;
        let from = from.max(self.kept_since(now));
        self.spread(from, now, self.in_flight as f64 * nanos(now.since(from)) as f64);
        now
    }

    /// Where the oldest part begins that is kept at `now`; never inside the window.
    fn kept_since(&self, now: Instant) -> Instant {
        Instant::from_nanos(oldest(self.number(now)).saturating_mul(self.part()))
    }

    /// Adds request-nanoseconds evenly to the time between `from` and `until`.
    fn spread(&mut self, from: Instant, until: Instant, amount: f64) {
        let (part, first, last) = (self.part(), self.number(from), self.number(until));
        let span = nanos(until.since(from));
        if span == 0 {
            self.change_part(last, |part| part + amount);
            return;
        }
        // There is a call of this for each route in each worker's report: no division in the loop.
        let each = amount / span as f64;
        let whole = each * part as f64;
        for number in first..=last {
            let share = if number > first && number < last {
                whole
            } else {
                let start = number.saturating_mul(part);
                let end = start.saturating_add(part);
                each * end.min(until.as_nanos()).saturating_sub(start.max(from.as_nanos())) as f64
            };
            self.change_part(number, |it| it + share);
        }
    }

    fn change(&mut self, share: &mut Share, to: Share) {
        let turn = |sum: u64, from: u32, to: u32| sum.saturating_sub(from.into()).saturating_add(to.into());
        self.in_flight = turn(self.in_flight, share.in_flight, to.in_flight);
        self.held = turn(self.held, share.held, to.held);
        *share = to;
    }

    /// How long a part is, in nanoseconds.
    fn part(&self) -> u64 {
        nanos(self.window).div_ceil(u64::from(PARTS)).max(1)
    }

    fn number(&self, at: Instant) -> u64 {
        at.as_nanos().checked_div(self.part()).unwrap_or(0)
    }

    fn get(&self, number: u64) -> f64 {
        self.parts.get(place(number)).copied().unwrap_or(0.0)
    }

    fn change_part(&mut self, number: u64, change: impl FnOnce(f64) -> f64) {
        if let Some(part) = self.parts.get_mut(place(number)) {
            *part = change(*part);
        }
    }
}

fn before(now: Instant, nanos: u64) -> Instant {
    Instant::from_nanos(now.as_nanos().saturating_sub(nanos))
}

/// The oldest part that is kept when `last` is the newest.
fn oldest(last: u64) -> u64 {
    last.saturating_sub(u64::from(PARTS))
}

/// Where a part is kept.
fn place(number: u64) -> usize {
    number.checked_rem(KEPT as u64).and_then(|place| usize::try_from(place).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
