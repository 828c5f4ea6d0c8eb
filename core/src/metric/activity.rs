//! Whether anybody wants the app.

use crate::time::Instant;
use std::time::Duration;

/// A route is active while something waits or is under way, and for a while after a request came.
///
/// The while has nothing to do with the metric that is scaled by: a held request wakes a route that is scaled
/// by its request rate alone, and idleness is not silently prolonged by that rate's window.
#[derive(Clone, Copy, Debug)]
pub struct Activity {
    window: Duration,
    in_flight: u64,
    last: Option<Instant>,
}

impl Activity {
    /// A route that nobody has asked for. A request keeps it active for `window`, at least as long as KEDA takes
    /// between two polls: otherwise a request between them would be seen by the stream alone.
    pub fn new(window: Duration) -> Self {
        Self { window, in_flight: 0, last: None }
    }

    /// `arrivals` requests came since the last time, and `in_flight` are under way or waiting now.
    pub fn observe(&mut self, now: Instant, arrivals: u64, in_flight: u64) {
        // What was under way until now is as good as an arrival: a stream of an hour ends, and the app is idle
        // from then on, not from its beginning.
        if arrivals > 0 || in_flight > 0 || self.in_flight > 0 {
            self.last = Some(self.last.map_or(now, |last| last.max(now)));
        }
        self.in_flight = in_flight;
    }

    /// Whether it is active.
    pub fn is_active(&self, now: Instant) -> bool {
        self.in_flight > 0 || self.last.is_some_and(|last| now < last.after(self.window))
    }

    /// When it stops being active if nothing more comes. `None`: it is not active, or something is under way.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        if self.in_flight > 0 {
            return None;
        }
        self.last.map(|last| last.after(self.window)).filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    #[test]
    fn a_request_that_is_over_before_anybody_looks_keeps_it_active_for_the_window() {
        let mut activity = Activity::new(Duration::from_secs(30));
        assert!(!activity.is_active(at(0)));
        assert_eq!(activity.until(at(0)), None);
        activity.observe(at(10), 1, 0);
        assert!(activity.is_active(at(39)));
        assert_eq!(activity.until(at(11)), Some(at(40)));
        assert!(!activity.is_active(at(40)));
        assert_eq!(activity.until(at(40)), None);
    }

    #[test]
    fn what_is_under_way_keeps_it_active_and_the_window_begins_at_its_end() {
        let mut activity = Activity::new(Duration::from_secs(30));
        activity.observe(at(0), 1, 1);
        assert!(activity.is_active(at(100_000)));
        assert_eq!(activity.until(at(100_000)), None);
        activity.observe(at(100_000), 0, 0);
        assert!(activity.is_active(at(100_029)));
        assert!(!activity.is_active(at(100_030)));
    }

    #[test]
    fn nothing_is_nothing() {
        let mut activity = Activity::new(Duration::from_secs(30));
        activity.observe(at(5), 0, 0);
        assert!(!activity.is_active(at(5)));
    }
}
