//! Which objects ask for the same requests to the same target: the oldest of them has them all.
//!
//! To ask for the same is to have the same host, path and headers; the same host and path to another target is no
//! conflict, nor is one of several hosts of which only some are another's, as far as the others go.

#[cfg(test)]
mod tests;

use sluice_core::route::{ClusterPattern, HeaderRule, HostPattern, Kind, RouteSpec, Rule};
use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

/// How many of an object's claims are looked at.
const MAX_CLAIMS: usize = 4_096;
/// How much is shown of a path.
const MAX_PATH: usize = 128;

/// Who claims what. What a claim is, is kept as its hash alone: one in 2⁶⁴ of being wrong costs a wrong word to somebody.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// The oldest first.
    claimants: HashMap<u64, Vec<Arc<RouteSpec>>>,
    state: RandomState,
}

/// An older object that has requests which another one asks for as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The first of what both ask for.
    claim: String,
    /// How many of the younger object's claims are an older one's, and how many it has.
    lost: usize,
    all: usize,
}

/// One host and path with what is asked of headers, and the cluster of the target; `None`: the cluster alone.
#[derive(Hash)]
struct Claim<'a> {
    rule: Option<(&'a HostPattern, &'a [u8], Vec<&'a HeaderRule>)>,
    cluster: &'a ClusterPattern,
}

// === impl Claims ===

impl Claims {
    pub(super) fn insert(&mut self, spec: &Arc<RouteSpec>) {
        let Self { claimants, state } = self;
        for claim in claims(spec) {
            let all = claimants.entry(state.hash_one(claim)).or_default();
            // Whoever says a thing twice claims it once.
            if all.iter().all(|it| it.id != spec.id) {
                if all.is_empty() {
                    all.reserve_exact(1);
                }
                let at = all.partition_point(|it| order(it) < order(spec));
                all.insert(at, Arc::clone(spec));
            }
        }
    }

    pub(super) fn remove(&mut self, spec: &RouteSpec) {
        for claim in claims(spec) {
            let hash = self.state.hash_one(claim);
            if let Some(all) = self.claimants.get_mut(&hash) {
                all.retain(|it| it.id != spec.id);
                if all.is_empty() {
                    self.claimants.remove(&hash);
                }
            }
        }
    }

    /// What casts a shadow on that object. It costs as much as the object has claims, however many others there are.
    pub(super) fn shadow(&self, spec: &RouteSpec) -> Option<Shadow> {
        let mut shadow: Option<Shadow> = None;
        let mut all = 0usize;
        for claim in claims(spec) {
            all = all.saturating_add(1);
            let first = self.claimants.get(&self.state.hash_one(&claim)).and_then(|all| all.first());
            let Some(first) = first.filter(|it| it.id != spec.id) else { continue };
            let shadow = shadow.get_or_insert_with(|| Shadow {
                kind: first.kind,
                namespace: first.namespace.to_string(),
                name: first.name.to_string(),
                claim: claim.to_string(),
                lost: 0,
                all: 0,
            });
            shadow.lost = shadow.lost.saturating_add(1);
        }
        shadow.map(|shadow| Shadow { all, ..shadow })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.claimants.is_empty()
    }
}

/// Which of two comes first, as gateways have it; see [`sluice_core::table`].
fn order(spec: &RouteSpec) -> impl Ord + '_ {
    (spec.created, Reverse(&*spec.namespace), Reverse(&*spec.name), Reverse(spec.kind), spec.id)
}

fn claims(spec: &RouteSpec) -> impl Iterator<Item = Claim<'_>> {
    let cluster = &spec.cluster;
    let by_rules = spec.rules.iter().flat_map(move |rule| claims_of(rule, cluster));
    let none = spec.rules.is_empty().then_some(Claim { rule: None, cluster });
    by_rules.chain(none).take(MAX_CLAIMS)
}

fn claims_of<'a>(rule: &'a Rule, cluster: &'a ClusterPattern) -> impl Iterator<Item = Claim<'a>> {
    let asks = !(rule.hosts.is_empty() && rule.paths.is_empty() && rule.headers.is_empty());
    let hosts = match rule.hosts.as_slice() {
        [] if asks => &[HostPattern::Any],
        hosts => hosts,
    };
    let mut headers: Vec<&HeaderRule> = rule.headers.iter().collect();
    headers.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
    let claims = hosts.iter().flat_map(move |host| {
        let headers = headers.clone();
        let root = rule.paths.is_empty().then_some(&b""[..]);
        let paths = rule.paths.iter().map(|path| trimmed(path)).chain(root);
        paths.map(move |path| Claim { rule: Some((host, path, headers.clone())), cluster })
    });
    claims.chain((!asks).then_some(Claim { rule: None, cluster }))
}

/// `//x/` is `/x`.
fn trimmed(mut path: &[u8]) -> &[u8] {
    while let [b'/', rest @ ..] | [rest @ .., b'/'] = path {
        path = rest;
    }
    path
}

// === impl Shadow ===

impl Shadow {
    /// What is wrong, and how to mend it.
    pub fn message(&self) -> String {
        let Self { kind, namespace, name, claim, lost, all } = self;
        let kind = super::kind_name(*kind);
        let how_many = match (lost, all) {
            (1, 1) => String::new(),
            _ => format!(", and {lost} of the {all} that this object asks for are an older one's"),
        };
        format!(
            "{claim} are already those of the {kind} {namespace}/{name}, which is older and asks for the same of the \
             same target{how_many}: they are counted and held for that one alone. Delete one of the two objects, or \
             have them ask for different hosts, paths or headers"
        )
    }
}

// === impl Claim ===

impl fmt::Display for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((host, path, headers)) = &self.rule else { return f.write_str("requests for this target") };
        match host {
            HostPattern::Exact(host) => write!(f, "requests for {}", String::from_utf8_lossy(host))?,
            HostPattern::Wildcard(apex) => write!(f, "requests for *.{}", String::from_utf8_lossy(apex))?,
            HostPattern::Any => f.write_str("requests for any host")?,
        }
        let shown = path.get(..MAX_PATH).unwrap_or(path);
        let more = if shown.len() < path.len() { "…" } else { "" };
        write!(f, "/{}{more}", String::from_utf8_lossy(shown))?;
        match headers.len() {
            0 => Ok(()),
            1 => f.write_str(" with its header"),
            some => write!(f, " with its {some} headers"),
        }
    }
}
