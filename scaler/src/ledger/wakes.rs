//! An app's last wakes: how long each of them waited for the gateways' endpoints, and how long its requests were held.
//!
//! Histograms only grow: a delay that somebody has mended stays in them. What is to be said of an object has to be of now.

use super::histogram::Buckets;
use std::time::Duration;

/// How many wakes are remembered.
const WAKES: usize = 5;

/// The last wakes, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Wakes {
    last: Vec<Wake>,
}

/// One of them, over all workers that had requests waiting.
#[derive(Clone, Copy, Debug, Default)]
struct Wake {
    /// How often the app had gone down before.
    downs: u64,
    lags: u64,
    lag_us: u64,
    holds: u64,
    hold_us: u64,
}

/// How long the last wakes waited for the gateways' endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// How many wakes this is about.
    pub wakes: usize,
    /// From "ready" to a worker's own cluster usable: each wake's mean, and the median of those.
    pub lag: Duration,
    /// How long requests were held in these wakes, the lag included: the mean. `None`: none was released.
    pub hold: Option<Duration>,
}

// === impl Wakes ===

impl Wakes {
    /// A worker has said so of the wake after the app was down that often.
    pub(super) fn add<const L: usize, const H: usize>(
        &mut self,
        downs: u64,
        lags: &Buckets<L>,
        holds: &Buckets<H>,
    ) {
        // Requests are held for other reasons, too: without a lag it is not a wake that one could tell of.
        if self.last.last().is_none_or(|wake| wake.downs != downs) && lags.count() > 0 {
            if self.last.len() == WAKES {
                self.last.remove(0);
            }
            self.last.push(Wake { downs, ..Wake::default() });
        }
        if let Some(wake) = self.last.last_mut().filter(|wake| wake.downs == downs) {
            wake.lags = wake.lags.saturating_add(lags.count());
            wake.lag_us = wake.lag_us.saturating_add(lags.sum_us);
            wake.holds = wake.holds.saturating_add(holds.count());
            wake.hold_us = wake.hold_us.saturating_add(holds.sum_us);
        }
    }

    /// All of them together.
    pub(super) fn lag(&self) -> Option<Lag> {
        let mut means: Vec<u64> = self.last.iter().filter_map(|it| it.lag_us.checked_div(it.lags)).collect();
        means.sort_unstable();
        // Of two in the middle the shorter one: in doubt nothing is wrong.
        let median = means.get(means.len().checked_sub(1)? / 2)?;
        let sum = |of: fn(&Wake) -> u64| self.last.iter().map(of).fold(0, u64::saturating_add);
        Some(Lag {
            wakes: means.len(),
            lag: Duration::from_micros(*median),
            hold: sum(|it| it.hold_us).checked_div(sum(|it| it.holds)).map(Duration::from_micros),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(count: u64, sum_ms: u64) -> Buckets<2> {
        Buckets { counts: [0, count], sum_us: sum_ms * 1_000 }
    }

    fn lag(wakes: usize, lag_ms: u64, hold_ms: u64) -> Option<Lag> {
        let hold = Some(Duration::from_millis(hold_ms));
        Some(Lag { wakes, lag: Duration::from_millis(lag_ms), hold })
    }

    #[test]
    fn a_wakes_workers_are_one_wake() {
        let mut wakes = Wakes::default();
        assert_eq!(wakes.lag(), None);
        wakes.add(0, &buckets(1, 100), &buckets(2, 1_000));
        wakes.add(0, &buckets(1, 110), &buckets(0, 0));
        wakes.add(0, &buckets(0, 0), &buckets(2, 3_000));
        assert_eq!(wakes.lag(), lag(1, 105, 1_000));
    }

    #[test]
    fn one_slow_wake_does_not_decide_and_old_ones_are_forgotten() {
        let mut wakes = Wakes::default();
        for (downs, ms) in [(0, 9_000), (1, 100), (2, 102)] {
            wakes.add(downs, &buckets(1, ms), &buckets(1, 2_000));
        }
        assert_eq!(wakes.lag(), lag(3, 102, 2_000));
        for downs in 3..8 {
            wakes.add(downs, &buckets(1, downs), &buckets(1, 50));
        }
        assert_eq!(wakes.lag(), lag(5, 5, 50));
    }

    #[test]
    fn holds_without_a_wake_are_not_counted() {
        let mut wakes = Wakes::default();
        wakes.add(0, &buckets(1, 10), &buckets(0, 0));
        assert_eq!(wakes.lag().unwrap().hold, None);
        // The next time down, a request was held and released though no worker could say how long it took.
        wakes.add(1, &buckets(0, 0), &buckets(1, 60_000));
        assert_eq!(wakes.lag().unwrap().hold, None);
        assert_eq!(wakes.lag().unwrap().wakes, 1);
    }
}
