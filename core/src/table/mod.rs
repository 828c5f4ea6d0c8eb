//! Whose request is it?
//!
//! The add-on's precedence: the exact host before wildcards, wildcards from the most to the least specific,
//! then every host; within a host the longest path prefix by whole segments; within a host and path more header
//! rules before fewer, more values before fewer, the older object before the younger. Unlike the add-on, a host is
//! compared without case, port and trailing dot, and where the header rules of the longest prefix fail, shorter
//! prefixes and then less specific hosts are tried.
//!
//! A look-up costs one hash of the host, one per label where there are wildcards, and a walk down the path:
//! it does not grow with the number of routes, and allocates nothing. A client can make it no longer than its
//! host's 255 bytes and the depth of the paths that objects name.

mod cluster;
mod host;
mod path;
#[cfg(test)]
mod tests;

pub use self::path::MAX_SEGMENTS;

use self::{cluster::Clusters, host::Host, path::Node};
use crate::route::{HeaderRule, HostPattern, RouteId, RouteSpec, Rule};
use std::{
    cmp::Reverse,
    collections::HashMap,
    hash::{BuildHasher, DefaultHasher, Hasher},
};

/// A request, as far as the table wants to know it. Each reading may be a call into the host: the table asks
/// only for what a candidate needs.
pub trait Request {
    /// `:authority`, as the client sent it; empty if there is none.
    fn authority(&mut self) -> &[u8];
    /// `:path`, as the client sent it; empty if there is none.
    fn path(&mut self) -> &[u8];
    /// Whether one of the header's values fits.
    fn header_matches(&mut self, rule: &HeaderRule) -> bool;
    /// The cluster that Envoy has chosen; empty if none.
    fn cluster(&mut self) -> &[u8];
}

/// Whose a request is, by slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Nobody's.
    None,
    /// That route's.
    Route(u32),
    /// That route's by its rules, and yet not: Envoy has chosen another cluster than the route's target.
    Mismatch(u32),
}

/// What [`Table::upsert`] did, and the route's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upsert {
    /// It is new.
    Inserted(u32),
    /// Its rules or its cluster have changed.
    Changed(u32),
    /// It selects the same requests as before.
    Same(u32),
    /// A later generation of it is there already, and stays.
    Stale(u32),
}

/// All routes.
#[derive(Debug)]
pub struct Table {
    slots: Vec<Option<RouteSpec>>,
    free: Vec<u32>,
    ids: HashMap<RouteId, u32, Seed>,
    exact: HashMap<Box<[u8]>, Node, Seed>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<[u8]>, Node, Seed>,
    any: Node,
    clusters: Clusters,
}

/// A rule of a route, where a look-up finds it. The order is the precedence, first come best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    slot: u32,
    rule: u32,
}

/// SipHash with keys of our own: the target has none but constant ones, and whoever knows the keys can make
/// hosts that all fall into one place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed([u64; 2]);

impl BuildHasher for Seed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        // The standard library does not let one set SipHash's keys; hashing them first is as good.
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0[0]);
        hasher.write_u64(self.0[1]);
        hasher
    }
}

// === impl Table ===

impl Table {
    /// A table without routes. `seed` has to be random.
    pub fn new(seed: [u64; 2]) -> Self {
        let seed = Seed(seed);
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            ids: HashMap::with_hasher(seed),
            exact: HashMap::with_hasher(seed),
            wildcard: HashMap::with_hasher(seed),
            any: Node::default(),
            clusters: Clusters::new(seed),
        }
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The route in a slot.
    pub fn get(&self, slot: u32) -> Option<&RouteSpec> {
        get(&self.slots, slot)
    }

    /// The slot of a route.
    pub fn slot_of(&self, id: RouteId) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    /// Puts a route in, or in the place of an earlier generation of it.
    pub fn upsert(&mut self, spec: RouteSpec) -> Upsert {
        let Some(slot) = self.slot_of(spec.id) else {
            let slot = self.free.pop().unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
            self.ids.insert(spec.id, slot);
            self.put(slot, spec);
            return Upsert::Inserted(slot);
        };
        let Some(old) = self.get(slot) else { return Upsert::Stale(slot) };
        if spec.generation < old.generation {
            return Upsert::Stale(slot);
        }
        if spec.selects_as(old) {
            if let Some(place) = usize::try_from(slot).ok().and_then(|slot| self.slots.get_mut(slot)) {
                *place = Some(spec);
            }
            return Upsert::Same(slot);
        }
        self.take(slot);
        self.put(slot, spec);
        Upsert::Changed(slot)
    }

    /// Takes a route out. Its slot will be another one's.
    pub fn remove(&mut self, id: RouteId) -> Option<u32> {
        let slot = self.ids.remove(&id)?;
        self.take(slot);
        self.free.push(slot);
        Some(slot)
    }

    /// Whose request is it?
    pub fn find(&self, request: &mut impl Request) -> Match {
        let by_rules = self.find_by_rules(request);
        if by_rules.is_none() && self.clusters.is_empty() {
            return Match::None;
        }
        let cluster = request.cluster();
        if let Some(slot) = by_rules
            && self.get(slot).is_some_and(|spec| spec.cluster.matches(cluster))
        {
            return Match::Route(slot);
        }
        match (self.clusters.find(cluster, &self.slots), by_rules) {
            (Some(slot), _) => Match::Route(slot),
            (None, Some(slot)) => Match::Mismatch(slot),
            (None, None) => Match::None,
        }
    }

    fn find_by_rules(&self, request: &mut impl Request) -> Option<u32> {
        // The host is copied: what reads the path and the headers needs the request again.
        let host = if self.exact.is_empty() && self.wildcard.is_empty() {
            None
        } else {
            Host::parse(request.authority())
        };
        if let Some(host) = &host {
            if let Some(node) = self.exact.get(host.bytes())
                && let Some(slot) = self.find_below(node, request)
            {
                return Some(slot);
            }
            if !self.wildcard.is_empty() {
                for suffix in host.parents() {
                    if let Some(node) = self.wildcard.get(suffix)
                        && let Some(slot) = self.find_below(node, request)
                    {
                        return Some(slot);
                    }
                }
            }
        }
        self.find_below(&self.any, request)
    }

    fn find_below(&self, node: &Node, request: &mut impl Request) -> Option<u32> {
        if node.is_empty() {
            return None;
        }
        let prefixes = if node.is_leaf() { path::Prefixes::root(node) } else { node.walk(request.path()) };
        for candidate in prefixes.longest_first().flat_map(Node::candidates) {
            let rule = self.rule(*candidate)?;
            if rule.headers.iter().all(|header| request.header_matches(header)) {
                return Some(candidate.slot);
            }
        }
        None
    }

    fn rule(&self, candidate: Candidate) -> Option<&Rule> {
        self.get(candidate.slot)?.rules.get(usize::try_from(candidate.rule).ok()?)
    }

    fn put(&mut self, slot: u32, spec: RouteSpec) {
        let Ok(index) = usize::try_from(slot) else { return };
        if self.slots.len() <= index {
            self.slots.resize_with(index.saturating_add(1), || None);
        }
        if let Some(place) = self.slots.get_mut(index) {
            *place = Some(spec);
        }
        self.edit(slot, |node, path, candidate, slots| {
            if let Some(node) = node.make(path) {
                node.insert(candidate, |it| rank(slots, *it));
            }
        });
        if self.get(slot).is_some_and(is_by_cluster) {
            self.clusters.insert(slot, &self.slots);
        }
    }

    fn take(&mut self, slot: u32) {
        self.edit(slot, |node, path, candidate, _| node.remove(path, candidate));
        self.clusters.remove(slot, &self.slots);
        if let Some(place) = usize::try_from(slot).ok().and_then(|slot| self.slots.get_mut(slot)) {
            *place = None;
        }
    }

    /// Calls `edit` with every place at which the route in `slot` belongs.
    fn edit(&mut self, slot: u32, mut edit: impl FnMut(&mut Node, &[u8], Candidate, &[Option<RouteSpec>])) {
        let Self { slots, exact, wildcard, any, .. } = self;
        let Some(spec) = get(slots, slot) else { return };
        for (number, rule) in (0..).zip(&spec.rules) {
            if rule.selects_nothing() {
                continue;
            }
            let candidate = Candidate { slot, rule: number };
            let any_host = [HostPattern::Any];
            let any_path = [Box::<[u8]>::default()];
            let hosts = if rule.hosts.is_empty() { &any_host[..] } else { &rule.hosts[..] };
            let paths = if rule.paths.is_empty() { &any_path[..] } else { &rule.paths[..] };
            for host in hosts {
                for path in paths {
                    match host {
                        HostPattern::Any => edit(any, path, candidate, slots),
                        HostPattern::Exact(host) => {
                            edit_in(exact, host, |it| edit(it, path, candidate, slots))
                        }
                        HostPattern::Wildcard(host) => {
                            edit_in(wildcard, host, |it| edit(it, path, candidate, slots));
                        }
                    }
                }
            }
        }
    }
}

fn edit_in(hosts: &mut HashMap<Box<[u8]>, Node, Seed>, host: &[u8], edit: impl FnOnce(&mut Node)) {
    if let Some(node) = hosts.get_mut(host) {
        edit(node);
        if node.is_empty() {
            hosts.remove(host);
        }
    } else {
        let mut node = Node::default();
        edit(&mut node);
        if !node.is_empty() {
            hosts.insert(host.into(), node);
        }
    }
}

fn get(slots: &[Option<RouteSpec>], slot: u32) -> Option<&RouteSpec> {
    slots.get(usize::try_from(slot).ok()?)?.as_ref()
}

/// A route that is selected by its cluster alone: nothing else is said of it.
fn is_by_cluster(spec: &RouteSpec) -> bool {
    spec.rules.iter().all(Rule::selects_nothing)
}

/// The precedence among rules for the same host and path, the smallest first.
fn rank(slots: &[Option<RouteSpec>], candidate: Candidate) -> impl Ord + '_ {
    let spec = get(slots, candidate.slot);
    let rule = spec.and_then(|spec| spec.rules.get(usize::try_from(candidate.rule).ok()?));
    let headers = rule.map_or(&[][..], |rule| &rule.headers);
    (
        Reverse(headers.len()),
        Reverse(headers.iter().filter(|header| header.value.is_some()).count()),
        spec.map(|spec| spec.created),
        Reverse(spec.map(|spec| (&*spec.namespace, &*spec.name))),
        spec.map(|spec| spec.kind),
        candidate.rule,
    )
}

// === impl RouteSpec, Rule ===

impl RouteSpec {
    /// Whether the two select the same requests, in the same order among others.
    fn selects_as(&self, other: &Self) -> bool {
        let key = |it: &Self| (it.id, it.kind, it.created);
        key(self) == key(other)
            && self.namespace == other.namespace
            && self.name == other.name
            && self.rules == other.rules
            && self.cluster == other.cluster
    }
}

impl Rule {
    /// Whether it says nothing of host, path and headers.
    fn selects_nothing(&self) -> bool {
        self.hosts.is_empty() && self.paths.is_empty() && self.headers.is_empty()
    }
}
