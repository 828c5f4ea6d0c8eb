//! The table against a list that is read from top to bottom, as the rules are written down.

use super::*;
use proptest::{collection::vec, option, prelude::*, sample::select};

const HOSTS: [&str; 9] = ["", "*", "a", "a.b", "b.a.b", "*.b", "*.a.b", "c.a.b:80", "B."];
const PATHS: [&str; 7] = ["", "/", "/x", "x/y/", "/x/y/z", "/xy", "/%78"];
const REQUEST_PATHS: [&str; 8] = ["/", "/x", "/x/y?z", "//x/y/z/w", "/xy/", "/x%2Fy", "/%78/y", "*"];
const REQUEST_HOSTS: [&str; 8] = ["a", "A:8080", "a.b.", "b.a.b", "c.b.a.b", "b", "", "c.a.b"];
const CLUSTERS: [&str; 4] = ["app", "o|1||s", "o|1|v|s", "o|2||s"];

fn any_rule() -> impl Strategy<Value = Rule> {
    let header = (select(vec!["k", "l"]), option::of(select(vec!["", "v"])));
    (vec(select(HOSTS.to_vec()), 0..3), vec(select(PATHS.to_vec()), 0..3), vec(header, 0..3))
        .prop_map(|(hosts, paths, headers)| rule(&hosts, &paths, &headers))
}

fn any_spec() -> impl Strategy<Value = RouteSpec> {
    let cluster = prop_oneof![
        Just(ClusterPattern { prefix: Box::from(*b"app"), suffix: None }),
        Just(ClusterPattern { prefix: Box::from(*b"o|1|"), suffix: Some(Box::from(*b"|s")) }),
        Just(ClusterPattern { prefix: Box::from(*b"o|"), suffix: Some(Box::from(*b"|s")) }),
    ];
    (1..12u64, 0..4u64, 0..3i64, vec(any_rule(), 0..3), cluster).prop_map(
        |(id, generation, created, rules, cluster)| RouteSpec {
            generation,
            created,
            cluster,
            ..spec(id, rules)
        },
    )
}

fn any_request() -> impl Strategy<Value = Asked> {
    let header = (select(vec!["k".to_owned(), "l".to_owned()]), select(vec![b"".to_vec(), b"v".to_vec()]));
    (
        select(REQUEST_HOSTS.to_vec()),
        select(REQUEST_PATHS.to_vec()),
        vec(header, 0..3),
        select(CLUSTERS.to_vec()),
    )
        .prop_map(|(host, path, headers, cluster)| Asked {
            headers,
            cluster: cluster.into(),
            ..request(host, path)
        })
}

fn plain_host(host: &str) -> String {
    let host = host.split(':').next().unwrap().to_lowercase();
    host.strip_suffix('.').unwrap_or(&host).to_owned()
}

fn plain_segments(path: &str) -> Vec<String> {
    let path = path.split(['?', '#']).next().unwrap().trim_matches('/');
    if path.is_empty() { Vec::new() } else { path.split('/').map(|it| it.replace("%78", "x")).collect() }
}

/// How good a rule's host fits: the length of what it says; `None` if it does not.
fn host_fit(pattern: &HostPattern, host: &str) -> Option<(u8, usize)> {
    match pattern {
        HostPattern::Exact(exact) => (**exact == *host.as_bytes()).then_some((2, 0)),
        HostPattern::Wildcard(domain) => {
            let suffix = format!(".{}", std::str::from_utf8(domain).unwrap());
            host.ends_with(&suffix).then_some((1, suffix.len()))
        }
        HostPattern::Any => Some((0, 0)),
    }
}

fn naive(routes: &[RouteSpec], asked: &Asked) -> (Option<u64>, bool) {
    let host = plain_host(std::str::from_utf8(&asked.authority).unwrap());
    let path = plain_segments(std::str::from_utf8(&asked.path).unwrap());
    let mut best: Vec<_> = Vec::new();
    for route in routes {
        for (number, rule) in route.rules.iter().enumerate() {
            if rule.hosts.is_empty() && rule.paths.is_empty() && rule.headers.is_empty() {
                continue;
            }
            let any = [HostPattern::Any];
            let hosts = if rule.hosts.is_empty() { &any[..] } else { &rule.hosts };
            let Some(host) = hosts.iter().filter_map(|it| host_fit(it, &host)).max() else { continue };
            let paths = if rule.paths.is_empty() {
                vec![Vec::new()]
            } else {
                // A rule's own path is not decoded: it is what it says.
                let segments = |it: &[u8]| {
                    let it = std::str::from_utf8(it).unwrap().trim_matches('/').to_owned();
                    if it.is_empty() { Vec::new() } else { it.split('/').map(str::to_owned).collect() }
                };
                rule.paths.iter().map(|it| segments(it)).collect::<Vec<_>>()
            };
            let Some(depth) = paths.iter().filter(|it| path.starts_with(it)).map(Vec::len).max() else {
                continue;
            };
            if !rule.headers.iter().all(|it| asked.clone().header_matches(it)) {
                continue;
            }
            let values = rule.headers.iter().filter(|it| it.value.is_some()).count();
            let name = Reverse((route.namespace.clone(), route.name.clone()));
            best.push((
                (
                    Reverse(host),
                    Reverse(depth),
                    Reverse(rule.headers.len()),
                    Reverse(values),
                    route.created,
                    name,
                    number,
                ),
                route,
            ));
        }
    }
    best.sort_by(|one, other| one.0.cmp(&other.0));
    let by_rules = best.first().map(|(_, route)| *route);
    if let Some(route) = by_rules.filter(|it| it.cluster.matches(&asked.cluster)) {
        return (Some(route.id.0), false);
    }
    let mut by_cluster: Vec<_> = routes
        .iter()
        .filter(|it| {
            it.rules
                .iter()
                .all(|rule| rule.hosts.is_empty() && rule.paths.is_empty() && rule.headers.is_empty())
                && it.cluster.matches(&asked.cluster)
        })
        .collect();
    by_cluster.sort_by_key(|it| (it.created, Reverse((it.namespace.clone(), it.name.clone()))));
    match (by_cluster.first(), by_rules) {
        (Some(_), _) => (Some(0), false),
        (None, Some(route)) => (Some(route.id.0), true),
        (None, None) => (None, false),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_table_says_what_the_rules_say(
        changes in vec((any_spec(), any::<bool>()), 1..25),
        requests in vec(any_request(), 1..8),
    ) {
        let mut table = Table::new([3, 4]);
        let mut routes: Vec<RouteSpec> = Vec::new();
        for (spec, remove) in changes {
            let known = routes.iter().position(|it| it.id == spec.id);
            match known {
                Some(at) if remove => {
                    prop_assert!(table.remove(spec.id).is_some());
                    routes.remove(at);
                }
                Some(at) if routes[at].generation > spec.generation => {
                    prop_assert!(matches!(table.upsert(spec), Upsert::Stale(_)));
                }
                Some(at) => {
                    table.upsert(spec.clone());
                    routes[at] = spec;
                }
                None => {
                    prop_assert!(matches!(table.upsert(spec.clone()), Upsert::Inserted(_)));
                    routes.push(spec);
                }
            }
        }
        prop_assert_eq!(table.len(), routes.len());
        for mut asked in requests {
            let expected = naive(&routes, &asked);
            match (table.find(&mut asked), expected) {
                (Match::None, (None, _)) => {}
                // By cluster alone several may fit where the subset's place differs: any of them is right.
                (Match::Route(slot), (Some(0), false)) => {
                    let spec = table.get(slot).unwrap();
                    prop_assert!(is_by_cluster(spec) && spec.cluster.matches(&asked.cluster));
                }
                (Match::Route(slot), (Some(id), false)) | (Match::Mismatch(slot), (Some(id), true)) => {
                    prop_assert_eq!(table.get(slot).unwrap().id.0, id);
                }
                (found, expected) => prop_assert!(false, "{:?} instead of {:?} for {:?}", found, expected, asked),
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(authority in vec(any::<u8>(), 0..600), path in vec(any::<u8>(), 0..600), cluster in vec(any::<u8>(), 0..100)) {
        let table = table(vec![
            spec(1, vec![rule(&["a", "*.b"], &["/x"], &[("k", Some("v"))])]),
            spec(2, vec![]),
            spec(3, vec![rule(&[], &["/%41", "/ÿ"], &[])]),
        ]);
        let mut request = Asked { authority, path, cluster, ..Asked::default() };
        table.find(&mut request);
    }
}
