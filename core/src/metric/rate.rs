//! Requests per granularity, averaged over a sliding window.

use crate::time::{Instant, nanos};
use std::{collections::VecDeque, time::Duration};

/// Into how many parts the window is divided. The oldest part counts by the share of it that is still inside,
/// so the value moves smoothly; and the memory is the same for a minute as for a day.
const PARTS: u32 = 60;

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
    /// Before, there were no requests that anybody knows of.
    since: Instant,
    /// The oldest first; none of them empty.
    parts: VecDeque<Part>,
}

/// Arrivals that are close together, taken to be spread evenly between the first and the last. Both are kept,
/// so that the last request leaves the window when it should and not with a bucket's end.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: Instant,
    last: Instant,
    count: u64,
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

    /// How long a part is at most.
    fn part(&self) -> Duration {
        self.window.checked_div(PARTS).unwrap_or(self.window)
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
        if arrivals > 0 {
            self.push(Part { first: now, last: now, count: arrivals });
        }
    }

    /// Requests per granularity, averaged over the window, or over the time since counting began while that is
    /// shorter (but never over less than a granularity: the first request is not a burst). Zero exactly if no
    /// request came within the window.
    pub fn value(&self, now: Instant) -> f64 {
        let total: f64 = self.parts.iter().map(|part| part.within(now, self.spec.window)).sum();
        let observed = now.since(self.since).max(self.spec.granularity).min(self.spec.window);
        total * self.spec.granularity.as_secs_f64() / observed.as_secs_f64()
    }

    /// Another window or granularity. What is known of the past stays; where the new window reaches further
    /// back than that, the value is averaged over what is known.
    pub fn set_spec(&mut self, now: Instant, spec: RateSpec) {
        if spec == self.spec {
            return;
        }
        self.forget(now);
        let known = now.as_nanos().saturating_sub(nanos(self.spec.window));
        self.since = self.since.max(Instant::from_nanos(known));
        self.spec = spec;
        for part in std::mem::take(&mut self.parts) {
            self.push(part);
        }
        self.forget(now);
    }

    /// Joins `part` to the newest one if they are close enough.
    fn push(&mut self, part: Part) {
        match self.parts.back_mut() {
            // A clock that goes back adds to the newest part too.
            Some(newest) if part.last.since(newest.first) < self.spec.part() => {
                newest.last = newest.last.max(part.last);
                newest.count = newest.count.saturating_add(part.count);
            }
            _ => self.parts.push_back(part),
        }
    }

    /// Drops what has left the window.
    fn forget(&mut self, now: Instant) {
        while self.parts.front().is_some_and(|part| now.since(part.last) >= self.spec.window) {
            self.parts.pop_front();
        }
    }
}

// === impl Part ===

impl Part {
    /// How many of its arrivals are younger than `window`.
    fn within(&self, now: Instant, window: Duration) -> f64 {
        let (oldest, youngest) = (now.since(self.first), now.since(self.last));
        if youngest >= window {
            return 0.0;
        }
        if oldest < window {
            return self.count as f64;
        }
        let inside = window.saturating_sub(youngest).as_secs_f64();
        self.count as f64 * (inside / oldest.saturating_sub(youngest).as_secs_f64())
    }
}

#[cfg(test)]
mod tests;
