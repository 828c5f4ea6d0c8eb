use super::*;
use crate::index::{Metrics, Published};
use sluice_core::{
    count::{Completion, DURATION_BUCKETS_MS, HOLD_BUCKETS_MS, Method},
    route::{ClusterPattern, Kind, RouteSpec},
};
use sluice_proto::link::{self, RouteCounts};

const WINDOW: Duration = Duration::from_secs(30);
const APP: u64 = 1;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(7_000_000_000 + ms * 1_000_000)
}

fn worker(instance: u64) -> WorkerId {
    WorkerId { gateway: "gw".to_owned(), instance }
}

fn counts(route: u64, in_flight: u32, held: u32, arrivals: u64) -> RouteCounts {
    RouteCounts { route, in_flight, held, arrivals, ..RouteCounts::default() }
}

fn published(id: u64, hint: Hint) -> Published {
    let spec = RouteSpec {
        id: RouteId(id),
        kind: Kind::HttpScaledObject,
        namespace: "ns".into(),
        name: "app".into(),
        generation: 0,
        created: 0,
        rules: Vec::new(),
        cluster: ClusterPattern { prefix: b"c".as_slice().into(), suffix: None },
        hold_timeout: None,
        max_held: None,
    };
    Published { spec: Arc::new(spec), hint, metrics: Metrics { concurrency: Some(100), rate: None } }
}

/// A ledger in which the app's object is known, and its target has nothing ready.
struct Bed {
    ledger: Ledger,
}

impl Bed {
    fn new() -> Self {
        let bed = Self { ledger: Ledger::new(WINDOW) };
        bed.hint(0, Hint::NotReady);
        bed
    }

    fn hint(&self, ms: u64, hint: Hint) {
        self.ledger.publish(at(ms), &Changes::from([(RouteId(APP), Some(published(APP, hint)))]));
    }

    fn join(&self, instance: u64) -> Seat {
        self.ledger.join(worker(instance), "1.0".to_owned(), false).unwrap()
    }

    fn report(&self, ms: u64, seat: &Seat, complete: bool, routes: Vec<RouteCounts>) {
        let report = Report::of(&link::Report { sequence: 1, complete, routes }).unwrap();
        seat.report(&self.ledger, at(ms), &report).unwrap();
    }

    fn tally(&self) -> Tally {
        self.ledger.find(RouteId(APP)).unwrap().tally()
    }

    fn gauges(&self) -> (u64, u64) {
        let tally = self.tally();
        (tally.in_flight(), tally.held())
    }

    fn look(&self, ms: u64) -> Look {
        self.ledger.find(RouteId(APP)).unwrap().look(at(ms))
    }
}

#[test]
fn workers_are_added_up() {
    let bed = Bed::new();
    let (one, two) = (bed.join(1), bed.join(2));
    bed.report(0, &one, true, vec![]);
    bed.report(0, &two, true, vec![]);
    bed.report(10, &one, false, vec![counts(APP, 3, 2, 5)]);
    bed.report(20, &two, false, vec![counts(APP, 4, 0, 4)]);
    assert_eq!(bed.gauges(), (7, 2));
    assert_eq!(bed.tally().totals.arrivals, 9);
    bed.report(30, &one, false, vec![counts(APP, 1, 0, 6)]);
    assert_eq!(bed.gauges(), (5, 0));
    assert_eq!(bed.tally().totals.arrivals, 10);
}

#[test]
fn an_unknown_workers_counters_are_a_baseline_and_its_gauges_count_at_once() {
    let bed = Bed::new();
    let seat = bed.join(1);
    let mut said = counts(APP, 2, 1, 1_000_000);
    said.cold_starts = 50;
    bed.report(0, &seat, true, vec![said.clone()]);
    assert_eq!(bed.gauges(), (2, 1));
    let totals = bed.tally().totals;
    assert_eq!((totals.arrivals, totals.cold_starts), (0, 0));
    assert_eq!(bed.ledger.find(RouteId(APP)).unwrap().rate(at(0)), 0.0);
    assert!(bed.look(0).is_active, "what is under way counts");
    said.arrivals += 3;
    said.cold_starts += 1;
    bed.report(1, &seat, false, vec![said]);
    let totals = bed.tally().totals;
    assert_eq!((totals.arrivals, totals.cold_starts), (3, 1));
    assert!(bed.ledger.find(RouteId(APP)).unwrap().rate(at(1)) > 0.0);
}

#[test]
fn a_young_workers_counters_are_news() {
    let bed = Bed::new();
    let seat = bed.ledger.join(worker(1), "1.0".to_owned(), true).unwrap();
    bed.report(0, &seat, true, vec![counts(APP, 0, 0, 2)]);
    assert_eq!(bed.tally().totals.arrivals, 2);
    assert!(bed.look(0).is_active, "its first request was over before the link was up");
}

#[test]
fn a_known_workers_new_route_counts_from_zero() {
    let bed = Bed::new();
    let seat = bed.join(1);
    bed.report(0, &seat, true, vec![]);
    bed.report(1, &seat, false, vec![counts(APP, 0, 0, 1)]);
    assert_eq!(bed.tally().totals.arrivals, 1, "a request shorter than a tick");
    assert!(bed.look(1).is_active);
    assert!(!bed.look(30_002).is_active);
}

#[test]
fn a_worker_that_comes_back_goes_on_where_it_was() {
    let bed = Bed::new();
    let old = bed.join(1);
    bed.report(0, &old, true, vec![counts(APP, 2, 2, 10)]);
    assert!(bed.ledger.leave(&old), "somebody has to expire it");
    assert_eq!(bed.gauges(), (2, 2), "kept for the grace");
    let new = bed.join(1);
    bed.ledger.expire(at(10_100), &old);
    assert_eq!(bed.gauges(), (2, 2), "it is back");
    bed.report(300, &new, true, vec![counts(APP, 1, 1, 12)]);
    assert_eq!(bed.gauges(), (1, 1));
    assert_eq!(bed.tally().totals.arrivals, 2);
}

#[test]
fn the_newest_stream_wins_while_the_old_one_still_lives() {
    let bed = Bed::new();
    let old = bed.join(1);
    bed.report(0, &old, true, vec![counts(APP, 2, 0, 2)]);
    let new = bed.join(1);
    let late = link::Report { sequence: 2, complete: false, routes: vec![counts(APP, 9, 9, 99)] };
    let late = Report::of(&late).unwrap();
    assert!(old.report(&bed.ledger, at(2), &late).is_err());
    assert_eq!(bed.gauges(), (2, 0));
    bed.report(3, &new, true, vec![counts(APP, 1, 0, 3)]);
    assert_eq!(bed.gauges(), (1, 0));
    assert!(!bed.ledger.leave(&old), "the newer one is there");
    bed.ledger.expire(at(5), &old);
    assert_eq!(bed.gauges(), (1, 0));
}

#[test]
fn a_worker_that_stays_away_is_taken_out_and_comes_back_as_a_stranger() {
    let bed = Bed::new();
    let seat = bed.join(1);
    bed.report(0, &seat, true, vec![]);
    bed.report(1, &seat, false, vec![counts(APP, 2, 1, 10)]);
    bed.ledger.leave(&seat);
    bed.ledger.expire(at(10_100), &seat);
    assert_eq!(bed.gauges(), (0, 0));
    assert!(bed.ledger.workers(at(10_100)).is_empty());
    assert!(bed.look(40_099).is_active, "it was busy until it was taken out");
    assert!(!bed.look(40_100).is_active);
    let seat = bed.join(1);
    bed.report(50_000, &seat, true, vec![counts(APP, 2, 1, 500)]);
    assert_eq!(bed.gauges(), (2, 1));
    assert_eq!(bed.tally().totals.arrivals, 10, "what was meanwhile is not counted as now");
}

#[test]
fn what_a_complete_report_leaves_out_is_zero_there() {
    let bed = Bed::new();
    let seat = bed.join(1);
    bed.report(0, &seat, true, vec![]);
    bed.report(1, &seat, false, vec![counts(APP, 2, 1, 10)]);
    bed.report(2, &seat, false, vec![]);
    assert_eq!(bed.gauges(), (2, 1), "an incomplete one says nothing by it");
    let seat = bed.join(1);
    bed.report(4, &seat, true, vec![]);
    assert_eq!(bed.gauges(), (0, 0));
    bed.report(5, &seat, false, vec![counts(APP, 0, 0, 10)]);
    assert_eq!(bed.tally().totals.arrivals, 20, "it had forgotten the route and counts anew");
}

#[test]
fn a_worker_that_forgot_the_route_counts_from_zero_again() {
    let bed = Bed::new();
    let seat = bed.join(1);
    bed.report(0, &seat, true, vec![counts(APP, 0, 0, 100)]);
    let mut said = counts(APP, 0, 0, 3);
    said.cold_starts = 2;
    bed.report(1, &seat, false, vec![said]);
    let totals = bed.tally().totals;
    assert_eq!((totals.arrivals, totals.cold_starts), (3, 2));
}

#[test]
fn histograms_and_completions_are_added_up_by_what_is_new() {
    let bed = Bed::new();
    let seat = bed.join(1);
    bed.report(0, &seat, true, vec![]);
    let mut said = counts(APP, 0, 0, 1);
    said.hold_buckets = vec![0; HOLD_BUCKETS_MS.len() + 1];
    said.hold_buckets[3] = 2;
    said.hold_us = 80_000;
    let durations = |count| {
        let mut durations = vec![0; DURATION_BUCKETS_MS.len() + 1];
        durations[1] = count;
        durations
    };
    let completion = |code, count: u64| link::Completions {
        method: link::Method::Get.into(),
        code,
        count,
        duration_buckets: durations(count),
        duration_us: count * 7_000,
    };
    said.completions = vec![completion(200, 5)];
    bed.report(1, &seat, false, vec![said.clone()]);
    said.hold_buckets[3] = 3;
    said.hold_us = 120_000;
    said.completions = vec![completion(200, 6), completion(0, 1), completion(70_000, 4)];
    bed.report(2, &seat, false, vec![said.clone()]);
    bed.report(3, &seat, false, vec![said]);
    let totals = bed.tally().totals;
    assert_eq!((totals.holds.count(), totals.holds.counts[3], totals.holds.sum_us), (3, 3, 120_000));
    let ended = |code| totals.completions.get(&Completion { method: Method::Get, code });
    assert_eq!((ended(200).unwrap().count(), ended(200).unwrap().sum_us), (6, 42_000));
    assert_eq!(ended(0).unwrap().count(), 1);
    assert_eq!(totals.completions.len(), 2);
    assert_eq!(bed.ledger.ignored.histograms.load(Ordering::Relaxed), 2, "a code that is none, twice");
}

#[test]
fn a_histogram_of_another_version_is_left_out_and_counted() {
    let bed = Bed::new();
    let seat = bed.join(1);
    bed.report(0, &seat, true, vec![]);
    let mut said = counts(APP, 0, 0, 1);
    said.hold_buckets = vec![1, 2, 3];
    bed.report(1, &seat, false, vec![said]);
    assert_eq!(bed.tally().totals.holds.count(), 0);
    assert_eq!(bed.tally().totals.arrivals, 1);
    assert_eq!(bed.ledger.ignored.histograms.load(Ordering::Relaxed), 1);
}

#[test]
fn a_route_that_is_not_known_yet_is_counted_for_when_it_is() {
    let bed = Bed::new();
    let seat = bed.join(1);
    bed.report(0, &seat, true, vec![counts(77, 1, 1, 1)]);
    bed.ledger.tidy();
    bed.ledger.publish(at(1), &Changes::from([(RouteId(77), Some(published(77, Hint::NotReady)))]));
    let look = bed.ledger.find(RouteId(77)).unwrap().look(at(1));
    assert!(look.is_active && look.is_waiting);
}

#[test]
fn unknown_routes_are_bounded_and_what_is_past_the_bound_is_counted() {
    let bed = Bed::new();
    let seat = bed.join(1);
    let unknown = (100..100 + 5_000).map(|id| counts(id, 1, 0, 1)).collect();
    bed.report(0, &seat, true, unknown);
    assert_eq!(bed.ledger.ignored.routes.load(Ordering::Relaxed), 5_000 - 4_096);
    bed.report(1, &seat, false, vec![counts(APP, 1, 0, 1)]);
    assert_eq!(bed.gauges(), (1, 0), "known ones are counted all the same");
    let known = (100..200).map(|id| (RouteId(id), Some(published(id, Hint::NotReady)))).collect();
    bed.ledger.publish(at(2), &known);
    bed.report(3, &seat, false, (9_000..9_101).map(|id| counts(id, 1, 0, 1)).collect());
    assert_eq!(bed.ledger.ignored.routes.load(Ordering::Relaxed), 5_000 - 4_096 + 1, "known ones make room");
}

#[test]
fn workers_are_bounded() {
    let ledger = Ledger::new(WINDOW);
    for instance in 0..MAX_WORKERS as u64 {
        ledger.join(worker(instance), String::new(), false).unwrap();
    }
    assert!(ledger.join(worker(u64::MAX), String::new(), false).is_err());
    assert!(ledger.join(worker(5), String::new(), false).is_ok(), "one that is known comes back");
    assert_eq!(ledger.ignored.workers.load(Ordering::Relaxed), 1);
}

#[test]
fn what_nobody_needs_is_freed() {
    let bed = Bed::new();
    let seat = bed.join(1);
    bed.report(0, &seat, true, vec![counts(APP, 0, 0, 1), counts(77, 1, 1, 1)]);
    bed.ledger.publish(at(1), &Changes::from([(RouteId(APP), None)]));
    bed.ledger.tidy();
    assert!(bed.ledger.find(RouteId(APP)).is_none());
    assert!(bed.ledger.find(RouteId(77)).is_some(), "something is under way there");
    bed.ledger.leave(&seat);
    bed.ledger.expire(at(3), &seat);
    bed.ledger.tidy();
    assert!(bed.ledger.find(RouteId(77)).is_none());
}

#[test]
fn a_stream_is_woken_at_edges_and_not_otherwise() {
    let bed = Bed::new();
    let route = bed.ledger.find(RouteId(APP)).unwrap();
    let mut edges = route.edges();
    let mut woken = || {
        let changed = edges.has_changed().unwrap();
        edges.mark_unchanged();
        changed
    };
    let seat = bed.join(1);
    bed.report(0, &seat, true, vec![]);
    assert!(!woken());
    bed.report(1, &seat, false, vec![counts(APP, 1, 1, 1)]);
    assert!(woken(), "the first request");
    bed.report(2, &seat, false, vec![counts(APP, 9, 9, 9)]);
    assert!(!woken(), "more of the same");
    bed.hint(3, Hint::Ready);
    assert!(woken(), "nothing waits in vain any more");
    bed.report(4, &seat, false, vec![counts(APP, 9, 0, 9)]);
    assert!(!woken());
    bed.report(5, &seat, false, vec![counts(APP, 0, 0, 9)]);
    assert!(woken(), "from here on there is an end");
    assert_eq!(bed.look(5).until, Some(at(30_005)));
    bed.report(6, &seat, false, vec![counts(APP, 0, 0, 10)]);
    assert!(!woken(), "the end moves, and whoever waits for it will see");
    bed.hint(7, Hint::NotReady);
    assert!(woken(), "it went down");
    assert_eq!(bed.look(7).downs, 1);
    bed.report(40_000, &seat, false, vec![counts(APP, 0, 0, 11)]);
    assert!(woken(), "a request that is over already, after the end of activity");
}

#[test]
fn a_worker_is_shown_as_it_is() {
    let bed = Bed::new();
    let seat = bed.join(5);
    seat.told(3);
    bed.report(10, &seat, true, vec![counts(APP, 4, 1, 9), counts(77, 1, 0, 1)]);
    let expected = WorkerState {
        id: worker(5),
        filter_version: "1.0".to_owned(),
        is_connected: true,
        last_report: Some(Duration::from_millis(90)),
        routes: 3,
        in_flight: 5,
        held: 1,
    };
    assert_eq!(bed.ledger.workers(at(100)), [expected]);
}
