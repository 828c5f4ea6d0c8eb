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
/// While the endpoints that a look finds may be those from before the app slept: for how long after "ready" they are not
/// taken for the new ones, and how often somebody looks whether they are gone. istiod sends the new ones 100 ms after the
/// last change; the old ones say "usable" all the time, and go before the new ones come.
const LEFT_OVER_FOR: Duration = Duration::from_secs(1);
const LEFT_OVER: Duration = Duration::from_millis(25);
/// How long the gateway may list endpoints of an app that fell asleep, and get news of one that woke: istiod's longest
/// debounce.
const LET_GO: Duration = Duration::from_secs(10);
/// While nobody waits: how long after "not ready" a look finds out whether the last endpoints are gone, and
/// then after each doubling of that time. The scaler's own EDS takes them away after 100 ms, and so does istiod
/// at the earliest.
const GONE_BY: Duration = Duration::from_millis(125);
/// How long a lane's host stays at least: for each cluster and host that it was asked about, Envoy keeps a gRPC
/// client for 50 s, and clients choose the hosts where a route has wildcards.
const HOST_STAYS: Duration = Duration::from_secs(10);
/// A spell without requests that is worth a look, while the gateway may still be getting news of a wake.
const UNSETTLED: Duration = Duration::from_millis(1);
/// Between two batches of releases of one lane: the host's shortest tick.
const BATCH: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closed,
}

/// The endpoints from before the app fell asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// They may be there. Who waits looks.
    Unknown,
    /// They were there when it fell asleep: somebody looks for when they are gone, even while nobody waits.
    Watched,
    /// A look has found nothing since: what is there now came after that.
    Gone,
}

/// Whether answers without a usable host contradict a scaler that says "ready".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// They do not.
    None,
    /// There was one then, and who came after it waits: mostly "not ready" is on its way.
    Since(Instant),
    /// That was in vain; since then requests go on as they would without a gate.
    Vain(Instant),
}

#[derive(Debug)]
pub(super) struct Lane {
    /// The route's slot; `u32::MAX` without a route table.
    pub(super) slot: u32,
    /// The route that had the slot when the lane was made: slots are given away again.
    pub(super) route: Option<RouteId>,
    pub(super) cluster: Box<[u8]>,
    /// That of a request which looked or waited first, for looks to go by; empty before there was one.
    pub(super) host: Box<[u8]>,
    host_since: Instant,
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
    last: Last,
    doubt: Doubt,
    looked_at: Instant,
}

// === impl Lane ===

impl Lane {
    pub(super) fn new(slot: u32, route: Option<RouteId>, cluster: &[u8]) -> Self {
        Self {
            slot,
            route,
            cluster: cluster.into(),
            host: Box::default(),
            host_since: Instant::default(),
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
            last: Last::Unknown,
            doubt: Doubt::None,
            looked_at: Instant::default(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.len() == 0 && self.forwarded == 0
    }

    /// Whether a request that arrives now is forwarded without a look.
    pub(super) fn goes_on(&self, now: Instant, word: Word, quiet: Duration) -> bool {
        if self.phase == Phase::Closed || self.queue.len() > 0 || word.forbids() {
            return false;
        }
        // Over a connection that is open already a look does reach the app, over HTTP/1.1 as a request; so an app that
        // is up is not looked at. That its last Pod goes is the scaler's to say, and it says so before istiod does; but
        // while istiod still has news of a wake to send, what comes in between goes with them at once.
        let quiet = match word.hint {
            Hint::Ready if word.has_just_woken(now, LET_GO) => UNSETTLED,
            Hint::Ready => return true,
            Hint::Unknown | Hint::NotReady => quiet,
        };
        // A full circuit breaker looks like a cluster without hosts: what has requests under way is not
        // asleep, whatever a look would say.
        self.forwarded > 0 || now.since(self.last_good) < quiet
    }

    /// Whether a request that arrives now and may not simply go on is worth a look: not if others wait
    /// before it, and not if no look could help it.
    pub(super) fn wants_look(&self, word: Word) -> bool {
        self.queue.len() == 0 && !word.forbids()
    }

    /// A request for `host` is about to look, or to wait with nobody before it.
    pub(super) fn asked_for(&mut self, now: Instant, host: &[u8]) {
        let may_change = self.host.is_empty() || now.since(self.host_since) >= HOST_STAYS;
        if may_change && !host.is_empty() && *self.host != *host {
            self.host = host.into();
            self.host_since = now;
        }
    }

    /// The first of a queue begins to wait.
    pub(super) fn begins_to_wait(&mut self, now: Instant, word: Word) {
        if word.forbids() {
            self.next_look = if self.may_list_the_last(now, word) {
                // At once: the new endpoints may be there before the next look, and then nobody knows which they are.
                self.looked_at.after(LEFT_OVER).max(now)
            } else {
                now.after(SLOW)
            };
        }
    }

    /// The scaler has changed its mind.
    pub(super) fn hinted(&mut self, now: Instant, hint: Hint) {
        self.doubt = Doubt::None;
        match hint {
            Hint::NotReady => {
                self.last = if self.phase == Phase::Open { Last::Watched } else { Last::Unknown };
                self.phase = Phase::Closed;
                self.awaited_since = None;
                self.next_look = now.after(self.until_gone(now, now));
            }
            Hint::Ready => {
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

    /// The answer to a request that was let through says that there was no host to connect to: who comes next looks.
    pub(super) fn suspected(&mut self, now: Instant, word: Word) {
        if word.hint == Hint::Ready {
            match self.doubt {
                Doubt::None => self.doubt = Doubt::Since(now),
                Doubt::Since(_) => {}
                Doubt::Vain(_) => return,
            }
        }
        self.phase = Phase::Closed;
    }

    /// A request that came at `arrived` was let through and answered by the app.
    pub(super) fn served(&mut self, arrived: Instant) {
        if let Doubt::Vain(since) = self.doubt
            && arrived >= since
        {
            self.doubt = Doubt::None;
        }
    }

    /// A look was made; `patience` is for how long requests wait against the scaler's word. Gives the time from "ready"
    /// to "usable" if this look ended it.
    pub(super) fn looked(
        &mut self,
        now: Instant,
        word: Word,
        usable: bool,
        patience: Duration,
    ) -> Option<Duration> {
        self.looked_at = now;
        if usable {
            self.doubt = Doubt::None;
        } else {
            self.last = Last::Gone;
            if self.waits_in_vain(now, word, patience) {
                self.phase = Phase::Open;
                self.next_look = now.after(BATCH);
                return None;
            }
        }
        if usable && self.may_be_left_over(now, word) {
            self.next_look = now.after(LEFT_OVER);
            return None;
        }
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
            Hint::NotReady => self.while_asleep(now, word),
            Hint::Ready if now.since(word.since) < FAST_FOR => FAST,
            Hint::Ready => FAST_IN_VAIN,
        };
        self.next_look = now.after(pause);
        None
    }

    /// Whether what waits because of an answer, and not by the scaler's word, has done so for long enough.
    fn waits_in_vain(&mut self, now: Instant, word: Word, patience: Duration) -> bool {
        if word.hint != Hint::Ready {
            return false;
        }
        match self.doubt {
            Doubt::None => false,
            Doubt::Since(since) if now.since(since) < patience => false,
            Doubt::Since(_) => {
                self.doubt = Doubt::Vain(now);
                true
            }
            Doubt::Vain(_) => true,
        }
    }

    /// Whether the endpoints that a look has just found may be those from before the app slept.
    fn may_be_left_over(&self, now: Instant, word: Word) -> bool {
        word.hint == Hint::Ready
            && self.may_list_the_last(word.since, word)
            && now.since(word.since) < LEFT_OVER_FOR
    }

    /// Whether at `moment` the gateway may still have listed the Pod that the app had before it slept.
    fn may_list_the_last(&self, moment: Instant, word: Word) -> bool {
        self.last != Last::Gone && word.slept.is_some_and(|slept| moment.since(slept) < LET_GO)
    }

    /// Whether the next look is made even if nobody waits for it. Such a look can reach an app that is on its
    /// way out, over a connection that is open still; there are seven of them at most, and mostly one.
    pub(super) fn is_watched(&self, word: Word) -> bool {
        self.last == Last::Watched
            && !self.orphaned
            && word.forbids()
            && self.may_list_the_last(self.next_look, word)
    }

    /// Until the next look at an app that the scaler calls not ready: soon if what matters is when its last Pod is gone.
    fn while_asleep(&self, now: Instant, word: Word) -> Duration {
        match word.slept {
            Some(slept) if self.may_list_the_last(now, word) => self.until_gone(now, slept),
            _ => SLOW,
        }
    }

    /// Until the next look for whether the last Pod of an app that fell asleep then is gone.
    fn until_gone(&self, now: Instant, slept: Instant) -> Duration {
        if self.queue.len() > 0 { LEFT_OVER } else { now.since(slept).max(GONE_BY) }
    }
}
