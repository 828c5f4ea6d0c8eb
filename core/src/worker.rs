//! One worker: the route table, the gate and the links to the scalers, put together.
//!
//! Every scaler replica sends the whole route table and everything it knows of readiness, and replicas share
//! nothing. Where they differ for a moment, this is what holds:
//!
//! - a route is there if any scaler that is connected has it; of two versions the higher generation stands;
//! - a target is ready if any connected scaler says so. A replica that is behind can then make a worker look at a
//!   cluster for nothing; were it the other way round, one stuck replica could keep every app away;
//! - the first that takes its "ready" back is believed at once, and for [`LEAD`] alone: the others are about to say so too.
//!   The slowest is too slow where the gateway loses the endpoints meanwhile;
//! - with no scaler connected, the last table stands, and looks alone decide.

use crate::{
    count::Counts,
    gate::{Arrival, Gate, Hint, LaneId, Limits, Looks, MAX_LINKS, Outcome, Owner},
    link::{Link, Step},
    route::{RouteId, RouteSpec},
    table::{Match, Request, Table, Upsert},
    time::Instant,
};
use std::{collections::VecDeque, time::Duration};

/// For how long a scaler that has taken its "ready" back is believed against others that still say so. One that is behind
/// by a whole sleep has requests wait until it has caught up, or for so long.
const LEAD: Duration = Duration::from_secs(1);

/// A worker's state.
#[derive(Debug)]
pub struct Worker {
    table: Table,
    gate: Gate,
    peers: Vec<Peer>,
    /// Per slot: what the scalers say.
    said: Vec<Said>,
    /// The slots whose [`Said::led_until`] is still to come, or has been taken back, in order of time.
    led: VecDeque<(Instant, u32)>,
    /// A whole table has been received.
    has_table: bool,
}

#[derive(Debug)]
struct Peer {
    link: Link,
    /// Its table is whole: what it has not named, it does not have.
    is_whole: bool,
}

/// What the scalers say of one route, a bit for each of them.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    known: u8,
    ready: u8,
    not_ready: u8,
    /// One of them has taken its "ready" back: until then that is what counts.
    led_until: Option<Instant>,
}

// === impl Worker ===

impl Worker {
    /// A worker with a link to each of `scalers` scalers (at most [`MAX_LINKS`]), all to be opened at once.
    /// `random` gives the table's hash its key and the links their different pauses.
    pub fn new(
        now: Instant,
        limits: Limits,
        scalers: usize,
        interval: Duration,
        mut random: impl FnMut() -> u64,
    ) -> Self {
        let scalers = scalers.min(MAX_LINKS);
        let peers =
            std::iter::repeat_with(|| Peer { link: Link::new(now, random(), interval), is_whole: false });
        let peers = peers.take(scalers).collect();
        Self {
            table: Table::new([random(), random()]),
            gate: Gate::new(limits, scalers),
            peers,
            said: Vec::new(),
            led: VecDeque::new(),
            has_table: false,
        }
    }

    // --- requests ---

    /// A request has arrived, or is matched anew after [`Outcome::Rematch`].
    pub fn request(&mut self, now: Instant, stream: u32, request: &mut (impl Request + Looks)) -> Arrival {
        // What has no cluster has no route: Envoy answers it itself, table or none.
        if !self.has_table && request.cluster().is_empty() {
            return Arrival::Pass;
        }
        let owner = if self.has_table {
            match self.table.find(request) {
                Match::Route(slot) => Owner::Route(slot),
                Match::Mismatch(slot) => {
                    self.gate.mismatch(slot);
                    return Arrival::Mismatch(slot);
                }
                Match::None => return Arrival::Pass,
            }
        } else {
            Owner::Unknown
        };
        let Some(lane) = self.gate.lane(owner, request.cluster()) else { return Arrival::Pass };
        let method = request.method();
        let arrival = self.gate.arrive(now, stream, lane, method, request);
        self.spread_urgency();
        arrival
    }

    /// Whether the gate knows the request.
    pub fn knows(&self, stream: u32) -> bool {
        self.gate.knows(stream)
    }

    /// See [`Gate::forwarded`].
    pub fn forwarded(&self, stream: u32) -> Option<(LaneId, Instant)> {
        self.gate.forwarded(stream)
    }

    /// The route of a request that the gate knows, and when it arrived.
    pub fn route_of(&self, stream: u32) -> Option<(&RouteSpec, Instant)> {
        let (id, arrived) = self.gate.counted(stream)?;
        Some((self.table.get(self.table.slot_of(id)?)?, arrived))
    }

    /// The route with this slot.
    pub fn route(&self, slot: u32) -> Option<&RouteSpec> {
        self.table.get(slot)
    }

    /// See [`Gate::respond`].
    pub fn respond(&mut self, stream: u32, code: u16) -> Option<bool> {
        self.gate.respond(stream, code)
    }

    /// See [`Gate::suspect`].
    pub fn suspect(&mut self, now: Instant, stream: u32) {
        self.gate.suspect(now, stream);
    }

    /// See [`Gate::depart`].
    pub fn depart(&mut self, now: Instant, stream: u32) {
        self.gate.depart(now, stream);
        self.spread_urgency();
    }

    /// See [`Gate::poll`].
    pub fn poll(&mut self, now: Instant, looks: &mut impl Looks, outcomes: &mut Vec<Outcome>) {
        self.end_leads(now);
        self.gate.poll(now, looks, outcomes);
        self.spread_urgency();
    }

    /// How many requests wait.
    pub fn held(&self) -> u32 {
        self.gate.held()
    }

    /// When something is to be done next, by [`Worker::poll`] or [`Worker::step`].
    pub fn next_due(&self) -> Option<Instant> {
        let links = self.peers.iter().enumerate();
        let links = links.filter_map(|(index, peer)| peer.link.next_due(self.gate.has_unsaid(index)));
        let led = self.led.front().map(|(until, _)| *until);
        links.chain(self.gate.next_due()).chain(led).min()
    }

    // --- links ---

    /// What is to be done on link `index` now. To be called until it gives `None`.
    pub fn step(&mut self, now: Instant, index: usize) -> Option<Step> {
        let unsaid = self.gate.has_unsaid(index);
        let step = self.peers.get_mut(index)?.link.step(now, unsaid);
        if step == Some(Step::Close) {
            self.silence(now, index);
        }
        step
    }

    /// See [`Link::opened`].
    pub fn link_opened(&mut self, now: Instant, index: usize) {
        if let Some(peer) = self.peers.get_mut(index) {
            peer.link.opened(now);
        }
    }

    /// See [`Link::closed`]. What the scaler has said of readiness no longer counts; its routes stay.
    pub fn link_closed(&mut self, now: Instant, index: usize) {
        if let Some(peer) = self.peers.get_mut(index) {
            peer.link.closed(now);
        }
        self.silence(now, index);
    }

    /// See [`Link::welcomed`].
    pub fn welcomed(&mut self, index: usize) {
        if let Some(peer) = self.peers.get_mut(index) {
            peer.link.welcomed();
        }
    }

    /// See [`Link::acknowledged`].
    pub fn acknowledged(&mut self, index: usize, sequence: u64) {
        if let Some(peer) = self.peers.get_mut(index) {
            peer.link.acknowledged(sequence);
        }
    }

    /// Whether the scaler has been heard since the link was opened.
    pub fn is_up(&self, index: usize) -> bool {
        self.peers.get(index).is_some_and(|peer| peer.link.is_up())
    }

    /// The counts that a report on link `index` has to carry: what it has not been told, or everything.
    pub fn report(&mut self, index: usize, complete: bool) -> Vec<u32> {
        let unsaid = self.gate.take_unsaid(index);
        if complete { self.gate.slots().collect() } else { unsaid }
    }

    /// The counts of the route in `slot`.
    pub fn counts(&self, slot: u32) -> Option<(RouteId, &Counts)> {
        self.gate.counts(slot)
    }

    fn silence(&mut self, now: Instant, index: usize) {
        let bit = bit(index);
        if let Some(peer) = self.peers.get_mut(index) {
            peer.is_whole = false;
        }
        for (slot, said) in (0..).zip(&mut self.said) {
            said.ready &= !bit;
            said.not_ready &= !bit;
            self.gate.set_hint(now, slot, said.hint());
        }
    }

    fn spread_urgency(&mut self) {
        if self.gate.take_urgent() {
            for peer in &mut self.peers {
                peer.link.hurry();
            }
        }
    }

    // --- the route table ---

    /// Scaler `index` begins to send its table anew.
    pub fn table_reset(&mut self, index: usize) {
        let bit = bit(index);
        for said in &mut self.said {
            said.known &= !bit;
        }
        if let Some(peer) = self.peers.get_mut(index) {
            peer.is_whole = false;
        }
    }

    /// Scaler `index` has a route, and knows that of its target.
    pub fn upsert(&mut self, now: Instant, index: usize, spec: RouteSpec, hint: Hint) {
        let (slot, moved) = match self.table.upsert(spec) {
            Upsert::Inserted(slot) => (slot, false),
            Upsert::Changed(slot) => (slot, true),
            Upsert::Same(slot) => (slot, false),
            // Another scaler has sent a newer version: this one's has no say in it, but it has the route.
            Upsert::Stale(slot) => {
                self.say(now, index, slot, hint);
                return;
            }
        };
        if let Some(spec) = self.table.get(slot) {
            self.gate.set_route(now, slot, spec, moved);
        }
        self.say(now, index, slot, hint);
    }

    /// Scaler `index` has a route no longer.
    pub fn remove(&mut self, now: Instant, index: usize, id: RouteId) {
        let Some(slot) = self.table.slot_of(id) else { return };
        let at = usize::try_from(slot).unwrap_or(usize::MAX);
        if let Some(said) = self.said.get_mut(at) {
            let bit = bit(index);
            said.known &= !bit;
            said.ready &= !bit;
            said.not_ready &= !bit;
            self.gate.set_hint(now, slot, said.hint());
        }
        self.drop_if_unknown(now, slot);
    }

    /// Scaler `index` has sent all it has.
    pub fn table_complete(&mut self, now: Instant, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let was_whole = std::mem::replace(&mut peer.is_whole, true);
        if !was_whole {
            for slot in self.gate.slots().collect::<Vec<_>>() {
                self.drop_if_unknown(now, slot);
            }
        }
        if !std::mem::replace(&mut self.has_table, true) {
            self.gate.adopt_provisional(now);
        }
    }

    /// Scaler `index` has news of a route's target.
    pub fn hint(&mut self, now: Instant, index: usize, id: RouteId, hint: Hint) {
        if let Some(slot) = self.table.slot_of(id) {
            self.say(now, index, slot, hint);
        }
    }

    /// How many routes there are.
    pub fn routes(&self) -> usize {
        self.table.len()
    }

    fn say(&mut self, now: Instant, index: usize, slot: u32, hint: Hint) {
        let Ok(at) = usize::try_from(slot) else { return };
        if self.said.len() <= at {
            self.said.resize(at.saturating_add(1), Said::default());
        }
        let Some(said) = self.said.get_mut(at) else { return };
        let bit = bit(index);
        said.known |= bit;
        let was_ready = said.ready & bit != 0;
        said.ready &= !bit;
        said.not_ready &= !bit;
        match hint {
            Hint::Ready => {
                said.ready |= bit;
                if !was_ready {
                    said.led_until = None;
                }
            }
            Hint::NotReady => {
                said.not_ready |= bit;
                if was_ready && said.ready != 0 {
                    let until = now.after(LEAD);
                    said.led_until = Some(until);
                    self.led.push_back((until, slot));
                }
            }
            Hint::Unknown => {}
        }
        self.gate.set_hint(now, slot, said.hint());
    }

    /// The others have had their time: what they say counts again.
    fn end_leads(&mut self, now: Instant) {
        while let Some((until, slot)) = self.led.pop_front_if(|(until, _)| *until <= now) {
            let said = usize::try_from(slot).ok().and_then(|at| self.said.get_mut(at));
            if let Some(said) = said.filter(|said| said.led_until == Some(until)) {
                said.led_until = None;
                self.gate.set_hint(now, slot, said.hint());
            }
        }
    }

    /// Drops a route that no connected scaler has, if there is one whose table is whole: with nobody to ask,
    /// the last word stands.
    fn drop_if_unknown(&mut self, now: Instant, slot: u32) {
        let whole = self.peers.iter().enumerate().filter(|(_, peer)| peer.is_whole);
        let whole = whole.fold(0, |bits, (index, _)| bits | bit(index));
        // A scaler that is still sending its table may yet name it.
        let sending = self.peers.iter().enumerate().filter(|(_, peer)| peer.link.is_up() && !peer.is_whole);
        let sending = sending.fold(0, |bits, (index, _)| bits | bit(index));
        let Ok(at) = usize::try_from(slot) else { return };
        let known = self.said.get(at).map_or(0, |said| said.known);
        if whole == 0 || known & (whole | sending) != 0 {
            return;
        }
        let Some(id) = self.table.get(slot).map(|spec| spec.id) else { return };
        self.table.remove(id);
        self.gate.remove_route(now, slot);
        if let Some(said) = self.said.get_mut(at) {
            *said = Said::default();
        }
    }
}

// === impl Said ===

impl Said {
    fn hint(self) -> Hint {
        let is_led = self.led_until.is_some() && self.not_ready != 0;
        if self.ready != 0 && !is_led {
            Hint::Ready
        } else if self.not_ready != 0 {
            Hint::NotReady
        } else {
            Hint::Unknown
        }
    }
}

fn bit(index: usize) -> u8 {
    u32::try_from(index).ok().and_then(|index| 1u8.checked_shl(index)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
