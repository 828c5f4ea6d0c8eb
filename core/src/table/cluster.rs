//! Routes that are selected by the cluster that Envoy chose.

use super::{Candidate, Seed, get, rank};
use crate::route::{ClusterPattern, RouteSpec};
use std::{collections::HashMap, hash::BuildHasher};

/// Routes by their cluster pattern.
#[derive(Debug)]
pub(super) struct Clusters {
    seed: Seed,
    /// By the hash of the name around the subset; what the hash finds is compared.
    patterns: HashMap<u64, Vec<u32>, Seed>,
    /// Patterns whose subset is not a whole field between `|`: Istio has none of them. They are tried one by one.
    odd: Vec<u32>,
}

impl Clusters {
    pub(super) fn new(seed: Seed) -> Self {
        Self { seed, patterns: HashMap::with_hasher(seed), odd: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.odd.is_empty()
    }

    pub(super) fn insert(&mut self, slot: u32, slots: &[Option<RouteSpec>]) {
        let Some(spec) = get(slots, slot) else { return };
        let routes = match self.key_of(&spec.cluster) {
            Some(key) => self.patterns.entry(key).or_default(),
            None => &mut self.odd,
        };
        let order = |slot: &u32| rank(slots, Candidate { slot: *slot, rule: 0 });
        let index = routes.partition_point(|other| order(other) <= order(&slot));
        routes.insert(index, slot);
    }

    pub(super) fn remove(&mut self, slot: u32, slots: &[Option<RouteSpec>]) {
        let Some(key) = get(slots, slot).map(|spec| self.key_of(&spec.cluster)) else { return };
        let Some(key) = key else {
            self.odd.retain(|other| *other != slot);
            return;
        };
        if let Some(routes) = self.patterns.get_mut(&key) {
            routes.retain(|other| *other != slot);
            if routes.is_empty() {
                self.patterns.remove(&key);
            }
        }
    }

    /// The route whose target that cluster is.
    pub(super) fn find(&self, cluster: &[u8], slots: &[Option<RouteSpec>]) -> Option<u32> {
        if cluster.is_empty() || self.is_empty() {
            return None;
        }
        let matches = |slot: &&u32| get(slots, **slot).is_some_and(|spec| spec.cluster.matches(cluster));
        let find = |key: u64| self.patterns.get(&key).and_then(|routes| routes.iter().find(matches));
        // The whole name, then the name around each of its fields: Istio's have four.
        let around = |(start, end): (usize, usize)| {
            let (prefix, suffix) = (cluster.get(..start)?, cluster.get(end..)?);
            find(self.key(prefix, Some(suffix)))
        };
        find(self.key(cluster, None))
            .or_else(|| fields(cluster).find_map(around))
            .or_else(|| self.odd.iter().find(matches))
            .copied()
    }

    fn key_of(&self, pattern: &ClusterPattern) -> Option<u64> {
        let prefix = &*pattern.prefix;
        match &pattern.suffix {
            None => Some(self.key(prefix, None)),
            Some(suffix)
                if (prefix.is_empty() || prefix.ends_with(b"|"))
                    && (suffix.is_empty() || suffix.starts_with(b"|")) =>
            {
                Some(self.key(prefix, Some(suffix)))
            }
            Some(_) => None,
        }
    }

    fn key(&self, prefix: &[u8], suffix: Option<&[u8]>) -> u64 {
        self.seed.hash_one((prefix, suffix))
    }
}

/// Where the fields between `|` begin and end.
fn fields(name: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0usize;
    name.split(|byte| *byte == b'|').map(move |field| {
        let end = start.saturating_add(field.len());
        let found = (start, end);
        start = end.saturating_add(1);
        found
    })
}
