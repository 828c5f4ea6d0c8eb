//! The table against a list that is read from top to bottom, as the rules are written down.

use super::*;
use proptest::{collection::vec, option, prelude::*, sample::select};
use std::cmp::Reverse;

const HOSTS: [&str; 11] = ["", "*", "a", "a.b", "b.a.b", "*.b", "*.a.b", "c.a.b:80", "B.", "[::1]", "*.*.b"];
const PATHS: [&str; 9] = ["", "/", "/x", "x/y/", "/x/y/z", "/xy", "/%78", "/x//y", "/x/y?z"];
const REQUEST_HOSTS: [&str; 10] =
    ["a", "A:8080", "a.b.", "b.a.b", "c.b.a.b", "b", "", "c.a.b", "[::1]:80", "*.b"];
const REQUEST_PATHS: [&str; 11] =
    ["/", "", "/x", "/x/y?z", "//x/y/z/w//", "/xy/", "/x%2Fy", "/%78/y#/z", "*", "/x//y", "/%2578"];
const CLUSTERS: [&str; 6] = ["app", "o|1||s", "o|1|v|s", "o|2||s", "o|1|-v|s", ""];
const PATTERNS: [(&str, Option<&str>); 6] = [
    ("app", None),
    ("o|1||s", None),
    ("o|1|", Some("|s")),
    ("o|", Some("||s")),
    ("o|1|-", Some("|s")),
    ("", Some("p")),
];

/// What happens to a table.
#[derive(Clone, Debug)]
enum Change {
    Upsert(RouteSpec),
    Remove(RouteId),
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let header = (select(vec!["k", "l"]), option::of(select(vec!["", "v"])));
    (vec(select(HOSTS.to_vec()), 0..3), vec(select(PATHS.to_vec()), 0..3), vec(header, 0..3))
        .prop_map(|(hosts, paths, headers)| rule(&hosts, &paths, &headers))
}

fn any_spec() -> impl Strategy<Value = RouteSpec> {
    let names = (select(vec!["a", "b"]), select(vec![Kind::HttpScaledObject, Kind::InterceptorRoute]));
    (1..12u64, 0..4u64, 0..3i64, vec(any_rule(), 0..3), select(PATTERNS.to_vec()), names).prop_map(
        |(id, generation, created, rules, (prefix, suffix), (namespace, kind))| RouteSpec {
            kind,
            namespace: namespace.into(),
            generation,
            created,
            cluster: ClusterPattern {
                prefix: prefix.as_bytes().into(),
                suffix: suffix.map(|suffix| suffix.as_bytes().into()),
            },
            ..spec(id, rules)
        },
    )
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => any_spec().prop_map(Change::Upsert),
        1 => (1..12u64).prop_map(|id| Change::Remove(RouteId(id))),
    ]
}

fn any_request() -> impl Strategy<Value = Asked> {
    let header = (select(vec!["k".to_owned(), "l".to_owned()]), select(vec![b"".to_vec(), b"v".to_vec()]));
    let (hosts, paths) = (select(REQUEST_HOSTS.to_vec()), select(REQUEST_PATHS.to_vec()));
    (hosts, paths, vec(header, 0..3), select(CLUSTERS.to_vec())).prop_map(|(host, path, headers, cluster)| {
        Asked { headers, cluster: cluster.into(), ..request(host, path) }
    })
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn plain_host(host: &str) -> String {
    let host = host.to_lowercase();
    if let Some(address) = host.strip_prefix('[') {
        return address.split(']').next().unwrap().to_owned();
    }
    let host = host.split(':').next().unwrap();
    host.strip_suffix('.').unwrap_or(host).to_owned()
}

fn plain_segments(path: &str) -> Vec<String> {
    let path = path.trim_matches('/');
    if path.is_empty() { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

fn decoded(segment: String) -> String {
    // In one pass: what "%25" stands for begins nothing.
    let escapes = segment.replace("%25", "\0").replace("%78", "x").replace("%2F", "/");
    escapes.replace('\0', "%")
}

/// How well a host fits; `None` if it does not.
fn host_fit(pattern: &HostPattern, host: &str) -> Option<(u8, usize)> {
    match pattern {
        HostPattern::Exact(exact) => (**exact == *host.as_bytes()).then_some((2, 0)),
        HostPattern::Wildcard(apex) => {
            let suffix = format!(".{}", text(apex));
            host.ends_with(&suffix).then_some((1, suffix.len()))
        }
        HostPattern::Any => Some((0, 0)),
    }
}

/// How well a rule fits, the least the best.
fn rule_fit(rule: &Rule, asked: &Asked) -> Option<impl Ord + use<>> {
    let host = plain_host(text(&asked.authority));
    let path = text(&asked.path).split(['?', '#']).next().unwrap();
    let path: Vec<_> = plain_segments(path).into_iter().map(decoded).collect();
    let hosts = if rule.hosts.is_empty() { &[HostPattern::Any][..] } else { &rule.hosts };
    let host = hosts.iter().filter_map(|pattern| host_fit(pattern, &host)).max()?;
    // A rule's own path is not decoded: it is what it says.
    let paths: Vec<_> = rule.paths.iter().map(|path| plain_segments(text(path))).collect();
    let paths = if paths.is_empty() { vec![Vec::new()] } else { paths };
    let depth = paths.iter().filter(|prefix| path.starts_with(prefix)).map(Vec::len).max()?;
    if !rule.headers.iter().all(|header| asked.clone().header_matches(header)) {
        return None;
    }
    let values = rule.headers.iter().filter(|header| header.value.is_some()).count();
    Some((Reverse(host), Reverse(depth), Reverse(rule.headers.len()), Reverse(values)))
}

fn object_order(route: &RouteSpec) -> impl Ord + use<> {
    (route.created, Reverse((route.namespace.clone(), route.name.clone())))
}

/// The route that a request belongs to, and whether its cluster is the route's.
fn by_reading(routes: &[RouteSpec], asked: &Asked) -> Option<(u64, bool)> {
    let asks = |rule: &&Rule| **rule != Rule::default();
    let by_rules = routes.iter().filter_map(|route| {
        let best = route.rules.iter().filter(asks).filter_map(|rule| rule_fit(rule, asked)).min()?;
        Some(((best, object_order(route)), route))
    });
    let mut by_rules: Vec<_> = by_rules.collect();
    by_rules.sort_by(|one, other| one.0.cmp(&other.0));
    // Those that only age and name tell apart.
    let equals = by_rules.iter().take_while(|it| it.0.0 == by_rules[0].0.0);
    if let Some((_, route)) = { equals }.find(|(_, route)| route.cluster.matches(&asked.cluster)) {
        return Some((route.id.0, true));
    }
    let by_rules = by_rules.first().map(|(_, route)| *route);
    let by_cluster = routes.iter().filter(|route| {
        let has_none = route.rules.is_empty() || !route.rules.iter().all(|rule| asks(&rule));
        has_none && route.cluster.matches(&asked.cluster)
    });
    let by_cluster = by_cluster.min_by(|one, other| object_order(one).cmp(&object_order(other)));
    by_cluster.map(|route| (route.id.0, true)).or(by_rules.map(|route| (route.id.0, false)))
}

fn by_table(table: &Table, mut asked: Asked) -> Option<(u64, bool)> {
    let found = match table.find(&mut asked) {
        Match::None => None,
        Match::Route(slot) => Some((table.get(slot).unwrap().id.0, true)),
        Match::Mismatch(slot) => Some((table.get(slot).unwrap().id.0, false)),
    };
    assert!(asked.authorities <= 1);
    found
}

fn apply(table: &mut Table, routes: &mut Vec<RouteSpec>, change: Change) {
    match change {
        Change::Remove(id) => {
            let known = routes.iter().position(|route| route.id == id).map(|at| routes.remove(at));
            let slot = table.slot_of(id);
            assert_eq!(table.remove(id), slot);
            assert_eq!(slot.is_some(), known.is_some());
        }
        Change::Upsert(spec) => {
            let done = table.upsert(spec.clone());
            match routes.iter_mut().find(|route| route.id == spec.id) {
                None => {
                    assert!(matches!(done, Upsert::Inserted(_)));
                    routes.push(spec);
                }
                Some(old) if (old.created, old.generation) > (spec.created, spec.generation) => {
                    assert!(matches!(done, Upsert::Stale(_)));
                }
                Some(old) => {
                    let alike = RouteSpec { generation: spec.generation, ..old.clone() } == spec;
                    assert_eq!(matches!(done, Upsert::Same(_)), alike);
                    assert_eq!(matches!(done, Upsert::Changed(_)), !alike);
                    *old = spec;
                }
            }
        }
    }
    assert_eq!(table.len(), routes.len());
    for route in routes {
        assert_eq!(table.slot_of(route.id).and_then(|slot| table.get(slot)), Some(&*route));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_table_says_what_the_rules_say(
        changes in vec((any_change(), any_request()), 1..25),
        requests in vec(any_request(), 1..8),
    ) {
        let mut table = Table::new([3, 4]);
        let mut routes = Vec::new();
        for (change, asked) in changes {
            apply(&mut table, &mut routes, change);
            prop_assert_eq!(by_table(&table, asked.clone()), by_reading(&routes, &asked), "{:?}", asked);
        }
        for asked in requests {
            prop_assert_eq!(by_table(&table, asked.clone()), by_reading(&routes, &asked), "{:?}", asked);
        }
        for route in routes {
            table.remove(route.id);
        }
        prop_assert_eq!(table.index.len(), 0);
    }

    #[test]
    fn no_bytes_make_it_panic(
        authority in vec(any::<u8>(), 0..600),
        path in vec(any::<u8>(), 0..600),
        cluster in vec(any::<u8>(), 0..100),
    ) {
        let table = table(vec![
            spec(1, vec![rule(&["a", "*.b"], &["/x"], &[("k", Some("v"))])]),
            spec(2, vec![]),
            spec(3, vec![rule(&[], &["/%41", "/ÿ"], &[])]),
            RouteSpec { cluster: istio(80, "one"), ..spec(4, vec![]) },
        ]);
        let mut request = Asked { authority, path, cluster, ..Asked::default() };
        table.find(&mut request);
    }

    #[test]
    fn no_host_of_a_rule_makes_it_panic(
        hosts in vec("[*.:a\\[\\]É]{0,8}", 0..4),
        paths in vec(vec(any::<u8>(), 0..8), 0..4),
        patterns in vec((vec(select(b"|a".to_vec()), 0..6), option::of(vec(select(b"|a".to_vec()), 0..6))), 1..4),
        cluster in vec(select(b"|a".to_vec()), 0..12),
    ) {
        let mut table = Table::new([3, 4]);
        let rule = Rule {
            hosts: hosts.iter().map(|host| HostPattern::parse(host)).collect(),
            paths: paths.into_iter().map(Into::into).collect(),
            headers: Vec::new(),
        };
        for (id, (prefix, suffix)) in (0..).zip(&patterns) {
            let pattern = ClusterPattern {
                prefix: prefix.clone().into(),
                suffix: suffix.clone().map(Into::into),
            };
            table.upsert(RouteSpec { cluster: pattern, ..spec(id, vec![rule.clone(), Rule::default()]) });
        }
        for host in hosts {
            let mut asked = Asked { cluster: cluster.clone(), ..request(&host, "/a/b") };
            let fits = table.iter().any(|(_, spec)| spec.cluster.matches(&cluster));
            prop_assert_eq!(matches!(table.find(&mut asked), Match::Route(_)), fits);
        }
        for id in 0..4 {
            table.remove(RouteId(id));
        }
        prop_assert_eq!(table.index.len(), 0);
    }
}
