//! Requests per granularity, averaged over a sliding window.

use crate::time::{Instant, nanos};
use std::{collections::VecDeque, time::Duration};

/// Into how many parts the window is divided. The oldest part counts by the share of it that is still inside, so
/// the value moves smoothly; and the memory is the same for a minute as for a day.
const PARTS: u64 = 60;

/// A window and the granularity that gives the value its unit: at least a second each, the window the longer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSpec {
    window: Duration,
    granularity: Duration,
}

/// What is wrong with a window or granularity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateSpecError {
    /// The granularity is too short: the add-on divides by its whole seconds.
    #[error("requestRate.granularity is {0:?}; make it 1s or longer")]
    Granularity(Duration),
    /// The window is shorter than the granularity.
    #[error(
        "requestRate.window is {window:?}, shorter than the granularity {granularity:?}; make it at least as long"
    )]
    Window {
        /// The window.
        window: Duration,
        /// The granularity.
        granularity: Duration,
    },
    /// The window is longer than anybody waits for an app to be scaled.
    #[error("requestRate.window is {0:?}; make it 24h or shorter")]
    TooLong(Duration),
}

/// Arrivals in a sliding window.
#[derive(Clone, Debug)]
pub struct RateWindow {
    spec: RateSpec,
    /// When counting began: before, there were no requests that anybody knows of.
    since: Instant,
    /// How many came in each part that had any, by the part's number since the clock's origin.
    parts: VecDeque<(u64, u64)>,
}

// === impl RateSpec ===

impl RateSpec {
    /// The longest window.
    pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// # Errors
    /// Unless 1 s ≤ `granularity` ≤ `window` ≤ 24 h.
    pub fn new(window: Duration, granularity: Duration) -> Result<Self, RateSpecError> {
        if granularity < Duration::from_secs(1) {
            return Err(RateSpecError::Granularity(granularity));
        }
        if window < granularity {
            return Err(RateSpecError::Window { window, granularity });
        }
        if window > Self::LONGEST {
            return Err(RateSpecError::TooLong(window));
        }
        Ok(Self { window, granularity })
    }

    /// The window.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// The granularity.
    pub fn granularity(&self) -> Duration {
        self.granularity
    }

    fn part(&self) -> u64 {
        // A window is at least a second.
        nanos(self.window).checked_div(PARTS).unwrap_or(1).max(1)
    }
}

impl Default for RateSpec {
    /// The add-on's: a minute in seconds.
    fn default() -> Self {
        Self { window: Duration::from_secs(60), granularity: Duration::from_secs(1) }
    }
}

// === impl RateWindow ===

impl RateWindow {
    /// A window that begins now.
    pub fn new(now: Instant, spec: RateSpec) -> Self {
        Self { spec, since: now, parts: VecDeque::new() }
    }

    /// The window and granularity.
    pub fn spec(&self) -> RateSpec {
        self.spec
    }

    /// `arrivals` requests came since the last time.
    pub fn add(&mut self, now: Instant, arrivals: u64) {
        self.forget(now);
        if arrivals == 0 {
            return;
        }
        let part = self.number(now);
        match self.parts.back_mut() {
            // A clock that goes back adds to the newest part.
            Some((last, count)) if *last >= part => *count = count.saturating_add(arrivals),
            _ => self.parts.push_back((part, arrivals)),
        }
    }

    /// Requests per granularity, averaged over the window, or over the time since counting began while that is
    /// shorter (but never over less than a granularity: the first request is not a burst). Zero exactly if no
    /// request came within the window.
    pub fn value(&mut self, now: Instant) -> f64 {
        self.forget(now);
        let part = self.spec.part();
        let begin = now.as_nanos().saturating_sub(nanos(self.spec.window));
        let total: f64 = self
            .parts
            .iter()
            .map(|(number, count)| {
                let start = number.saturating_mul(part);
                let end = start.saturating_add(part);
                let inside = end.saturating_sub(begin.max(start)).min(part);
                *count as f64 * (inside as f64 / part as f64)
            })
            .sum();
        let observed = now.since(self.since).clamp(self.spec.granularity, self.spec.window);
        total * self.spec.granularity.as_secs_f64() / observed.as_secs_f64()
    }

    /// Another window or granularity. What is known of the past stays, as far as the new window reaches.
    pub fn set_spec(&mut self, now: Instant, spec: RateSpec) {
        if spec == self.spec {
            return;
        }
        self.forget(now);
        let (old, new) = (self.spec.part(), spec.part());
        self.spec = spec;
        let mut parts: VecDeque<(u64, u64)> = VecDeque::new();
        for (number, count) in self.parts.drain(..) {
            // A part goes where its middle lies.
            let middle = number.saturating_mul(old).saturating_add(old >> 1);
            let number = middle.checked_div(new).unwrap_or(0);
            match parts.back_mut() {
                Some((last, sum)) if *last >= number => *sum = sum.saturating_add(count),
                _ => parts.push_back((number, count)),
            }
        }
        self.parts = parts;
        self.forget(now);
    }

    fn number(&self, at: Instant) -> u64 {
        at.as_nanos().checked_div(self.spec.part()).unwrap_or(0)
    }

    /// Drops the parts that ended before the window.
    fn forget(&mut self, now: Instant) {
        let part = self.spec.part();
        let begin = now.as_nanos().saturating_sub(nanos(self.spec.window));
        while self
            .parts
            .front()
            .is_some_and(|(number, _)| number.saturating_add(1).saturating_mul(part) <= begin)
        {
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
