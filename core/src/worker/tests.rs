use super::*;
use crate::count::Method;
use crate::route::{ClusterPattern, HeaderRule, Kind, Rule};

const TICK: Duration = Duration::from_millis(250);

fn at(ms: u64) -> Instant {
    Instant::from_nanos(1_000_000_000 + ms * 1_000_000)
}

/// A request for `host` to the cluster of that name, on a gateway whose clusters are all empty but `usable`.
struct Asked {
    host: &'static [u8],
    usable: bool,
}

impl Request for Asked {
    fn authority(&mut self) -> &[u8] {
        self.host
    }
    fn path(&mut self) -> &[u8] {
        b"/"
    }
    fn header_matches(&mut self, _: &HeaderRule) -> bool {
        false
    }
    fn method(&mut self) -> Method {
        Method::Get
    }

    fn cluster(&mut self) -> &[u8] {
        self.host
    }
}

impl Looks for Asked {
    fn usable(&mut self, _: &[u8], _: &[u8]) -> bool {
        self.usable
    }
}

fn spec(host: &'static str, generation: u64) -> RouteSpec {
    RouteSpec {
        id: RouteId(host.len() as u64),
        kind: Kind::HttpScaledObject,
        namespace: "ns".into(),
        name: host.into(),
        generation,
        created: 0,
        rules: vec![Rule { hosts: vec![crate::route::HostPattern::parse(host)], ..Rule::default() }],
        cluster: ClusterPattern { prefix: host.as_bytes().into(), suffix: None },
        hold_timeout: None,
        max_held: None,
    }
}

struct Bed {
    worker: Worker,
    stream: u32,
}

impl Bed {
    fn new() -> Self {
        let limits = Limits {
            held_per_route: 10,
            held_per_worker: 10,
            hold_timeout: Duration::from_secs(60),
            quiet: Duration::from_millis(100),
            distrust_after: Duration::from_secs(10),
        };
        let mut random = 0;
        let worker = Worker::new(at(0), limits, 2, TICK, move || {
            random += 1;
            random
        });
        Self { worker, stream: 0 }
    }

    /// Opens link `index` and takes the scaler's table in.
    fn connect(&mut self, ms: u64, index: usize, routes: &[(RouteSpec, Hint)]) {
        while let Some(step) = self.worker.step(at(ms), index) {
            assert_eq!(step, Step::Open);
            self.worker.link_opened(at(ms), index);
        }
        self.worker.welcomed(index);
        self.send(ms, index, routes);
    }

    fn send(&mut self, ms: u64, index: usize, routes: &[(RouteSpec, Hint)]) {
        self.worker.table_reset(index);
        for (spec, hint) in routes {
            self.worker.upsert(at(ms), index, spec.clone(), *hint);
        }
        self.worker.table_complete(at(ms), index);
    }

    fn arrive(&mut self, ms: u64, host: &'static str, usable: bool) -> Arrival {
        self.stream += 1;
        let mut asked = Asked { host: host.as_bytes(), usable };
        self.worker.request(at(ms), self.stream, &mut asked)
    }

    fn poll(&mut self, ms: u64, usable: bool) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        self.worker.poll(at(ms), &mut Asked { host: b"", usable }, &mut outcomes);
        outcomes
    }
}

#[test]
fn a_request_of_nobodys_passes_and_one_that_went_elsewhere_is_counted() {
    let mut bed = Bed::new();
    bed.connect(0, 0, &[(RouteSpec { cluster: spec("b", 1).cluster, ..spec("a.b", 1) }, Hint::NotReady)]);
    assert_eq!(bed.arrive(1, "x", false), Arrival::Pass);
    assert_eq!(bed.arrive(1, "a.b", false), Arrival::Mismatch(0));
    assert_eq!(bed.worker.route(0).map(|route| &*route.name), Some("a.b"));
    assert_eq!(bed.worker.counts(0).unwrap().1.mismatches, 1);
    assert!(!bed.worker.knows(1) && !bed.worker.knows(2));
}

#[test]
fn what_came_before_the_table_is_matched_when_it_is_whole() {
    let mut bed = Bed::new();
    assert_eq!(bed.arrive(0, "app", false), Arrival::Hold);
    while let Some(step) = bed.worker.step(at(1), 0) {
        assert_eq!(step, Step::Open);
        bed.worker.link_opened(at(1), 0);
    }
    bed.worker.welcomed(0);
    bed.worker.table_reset(0);
    bed.worker.upsert(at(1), 0, spec("app", 1), Hint::NotReady);
    assert_eq!(bed.poll(1, false), []);
    bed.worker.table_complete(at(2), 0);
    assert_eq!(bed.poll(2, false), [Outcome::Rematch { stream: 1 }]);
    let mut asked = Asked { host: b"app", usable: false };
    assert_eq!(bed.worker.request(at(2), 1, &mut asked), Arrival::Hold);
    assert_eq!(bed.worker.counts(0).unwrap().1.held(), 1);
}

#[test]
fn what_envoy_has_no_route_for_waits_for_nothing() {
    let mut bed = Bed::new();
    assert_eq!(bed.arrive(0, "", false), Arrival::Pass);
}

#[test]
fn an_app_found_asleep_is_reported_at_once_on_every_link_and_the_rest_with_the_tick() {
    let mut bed = Bed::new();
    let routes = [(spec("app", 1), Hint::NotReady)];
    for index in 0..2 {
        bed.connect(0, index, &routes);
        assert_eq!(bed.worker.step(at(0), index), Some(Step::Report { sequence: 1, complete: true }));
        assert_eq!(bed.worker.report(index, true), [0]);
        bed.worker.acknowledged(index, 1);
        assert_eq!(bed.worker.step(at(1), index), None);
    }
    assert_eq!(bed.arrive(5, "app", false), Arrival::Hold);
    for index in 0..2 {
        assert_eq!(bed.worker.step(at(5), index), Some(Step::Report { sequence: 2, complete: false }));
        assert_eq!(bed.worker.report(index, false), [0]);
        bed.worker.acknowledged(index, 2);
    }
    assert_eq!(bed.arrive(6, "app", false), Arrival::Hold);
    assert_eq!(bed.worker.step(at(6), 0), None);
    assert!(bed.worker.next_due().is_some_and(|due| due <= at(255)));
    assert_eq!(bed.worker.step(at(255), 0), Some(Step::Report { sequence: 3, complete: false }));
}

#[test]
fn one_scaler_that_says_ready_is_enough_and_one_that_is_gone_has_no_say() {
    let mut bed = Bed::new();
    bed.connect(0, 0, &[(spec("app", 1), Hint::NotReady)]);
    bed.connect(0, 1, &[(spec("app", 1), Hint::NotReady)]);
    assert_eq!(bed.arrive(1, "app", true), Arrival::Hold);
    bed.worker.hint(at(2), 1, RouteId(3), Hint::Ready);
    assert!(matches!(bed.poll(2, true)[..], [Outcome::Release { .. }]));
    // The one that said so is gone: the other's word counts again.
    bed.worker.link_closed(at(3), 1);
    assert_eq!(bed.arrive(4, "app", true), Arrival::Hold);
    // With nobody left to ask, looks alone decide.
    bed.worker.link_closed(at(5), 0);
    assert!(matches!(bed.poll(5, true)[..], [Outcome::Release { .. }]));
}

#[test]
fn the_first_scaler_that_takes_its_ready_back_is_believed_until_the_others_have_had_their_time() {
    let mut bed = Bed::new();
    let ready = [(spec("app", 1), Hint::Ready)];
    bed.connect(0, 0, &ready);
    bed.connect(0, 1, &ready);
    assert_eq!(bed.arrive(1, "app", true), Arrival::Forward);
    bed.worker.hint(at(2), 1, RouteId(3), Hint::NotReady);
    assert_eq!(bed.arrive(3, "app", true), Arrival::Hold);
    // One that says again what it said before says nothing new.
    bed.send(4, 0, &ready);
    assert_eq!(bed.poll(900, true), []);
    // Once the other has said so too there is nothing to wait for.
    bed.worker.hint(at(901), 0, RouteId(3), Hint::NotReady);
    assert_eq!(bed.poll(5_000, false), []);
    bed.worker.hint(at(20_000), 0, RouteId(3), Hint::Ready);
    assert!(matches!(bed.poll(20_000, true)[..], [Outcome::Release { .. }]));
}

#[test]
fn a_scaler_that_is_stuck_with_not_ready_keeps_no_app_away() {
    let mut bed = Bed::new();
    let ready = [(spec("app", 1), Hint::Ready)];
    bed.connect(0, 0, &ready);
    bed.connect(0, 1, &ready);
    bed.worker.hint(at(1), 1, RouteId(3), Hint::NotReady);
    assert_eq!(bed.arrive(2, "app", true), Arrival::Hold);
    assert!(bed.worker.next_due().is_some_and(|due| due <= at(1_001)));
    // What is there may be what was there before it slept: a second more.
    assert_eq!(bed.poll(1_001, true), []);
    assert!(matches!(bed.poll(2_030, true)[..], [Outcome::Release { .. }]));
    assert_eq!(bed.arrive(2_031, "app", true), Arrival::Forward);

    // One that says so from the start, or is gone, leads nobody.
    bed.worker.link_closed(at(3_000), 1);
    bed.connect(4_000, 1, &[(spec("app", 1), Hint::NotReady)]);
    assert_eq!(bed.arrive(4_001, "app", true), Arrival::Forward);
}

#[test]
fn a_route_is_gone_when_no_connected_scaler_has_it_and_not_before() {
    let mut bed = Bed::new();
    let both = [(spec("a", 1), Hint::Ready), (spec("bb", 1), Hint::Ready)];
    bed.connect(0, 0, &both);
    bed.connect(0, 1, &both);
    bed.worker.remove(at(1), 0, RouteId(1));
    assert_eq!(bed.worker.routes(), 2, "the other one still has it");
    bed.worker.remove(at(1), 1, RouteId(1));
    assert_eq!(bed.worker.routes(), 1);

    bed.worker.link_closed(at(2), 0);
    bed.worker.link_closed(at(2), 1);
    assert_eq!(bed.worker.routes(), 1, "with nobody to ask the last word stands");
    // A snapshot without it is a word.
    bed.connect(10_000, 0, &[]);
    assert_eq!(bed.worker.routes(), 0);
    assert_eq!(bed.arrive(10_001, "bb", true), Arrival::Pass);
}

#[test]
fn a_scaler_that_is_still_sending_its_table_takes_nothing_away() {
    let mut bed = Bed::new();
    bed.connect(0, 0, &[(spec("a", 1), Hint::Ready)]);
    bed.connect(0, 1, &[(spec("a", 1), Hint::Ready)]);
    bed.worker.table_reset(1);
    bed.worker.upsert(at(1), 1, spec("a", 1), Hint::Ready);
    bed.worker.remove(at(1), 0, RouteId(1));
    assert_eq!(bed.worker.routes(), 1);
    bed.worker.table_complete(at(2), 1);
    assert_eq!(bed.worker.routes(), 1);
}

#[test]
fn of_two_versions_the_later_generation_stands_whoever_sends_last() {
    let mut bed = Bed::new();
    let newer = RouteSpec { max_held: Some(1), ..spec("a", 2) };
    bed.connect(0, 0, &[(newer, Hint::NotReady)]);
    bed.connect(0, 1, &[(spec("a", 1), Hint::NotReady)]);
    assert_eq!(bed.arrive(1, "a", false), Arrival::Hold);
    assert_eq!(bed.arrive(1, "a", false), Arrival::Refuse);
    bed.worker.remove(at(2), 0, RouteId(1));
    assert_eq!(bed.worker.routes(), 1, "the stale one is a version of it all the same");
}

#[test]
fn what_nobody_knows_is_no_trouble() {
    let mut bed = Bed::new();
    bed.worker.link_closed(at(0), 9);
    bed.worker.link_opened(at(0), 9);
    bed.worker.welcomed(9);
    bed.worker.acknowledged(9, 1);
    bed.worker.table_reset(9);
    bed.worker.hint(at(0), 0, RouteId(77), Hint::Ready);
    bed.worker.remove(at(0), 0, RouteId(77));
    assert_eq!(bed.worker.step(at(0), 9), None);
    assert!(bed.worker.report(9, false).is_empty());
}
