//! Where in the trees a route's rules lie.

use super::{
    Request,
    host::Host,
    trie::{Encoded, NodeId, Seed, Trie},
};
use crate::route::{ClusterPattern, HeaderRule, HostPattern, RouteSpec, Rule};
use slab::Slab;
use std::cmp::Reverse;

/// The rules, by what they ask for.
#[derive(Debug)]
pub(super) struct Index {
    /// By host, from the last label to the first. Its root is where every host begins: the catch-all is its
    /// wildcard.
    hosts: Trie<Paths>,
    any: NodeId,
    /// By path, a tree per host, and by cluster: in a tree of its own, by prefix and then suffix.
    rules: Trie<Vec<Entry>>,
    clusters: NodeId,
    cuts: Vec<(Cut, usize)>,
}

/// Roots of the path trees of one host.
#[derive(Debug, Default)]
struct Paths {
    /// Of the host itself.
    exact: Option<NodeId>,
    /// Of all hosts below it.
    wildcard: Option<NodeId>,
}

/// One rule of a route. Those of one node are in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    slot: u32,
    /// Which of the route's rules; past the end: the route has none.
    rule: usize,
}

/// The rule that selects a request before all others: where it lies, and its place among those there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) slot: u32,
    node: NodeId,
    place: usize,
}

/// How to cut a cluster's name into the prefix and suffix that a pattern would have: patterns that are cut
/// alike need one look-up together. There are as many cuts as the names' template has forms: one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The prefix is the whole name.
    Whole,
    /// The prefix reaches `head` bytes past the `bars`th `|`, the suffix begins `tail` bytes before the next.
    Field { bars: usize, head: usize, tail: usize },
}

// === impl Index ===

impl Index {
    pub(super) fn new(seed: &Seed) -> Self {
        let mut hosts = Trie::new(seed.clone());
        let mut rules = Trie::new(seed.clone());
        Self { any: hosts.plant(), hosts, clusters: rules.plant(), rules, cuts: Vec::new() }
    }

    /// Adds the rules of the route in `slot`.
    pub(super) fn insert(&mut self, routes: &Slab<RouteSpec>, slot: u32) {
        let Some(spec) = route(routes, slot) else { return };
        for (entry, rule) in entries(slot, spec) {
            let Some(rule) = rule else {
                let node = self.rules.make(self.clusters, cluster_labels(&spec.cluster));
                if add(&mut self.rules, node, routes, entry) {
                    self.count_cut(Cut::of(&spec.cluster));
                }
                continue;
            };
            for host in hosts(rule) {
                let node = self.hosts.make(self.any, host.labels());
                let Some(paths) = self.hosts.get_mut(node) else { continue };
                let root = *paths.of(host).get_or_insert_with(|| self.rules.plant());
                for path in paths_of(rule) {
                    let node = self.rules.make(root, segments(path));
                    add(&mut self.rules, node, routes, entry);
                }
            }
        }
    }

    /// Removes the rules of the route in `slot`; the route itself has to be there still.
    pub(super) fn remove(&mut self, routes: &Slab<RouteSpec>, slot: u32) {
        let Some(spec) = route(routes, slot) else { return };
        for (entry, rule) in entries(slot, spec) {
            let Some(rule) = rule else {
                let node = self.rules.find(self.clusters, cluster_labels(&spec.cluster));
                if node.is_some_and(|node| take(&mut self.rules, node, routes, entry)) {
                    self.discount_cut(Cut::of(&spec.cluster));
                }
                continue;
            };
            for host in hosts(rule) {
                self.remove_host(routes, entry, rule, host);
            }
        }
    }

    fn remove_host(&mut self, routes: &Slab<RouteSpec>, entry: Entry, rule: &Rule, host: &HostPattern) {
        // A host that the rule names twice is gone after the first time.
        let Some(node) = self.hosts.find(self.any, host.labels()) else { return };
        let Some(paths) = self.hosts.get_mut(node) else { return };
        let Some(root) = *paths.of(host) else { return };
        for path in paths_of(rule) {
            if let Some(node) = self.rules.find(root, segments(path)) {
                take(&mut self.rules, node, routes, entry);
            }
        }
        if !self.rules.has_children(root) && self.rules.get(root).is_none_or(Vec::is_empty) {
            self.rules.fell(root);
            *paths.of(host) = None;
            self.hosts.prune(node, |paths| paths.exact.is_some() || paths.wildcard.is_some());
        }
    }

    /// The rule that selects `request` before all others.
    pub(super) fn by_rules(&self, routes: &Slab<RouteSpec>, request: &mut impl Request) -> Option<Found> {
        let (deepest, exact) = if self.hosts.has_children(self.any) {
            self.walk_host(request.authority())
        } else {
            (self.any, false)
        };
        let mut at = Some(deepest);
        if exact {
            let root = self.hosts.get(deepest)?.exact;
            if let Some(found) = root.and_then(|root| self.by_path(routes, root, request)) {
                return Some(found);
            }
            // A wildcard does not match its own apex.
            at = self.hosts.parent(deepest);
        }
        while let Some(node) = at {
            let root = self.hosts.get(node)?.wildcard;
            if let Some(found) = root.and_then(|root| self.by_path(routes, root, request)) {
                return Some(found);
            }
            at = self.hosts.parent(node);
        }
        None
    }

    /// As far as the labels of `authority` go, and whether that is all of them.
    fn walk_host(&self, authority: &[u8]) -> (NodeId, bool) {
        let Some(host) = Host::parse(authority) else { return (self.any, false) };
        let mut at = self.any;
        for label in host.labels() {
            match self.hosts.child(at, label) {
                Some(child) => at = child,
                None => return (at, false),
            }
        }
        (at, true)
    }

    fn by_path(&self, routes: &Slab<RouteSpec>, root: NodeId, request: &mut impl Request) -> Option<Found> {
        let deepest = if self.rules.has_children(root) { self.walk_path(root, request.path()) } else { root };
        let mut at = Some(deepest);
        while let Some(node) = at {
            let mut entries = self.rules.get(node)?.iter().enumerate();
            let entry = entries.find(|(_, entry)| matches(headers(routes, **entry), request));
            if let Some((place, entry)) = entry {
                return Some(Found { slot: entry.slot, node, place });
            }
            at = self.rules.parent(node);
        }
        None
    }

    /// The first of those that only their objects' order puts after `found`: it selects `request` as well, and the
    /// request goes to its route's target.
    pub(super) fn peer(
        &self,
        routes: &Slab<RouteSpec>,
        found: Found,
        request: &mut impl Request,
    ) -> Option<u32> {
        let mut rest = self.rules.get(found.node)?.iter().skip(found.place);
        let asks = weight(headers(routes, *rest.next()?));
        let mut peers = rest.take_while(|entry| weight(headers(routes, **entry)) == asks);
        let peer = peers.find(|entry| {
            let spec = route(routes, entry.slot);
            spec.is_some_and(|spec| spec.cluster.matches(request.cluster()))
                && matches(headers(routes, **entry), request)
        });
        peer.map(|entry| entry.slot)
    }

    fn walk_path(&self, root: NodeId, path: &[u8]) -> NodeId {
        let end = path.iter().position(|byte| matches!(byte, b'?' | b'#'));
        let path = end.and_then(|end| path.get(..end)).unwrap_or(path);
        let mut at = root;
        for segment in segments(path) {
            let child = if segment.contains(&b'%') {
                self.rules.child(at, Encoded(segment))
            } else {
                self.rules.child(at, segment)
            };
            match child {
                Some(child) => at = child,
                None => break,
            }
        }
        at
    }

    /// Whether a route is selected by its cluster.
    pub(super) fn has_clusters(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// The route that is selected by `cluster`.
    pub(super) fn by_cluster(&self, routes: &Slab<RouteSpec>, cluster: &[u8]) -> Option<u32> {
        let nodes = self.cuts.iter().filter_map(|(cut, _)| {
            let (prefix, suffix) = cut.apply(cluster)?;
            self.rules.find(self.clusters, [prefix].into_iter().chain(suffix))
        });
        let first = nodes.filter_map(|node| self.rules.get(node)?.first());
        let best = first.min_by(|one, other| rank(routes, **one).cmp(&rank(routes, **other)));
        best.map(|entry| entry.slot)
    }

    fn count_cut(&mut self, cut: Cut) {
        match self.cuts.iter_mut().find(|(other, _)| *other == cut) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.cuts.push((cut, 1)),
        }
    }

    fn discount_cut(&mut self, cut: Cut) {
        self.cuts.retain_mut(|(other, count)| {
            if *other == cut {
                *count = count.saturating_sub(1);
            }
            *count > 0
        });
    }

    /// How many nodes there are that would not be in an empty index.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.cuts.is_empty(), !self.rules.has_children(self.clusters));
        self.hosts.len() + self.rules.len() - 2
    }
}

// === impl Paths ===

impl Paths {
    fn of(&mut self, host: &HostPattern) -> &mut Option<NodeId> {
        match host {
            HostPattern::Exact(_) => &mut self.exact,
            HostPattern::Wildcard(_) | HostPattern::Any => &mut self.wildcard,
        }
    }
}

// === impl Cut ===

impl Cut {
    fn of(pattern: &ClusterPattern) -> Self {
        let Some(suffix) = &pattern.suffix else { return Self::Whole };
        let mut fields = pattern.prefix.split(|byte| *byte == b'|');
        let head = fields.next_back().map_or(0, <[u8]>::len);
        let tail = suffix.split(|byte| *byte == b'|').next().map_or(0, <[u8]>::len);
        Self::Field { bars: fields.count(), head, tail }
    }

    fn apply(self, name: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
        let Self::Field { bars, head, tail } = self else { return Some((name, None)) };
        let field = name.split(|byte| *byte == b'|').nth(bars)?;
        if head.saturating_add(tail) > field.len() {
            return None;
        }
        let before = name.split(|byte| *byte == b'|').take(bars);
        let start = before.fold(0usize, |at, field| at.saturating_add(field.len()).saturating_add(1));
        let end = start.saturating_add(field.len());
        Some((name.get(..start.saturating_add(head))?, Some(name.get(end.saturating_sub(tail)..)?)))
    }
}

// --- what a route's rules are filed under ---

/// The rules of `spec`; `None` stands for one that asks for nothing, and so is about the cluster alone.
fn entries(slot: u32, spec: &RouteSpec) -> impl Iterator<Item = (Entry, Option<&Rule>)> {
    let rules = spec.rules.iter().enumerate().map(move |(rule, it)| {
        let asks = !(it.hosts.is_empty() && it.paths.is_empty() && it.headers.is_empty());
        (Entry { slot, rule }, asks.then_some(it))
    });
    let none = spec.rules.is_empty().then_some((Entry { slot, rule: 0 }, None));
    rules.chain(none)
}

fn hosts(rule: &Rule) -> &[HostPattern] {
    if rule.hosts.is_empty() { &[HostPattern::Any] } else { &rule.hosts }
}

fn paths_of(rule: &Rule) -> impl Iterator<Item = &[u8]> {
    let root = rule.paths.is_empty().then_some(&b""[..]);
    rule.paths.iter().map(|path| &**path).chain(root)
}

/// The segments of a path; `//x/` has those of `/x`.
fn segments(mut path: &[u8]) -> impl Iterator<Item = &[u8]> {
    while let Some(rest) = path.strip_prefix(b"/") {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    let path = (!path.is_empty()).then_some(path);
    path.into_iter().flat_map(|path| path.split(|byte| *byte == b'/'))
}

fn cluster_labels(pattern: &ClusterPattern) -> impl Iterator<Item = &[u8]> {
    [&*pattern.prefix].into_iter().chain(pattern.suffix.as_deref())
}

// --- the order of the rules of one node ---

/// Adds `entry` to `node` if it is not there.
fn add(rules: &mut Trie<Vec<Entry>>, node: NodeId, routes: &Slab<RouteSpec>, entry: Entry) -> bool {
    let Some(entries) = rules.get_mut(node) else { return false };
    match position(routes, entries, entry) {
        Ok(_) => false,
        Err(at) => {
            // Most nodes have one for good: no room for more.
            if entries.is_empty() {
                entries.reserve_exact(1);
            }
            entries.insert(at, entry);
            true
        }
    }
}

/// Removes `entry` from `node` if it is there, and the node if nothing needs it any more.
fn take(rules: &mut Trie<Vec<Entry>>, node: NodeId, routes: &Slab<RouteSpec>, entry: Entry) -> bool {
    let Some(entries) = rules.get_mut(node) else { return false };
    let Ok(at) = position(routes, entries, entry) else { return false };
    entries.remove(at);
    rules.prune(node, |entries| !entries.is_empty());
    true
}

fn position(routes: &Slab<RouteSpec>, entries: &[Entry], entry: Entry) -> Result<usize, usize> {
    let rank_of_it = rank(routes, entry);
    entries.binary_search_by(|other| rank(routes, *other).cmp(&rank_of_it))
}

/// The add-on's order: more header rules, then more of them with a value, then the older object, then
/// namespace and name descending. What follows only makes it total.
fn rank(routes: &Slab<RouteSpec>, entry: Entry) -> Option<impl Ord> {
    let spec = route(routes, entry.slot)?;
    let object = (spec.created, Reverse(&*spec.namespace), Reverse(&*spec.name), Reverse(spec.kind));
    Some((Reverse(weight(headers(routes, entry))), object, entry.rule, entry.slot))
}

/// How many headers a rule asks for, and how many of them with a value.
fn weight(headers: &[HeaderRule]) -> (usize, usize) {
    (headers.len(), headers.iter().filter(|header| header.value.is_some()).count())
}

fn matches(headers: &[HeaderRule], request: &mut impl Request) -> bool {
    headers.iter().all(|header| request.header_matches(header))
}

fn headers(routes: &Slab<RouteSpec>, entry: Entry) -> &[HeaderRule] {
    let rule = route(routes, entry.slot).and_then(|spec| spec.rules.get(entry.rule));
    rule.map_or(&[], |rule| &rule.headers)
}

fn route(routes: &Slab<RouteSpec>, slot: u32) -> Option<&RouteSpec> {
    routes.get(usize::try_from(slot).ok()?)
}
