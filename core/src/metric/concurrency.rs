//! Requests under way, averaged over time.

use crate::time::{Instant, micros};
use std::{collections::VecDeque, time::Duration};

/// Into how many parts the window is divided.
const PARTS: u32 = 20;

/// The mean of a route's concurrency over a sliding window.
///
/// The add-on tells a gauge, read twice a second: a request of 50 ms is then missed nine times of ten, and a
/// burst at the wrong moment counts as if it lasted. The mean is what that gauge is on average, without the noise;
/// what waits counts in full besides, since nothing will serve it before there are more replicas.
#[derive(Clone, Debug)]
pub struct ConcurrencyWindow {
    window: Duration,
    /// Request-microseconds and how long they took, the newest last.
    parts: VecDeque<Part>,
    in_flight: u64,
    held: u64,
    told: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    from: Instant,
    until: Instant,
    request_us: f64,
}

impl ConcurrencyWindow {
    /// How far back KEDA's polls and the HPA's reads look: below the HPA's 15 s between two reads, so that each
    /// read is of its own time.
    pub const DEFAULT: Duration = Duration::from_secs(10);

    /// A window in which nothing is under way.
    pub fn new(now: Instant, window: Duration) -> Self {
        let window = window.max(Duration::from_millis(100));
        Self { window, parts: VecDeque::new(), in_flight: 0, held: 0, told: now }
    }

    /// Since the last time `request_us` request-microseconds have passed, and now `in_flight` requests are under
    /// way, `held` of which wait.
    ///
    /// Between two tellings the gauge is taken to stand still; what it was taken for is corrected by the next.
    pub fn observe(&mut self, now: Instant, request_us: u64, in_flight: u64, held: u64) {
        self.add(now, request_us as f64);
        self.in_flight = in_flight;
        self.held = held;
    }

    /// The higher one of the mean and what waits now. Zero exactly if nothing was under way during the window.
    pub fn value(&self, now: Instant) -> f64 {
        let now = now.max(self.told);
        let begin = Instant::from_nanos(now.as_nanos().saturating_sub(crate::time::nanos(self.window)));
        let told: f64 = self.parts.iter().map(|part| part.since(begin)).sum();
        let still = now.since(self.told.max(begin));
        let standing = self.in_flight as f64 * micros(still) as f64;
        let mean = (told + standing) / micros(self.window) as f64;
        mean.max(self.held as f64)
    }

    /// Requests under way now.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    fn add(&mut self, now: Instant, request_us: f64) {
        let now = now.max(self.told);
        let begin = Instant::from_nanos(now.as_nanos().saturating_sub(crate::time::nanos(self.window)));
        while self.parts.front().is_some_and(|part| part.until <= begin) {
            self.parts.pop_front();
        }
        let from = std::mem::replace(&mut self.told, now);
        if request_us <= 0.0 {
            return;
        }
        let part = self.window.checked_div(PARTS).unwrap_or(self.window);
        match self.parts.back_mut() {
            Some(last) if now.since(last.from) <= part || now == from => {
                last.until = now;
                last.request_us += request_us;
            }
            _ => self.parts.push_back(Part { from, until: now, request_us }),
        }
    }
}

impl Part {
    /// What of it lies after `begin`.
    fn since(&self, begin: Instant) -> f64 {
        let whole = self.until.since(self.from).as_secs_f64();
        let inside = self.until.since(self.from.max(begin)).as_secs_f64();
        if whole <= 0.0 {
            return if self.until > begin { self.request_us } else { 0.0 };
        }
        self.request_us * (inside / whole).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(3_000_000_000 + ms * 1_000_000)
    }

    fn window() -> ConcurrencyWindow {
        ConcurrencyWindow::new(at(0), ConcurrencyWindow::DEFAULT)
    }

    #[test]
    fn ten_requests_a_second_of_half_a_second_are_five() {
        let mut window = window();
        for tick in 1..=80 {
            window.observe(at(tick * 250), 1_250_000, 5, 0);
        }
        let value = window.value(at(20_000));
        assert!((value - 5.0).abs() < 0.01, "{value}");
    }

    #[test]
    fn a_request_between_two_tellings_is_seen_until_the_window_has_passed() {
        let mut window = window();
        window.observe(at(250), 3_000, 0, 0);
        let value = window.value(at(250));
        assert!(value > 0.0 && value < 0.001, "{value}");
        assert!(window.value(at(10_200)) > 0.0);
        assert_eq!(window.value(at(10_300)), 0.0);
    }

    #[test]
    fn a_gauge_that_stands_still_needs_no_telling() {
        let mut window = window();
        window.observe(at(0), 0, 3, 0);
        assert!((window.value(at(5_000)) - 1.5).abs() < 0.001);
        assert!((window.value(at(60_000)) - 3.0).abs() < 0.001);
        window.observe(at(60_000), 180_000_000, 3, 0);
        assert!((window.value(at(60_000)) - 3.0).abs() < 0.001);
    }

    #[test]
    fn what_waits_counts_at_once_and_in_full() {
        let mut window = window();
        window.observe(at(1), 0, 40, 40);
        assert_eq!(window.value(at(2)), 40.0);
        window.observe(at(20), 700_000, 0, 0);
        assert!(window.value(at(20)) < 1.0);
    }

    #[test]
    fn tellings_at_one_moment_lose_nothing() {
        let mut window = window();
        window.observe(at(100), 50_000, 1, 0);
        window.observe(at(100), 50_000, 1, 0);
        assert!((window.value(at(100)) - 0.01).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn it_is_a_number_and_of_bounded_size(
            events in prop::collection::vec((0..3_000u64, 0..1_000_000u64, 0..1_000u64, 0..10u64), 0..80),
        ) {
            let mut window = window();
            let mut now = 0;
            for (passed, request_us, in_flight, held) in events {
                now += passed;
                window.observe(at(now), request_us, in_flight, held.min(in_flight));
                let value = window.value(at(now + passed));
                prop_assert!(value.is_finite() && value >= held.min(in_flight) as f64);
                prop_assert!(window.parts.len() <= 2 * PARTS as usize + 2);
            }
            window.observe(at(now), 0, 0, 0);
            prop_assert_eq!(window.value(at(now + 10_001)), 0.0);
        }
    }
}
