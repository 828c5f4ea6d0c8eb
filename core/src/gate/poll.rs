//! What is due: deadlines, looks, releases.

use super::{
    Gate, LOOKS_PER_POLL, Looks, OUTCOMES_PER_POLL, Outcome, PROVISIONAL_HOLD,
    lane::{Lane, Phase},
    queue::Place,
    route_mut,
};
use crate::{
    count::{HOLD_BUCKETS_MS, LAG_BUCKETS_MS},
    time::Instant,
};

/// What one [`Gate::poll`] may still do.
struct Budget {
    outcomes: usize,
    looks: usize,
}

impl Budget {
    fn is_left(&self) -> bool {
        self.outcomes > 0 && self.looks > 0
    }

    fn spend_outcome(&mut self) -> bool {
        let left = self.outcomes.checked_sub(1);
        self.outcomes = left.unwrap_or(0);
        left.is_some()
    }

    fn spend_look(&mut self) -> bool {
        let left = self.looks.checked_sub(1);
        self.looks = left.unwrap_or(0);
        left.is_some()
    }
}

impl Gate {
    /// Does what is due: deadlines, looks, releases. To be called after every event and when
    /// [`Gate::next_due`] has come. At most [`OUTCOMES_PER_POLL`] outcomes are added to `outcomes`; what is left
    /// is due at once, on the next call.
    pub fn poll(&mut self, now: Instant, looks: &mut impl Looks, outcomes: &mut Vec<Outcome>) {
        let mut budget = Budget { outcomes: OUTCOMES_PER_POLL, looks: LOOKS_PER_POLL };
        while budget.is_left() {
            let Some(&(due, key)) = self.due.first() else { return };
            if due > now {
                return;
            }
            self.run(now, key, &mut budget, looks, outcomes);
            self.schedule(now, key);
            self.forget_if_done(key);
        }
    }

    /// When [`Gate::poll`] has something to do next.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    fn run(
        &mut self,
        now: Instant,
        key: usize,
        budget: &mut Budget,
        looks: &mut impl Looks,
        outcomes: &mut Vec<Outcome>,
    ) {
        while let Some((stream, arrived)) = self.front(key) {
            let Some(lane) = self.lanes.get(key) else { return };
            if !budget.spend_outcome() {
                return;
            }
            let outcome = if lane.rematch > 0 {
                Outcome::Rematch { stream }
            } else if self.deadline(lane, arrived) <= now {
                match lane.route {
                    Some(_) => Outcome::Expire { stream, held: now.since(arrived) },
                    None => Outcome::Pass { stream },
                }
            } else {
                budget.outcomes = budget.outcomes.saturating_add(1);
                break;
            };
            self.end_hold(now, key, stream, outcome);
            outcomes.push(outcome);
        }

        let Some(lane) = self.lanes.get_mut(key) else { return };
        let mut route = route_mut(&mut self.routes, lane.slot);
        let word = route.as_ref().map_or_else(Default::default, |route| route.word);
        let is_awaited = lane.queue.len() > 0 || lane.is_watched(word);
        if !is_awaited || lane.next_look > now || !budget.spend_look() {
            return;
        }
        let usable = looks.usable(&lane.cluster, &lane.host);
        if let Some(route) = &mut route {
            route.contradict(now, usable, self.limits.distrust_after);
        }
        let word = route.as_ref().map_or_else(Default::default, |route| route.word);
        let lag = lane.looked(now, word, usable, self.limits.distrust_after);
        if let (Some(lag), Some(route)) = (lag, &mut route) {
            route.counts.lags.observe(&LAG_BUCKETS_MS, lag);
        }
        if lane.phase == Phase::Closed {
            return;
        }
        while let Some((stream, arrived)) = self.front(key)
            && budget.spend_outcome()
        {
            let outcome = Outcome::Release { stream, held: now.since(arrived) };
            self.end_hold(now, key, stream, outcome);
            outcomes.push(outcome);
        }
    }

    pub(super) fn front(&self, key: usize) -> Option<(u32, Instant)> {
        let stream = self.lanes.get(key)?.queue.front()?;
        Some((stream, self.streams.get(stream)?.arrived))
    }

    pub(super) fn deadline(&self, lane: &Lane, arrived: Instant) -> Instant {
        let index = usize::try_from(lane.slot).ok();
        let route = index.and_then(|index| self.routes.get(index)).and_then(Option::as_ref);
        let own = route.and_then(|route| route.hold_timeout);
        let most = if lane.route.is_some() { self.limits.hold_timeout } else { PROVISIONAL_HOLD };
        arrived.after(own.map_or(most, |own| own.min(most)).min(self.limits.hold_timeout))
    }

    /// Takes a stream out of its lane's queue, in the queue and in the counts.
    pub(super) fn unhold(&mut self, key: usize, stream: u32) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let front = lane.queue.front() == Some(stream);
        lane.queue.unlink(&mut self.streams, stream);
        // Streams to be matched anew are the queue's first ones: any that leaves before the rest is one of
        // them, or the count is made to fit.
        if front {
            lane.rematch = lane.rematch.saturating_sub(1);
        }
        lane.rematch = lane.rematch.min(lane.queue.len());
        self.held = self.held.saturating_sub(1);
        let slot = lane.slot;
        let route = lane.route;
        if let Some(it) = route_mut(&mut self.routes, slot).filter(|it| Some(it.id) == route) {
            it.counts.unhold();
        }
    }

    fn end_hold(&mut self, now: Instant, key: usize, stream: u32, outcome: Outcome) {
        self.unhold(key, stream);
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let slot = lane.slot;
        let mut route = route_mut(&mut self.routes, slot).filter(|it| Some(it.id) == lane.route);
        let place = match outcome {
            Outcome::Release { held, .. } => {
                lane.forwarded = lane.forwarded.saturating_add(1);
                if let Some(route) = &mut route {
                    route.counts.cold_starts = route.counts.cold_starts.saturating_add(1);
                    route.counts.holds.observe(&HOLD_BUCKETS_MS, held);
                }
                Some(Place::Forwarded { cold: true })
            }
            Outcome::Expire { .. } => {
                if let Some(route) = &mut route {
                    route.counts.expirations = route.counts.expirations.saturating_add(1);
                }
                Some(Place::Answered)
            }
            Outcome::Rematch { .. } => {
                if let Some(route) = &mut route {
                    route.counts.leave(now);
                }
                Some(Place::Loose)
            }
            Outcome::Pass { .. } => None,
        };
        match place {
            Some(place) => self.streams.set_place(stream, place),
            None => drop(self.streams.remove(stream)),
        }
        self.touch(slot);
    }

    /// Puts the lane where it belongs among those that are due.
    pub(super) fn schedule(&mut self, now: Instant, key: usize) {
        let front = self.front(key);
        let Some(lane) = self.lanes.get(key) else { return };
        let due = match front {
            Some(_) if lane.rematch > 0 => Some(now),
            Some((_, arrived)) => Some(self.deadline(lane, arrived).min(lane.next_look)),
            None => {
                let route = usize::try_from(lane.slot).ok().and_then(|index| self.routes.get(index));
                let word = route.and_then(Option::as_ref).map_or_else(Default::default, |route| route.word);
                lane.is_watched(word).then_some(lane.next_look)
            }
        };
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.due == due {
            return;
        }
        if let Some(old) = std::mem::replace(&mut lane.due, due) {
            self.due.remove(&(old, key));
        }
        if let Some(due) = due {
            self.due.insert((due, key));
        }
    }
}
