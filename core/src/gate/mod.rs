//! The gate: which requests go on, which wait, and for how long.
//!
//! A request of a known route arrives on a *lane*: one route's one Envoy cluster (a route has several when
//! its target has subsets). A lane is open or closed:
//!
//! ```text
//!            look says usable, and the scaler does not say "not ready"
//!          ┌──────────────────────────────────────────────────────────┐
//!          │                                                          ▼
//!       Closed                                                      Open
//!   requests wait, first come first out;                 requests are forwarded; just after a wake,
//!   the cluster is looked at: every few ms               or without a scaler's word, the first one
//!   while the scaler says "ready", slowly                after a quiet spell looks first
//!   otherwise                                                         │
//!          ▲                                                          │
//!          └──────────────────────────────────────────────────────────┘
//!      look says unusable, or an answer does, or the scaler says "not ready"
//! ```
//!
//! Every hold ends: released, expired at its deadline, matched anew because its route changed, or its client
//! left. The worker's own Envoy has the last word on whether a cluster is usable ([`Looks`]); the scaler's
//! word ([`Hint`]) says when to look, and keeps a lane closed while Envoy still lists a dying pod.

mod lane;
mod poll;
mod queue;
mod route;
#[cfg(test)]
mod tests;
mod unsaid;

pub use self::route::Hint;

use self::{
    lane::{Lane, Phase},
    queue::{Place, Stream, Streams},
    route::Route,
};
use crate::{
    count::{Completion, HOLD_BUCKETS_MS, Method},
    route::{RouteId, RouteSpec},
    time::Instant,
};
use slab::Slab;
use std::{collections::BTreeSet, time::Duration};

/// How many outcomes leave the gate per call of [`Gate::poll`].
///
/// Envoy runs what a callback asked for after it returns, and what it causes calls back into the VM before
/// the next one is run: 256 nested answers went well, 512 overflowed the VM's stack and stranded everything
/// that was held there. The rest goes out on the following ticks.
pub const OUTCOMES_PER_POLL: usize = 32;

/// How many looks are made per call of [`Gate::poll`]: 10 to 50 µs each, so at most a millisecond.
pub const LOOKS_PER_POLL: usize = 16;

/// How many clusters are remembered for requests that come before the first route table. Further ones pass.
const MAX_PROVISIONAL_LANES: usize = 256;

/// How long a request waits at most while there is no route table: without a scaler nobody wakes its app, and
/// it may well be none of ours.
const PROVISIONAL_HOLD: Duration = Duration::from_secs(60);

/// After how many lanes of one route those without requests are forgotten.
const IDLE_LANES: usize = 8;

/// The status of an answer for want of a host.
const UNAVAILABLE: u16 = 503;

/// How many links' reports are tracked at most.
pub const MAX_LINKS: usize = 8;

/// Asks the host whether a cluster has a usable host for this worker, now.
pub trait Looks {
    /// Whether a request sent to `cluster` at this moment would find a host. `host` is what such a request could
    /// ask for; empty if none is known.
    fn usable(&mut self, cluster: &[u8], host: &[u8]) -> bool;

    /// The host that the request which is just arriving asks for, as far as a look may ask for it; else empty.
    fn host(&mut self) -> &[u8] {
        &[]
    }
}

/// What holds without any scaler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many requests of one route wait at one worker, at most.
    pub held_per_route: u32,
    /// How many requests wait at one worker, at most.
    pub held_per_worker: u32,
    /// How long a request waits, at most.
    pub hold_timeout: Duration,
    /// While no scaler says whether its app is there, a lane that forwarded nothing for so long is looked at before it
    /// forwards: looks are all there is then.
    pub quiet: Duration,
    /// For how long the scaler may say "not ready" while looks say "usable" before it is not believed any
    /// more until it says something else: a scaler whose watch is stuck must not keep an app away for ever. And for how
    /// long it may say "ready" while answers and looks say that there is no host, before requests go on nevertheless.
    pub distrust_after: Duration,
}

/// Where a request belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The route in that slot of the table.
    Route(u32),
    /// Nobody knows yet: there is no route table.
    Unknown,
}

/// A lane, to be used at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneId(usize);

impl LaneId {
    /// A number that is this lane's alone while the lane is there.
    pub fn number(self) -> u64 {
        u64::try_from(self.0).unwrap_or(u64::MAX)
    }
}

/// What becomes of a request that has just arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It goes on.
    Forward,
    /// It waits; an [`Outcome`] ends that.
    Hold,
    /// A limit is full: answer it.
    Refuse,
    /// It is none of ours: it goes on and is not counted.
    Pass,
    /// As [`Arrival::Pass`], and the rules of the route with this slot match it, whose target is not the cluster that was
    /// chosen.
    Mismatch(u32),
}

/// How a hold ends, if not by the client's leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Let it go on to the cluster, which is usable.
    Release {
        /// The host's name for the request.
        stream: u32,
        /// How long it waited.
        held: Duration,
    },
    /// Its deadline has come: answer it.
    Expire {
        /// The host's name for the request.
        stream: u32,
        /// How long it waited.
        held: Duration,
    },
    /// It is none of ours, and waited only because there was no route table: let it go on as it is.
    Pass {
        /// The host's name for the request.
        stream: u32,
    },
    /// What it belongs to has changed: match it again and give it to [`Gate::arrive`] again.
    Rematch {
        /// The host's name for the request.
        stream: u32,
    },
}

/// All requests of one worker that have a route, and all routes that they have.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    routes: Vec<Option<Route>>,
    lanes: Slab<Lane>,
    /// Lanes of requests that came before there was a route table.
    provisional: Vec<usize>,
    streams: Streams,
    held: u32,
    /// Lanes with holds, and those that are watched without any, by when they have to be looked after next.
    due: BTreeSet<(Instant, usize)>,
    /// Per link: the slots whose counts it has not been told.
    unsaid: Vec<Vec<u32>>,
    /// Per slot: a bit for each link that has it among its unsaid ones. It belongs to the slot and not to the
    /// route, which may be gone, and another in its place, before the link takes it.
    is_unsaid: Vec<u8>,
    urgent: bool,
}

// === impl Gate ===

impl Gate {
    /// A gate without routes. `links` is how many readers [`Gate::take_unsaid`] has, at most [`MAX_LINKS`].
    pub fn new(limits: Limits, links: usize) -> Self {
        Self {
            limits,
            routes: Vec::new(),
            lanes: Slab::new(),
            provisional: Vec::new(),
            streams: Streams::default(),
            held: 0,
            due: BTreeSet::new(),
            unsaid: vec![Vec::new(); links.min(MAX_LINKS)],
            is_unsaid: Vec::new(),
            urgent: false,
        }
    }

    // --- routes ---

    /// The route in `slot` is there, or has changed. `moved` says that its rules or its cluster have: what it
    /// holds is matched anew.
    pub fn set_route(&mut self, now: Instant, slot: u32, spec: &RouteSpec, moved: bool) {
        let Ok(index) = usize::try_from(slot) else { return };
        if self.routes.len() <= index {
            self.routes.resize_with(index.saturating_add(1), || None);
            self.is_unsaid.resize(index.saturating_add(1), 0);
        }
        let Some(place) = self.routes.get_mut(index) else { return };
        match place {
            Some(route) if route.id == spec.id => {
                route.set_limits(spec);
                let lanes = route.lanes.clone();
                for lane in lanes {
                    if moved && let Some(lane) = self.lanes.get_mut(lane) {
                        lane.rematch = lane.queue.len();
                    }
                    self.schedule(now, lane);
                }
            }
            _ => {
                // A slot is only given away after remove_route; should that not be so, nothing is left over.
                let old = place.replace(Route::new(now, spec));
                self.disown(now, old);
                self.touch(slot);
            }
        }
    }

    /// The route in `slot` is gone: what it holds is matched anew, what it has forwarded ends uncounted.
    pub fn remove_route(&mut self, now: Instant, slot: u32) {
        let old =
            usize::try_from(slot).ok().and_then(|index| self.routes.get_mut(index)).and_then(Option::take);
        self.disown(now, old);
    }

    /// There is a route table now: what has waited for it is matched.
    pub fn adopt_provisional(&mut self, now: Instant) {
        for lane in std::mem::take(&mut self.provisional) {
            if let Some(it) = self.lanes.get_mut(lane) {
                it.orphaned = true;
                it.rematch = it.queue.len();
            }
            self.schedule(now, lane);
            self.forget_if_done(lane);
        }
    }

    fn disown(&mut self, now: Instant, old: Option<Route>) {
        for lane in old.into_iter().flat_map(|route| route.lanes) {
            if let Some(it) = self.lanes.get_mut(lane) {
                it.orphaned = true;
                it.rematch = it.queue.len();
            }
            self.schedule(now, lane);
            self.forget_if_done(lane);
        }
    }

    /// What the scalers say of the route in `slot`.
    pub fn set_hint(&mut self, now: Instant, slot: u32, hint: Hint) {
        let Some(route) = route_mut(&mut self.routes, slot) else { return };
        if !route.set_hint(now, hint) {
            return;
        }
        let lanes = route.lanes.clone();
        for lane in lanes {
            if let Some(it) = self.lanes.get_mut(lane) {
                it.hinted(now, hint);
            }
            self.schedule(now, lane);
        }
    }

    // --- requests ---

    /// A request has arrived on a lane, or arrives again after [`Outcome::Rematch`]. For each request,
    /// [`Gate::depart`] has to follow some time.
    pub fn arrive(
        &mut self,
        now: Instant,
        stream: u32,
        lane: LaneId,
        method: Method,
        looks: &mut impl Looks,
    ) -> Arrival {
        let LaneId(key) = lane;
        if self.streams.get(stream).is_some_and(|it| it.place != Place::Loose) {
            // No host does that; were it to, the first request of that name would be counted for ever.
            self.depart(now, stream);
        }
        let loose = self.streams.remove(stream);
        let (arrived, counted) = loose.as_ref().map_or((now, None), |it| (it.arrived, it.route));
        let Some(lane) = self.lanes.get_mut(key) else { return Arrival::Pass };

        let mut route = route_mut(&mut self.routes, lane.slot);
        let id = route.as_ref().map(|route| route.id);
        let word = route.as_ref().map_or_else(Default::default, |route| route.word);
        let goes_on = lane.goes_on(now, word, self.limits.quiet);
        let wants_look = lane.wants_look(word);
        if !goes_on && lane.queue.len() == 0 {
            lane.asked_for(now, looks.host());
        }
        let mut usable = || {
            let usable = looks.usable(&lane.cluster, &lane.host);
            lane.looked(now, word, usable, self.limits.distrust_after);
            lane.phase == Phase::Open
        };
        let arrival = if goes_on || wants_look && usable() {
            Arrival::Forward
        } else if self.held >= self.limits.held_per_worker
            || route.as_ref().is_some_and(|route| route.is_full(&self.limits))
        {
            // Without a table nobody has said that these are ours to refuse.
            if id.is_none() { Arrival::Pass } else { Arrival::Refuse }
        } else {
            Arrival::Hold
        };

        let place = match arrival {
            Arrival::Pass | Arrival::Mismatch(_) => return Arrival::Pass,
            Arrival::Forward => {
                lane.forwarded = lane.forwarded.saturating_add(1);
                Place::Forwarded { cold: loose.is_some() }
            }
            Arrival::Refuse => Place::Answered,
            Arrival::Hold => Place::Held { before: None, after: None },
        };
        if let Some(route) = &mut route {
            route.counts.enter(now, counted != id);
            match arrival {
                Arrival::Hold => {
                    // An app found asleep is told at once; those that join the queue go with the next tick.
                    self.urgent |= route.counts.held() == 0;
                    route.counts.hold();
                }
                Arrival::Refuse => route.counts.rejections = route.counts.rejections.saturating_add(1),
                Arrival::Forward if loose.is_some() => {
                    route.counts.cold_starts = route.counts.cold_starts.saturating_add(1);
                    route.counts.holds.observe(&HOLD_BUCKETS_MS, now.since(arrived));
                }
                Arrival::Forward | Arrival::Pass | Arrival::Mismatch(_) => {}
            }
        }
        let slot = lane.slot;
        self.streams.insert(stream, Stream { lane: key, route: id, arrived, place, method, code: 0 });
        if arrival == Arrival::Hold {
            self.held = self.held.saturating_add(1);
            if lane.queue.len() == 0 {
                lane.begins_to_wait(now, word);
            }
            lane.queue.push(&mut self.streams, stream);
            self.schedule(now, key);
        }
        self.touch(slot);
        arrival
    }

    /// The rules of the route in `slot` matched a request whose cluster is not the target.
    pub fn mismatch(&mut self, slot: u32) {
        if let Some(route) = route_mut(&mut self.routes, slot) {
            route.counts.mismatches = route.counts.mismatches.saturating_add(1);
            self.touch(slot);
        }
    }

    /// The lane that a request was forwarded on, and when it arrived; `None` if it was not forwarded by the gate.
    pub fn forwarded(&self, stream: u32) -> Option<(LaneId, Instant)> {
        let it = self.streams.get(stream)?;
        matches!(it.place, Place::Forwarded { .. }).then_some((LaneId(it.lane), it.arrived))
    }

    /// The route in whose counts a request is, and when it arrived; `None` if the gate does not know it or it came
    /// before the route table.
    pub fn counted(&self, stream: u32) -> Option<(RouteId, Instant)> {
        let it = self.streams.get(stream)?;
        Some((it.route?, it.arrived))
    }

    /// A response's headers pass by. Says whether the request was held before it was forwarded; `None` if it
    /// was not forwarded by the gate.
    pub fn respond(&mut self, stream: u32, code: u16) -> Option<bool> {
        let it = self.streams.get_mut(stream)?;
        it.code = code;
        match it.place {
            Place::Forwarded { cold } => Some(cold),
            Place::Held { .. } | Place::Answered | Place::Loose => None,
        }
    }

    /// The answer to a forwarded request says that its cluster had no host to connect to: who comes next looks, and
    /// waits if there is none still. Where the scaler goes on saying "ready" that ends after
    /// [`Limits::distrust_after`]: then there is another reason, and it is not ours to hide.
    pub fn suspect(&mut self, now: Instant, stream: u32) {
        let Some((LaneId(key), _)) = self.forwarded(stream) else { return };
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let route = route_mut(&mut self.routes, lane.slot);
        lane.suspected(now, route.map_or_else(Default::default, |route| route.word));
    }

    /// A request has ended, in whatever way. Requests that the gate has never seen are fine.
    pub fn depart(&mut self, now: Instant, stream: u32) {
        let Some(it) = self.streams.get(stream).copied() else { return };
        let (key, held) = (it.lane, matches!(it.place, Place::Held { .. }));
        if held {
            self.unhold(key, stream);
        }
        self.streams.remove(stream);
        if let Some(lane) = self.lanes.get_mut(key) {
            if matches!(it.place, Place::Forwarded { .. }) {
                lane.forwarded = lane.forwarded.saturating_sub(1);
                lane.last_good = lane.last_good.max(now);
                if it.code != 0 && it.code != UNAVAILABLE {
                    lane.served(it.arrived);
                }
            }
            let slot = lane.slot;
            if let Some(route) = route_mut(&mut self.routes, slot).filter(|route| Some(route.id) == it.route)
            {
                // What was to be matched anew and turned out to be none of ours has left the counts already.
                if !matches!(it.place, Place::Loose) {
                    route.counts.leave(now);
                    let completion = Completion { method: it.method, code: it.code };
                    route.counts.complete(completion, now.since(it.arrived));
                }
                self.urgent |= held && route.counts.held() == 0;
                self.touch(slot);
            }
        }
        if held {
            self.schedule(now, key);
        }
        self.forget_if_done(key);
    }

    // --- lanes ---

    /// The lane of requests of `owner` for which Envoy has chosen `cluster`. `None`: they pass. The id holds
    /// until the next call on this gate.
    pub fn lane(&mut self, owner: Owner, cluster: &[u8]) -> Option<LaneId> {
        self.lane_of(owner, cluster).map(LaneId)
    }

    fn lane_of(&mut self, owner: Owner, cluster: &[u8]) -> Option<usize> {
        let (slot, keys) = match owner {
            Owner::Route(slot) => (slot, &mut route_mut(&mut self.routes, slot)?.lanes),
            Owner::Unknown => (u32::MAX, &mut self.provisional),
        };
        let of_cluster = |key: &&usize| self.lanes.get(**key).is_some_and(|lane| *lane.cluster == *cluster);
        if let Some(key) = keys.iter().find(of_cluster) {
            return Some(*key);
        }
        if slot == u32::MAX && keys.len() >= MAX_PROVISIONAL_LANES {
            return None;
        }
        if slot != u32::MAX && keys.len() >= IDLE_LANES {
            keys.retain(|key| match self.lanes.get(*key) {
                Some(lane) if lane.is_idle() => {
                    if let Some(due) = lane.due {
                        self.due.remove(&(due, *key));
                    }
                    self.lanes.remove(*key);
                    false
                }
                lane => lane.is_some(),
            });
        }
        let route = usize::try_from(slot).ok().and_then(|index| self.routes.get_mut(index));
        let route = route.and_then(Option::as_mut);
        let id = route.as_ref().map(|route| route.id);
        let key = self.lanes.insert(Lane::new(slot, id, cluster));
        match route {
            Some(route) => route.lanes.push(key),
            None => self.provisional.push(key),
        }
        Some(key)
    }

    fn forget_if_done(&mut self, key: usize) {
        if self.lanes.get(key).is_some_and(|lane| lane.orphaned && lane.is_idle()) {
            self.lanes.remove(key);
        }
    }
}

fn route_mut(routes: &mut [Option<Route>], slot: u32) -> Option<&mut Route> {
    routes.get_mut(usize::try_from(slot).ok()?)?.as_mut()
}

fn bit(link: usize) -> u8 {
    u32::try_from(link).ok().and_then(|link| 1u8.checked_shl(link)).unwrap_or(0)
}
