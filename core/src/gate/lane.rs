//! One route's one cluster: open or closed, and when to look.

use super::{
    queue::Queue,
    route::{Hint, Word},
};
use crate::{route::RouteId, time::Instant};
use std::time::Duration;

/// Between looks while the scaler says "ready": the cluster becomes usable within milliseconds where
/// endpoints are pushed at once, and within 100 ms of istiod's debounce.
const FAST: Duration = Duration::from_millis(2);
/// After how long of fast looks in vain they become slower, and how slow: something else is wrong then, and
/// a look is not free (10 to 50 µs).
const FAST_FOR: Duration = Duration::from_secs(1);
const FAST_IN_VAIN: Duration = Duration::from_millis(20);
/// Between looks while no scaler says anything: they are all there is then.
const ALONE: Duration = Duration::from_millis(25);
/// Between looks while the scaler says "not ready".
const SLOW: Duration = Duration::from_secs(1);
/// Between two batches of releases of one lane: the host's shortest tick.
const BATCH: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closed,
}

#[derive(Debug)]
pub(super) struct Lane {
    /// The route's slot; `u32::MAX` without a route table.
    pub(super) slot: u32,
    /// The route that had the slot when the lane was made: slots are given away again.
    pub(super) route: Option<RouteId>,
    pub(super) cluster: Box<[u8]>,
    pub(super) queue: Queue,
    /// Requests that were let through and have not ended.
    pub(super) forwarded: u32,
    pub(super) phase: Phase,
    /// The last moment at which the cluster was known to be good: a look, or the end of a forwarded request.
    pub(super) last_good: Instant,
    pub(super) next_look: Instant,
    /// How many of the queue's first streams have to be matched anew.
    pub(super) rematch: u32,
    /// The route is gone; so is the lane when its last request is.
    pub(super) orphaned: bool,
    /// Where the lane stands among those that are due.
    pub(super) due: Option<Instant>,
    /// Since when the scaler says "ready" and no look has agreed yet.
    awaited_since: Option<Instant>,
}

// === impl Lane ===

impl Lane {
    pub(super) fn new(slot: u32, route: Option<RouteId>, cluster: &[u8]) -> Self {
        Self {
            slot,
            route,
            cluster: cluster.into(),
            queue: Queue::default(),
            forwarded: 0,
            // Nothing is known: the first request looks.
            phase: Phase::Closed,
            last_good: Instant::default(),
            next_look: Instant::default(),
            rematch: 0,
            orphaned: false,
            due: None,
            awaited_since: None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.len() == 0 && self.forwarded == 0
    }

    /// Whether a request that arrives now is forwarded without a look.
    pub(super) fn goes_on(&self, now: Instant, word: Word, quiet: Duration) -> bool {
        // A full circuit breaker looks like a cluster without hosts: what has requests under way is not
        // asleep, whatever a look would say.
        self.phase == Phase::Open
            && self.queue.len() == 0
            && !word.forbids()
            // A look moves a round-robin balancer on by one: with two endpoints, every second turn would be the
            // looks', and one of the two would get all requests.
            && (word.hint == Hint::SeveralReady || self.forwarded > 0 || now.since(self.last_good) < quiet)
    }

    /// Whether a request that arrives now and may not simply go on is worth a look: not if others wait
    /// before it, and not if no look could help it.
    pub(super) fn wants_look(&self, word: Word) -> bool {
        self.queue.len() == 0 && !word.forbids()
    }

    /// The first of a queue begins to wait.
    pub(super) fn begins_to_wait(&mut self, now: Instant, word: Word) {
        if word.forbids() {
            self.next_look = now.after(SLOW);
        }
    }

    /// The scaler has changed its mind.
    pub(super) fn hinted(&mut self, now: Instant, hint: Hint) {
        match hint {
            Hint::NotReady => {
                self.phase = Phase::Closed;
                self.awaited_since = None;
                self.next_look = now.after(SLOW);
            }
            Hint::Ready | Hint::SeveralReady => {
                // Only what waits measures the lag: without a hold nobody looks, and none is hurt.
                self.awaited_since = (self.queue.len() > 0).then_some(now);
                self.next_look = now;
            }
            Hint::Unknown => {
                self.awaited_since = None;
                self.next_look = now;
            }
        }
    }

    /// A look was made. Gives the time from "ready" to "usable" if this look ended it.
    pub(super) fn looked(&mut self, now: Instant, word: Word, usable: bool) -> Option<Duration> {
        if usable && !word.forbids() {
            self.phase = Phase::Open;
            self.last_good = now;
            self.next_look = now.after(BATCH);
            return self.awaited_since.take().map(|since| now.since(since));
        }
        self.phase = Phase::Closed;
        let pause = match word.hint {
            _ if word.distrusted => ALONE,
            Hint::Unknown => ALONE,
            Hint::NotReady => SLOW,
            Hint::Ready | Hint::SeveralReady if now.since(word.since) < FAST_FOR => FAST,
            Hint::Ready | Hint::SeveralReady => FAST_IN_VAIN,
        };
        self.next_look = now.after(pause);
        None
    }
}
