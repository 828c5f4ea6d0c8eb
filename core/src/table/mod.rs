//! Which route a request belongs to.
//!
//! The order is the add-on's. Hosts first: the exact one, then wildcards from the most to the least specific,
//! then the catch-all. Of one host, the longest path by whole segments; of one path, the rules with more
//! headers first. Where the headers of a rule do not match, shorter paths of that host are tried before less
//! specific hosts: the add-on skips those. A rule that asks for nothing, and a route without rules, are
//! selected by the cluster that Envoy has chosen.
//!
//! Of rules that are equal in all of that, an older object's come first, but for one thing: where the request goes to
//! another cluster than that object's target, it is the first one's of which it does go to the target. So each
//! target of a gateway's route that parts one host's requests, by weight or otherwise, can have an object.
//!
//! What a look-up costs grows with the labels and segments that routes have in common with the request, not
//! with the number of routes, and it allocates nothing. Only rules for one and the same host and path are
//! tried one by one.

mod host;
mod index;
#[cfg(test)]
mod tests;
mod trie;

use crate::{
    count::Method,
    route::{HeaderRule, RouteId, RouteSpec},
};
use index::Index;
use slab::Slab;
use std::collections::HashMap;
use trie::Seed;

/// What a look-up has to know of a request.
///
/// Each part may cost its owner something, so none is asked for before it is needed. One may be asked for
/// again: the owner keeps what he has read.
pub trait Request {
    /// The authority (`Host`) as it came: with port, in any case; empty if there is none.
    fn authority(&mut self) -> &[u8];
    /// The path as it came: encoded, with query; empty if there is none.
    fn path(&mut self) -> &[u8];
    /// Whether one of the values of the header that `rule` names is the one that it asks for.
    fn header_matches(&mut self, rule: &HeaderRule) -> bool;
    /// The cluster that Envoy has chosen; empty if there is none.
    fn cluster(&mut self) -> &[u8];
    /// The method. Nothing is selected by it: it is asked for once it is known whose the request is.
    fn method(&mut self) -> Method;
}

/// Whose request it is. Routes are named by their slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Nobody's.
    None,
    /// This route's.
    Route(u32),
    /// This route's rules select it, but it goes to another cluster than the route's target.
    Mismatch(u32),
}

/// What [`Table::upsert`] has done. The slot is the route's, whatever has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upsert {
    /// The route is new.
    Inserted(u32),
    /// It has replaced a version that other requests, or another cluster's, belonged to.
    Changed(u32),
    /// It has replaced a version that the same requests belonged to; its limits may differ.
    Same(u32),
    /// It is older than what the table has, which stands.
    Stale(u32),
}

/// All routes. Each has a slot: a small number that is the route's until it is removed, and another's later.
#[derive(Debug)]
pub struct Table {
    routes: Slab<RouteSpec>,
    slots: HashMap<RouteId, u32, Seed>,
    index: Index,
}

// === impl Table ===

impl Table {
    /// An empty table. `secret` keys its hashes: who knows it can make look-ups slow.
    pub fn new(secret: [u64; 2]) -> Self {
        let seed = Seed::new(secret);
        Self { routes: Slab::new(), index: Index::new(&seed), slots: HashMap::with_hasher(seed) }
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The route in `slot`.
    pub fn get(&self, slot: u32) -> Option<&RouteSpec> {
        self.routes.get(key(slot))
    }

    /// The slot of a route.
    pub fn slot_of(&self, id: RouteId) -> Option<u32> {
        self.slots.get(&id).copied()
    }

    /// All routes with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &RouteSpec)> {
        self.routes.iter().filter_map(|(key, spec)| Some((u32::try_from(key).ok()?, spec)))
    }

    /// Adds a route, or puts it in the place of an older version.
    pub fn upsert(&mut self, spec: RouteSpec) -> Upsert {
        let Some(slot) = self.slot_of(spec.id) else {
            let id = spec.id;
            // More than four billion fit into no memory that this runs in.
            let slot = u32::try_from(self.routes.insert(spec)).unwrap_or(u32::MAX);
            self.slots.insert(id, slot);
            self.index.insert(&self.routes, slot);
            return Upsert::Inserted(slot);
        };
        let Some(old) = self.routes.get_mut(key(slot)) else { return Upsert::Stale(slot) };
        // Generations begin anew with an object that was deleted and made again under its old name.
        if (old.created, old.generation) > (spec.created, spec.generation) {
            return Upsert::Stale(slot);
        }
        if is_selected_alike(old, &spec) {
            *old = spec;
            return Upsert::Same(slot);
        }
        self.index.remove(&self.routes, slot);
        if let Some(old) = self.routes.get_mut(key(slot)) {
            *old = spec;
        }
        self.index.insert(&self.routes, slot);
        Upsert::Changed(slot)
    }

    /// Removes a route, and says which slot is free now.
    pub fn remove(&mut self, id: RouteId) -> Option<u32> {
        let slot = self.slots.remove(&id)?;
        self.index.remove(&self.routes, slot);
        self.routes.try_remove(key(slot));
        Some(slot)
    }

    /// Whose `request` is.
    pub fn find(&self, request: &mut impl Request) -> Match {
        let by_rules = self.index.by_rules(&self.routes, request);
        if by_rules.is_none() && !self.index.has_clusters() {
            return Match::None;
        }
        if let Some(found) = by_rules {
            let first = self.get(found.slot);
            if first.is_some_and(|spec| spec.cluster.matches(request.cluster())) {
                return Match::Route(found.slot);
            }
            if let Some(slot) = self.index.peer(&self.routes, found, request) {
                return Match::Route(slot);
            }
        }
        match (self.index.by_cluster(&self.routes, request.cluster()), by_rules) {
            (Some(slot), _) => Match::Route(slot),
            (None, Some(found)) => Match::Mismatch(found.slot),
            (None, None) => Match::None,
        }
    }
}

/// Whether the same requests belong to both versions of a route.
fn is_selected_alike(one: &RouteSpec, other: &RouteSpec) -> bool {
    let order = |spec: &RouteSpec| (spec.created, spec.kind);
    order(one) == order(other)
        && (&one.namespace, &one.name) == (&other.namespace, &other.name)
        && (&one.rules, &one.cluster) == (&other.rules, &other.cluster)
}

fn key(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}
