//! The gate under random interleavings of everything that can happen to it.
//!
//! A model that knows nothing of how the gate works keeps what a user would: which requests wait on which lane in
//! which order, and what was last known of each cluster. After every event the gate has to agree with it.

use super::*;
use proptest::{collection::vec, prelude::*};
use std::collections::{BTreeMap, VecDeque};

const ROUTES: u32 = 3;
const CLUSTERS: [&[u8]; 2] = [b"one", b"two"];

#[derive(Clone, Debug)]
enum Event {
    Arrive {
        route: u32,
        cluster: usize,
    },
    /// The n-th of the requests that are known leaves, whatever it was doing.
    Depart(usize),
    Respond {
        nth: usize,
        unhealthy: bool,
    },
    Hint(u32, Hint),
    World {
        cluster: usize,
        usable: bool,
    },
    Pass(u64),
    Next,
    Remove(u32),
    Set {
        route: u32,
        moved: bool,
        hold_ms: u64,
        max_held: u32,
    },
    Table,
    TakeUnsaid(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let route = 0..ROUTES;
    let hint = prop_oneof![Just(Hint::Unknown), Just(Hint::Ready), Just(Hint::NotReady)];
    prop_oneof![
        8 => (route.clone(), 0..CLUSTERS.len()).prop_map(|(route, cluster)| Event::Arrive { route, cluster }),
        4 => any::<usize>().prop_map(Event::Depart),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(nth, unhealthy)| Event::Respond { nth, unhealthy }),
        3 => (route.clone(), hint).prop_map(|(route, hint)| Event::Hint(route, hint)),
        3 => (0..CLUSTERS.len(), any::<bool>()).prop_map(|(cluster, usable)| Event::World { cluster, usable }),
        3 => prop_oneof![0..5u64, 0..300u64, 0..15_000u64].prop_map(Event::Pass),
        3 => Just(Event::Next),
        1 => route.clone().prop_map(Event::Remove),
        1 => (route, any::<bool>(), 0..3_000u64, 0..6u32)
            .prop_map(|(route, moved, hold_ms, max_held)| Event::Set { route, moved, hold_ms, max_held }),
        1 => Just(Event::Table),
        1 => (0..2usize).prop_map(Event::TakeUnsaid),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Held {
        lane: (u32, usize),
    },
    Forwarded,
    Answered,
    /// To be matched anew, and the driver has not done so yet, or it was none of ours.
    Loose,
}

#[derive(Clone, Debug)]
struct Known {
    state: State,
    lane: (u32, usize),
    arrived: u64,
    /// The route in whose counts it is.
    route: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct ModelRoute {
    generation: u64,
    hold_ms: Option<u64>,
    max_held: Option<u32>,
    hint: Hint,
    since: u64,
}

struct Driver {
    gate: Gate,
    world: World,
    now: u64,
    next_stream: u32,
    known: BTreeMap<u32, Known>,
    queues: BTreeMap<(u32, usize), VecDeque<u32>>,
    routes: BTreeMap<u32, ModelRoute>,
    generation: u64,
    has_table: bool,
    /// When a lane's request was first answered for want of a host, since its route was told to be ready.
    doubts: BTreeMap<(u32, usize), u64>,
    /// How many looks there may be yet at a cluster that nobody waits for.
    unawaited: usize,
    limits: Limits,
}

/// How many looks a sleep costs a lane on which nobody waits, at most.
const UNAWAITED: usize = 7;

/// In the model, the lane of requests that came before the table.
const UNKNOWN: u32 = u32::MAX;

impl Driver {
    fn new() -> Self {
        let limits = Limits { held_per_route: 4, held_per_worker: 6, hold_timeout: 2_500 * MS, ..limits() };
        Self {
            gate: Gate::new(limits.clone(), 2),
            world: World::default(),
            now: 0,
            next_stream: 1,
            known: BTreeMap::new(),
            queues: BTreeMap::new(),
            routes: BTreeMap::new(),
            generation: 0,
            has_table: false,
            doubts: BTreeMap::new(),
            unawaited: 0,
            limits,
        }
    }

    fn spec(&self, route: u32, it: &ModelRoute) -> RouteSpec {
        RouteSpec {
            // A slot is given to another route after a removal, as the table does.
            id: RouteId(u64::from(route) + it.generation * 1_000),
            hold_timeout: it.hold_ms.map(Duration::from_millis),
            max_held: it.max_held,
            ..spec(route)
        }
    }

    fn run(&mut self, event: Event) {
        match event {
            Event::Arrive { route, cluster } => {
                let stream = self.next_stream;
                self.next_stream += 1;
                self.arrive(stream, route, cluster, None);
            }
            Event::Depart(nth) => {
                if let Some(stream) = self.nth(nth) {
                    self.depart(stream);
                }
            }
            Event::Respond { nth, unhealthy } => {
                if let Some(stream) = self.nth(nth) {
                    let said = self.gate.respond(stream, 200);
                    assert_eq!(said.is_some(), self.known[&stream].state == State::Forwarded);
                    if unhealthy {
                        if said.is_some() {
                            self.doubts.entry(self.known[&stream].lane).or_insert(self.now);
                        }
                        self.gate.suspect(at(self.now), stream);
                    }
                }
            }
            Event::Hint(route, hint) => {
                self.gate.set_hint(at(self.now), route, hint);
                let now = self.now;
                if let Some(it) = self.routes.get_mut(&route)
                    && it.hint != hint
                {
                    (it.hint, it.since) = (hint, now);
                    self.doubts.retain(|(of, _), _| *of != route);
                    if hint == Hint::NotReady {
                        self.unawaited += UNAWAITED * CLUSTERS.len();
                    }
                }
            }
            Event::World { cluster, usable } => self.world.set(CLUSTERS[cluster], usable),
            Event::Pass(ms) => self.now += ms,
            Event::Next => {
                if let Some(due) = self.gate.next_due() {
                    self.now = self.now.max((due.as_nanos() - at(0).as_nanos()).div_ceil(1_000_000));
                }
            }
            Event::Remove(route) => {
                self.gate.remove_route(at(self.now), route);
                self.routes.remove(&route);
            }
            Event::Set { route, moved, hold_ms, max_held } => {
                self.generation += 1;
                let (generation, now) = (self.generation, self.now);
                let it = self.routes.entry(route).or_insert(ModelRoute {
                    generation,
                    hold_ms: None,
                    max_held: None,
                    hint: Hint::Unknown,
                    since: now,
                });
                it.hold_ms = (hold_ms > 0).then_some(hold_ms);
                it.max_held = (max_held > 0).then_some(max_held);
                let it = *it;
                let spec = self.spec(route, &it);
                self.gate.set_route(at(self.now), route, &spec, moved);
            }
            Event::Table => {
                if !self.has_table {
                    self.has_table = true;
                    self.gate.adopt_provisional(at(self.now));
                }
            }
            Event::TakeUnsaid(link) => {
                let slots = self.gate.take_unsaid(link);
                let distinct: std::collections::BTreeSet<_> = slots.iter().collect();
                assert_eq!(distinct.len(), slots.len(), "each route once");
                assert!(!self.gate.has_unsaid(link));
            }
        }
        self.poll();
        self.check();
    }

    fn nth(&self, nth: usize) -> Option<u32> {
        (!self.known.is_empty()).then(|| *self.known.keys().nth(nth % self.known.len()).unwrap())
    }

    fn arrive(&mut self, stream: u32, route: u32, cluster: usize, before: Option<Known>) {
        let owner = if self.has_table { Owner::Route(route) } else { Owner::Unknown };
        let Some(lane) = self.gate.lane(owner, CLUSTERS[cluster]) else {
            assert!(
                self.has_table && !self.routes.contains_key(&route),
                "only what has no route has no lane"
            );
            return;
        };
        let key = (if self.has_table { route } else { UNKNOWN }, cluster);
        let looks = self.world.looks.len();
        let held = self.gate.held();
        let arrival = self.gate.arrive(at(self.now), stream, lane, Method::Get, &mut self.world);
        let counted = self.has_table.then_some(route);
        let arrived = before.as_ref().map_or(self.now, |it| it.arrived);
        let state = match arrival {
            Arrival::Forward => {
                self.check_forward(key, looks);
                assert!(self.queues.get(&key).is_none_or(VecDeque::is_empty), "nobody is overtaken");
                State::Forwarded
            }
            Arrival::Hold => {
                assert!(held < self.limits.held_per_worker);
                self.queues.entry(key).or_default().push_back(stream);
                State::Held { lane: key }
            }
            Arrival::Refuse => {
                assert!(self.has_table);
                State::Answered
            }
            Arrival::Pass => {
                assert!(!self.has_table && held >= self.limits.held_per_worker);
                self.known.remove(&stream);
                return;
            }
            Arrival::Mismatch(_) => panic!("the gate does not match"),
        };
        self.known.insert(stream, Known { state, lane: key, arrived, route: counted });
    }

    /// Nothing is let on against what is known: not past a scaler that says "not ready" and is believed, and
    /// not if the last look said no, unless answers have said so too for as long.
    fn check_forward(&self, (route, cluster): (u32, usize), looks_before: usize) {
        let doubted = self.doubts.get(&(route, cluster));
        let cluster = CLUSTERS[cluster];
        if let Some(it) = self.routes.get(&route)
            && it.hint == Hint::NotReady
        {
            let age = Duration::from_millis(self.now - it.since);
            assert!(age >= self.limits.distrust_after, "forwarded {age:?} after \"not ready\"");
        }
        let looks = &self.world.looks[looks_before.min(self.world.looks.len())..];
        if let Some((_, usable)) = looks.iter().rfind(|(looked, _)| looked == cluster) {
            let is_ready = self.routes.get(&route).is_some_and(|it| it.hint == Hint::Ready);
            let doubted = doubted.filter(|_| is_ready).map(|since| Duration::from_millis(self.now - since));
            let is_vain = doubted.is_some_and(|age| age >= self.limits.distrust_after);
            assert!(*usable || is_vain, "forwarded although the look said no");
        }
    }

    fn depart(&mut self, stream: u32) {
        self.gate.depart(at(self.now), stream);
        if let Some(Known { state: State::Held { lane }, .. }) = self.known.remove(&stream) {
            self.queues.get_mut(&lane).unwrap().retain(|it| *it != stream);
        }
    }

    fn poll(&mut self) {
        let looks = self.world.looks.len();
        let awaited: Vec<&[u8]> = self
            .queues
            .iter()
            .filter(|(_, queue)| !queue.is_empty())
            .map(|((_, cluster), _)| CLUSTERS[*cluster])
            .collect();
        let mut outcomes = Vec::new();
        self.gate.poll(at(self.now), &mut self.world, &mut outcomes);
        assert!(outcomes.len() <= OUTCOMES_PER_POLL);
        for (cluster, _) in self.world.looks[looks..].iter().filter(|(it, _)| !awaited.contains(&&**it)) {
            let asleep = self.routes.values().any(|it| it.hint == Hint::NotReady);
            assert!(asleep, "nobody waits for {}", cluster.escape_ascii());
            self.unawaited = self.unawaited.checked_sub(1).expect("some looks are enough");
        }
        assert!(self.world.looks.len() - looks <= LOOKS_PER_POLL);
        // A batch leaves the gate as one, and only then is something done with it.
        let mut anew = Vec::new();
        for outcome in outcomes {
            let (Outcome::Release { stream, .. }
            | Outcome::Expire { stream, .. }
            | Outcome::Pass { stream }
            | Outcome::Rematch { stream }) = outcome;
            let known = self.known[&stream].clone();
            // That it waited, by the model, is what makes the end of a hold the only one.
            let State::Held { lane } = known.state else { panic!("{outcome:?} of {known:?}") };
            assert_eq!(
                self.queues.get_mut(&lane).unwrap().pop_front(),
                Some(stream),
                "first come, first out"
            );
            let waited = Duration::from_millis(self.now - known.arrived);
            match outcome {
                Outcome::Release { held, .. } => {
                    assert_eq!(held, waited);
                    // What was told in this very poll counts, not what the world has become since.
                    self.check_forward(lane, looks);
                    self.known.get_mut(&stream).unwrap().state = State::Forwarded;
                }
                Outcome::Expire { held, .. } => {
                    assert_eq!(held, waited);
                    assert!(waited >= self.timeout(lane.0));
                    self.known.get_mut(&stream).unwrap().state = State::Answered;
                }
                Outcome::Pass { .. } => {
                    assert_eq!(lane.0, UNKNOWN);
                    self.known.remove(&stream);
                }
                Outcome::Rematch { .. } => {
                    let it = self.known.get_mut(&stream).unwrap();
                    (it.state, it.route) = (State::Loose, None);
                    anew.push((stream, lane.1, it.clone()));
                }
            }
        }
        for (stream, cluster, before) in anew {
            // It goes where a route is, in the same cluster; or nowhere.
            if let Some(route) = self.routes.keys().next().copied().filter(|_| self.has_table) {
                self.arrive(stream, route, cluster, Some(before));
            }
        }
    }

    fn timeout(&self, route: u32) -> Duration {
        let own = self.routes.get(&route).and_then(|it| it.hold_ms).map(Duration::from_millis);
        own.map_or(self.limits.hold_timeout, |own| own.min(self.limits.hold_timeout))
    }

    fn check(&self) {
        let held = |lane_of: &dyn Fn((u32, usize)) -> bool| {
            self.known.values().filter(|it| matches!(it.state, State::Held { lane } if lane_of(lane))).count()
                as u32
        };
        assert_eq!(self.gate.held(), held(&|_| true));
        assert_eq!(self.gate.in_flight(), self.known.len());
        assert!(self.gate.held() <= self.limits.held_per_worker);
        for (slot, it) in &self.routes {
            let (id, counts) = self.gate.counts(*slot).expect("a route that was set has counts");
            assert_eq!(id, self.spec(*slot, it).id);
            // What waits to be matched anew may still be counted where it was.
            let mine = |known: &&Known| known.route == Some(*slot) && known.state != State::Loose;
            let in_flight = self.known.values().filter(mine).count();
            assert!(counts.in_flight() as usize <= in_flight, "{counts:?}");
            assert!(counts.held() <= counts.in_flight());
            assert!(counts.held() <= self.limits.held_per_route);
        }
    }

    /// Everybody who waits gets out once the world is well; then all leave, and nothing is left.
    fn finish(mut self) {
        self.run(Event::Table);
        for cluster in 0..CLUSTERS.len() {
            self.run(Event::World { cluster, usable: true });
        }
        for route in 0..ROUTES {
            self.run(Event::Hint(route, Hint::Ready));
        }
        for _ in 0..1_000 {
            if self.gate.held() == 0 {
                break;
            }
            let due = self.gate.next_due().expect("what waits is looked after");
            assert!(due <= at(self.now + 3_000), "nobody waits for longer than a deadline");
            self.run(Event::Next);
        }
        assert_eq!(self.gate.held(), 0);
        assert_eq!(self.gate.next_due(), None);
        for stream in self.known.keys().copied().collect::<Vec<_>>() {
            self.depart(stream);
            self.check();
        }
        for route in self.routes.keys() {
            let counts = self.gate.counts(*route).unwrap().1;
            assert_eq!((counts.in_flight(), counts.held()), (0, 0));
        }
        assert_eq!(self.gate.in_flight(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_hold_ends_once_in_order_and_within_the_limits(events in vec(event(), 1..120)) {
        let mut driver = Driver::new();
        for event in events {
            driver.run(event);
        }
        driver.finish();
    }
}
