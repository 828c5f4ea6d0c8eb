//! What the workers say: who has seen how many requests of which route.
//!
//! Workers come in groups. Those of a group have the same requests, so that a report is made once for all of them;
//! the groups tick one after the other and name other routes each, as workers do that know nothing of each other.

use super::wire;
use bytes::Bytes;
use sluice_core::count::DURATION_BUCKETS_MS;
use sluice_proto::link::{Completions, Method, RouteCounts};

/// How many routes a report names: one in that many.
pub(super) const SHARE: usize = 100;
/// From one of the routes to the next one that is named: a prime, so that all get their turn.
const STRIDE: usize = 7_919;
/// Requests of a route between two reports that name it, and how long each took.
const REQUESTS: u64 = 5;
const TOOK_US: u64 = 20_000;

/// The requests of a group's workers.
#[derive(Debug)]
pub(super) struct Group {
    ids: Vec<u64>,
    /// How often each of them was named.
    named: Vec<u64>,
    next: usize,
}

// === impl Group ===

impl Group {
    /// A group of that number, with requests of these routes.
    pub(super) fn new(number: usize, ids: &[u64]) -> Self {
        let next = number * ids.len() / super::GROUPS;
        Self { ids: ids.to_vec(), named: vec![0; ids.len()], next }
    }

    /// The next report's routes.
    pub(super) fn tick(&mut self) -> Bytes {
        let mut routes = Vec::new();
        for _ in 0..self.ids.len().div_ceil(SHARE) {
            let place = self.next * STRIDE % self.ids.len();
            self.next += 1;
            if let (Some(id), Some(named)) = (self.ids.get(place), self.named.get_mut(place)) {
                *named += 1;
                wire::append(&mut routes, &counts(*id, *named));
            }
        }
        routes.into()
    }

    /// All routes that were ever named, as a worker tells them that comes back.
    pub(super) fn all(&self) -> Bytes {
        let mut routes = Vec::new();
        for (id, named) in self.ids.iter().zip(&self.named).filter(|(_, named)| **named > 0) {
            wire::append(&mut routes, &counts(*id, *named));
        }
        routes.into()
    }

    /// How many they are.
    pub(super) fn lines(&self) -> usize {
        self.named.iter().filter(|named| **named > 0).count()
    }
}

/// A route that has been named that often: a GET or two under way every other time, and the others answered in
/// three of the buckets.
fn counts(route: u64, named: u64) -> RouteCounts {
    let arrivals = named * REQUESTS;
    let mut duration_buckets = vec![0; DURATION_BUCKETS_MS.len() + 1];
    for (bucket, of) in duration_buckets.iter_mut().skip(1).zip([3, 1, 1]) {
        *bucket = named * of;
    }
    RouteCounts {
        route,
        in_flight: (named % 2) as u32,
        arrivals,
        concurrency_us: arrivals * TOOK_US,
        completions: vec![Completions {
            method: Method::Get.into(),
            code: 200,
            count: arrivals,
            duration_buckets,
            duration_us: arrivals * TOOK_US,
        }],
        ..RouteCounts::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_routes_have_their_turn_and_counters_grow() {
        let ids: Vec<u64> = (0..1_000).collect();
        let mut group = Group::new(3, &ids);
        assert!(group.all().is_empty());
        for tick in 1..=SHARE {
            assert!(!group.tick().is_empty());
            assert_eq!(group.lines(), tick * 10);
        }
        let before = group.all();
        group.tick();
        assert_eq!(group.lines(), 1_000);
        assert_ne!(group.all(), before);
        assert!(counts(1, 2).arrivals > counts(1, 1).arrivals);
    }
}
