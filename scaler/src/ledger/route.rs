//! A route, added up over all workers.

use super::{
    histogram::Buckets,
    is_down,
    last::{DURATION_BUCKETS, HOLD_BUCKETS, LAG_BUCKETS, News},
    wakes::{Lag, Wakes},
};
use sluice_core::{
    count::Completion,
    gate::Hint,
    metric::{Activity, ConcurrencyWindow, RateSpec, RateWindow, Share},
    time::Instant,
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// How many pairs of method and code are told apart for one route.
const MAX_COMPLETIONS: usize = 256;

/// One route: what was counted, and who waits to hear of it.
#[derive(Debug)]
pub struct Route {
    tally: Mutex<Tally>,
    /// Changes whenever what [`Route::look`] says changes for another reason than time.
    edges: watch::Sender<u64>,
}

/// What was counted.
#[derive(Clone, Debug)]
pub struct Tally {
    /// What only grows.
    pub totals: Totals,
    /// The last ones, none as long as nobody waited.
    wakes: Option<Box<Wakes>>,
    activity: Activity,
    concurrency: ConcurrencyWindow,
    rate: RateWindow,
    /// An object stands for it.
    is_known: bool,
    hint: Hint,
    /// How often the target went down.
    downs: u64,
}

/// What only grows, since this scaler has known the route.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Requests that arrived.
    pub arrivals: u64,
    /// Requests held and released.
    pub cold_starts: u64,
    /// Requests refused because a limit was full.
    pub rejections: u64,
    /// Requests whose hold reached its deadline.
    pub expirations: u64,
    /// Requests that met the rules and went elsewhere.
    pub mismatches: u64,
    /// How long released requests were held.
    pub holds: Buckets<HOLD_BUCKETS>,
    /// How long after "ready" a worker's cluster became usable.
    pub lags: Buckets<LAG_BUCKETS>,
    /// How requests ended, and how long they took.
    pub completions: BTreeMap<Completion, Buckets<DURATION_BUCKETS>>,
}

/// What KEDA's stream needs to know of a route at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Somebody wants the app.
    pub is_active: bool,
    /// When that ends if nothing more comes; `None`: it does not end by itself, or is not so.
    pub until: Option<Instant>,
    /// Requests wait, and nothing is ready.
    pub is_waiting: bool,
    /// How often the target went down: a `true` that was told before the last time has done its work.
    pub downs: u64,
}

// === impl Route ===

impl Route {
    pub(super) fn new(now: Instant, activity_window: Duration) -> Self {
        Self {
            tally: Mutex::new(Tally {
                totals: Totals::default(),
                wakes: None,
                activity: Activity::new(activity_window),
                concurrency: ConcurrencyWindow::new(now, ConcurrencyWindow::DEFAULT),
                rate: RateWindow::new(now, RateSpec::default()),
                is_known: false,
                hint: Hint::Unknown,
                downs: 0,
            }),
            edges: watch::Sender::new(0),
        }
    }

    /// What was counted until now.
    pub fn tally(&self) -> Tally {
        self.lock().clone()
    }

    /// How many requests met its rules and went elsewhere.
    pub fn mismatches(&self) -> u64 {
        self.lock().totals.mismatches
    }

    /// What KEDA's stream needs to know.
    pub fn look(&self, now: Instant) -> Look {
        self.lock().look(now)
    }

    /// To be woken when [`Route::look`] says something else for another reason than time.
    pub fn edges(&self) -> watch::Receiver<u64> {
        self.edges.subscribe()
    }

    /// Requests under way, averaged over the last seconds, or what waits now where that is more.
    pub fn concurrency(&self, now: Instant) -> f64 {
        self.lock().concurrency.value(now)
    }

    /// How long the last wakes waited for the gateways' endpoints; `None`: nobody has yet.
    pub fn lag(&self) -> Option<Lag> {
        self.lock().wakes.as_ref()?.lag()
    }

    /// Requests per granularity, averaged over the window.
    pub fn rate(&self, now: Instant) -> f64 {
        self.lock().rate.value(now)
    }

    /// An object stands for it, with this hint for its target.
    pub(super) fn publish(&self, now: Instant, hint: Hint, rate: RateSpec) {
        self.change(now, |tally| {
            tally.is_known = true;
            tally.rate.set_spec(now, rate);
            tally.hint(hint);
        });
    }

    /// No object stands for it any more.
    pub(super) fn withdraw(&self, now: Instant) {
        self.change(now, |tally| {
            tally.is_known = false;
            tally.totals = Totals::default();
            tally.wakes = None;
            tally.hint(Hint::Unknown);
        });
    }

    pub(super) fn is_known(&self) -> bool {
        self.lock().is_known
    }

    /// A worker has said something new; `share` is what it had said before.
    pub(super) fn add(&self, now: Instant, share: &mut Share, news: &News) {
        self.change(now, |tally| tally.add(now, share, news));
    }

    /// A worker is gone, or has forgotten the route.
    pub(super) fn leave(&self, now: Instant, share: Share) {
        self.change(now, |tally| {
            tally.concurrency.leave(now, share);
            tally.activity.observe(now, 0, tally.concurrency.in_flight());
        });
    }

    fn change(&self, now: Instant, change: impl FnOnce(&mut Tally)) {
        let mut tally = self.lock();
        let before = tally.edge(now);
        change(&mut tally);
        let after = tally.edge(now);
        drop(tally);
        if before != after {
            self.edges.send_modify(|edges| *edges = edges.wrapping_add(1));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Tally ===

impl Tally {
    /// Requests under way, the held ones included.
    pub fn in_flight(&self) -> u64 {
        self.concurrency.in_flight()
    }

    /// Requests that wait.
    pub fn held(&self) -> u64 {
        self.concurrency.held()
    }

    fn is_waiting(&self) -> bool {
        self.held() > 0 && is_down(self.hint)
    }

    fn look(&self, now: Instant) -> Look {
        Look {
            is_active: self.activity.is_active(now),
            until: self.activity.until(now),
            is_waiting: self.is_waiting(),
            downs: self.downs,
        }
    }

    /// What has to change for somebody to be woken. Whether something is under way is part of it: from its end on
    /// there is a time at which activity ends.
    fn edge(&self, now: Instant) -> (bool, bool, bool, u64) {
        (self.activity.is_active(now), self.is_waiting(), self.in_flight() > 0, self.downs)
    }

    fn hint(&mut self, hint: Hint) {
        if is_down(hint) && !is_down(self.hint) {
            self.downs += 1;
        }
        self.hint = hint;
    }

    fn add(&mut self, now: Instant, share: &mut Share, news: &News) {
        self.concurrency.observe(now, share, news.concurrency_us, news.in_flight, news.held);
        self.activity.observe(now, news.arrivals, self.concurrency.in_flight());
        self.rate.add(now, news.arrivals);
        let totals = &mut self.totals;
        totals.arrivals = totals.arrivals.saturating_add(news.arrivals);
        if let Some(rare) = &news.rare {
            totals.cold_starts = totals.cold_starts.saturating_add(rare.cold_starts);
            totals.rejections = totals.rejections.saturating_add(rare.rejections);
            totals.expirations = totals.expirations.saturating_add(rare.expirations);
            totals.mismatches = totals.mismatches.saturating_add(rare.mismatches);
            totals.holds.add(&rare.holds);
            totals.lags.add(&rare.lags);
            if rare.lags.count() > 0 || self.wakes.is_some() {
                self.wakes.get_or_insert_default().add(self.downs, &rare.lags, &rare.holds);
            }
        }
        for (completion, durations) in &news.completions {
            // Nearly always it is known.
            if let Some(known) = totals.completions.get_mut(completion) {
                known.add(durations);
                continue;
            }
            let fits = totals.completions.len() < MAX_COMPLETIONS;
            let completion =
                if fits { *completion } else { Completion { method: completion.method, code: 0 } };
            totals.completions.entry(completion).or_default().add(durations);
        }
    }
}
