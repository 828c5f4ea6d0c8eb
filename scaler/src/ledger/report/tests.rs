//! Whatever bytes come, what is read of them is what prost reads.

use super::*;
use link::{Completions, RouteCounts};

/// Draws numbers, the same ones in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() >> 16) as usize % end
    }

    /// Of any length, the short ones as often as the long ones.
    fn number(&mut self) -> u64 {
        let bits = self.below(65) as u32;
        self.roll().checked_shr(64 - bits).unwrap_or(0)
    }

    fn numbers(&mut self, usual: usize) -> Vec<u64> {
        let len = [0, usual, usual, usual, 1, usual + 1, 40][self.below(7)];
        (0..len).map(|_| self.number()).collect()
    }

    fn report(&mut self) -> link::Report {
        let routes = (0..self.below(4)).map(|_| self.route()).collect();
        link::Report { sequence: self.number(), complete: self.below(2) == 0, routes }
    }

    fn route(&mut self) -> RouteCounts {
        let mut route = RouteCounts {
            route: self.number(),
            in_flight: self.number() as u32,
            held: self.number() as u32,
            arrivals: self.number(),
            concurrency_us: self.number(),
            ..RouteCounts::default()
        };
        if self.below(2) == 0 {
            route.cold_starts = self.number();
            route.rejections = self.number();
            route.expirations = self.number();
            route.mismatches = self.number();
            route.hold_buckets = self.numbers(HOLD_BUCKETS);
            route.hold_us = self.number();
            route.lag_buckets = self.numbers(LAG_BUCKETS);
            route.lag_us = self.number();
        }
        route.completions = (0..self.below(4))
            .map(|_| Completions {
                method: self.number() as i32,
                code: self.number() as u32,
                count: self.number(),
                duration_buckets: self.numbers(DURATION_BUCKETS),
                duration_us: self.number(),
            })
            .collect();
        route
    }

    /// A report whose fields come in any order, and some of them again.
    fn shuffled(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..self.below(4) {
            let mut route = Vec::new();
            for _ in 0..=self.below(3) {
                let mut part = self.route();
                if self.below(2) == 0 {
                    part.completions.clear();
                }
                if self.below(2) == 0 {
                    (part.route, part.held, part.arrivals, part.in_flight, part.concurrency_us) =
                        Default::default();
                }
                route.extend(part.encode_to_vec());
            }
            bytes.push(0x1a);
            fields::put(route.len() as u64, &mut bytes);
            bytes.extend(route);
            if self.below(3) == 0 {
                let head =
                    link::Report { sequence: self.number(), complete: self.below(2) == 0, routes: vec![] };
                bytes.extend(head.encode_to_vec());
            }
        }
        bytes
    }

    /// Changes some bytes, cuts off, puts in, doubles.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.roll() as u8),
                // A field that nobody knows, or one in another place.
                2 => drop(bytes.splice(at..at, [(self.below(20) << 3) as u8, self.below(128) as u8])),
                3 => bytes.extend_from_within(at..),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = match self.below(3) {
                            0 => self.roll() as u8,
                            1 => byte.wrapping_add(1),
                            _ => *byte ^ 1 << self.below(8),
                        };
                    }
                }
            }
        }
    }
}

fn buckets<const N: usize>(counts: &[u64]) -> SaidBuckets<N> {
    let mut buckets = SaidBuckets::default();
    for count in counts {
        buckets.push(*count);
    }
    buckets
}

/// What is read is what prost has read.
#[track_caller]
fn assert_same(read: &Report, expected: &link::Report) {
    assert_eq!((read.sequence(), read.is_complete()), (expected.sequence, expected.complete));
    assert_eq!(read.routes().count(), expected.routes.len());
    for (said, route) in read.routes().zip(&expected.routes) {
        assert_eq!(
            (said.route, said.in_flight, said.held, said.arrivals, said.concurrency_us),
            (route.route, route.in_flight, route.held, route.arrivals, route.concurrency_us)
        );
        let mut rare = None;
        let endings = said.more(&mut rare);
        let expected = SaidRare {
            cold_starts: route.cold_starts,
            rejections: route.rejections,
            expirations: route.expirations,
            mismatches: route.mismatches,
            holds: buckets(&route.hold_buckets),
            hold_us: route.hold_us,
            lags: buckets(&route.lag_buckets),
            lag_us: route.lag_us,
        };
        assert_eq!(rare.unwrap_or_default(), expected);
        let expected: Vec<SaidEnding> = route
            .completions
            .iter()
            .map(|it| SaidEnding {
                method: it.method,
                code: it.code,
                durations: buckets(&it.duration_buckets),
                duration_us: it.duration_us,
            })
            .collect();
        assert_eq!(endings.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn what_an_encoder_writes_is_read_as_it_is() {
    let mut dice = Dice(1);
    for _ in 0..3_000 {
        let report = dice.report();
        assert_same(&Report::of(&report).unwrap(), &report);
    }
}

#[test]
fn of_any_bytes_nothing_is_read_that_prost_does_not_read() {
    let (mut dice, mut read, mut odd, mut broken) = (Dice(2), 0, 0, 0);
    for _ in 0..60_000 {
        let mut bytes = if dice.below(3) == 0 { dice.shuffled() } else { dice.report().encode_to_vec() };
        if dice.below(4) > 0 {
            dice.spoil(&mut bytes);
        }
        let expected = link::Report::decode(bytes.as_slice());
        match (Report::read(bytes.into()), expected) {
            (Some(report), Ok(expected)) => {
                assert_same(&report, &expected);
                read += 1;
            }
            // Left to prost, and readable as prost writes it.
            (None, Ok(expected)) => {
                assert_same(&Report::of(&expected).unwrap(), &expected);
                odd += 1;
            }
            (None, Err(_)) => broken += 1,
            (Some(report), Err(error)) => panic!("{report:?} was read, of which prost says {error}"),
        }
    }
    assert!(read > 5_000 && odd > 500 && broken > 5_000, "{read} read, {odd} odd, {broken} broken");
}

#[test]
fn noise_is_read_as_prost_reads_it() {
    let mut dice = Dice(3);
    for _ in 0..60_000 {
        let bytes: Vec<u8> = (0..dice.below(24)).map(|_| dice.roll() as u8 & dice.roll() as u8).collect();
        let expected = link::Report::decode(bytes.as_slice());
        if let Some(report) = Report::read(bytes.into()) {
            assert_same(&report, &expected.unwrap());
        }
    }
}

#[test]
fn what_a_later_version_adds_is_passed_over_where_it_stands() {
    let mut dice = Dice(7);
    let routes: Vec<RouteCounts> = (0..50).map(|_| dice.route()).collect();
    let mut bytes = Vec::new();
    for route in &routes {
        let mut route = route.encode_to_vec();
        // Field 20, a number; field 21, bytes.
        route.extend([0xa0, 0x01, 9, 0xaa, 0x01, 2, 1, 1]);
        bytes.push(0x1a);
        fields::put(route.len() as u64, &mut bytes);
        bytes.extend(route);
    }
    let read = Report::read(bytes.into()).unwrap();
    assert_same(&read, &link::Report { sequence: 0, complete: false, routes });
}

#[test]
fn an_empty_report_is_one() {
    assert_same(&Report::read(Bytes::new()).unwrap(), &link::Report::default());
}
