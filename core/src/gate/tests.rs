//! The gate by cases; falling asleep in `asleep.rs`, random interleavings in `random.rs`.

mod asleep;
mod random;

use super::*;
use crate::{
    count::Counts,
    route::{ClusterPattern, Kind, RouteId},
};
use std::collections::BTreeMap;

const MS: Duration = Duration::from_millis(1);

fn at(ms: u64) -> Instant {
    Instant::from_nanos(1_000_000_000 + ms * 1_000_000)
}

fn limits() -> Limits {
    Limits {
        held_per_route: 100,
        held_per_worker: 150,
        hold_timeout: Duration::from_secs(60),
        quiet: 100 * MS,
        distrust_after: Duration::from_secs(10),
    }
}

fn spec(slot: u32) -> RouteSpec {
    RouteSpec {
        id: RouteId(u64::from(slot) + 1_000),
        kind: Kind::HttpScaledObject,
        namespace: "ns".into(),
        name: format!("app-{slot}").into(),
        generation: 1,
        created: 0,
        rules: Vec::new(),
        cluster: ClusterPattern { prefix: Box::from(*b"app"), suffix: None },
        hold_timeout: None,
        max_held: None,
    }
}

/// A worker's clusters as its Envoy sees them. Counts the looks.
#[derive(Debug, Default)]
struct World {
    usable: BTreeMap<Vec<u8>, bool>,
    looks: Vec<(Vec<u8>, bool)>,
    /// The host of the request that arrives.
    host: &'static [u8],
    /// The host of the last look.
    asked_for: Vec<u8>,
}

impl World {
    fn set(&mut self, cluster: &[u8], usable: bool) {
        self.usable.insert(cluster.to_vec(), usable);
    }
}

impl Looks for World {
    fn usable(&mut self, cluster: &[u8], host: &[u8]) -> bool {
        self.asked_for = host.to_vec();
        let usable = self.usable.get(cluster).copied().unwrap_or(false);
        self.looks.push((cluster.to_vec(), usable));
        usable
    }

    fn host(&mut self) -> &[u8] {
        self.host
    }
}

/// A gate with one route, and its world.
struct Bed {
    gate: Gate,
    world: World,
}

impl Bed {
    fn new(limits: Limits) -> Self {
        let mut gate = Gate::new(limits, 2);
        gate.set_route(at(0), 0, &spec(0), false);
        Self { gate, world: World::default() }
    }

    fn arrive(&mut self, ms: u64, stream: u32) -> Arrival {
        let lane = self.gate.lane(Owner::Route(0), b"app").unwrap();
        self.gate.arrive(at(ms), stream, lane, Method::Get, &mut self.world)
    }

    fn poll(&mut self, ms: u64) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        self.gate.poll(at(ms), &mut self.world, &mut outcomes);
        outcomes
    }

    /// Does what is due from `from` on until `to`, and gives when there was a look.
    fn looks(&mut self, from: u64, to: u64) -> Vec<u64> {
        let mut moments = Vec::new();
        for ms in from..to {
            let looks = self.world.looks.len();
            assert_eq!(self.poll(ms), []);
            moments.extend(std::iter::repeat_n(ms, self.world.looks.len() - looks));
        }
        moments
    }

    fn counts(&self) -> &Counts {
        self.gate.counts(0).unwrap().1
    }
}

fn release(stream: u32, held_ms: u64) -> Outcome {
    Outcome::Release { stream, held: Duration::from_millis(held_ms) }
}

#[test]
fn a_warm_request_goes_on_and_without_a_word_of_the_scaler_a_quiet_spell_costs_a_look() {
    let mut bed = Bed::new(limits());
    bed.world.set(b"app", true);
    assert_eq!(bed.arrive(0, 1), Arrival::Forward);
    assert_eq!(bed.world.looks.len(), 1);
    assert_eq!(bed.gate.respond(1, 200), Some(false));
    bed.gate.depart(at(5), 1);
    assert_eq!(bed.arrive(104, 2), Arrival::Forward);
    // One is under way: the lane is not asleep however long that takes.
    assert_eq!(bed.arrive(9_000, 3), Arrival::Forward);
    assert_eq!(bed.world.looks.len(), 1);
    bed.gate.depart(at(9_000), 2);
    bed.gate.depart(at(9_000), 3);
    assert_eq!(bed.arrive(9_100, 4), Arrival::Forward);
    assert_eq!(bed.world.looks.len(), 2);
    bed.gate.depart(at(9_101), 4);
    assert_eq!((bed.counts().in_flight(), bed.counts().arrivals(), bed.counts().cold_starts), (0, 4, 0));
}

#[test]
fn an_app_that_the_scaler_calls_ready_is_looked_at_once() {
    let mut bed = Bed::new(limits());
    bed.world.set(b"app", true);
    bed.gate.set_hint(at(0), 0, Hint::Ready);
    for round in 1..4 {
        let stream = u32::try_from(round).unwrap();
        assert_eq!(bed.arrive(round * 10_000 + 5_000, stream), Arrival::Forward);
        bed.gate.depart(at(round * 10_000 + 5_001), stream);
        assert_eq!(bed.world.looks.len(), 1, "what is not known yet is looked at");
    }
    bed.gate.set_hint(at(50_000), 0, Hint::NotReady);
    assert_eq!(bed.arrive(50_000, 9), Arrival::Hold);
}

#[test]
fn a_sleeping_app_is_told_at_once_held_for_and_released_when_the_cluster_is_usable() {
    let mut bed = Bed::new(limits());
    bed.gate.set_hint(at(0), 0, Hint::NotReady);
    bed.gate.take_urgent();
    assert_eq!(bed.arrive(0, 1), Arrival::Hold);
    assert!(bed.gate.take_urgent());
    assert_eq!(bed.arrive(1, 2), Arrival::Hold);
    assert!(!bed.gate.take_urgent(), "the second one goes with the tick");
    assert_eq!(bed.poll(500), []);
    assert!(bed.world.looks.is_empty(), "no look could help while the scaler says no");

    bed.gate.set_hint(at(600), 0, Hint::Ready);
    assert_eq!(bed.poll(600), []);
    assert_eq!(bed.world.looks.len(), 1, "ready means: look now");
    bed.world.set(b"app", true);
    assert_eq!(bed.poll(601), []);
    assert_eq!(bed.poll(602), [release(1, 602), release(2, 601)]);
    assert_eq!(bed.gate.respond(1, 200), Some(true));
    assert_eq!(bed.gate.held(), 0);
    assert_eq!(bed.counts().cold_starts, 2);
    assert_eq!(bed.counts().lags.sum_us(), 2_000);
    assert_eq!(bed.gate.next_due(), None);
}

#[test]
fn without_a_scaler_looks_alone_release() {
    let mut bed = Bed::new(limits());
    assert_eq!(bed.arrive(0, 1), Arrival::Hold);
    bed.world.set(b"app", true);
    let due = bed.gate.next_due().unwrap();
    assert!(due <= at(50));
    let mut outcomes = Vec::new();
    bed.gate.poll(due, &mut bed.world, &mut outcomes);
    assert!(matches!(outcomes[..], [Outcome::Release { stream: 1, .. }]));
}

/// For each cluster and host that a look names, the host keeps something for a while.
#[test]
fn a_look_is_for_the_host_of_the_first_that_waits_and_seldom_for_another_one() {
    let mut bed = Bed::new(limits());
    let mut wait_for = |ms: u64, host: &'static [u8]| {
        bed.world.host = host;
        let stream = u32::try_from(ms).unwrap();
        assert_eq!(bed.arrive(ms, stream), Arrival::Hold);
        let looked = bed.world.asked_for.clone();
        bed.world.host = b"behind.example.com";
        assert_eq!(bed.arrive(ms, stream + 1), Arrival::Hold);
        bed.poll(ms + 60);
        assert_eq!(bed.world.asked_for, looked);
        bed.gate.depart(at(ms + 60), stream);
        bed.gate.depart(at(ms + 60), stream + 1);
        looked
    };
    assert_eq!(wait_for(0, b""), b"");
    assert_eq!(wait_for(1_000, b"one.example.com"), b"one.example.com");
    assert_eq!(wait_for(2_000, b"two.example.com"), b"one.example.com");
    assert_eq!(wait_for(10_999, b"three.example.com"), b"one.example.com");
    assert_eq!(wait_for(11_100, b"four.example.com"), b"four.example.com");
    assert_eq!(wait_for(99_000, b""), b"four.example.com");
}

#[test]
fn a_scaler_that_is_wrong_for_long_is_not_believed_until_it_says_something_else() {
    let mut bed = Bed::new(limits());
    bed.world.set(b"app", true);
    bed.gate.set_hint(at(0), 0, Hint::NotReady);
    assert_eq!(bed.arrive(0, 1), Arrival::Hold);
    let mut now = 0;
    let mut outcomes = Vec::new();
    while outcomes.is_empty() {
        now += 10;
        outcomes = bed.poll(now);
        assert!(now < 12_000);
    }
    assert!(now >= 10_000, "{now}");
    assert_eq!(outcomes, [release(1, now)]);
    assert_eq!(bed.arrive(now + 1, 2), Arrival::Forward);
    bed.gate.set_hint(at(now + 2), 0, Hint::Ready);
    bed.gate.set_hint(at(now + 3), 0, Hint::NotReady);
    assert_eq!(bed.arrive(now + 4, 3), Arrival::Hold);
}

#[test]
fn a_lane_whose_cluster_was_seen_empty_is_looked_at_before_the_next_request() {
    let mut bed = Bed::new(limits());
    bed.world.set(b"app", true);
    assert_eq!(bed.arrive(0, 1), Arrival::Forward);
    bed.world.set(b"app", false);
    bed.gate.respond(1, 503);
    bed.gate.suspect(at(1), 1);
    assert_eq!(bed.arrive(1, 2), Arrival::Hold);
}

/// A gate whose scaler says "ready", with a lane that has found no host: request 1 had that for an answer.
fn doubted(now: u64) -> Bed {
    let mut bed = Bed::new(limits());
    bed.gate.set_hint(at(0), 0, Hint::Ready);
    bed.world.set(b"app", true);
    assert_eq!(bed.arrive(now, 1), Arrival::Forward);
    bed.world.set(b"app", false);
    bed.gate.respond(1, 503);
    bed.gate.suspect(at(now), 1);
    bed.gate.depart(at(now), 1);
    bed
}

#[test]
fn an_answer_without_a_host_costs_no_later_request_while_not_ready_is_on_its_way() {
    let mut bed = doubted(1_000);
    assert_eq!(bed.arrive(1_001, 2), Arrival::Hold);
    bed.gate.set_hint(at(1_200), 0, Hint::NotReady);
    // However long the app sleeps then.
    bed.looks(1_200, 30_000);
    bed.gate.set_hint(at(30_000), 0, Hint::Ready);
    bed.looks(30_000, 30_100);
    bed.world.set(b"app", true);
    assert_eq!(bed.poll(30_100), [release(2, 29_099)]);
}

#[test]
fn an_app_that_has_no_host_against_the_scalers_word_fails_as_without_a_gate_after_a_while() {
    let mut bed = doubted(1_000);
    assert_eq!(bed.arrive(1_001, 2), Arrival::Hold);
    bed.looks(1_001, 10_980);
    let ended = (10_980..11_100).find_map(|ms| Some((ms, bed.poll(ms))).filter(|(_, it)| !it.is_empty()));
    let (moment, outcomes) = ended.expect("the wait has an end");
    assert!(moment >= 11_000, "{moment}");
    assert_eq!(outcomes, [release(2, moment - 1_001)]);

    // Nobody waits for it any more, and nobody looks.
    let looks = bed.world.looks.len();
    let fail = |bed: &mut Bed, ms, stream, code| {
        assert_eq!(bed.arrive(ms, stream), Arrival::Forward);
        bed.gate.respond(stream, code);
        if code == 503 {
            bed.gate.suspect(at(ms), stream);
        }
        bed.gate.depart(at(ms), stream);
    };
    fail(&mut bed, 12_000, 3, 503);
    fail(&mut bed, 20_000, 4, 503);
    bed.gate.respond(2, 200);
    bed.gate.depart(at(20_000), 2);
    fail(&mut bed, 20_001, 5, 503);
    assert_eq!((bed.world.looks.len(), bed.gate.next_due()), (looks, None));

    // Until the app has answered one that came since.
    fail(&mut bed, 21_000, 6, 200);
    fail(&mut bed, 22_000, 7, 503);
    assert_eq!(bed.arrive(22_001, 8), Arrival::Hold);
    bed.world.set(b"app", true);
    assert_eq!(bed.poll(22_030).len(), 1);
}

#[test]
fn an_app_that_has_no_host_after_it_woke_fails_too_though_looks_say_so_again_and_again() {
    let mut bed = Bed::new(limits());
    bed.gate.set_hint(at(0), 0, Hint::Ready);
    bed.gate.set_hint(at(1), 0, Hint::NotReady);
    bed.gate.set_hint(at(20_000), 0, Hint::Ready);
    bed.world.set(b"app", true);
    assert_eq!(bed.arrive(20_000, 1), Arrival::Forward);
    bed.world.set(b"app", false);
    bed.gate.suspect(at(20_000), 1);
    bed.gate.depart(at(20_000), 1);
    assert_eq!(bed.arrive(30_000, 2), Arrival::Forward, "nobody has waited, but for long enough");
    bed.gate.depart(at(30_000), 2);
    assert_eq!(bed.arrive(30_500, 3), Arrival::Forward);
}

#[test]
fn a_hold_ends_at_the_routes_deadline_or_the_gateways_whichever_is_first() {
    let mut bed = Bed::new(limits());
    assert_eq!(bed.arrive(0, 1), Arrival::Hold);
    assert_eq!(bed.poll(59_999), []);
    assert_eq!(bed.poll(60_000), [Outcome::Expire { stream: 1, held: Duration::from_secs(60) }]);
    assert_eq!(bed.gate.respond(1, 504), None, "an answer of ours has no cold-start header");
    bed.gate.depart(at(60_000), 1);
    assert_eq!((bed.counts().expirations, bed.counts().in_flight()), (1, 0));

    // A deadline that is changed holds for those that wait already.
    assert_eq!(bed.arrive(70_000, 2), Arrival::Hold);
    bed.gate.set_route(at(71_000), 0, &RouteSpec { hold_timeout: Some(2_000 * MS), ..spec(0) }, false);
    assert_eq!(bed.poll(71_999), []);
    assert_eq!(bed.poll(72_000), [Outcome::Expire { stream: 2, held: Duration::from_secs(2) }]);
    bed.gate.set_route(at(72_000), 0, &RouteSpec { hold_timeout: Some(3_600_000 * MS), ..spec(0) }, false);
    assert_eq!(bed.arrive(80_000, 3), Arrival::Hold);
    assert_eq!(bed.poll(140_000).len(), 1);
}

#[test]
fn full_is_full_for_the_route_and_for_the_worker() {
    let mut bed = Bed::new(Limits { held_per_route: 2, held_per_worker: 3, ..limits() });
    bed.gate.set_route(at(0), 1, &spec(1), false);
    assert_eq!((bed.arrive(0, 1), bed.arrive(0, 2)), (Arrival::Hold, Arrival::Hold));
    assert_eq!(bed.arrive(0, 3), Arrival::Refuse);
    bed.gate.depart(at(1), 3);
    let mut other = |stream| {
        let lane = bed.gate.lane(Owner::Route(1), b"app").unwrap();
        bed.gate.arrive(at(1), stream, lane, Method::Get, &mut bed.world)
    };
    assert_eq!((other(4), other(5)), (Arrival::Hold, Arrival::Refuse));
    assert_eq!(bed.counts().rejections, 1);
    // One leaves, one place is free.
    bed.gate.depart(at(2), 1);
    assert_eq!(bed.arrive(3, 6), Arrival::Hold);
    assert_eq!(bed.arrive(3, 7), Arrival::Refuse);
}

#[test]
fn a_client_that_leaves_while_held_is_gone_from_the_counts_at_once() {
    let mut bed = Bed::new(limits());
    for stream in 1..=3 {
        assert_eq!(bed.arrive(0, stream), Arrival::Hold);
    }
    bed.gate.take_urgent();
    bed.gate.depart(at(5), 2);
    assert_eq!((bed.counts().held(), bed.counts().in_flight()), (2, 2));
    bed.gate.depart(at(5), 1);
    bed.gate.depart(at(5), 3);
    assert_eq!((bed.counts().held(), bed.counts().in_flight(), bed.gate.held()), (0, 0, 0));
    assert!(bed.gate.take_urgent(), "that nobody waits any more is news");
    assert_eq!(bed.gate.next_due(), None);
}

#[test]
fn at_most_so_many_leave_per_call_and_the_rest_is_due_at_once() {
    let mut bed = Bed::new(Limits { held_per_route: 1_000, held_per_worker: 1_000, ..limits() });
    for stream in 0..100 {
        assert_eq!(bed.arrive(0, stream), Arrival::Hold);
    }
    bed.world.set(b"app", true);
    let mut order = Vec::new();
    let mut now = 100;
    while bed.gate.held() > 0 {
        let outcomes = bed.poll(now);
        assert!(outcomes.len() <= OUTCOMES_PER_POLL);
        order.extend(outcomes.iter().map(|it| match it {
            Outcome::Release { stream, .. } => *stream,
            other => panic!("{other:?}"),
        }));
        now += 1;
    }
    assert_eq!(order, (0..100).collect::<Vec<_>>());
    assert!(now <= 105, "{now}");
}

#[test]
fn releases_stop_when_the_cluster_is_lost_in_between() {
    let mut bed = Bed::new(limits());
    for stream in 0..64 {
        bed.arrive(0, stream);
    }
    bed.world.set(b"app", true);
    assert_eq!(bed.poll(100).len(), 32);
    bed.world.set(b"app", false);
    assert_eq!(bed.poll(101), []);
    // Who comes now stands behind those that wait.
    assert_eq!(bed.arrive(102, 99), Arrival::Hold);
    assert_eq!(bed.gate.held(), 33);
}

#[test]
fn what_waits_for_a_route_that_is_gone_is_matched_anew_in_order() {
    let mut bed = Bed::new(limits());
    bed.arrive(0, 1);
    bed.arrive(0, 2);
    bed.gate.remove_route(at(5), 0);
    assert_eq!(bed.poll(5), [Outcome::Rematch { stream: 1 }, Outcome::Rematch { stream: 2 }]);
    bed.gate.set_route(at(6), 0, &spec(7), false);
    let lane = bed.gate.lane(Owner::Route(0), b"app").unwrap();
    assert_eq!(bed.gate.arrive(at(6), 1, lane, Method::Get, &mut bed.world), Arrival::Hold);
    // The second one is none of ours any more.
    bed.gate.depart(at(7), 2);
    assert_eq!((bed.counts().arrivals(), bed.counts().held(), bed.gate.held()), (1, 1, 1));
    bed.world.set(b"app", true);
    assert_eq!(bed.poll(100), [release(1, 100)], "it waits since it came, not since it was matched anew");
}

#[test]
fn a_route_that_moves_counts_no_request_twice() {
    let mut bed = Bed::new(limits());
    bed.arrive(0, 1);
    bed.gate.set_route(at(5), 0, &RouteSpec { generation: 2, ..spec(0) }, true);
    assert_eq!(bed.poll(5), [Outcome::Rematch { stream: 1 }]);
    assert_eq!(bed.arrive(5, 1), Arrival::Hold);
    assert_eq!((bed.counts().arrivals(), bed.counts().in_flight(), bed.counts().held()), (1, 1, 1));
    assert_eq!(bed.poll(6), [], "once is enough");
}

#[test]
fn before_there_is_a_table_what_finds_no_host_waits_and_is_then_matched() {
    let mut bed = Bed::new(Limits { held_per_worker: 2, ..limits() });
    let arrive = |bed: &mut Bed, stream, cluster: &[u8]| {
        let lane = bed.gate.lane(Owner::Unknown, cluster).unwrap();
        bed.gate.arrive(at(0), stream, lane, Method::Get, &mut bed.world)
    };
    bed.world.set(b"warm", true);
    assert_eq!(arrive(&mut bed, 1, b"warm"), Arrival::Forward);
    assert_eq!(arrive(&mut bed, 2, b"cold"), Arrival::Hold);
    assert_eq!(arrive(&mut bed, 3, b"cold"), Arrival::Hold);
    assert_eq!(arrive(&mut bed, 4, b"cold"), Arrival::Pass, "nothing unknown is refused");
    bed.gate.adopt_provisional(at(1));
    assert_eq!(bed.poll(1), [Outcome::Rematch { stream: 2 }, Outcome::Rematch { stream: 3 }]);
    assert_eq!(bed.arrive(1, 2), Arrival::Hold);
    assert_eq!(bed.counts().arrivals(), 1);
}

#[test]
fn with_no_table_ever_a_request_is_let_on_as_it_is() {
    let mut bed = Bed::new(Limits { hold_timeout: Duration::from_secs(600), ..limits() });
    let lane = bed.gate.lane(Owner::Unknown, b"cold").unwrap();
    assert_eq!(bed.gate.arrive(at(0), 1, lane, Method::Get, &mut bed.world), Arrival::Hold);
    assert_eq!(bed.poll(59_999), []);
    assert_eq!(bed.poll(60_000), [Outcome::Pass { stream: 1 }]);
    assert_eq!(bed.gate.respond(1, 503), None);
}

#[test]
fn subsets_of_a_target_wait_apart() {
    let mut bed = Bed::new(limits());
    for (stream, cluster) in [(1, b"v1"), (2, b"v2")] {
        let lane = bed.gate.lane(Owner::Route(0), cluster).unwrap();
        assert_eq!(bed.gate.arrive(at(0), stream, lane, Method::Get, &mut bed.world), Arrival::Hold);
    }
    bed.world.set(b"v2", true);
    assert_eq!(bed.poll(100), [release(2, 100)]);
    assert_eq!(bed.counts().held(), 1);
}

#[test]
fn each_link_is_told_each_change_once() {
    let mut bed = Bed::new(limits());
    assert_eq!(bed.gate.take_unsaid(0), [0]);
    bed.arrive(0, 1);
    bed.arrive(0, 2);
    assert_eq!(bed.gate.take_unsaid(0), [0]);
    assert_eq!(bed.gate.take_unsaid(0), [] as [u32; 0]);
    assert_eq!(bed.gate.take_unsaid(1), [0]);
    assert!(!bed.gate.has_unsaid(0));
    bed.gate.depart(at(1), 1);
    assert!(bed.gate.has_unsaid(0) && bed.gate.has_unsaid(1));
}

#[test]
fn events_of_requests_and_routes_that_nobody_knows_do_nothing() {
    let mut bed = Bed::new(limits());
    bed.gate.depart(at(0), 77);
    assert_eq!(bed.gate.respond(77, 200), None);
    bed.gate.suspect(at(0), 77);
    bed.gate.mismatch(99);
    bed.gate.set_hint(at(0), 99, Hint::Ready);
    bed.gate.remove_route(at(0), 99);
    assert_eq!(bed.gate.lane(Owner::Route(99), b"app"), None);
    assert!(bed.gate.counts(99).is_none());
}
