//! The table by cases; against a plain reading of the rules in `reference.rs`.

mod reference;

use super::*;
use crate::route::{ClusterPattern, HostPattern, Kind, Rule};

/// A request that counts what is asked of it.
#[derive(Clone, Debug, Default)]
struct Asked {
    authority: Vec<u8>,
    path: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    cluster: Vec<u8>,
    authorities: u32,
    paths: u32,
    header_checks: u32,
    clusters: u32,
}

impl Request for Asked {
    fn authority(&mut self) -> &[u8] {
        self.authorities += 1;
        &self.authority
    }

    fn path(&mut self) -> &[u8] {
        self.paths += 1;
        &self.path
    }

    fn header_matches(&mut self, rule: &HeaderRule) -> bool {
        self.header_checks += 1;
        self.headers.iter().any(|(name, value)| {
            name.as_bytes() == &*rule.name && rule.value.as_ref().is_none_or(|it| **it == **value)
        })
    }

    fn method(&mut self) -> Method {
        // Nothing is selected by it.
        Method::default()
    }

    fn cluster(&mut self) -> &[u8] {
        self.clusters += 1;
        &self.cluster
    }
}

fn request(authority: &str, path: &str) -> Asked {
    Asked { authority: authority.into(), path: path.into(), cluster: b"app".to_vec(), ..Asked::default() }
}

fn rule(hosts: &[&str], paths: &[&str], headers: &[(&str, Option<&str>)]) -> Rule {
    Rule {
        hosts: hosts.iter().map(|host| HostPattern::parse(host)).collect(),
        paths: paths.iter().map(|path| path.as_bytes().into()).collect(),
        headers: headers
            .iter()
            .map(|(name, value)| HeaderRule {
                name: name.as_bytes().into(),
                value: value.map(|value| value.as_bytes().into()),
            })
            .collect(),
    }
}

fn spec(id: u64, rules: Vec<Rule>) -> RouteSpec {
    RouteSpec {
        id: RouteId(id),
        kind: Kind::InterceptorRoute,
        namespace: "ns".into(),
        name: format!("route-{id}").into(),
        generation: 1,
        created: 0,
        rules,
        cluster: ClusterPattern { prefix: Box::from(*b"app"), suffix: None },
        hold_timeout: None,
        max_held: None,
    }
}

fn table(routes: Vec<RouteSpec>) -> Table {
    let mut table = Table::new([1, 2]);
    for route in routes {
        assert!(matches!(table.upsert(route), Upsert::Inserted(_)));
    }
    table
}

/// The id of the route that gets the request; 0 if none does.
fn found(table: &Table, mut request: Asked) -> u64 {
    match table.find(&mut request) {
        Match::Route(slot) => table.get(slot).unwrap().id.0,
        Match::Mismatch(slot) => panic!("mismatch of {:?}", table.get(slot)),
        Match::None => 0,
    }
}

fn of(table: &Table, authority: &str, path: &str) -> u64 {
    found(table, request(authority, path))
}

#[test]
fn exact_beats_wildcard_beats_any_in_whatever_order_they_came() {
    let routes = [
        spec(1, vec![rule(&["a.example.com"], &[], &[])]),
        spec(2, vec![rule(&["*.example.com"], &[], &[])]),
        spec(3, vec![rule(&["*"], &[], &[])]),
        spec(4, vec![rule(&["*.b.example.com"], &[], &[])]),
    ];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let table = table(order.iter().map(|at| routes[*at].clone()).collect());
        assert_eq!(of(&table, "a.example.com", "/"), 1);
        assert_eq!(of(&table, "x.example.com", "/"), 2);
        assert_eq!(of(&table, "x.y.z.example.com", "/"), 2, "any depth");
        assert_eq!(of(&table, "x.b.example.com", "/"), 4, "the most specific one");
        assert_eq!(of(&table, "b.example.com", "/"), 2, "not the apex");
        assert_eq!(of(&table, "example.com", "/"), 3, "not the apex");
        assert_eq!(of(&table, "localhost", "/"), 3);
        assert_eq!(of(&table, "", "/"), 3);
    }
}

#[test]
fn hosts_are_compared_without_case_port_and_trailing_dot() {
    let table = table(vec![
        spec(1, vec![rule(&["A.Example.com:8080"], &[], &[])]),
        spec(2, vec![rule(&["[::1]:8080"], &[], &[])]),
        spec(3, vec![rule(&["*.Wild.example.com."], &[], &[])]),
    ]);
    for host in ["a.example.com", "A.EXAMPLE.COM", "a.example.com:80", "a.example.com.", "a.example.com.:443"]
    {
        assert_eq!(of(&table, host, "/"), 1, "{host}");
    }
    for host in ["[::1]", "[::1]:8080", "[::1]:1", "::1"] {
        assert_eq!(of(&table, host, "/"), 2, "{host}");
    }
    assert_eq!(of(&table, "x.wild.EXAMPLE.com:1", "/"), 3);
    for host in ["a.example.com:x", "a.example.com..", "[::2]", "a.example.comm", "aa.example.com"] {
        assert_eq!(of(&table, host, "/"), 0, "{host}");
    }
}

#[test]
fn a_host_longer_than_any_host_is_only_any_host() {
    let table = table(vec![
        spec(1, vec![rule(&["*.example.com"], &[], &[])]),
        spec(2, vec![rule(&[], &["/only"], &[])]),
    ]);
    let long = format!("{}.example.com", "a".repeat(300));
    assert_eq!(of(&table, &long, "/"), 0);
    assert_eq!(of(&table, &long, "/only"), 2);
}

#[test]
fn the_longest_prefix_by_whole_segments_wins() {
    let table = table(vec![
        spec(1, vec![rule(&["h"], &[], &[])]),
        spec(2, vec![rule(&["h"], &["/api/"], &[])]),
        spec(3, vec![rule(&["h"], &["api/v1"], &[])]),
        spec(4, vec![rule(&["h"], &["/health"], &[])]),
    ]);
    assert_eq!(of(&table, "h", "/"), 1);
    assert_eq!(of(&table, "h", ""), 1);
    assert_eq!(of(&table, "h", "/api"), 2);
    assert_eq!(of(&table, "h", "/api/?q=/v1"), 2);
    assert_eq!(of(&table, "h", "/api#/v1"), 2);
    assert_eq!(of(&table, "h", "/api/v1/users/7"), 3);
    assert_eq!(of(&table, "h", "//api/v1//"), 3);
    assert_eq!(of(&table, "h", "/api//v1"), 2, "an empty segment is a segment");
    assert_eq!(of(&table, "h", "/api/v10"), 2, "no part of a segment");
    assert_eq!(of(&table, "h", "/healthz"), 1, "no part of a segment");
    assert_eq!(of(&table, "h", "/a%70i/v%31"), 3, "decoded");
    assert_eq!(of(&table, "h", "/api%2Fv1"), 1, "an encoded slash parts nothing");
    assert_eq!(of(&table, "h", "/api/../health"), 2, "dots are names");
    assert_eq!(of(&table, "h", "/%"), 1);
    assert_eq!(of(&table, "h", "/%zz/%4"), 1);
}

#[test]
fn where_the_headers_fail_shorter_prefixes_and_wider_hosts_are_tried() {
    let table = table(vec![
        spec(1, vec![rule(&["a.b.c"], &["/x"], &[("k", Some("v"))])]),
        spec(2, vec![rule(&["a.b.c"], &[], &[("k", None)])]),
        spec(3, vec![rule(&["*.b.c"], &["/x"], &[("other", None)])]),
        spec(4, vec![rule(&["*.c"], &["/x"], &[])]),
    ]);
    let with = |headers: &[(&str, &str)]| Asked {
        headers: headers.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect(),
        ..request("a.b.c", "/x/y")
    };
    assert_eq!(found(&table, with(&[("k", "v")])), 1);
    assert_eq!(found(&table, with(&[("k", "w"), ("k", "v")])), 1, "any of its values");
    assert_eq!(found(&table, with(&[("k", "w")])), 2);
    assert_eq!(found(&table, with(&[("other", "")])), 3);
    assert_eq!(found(&table, with(&[])), 4);
}

#[test]
fn header_values_are_exact_and_an_empty_one_is_a_value() {
    let table = table(vec![
        spec(1, vec![rule(&["h"], &[], &[("k", Some(""))])]),
        spec(2, vec![rule(&["h"], &[], &[("k", Some("V"))])]),
    ]);
    let with = |value: &str| Asked { headers: vec![("k".into(), value.into())], ..request("h", "/") };
    assert_eq!(found(&table, with("")), 1);
    assert_eq!(found(&table, with("V")), 2);
    assert_eq!(found(&table, with("v")), 0);
    assert_eq!(found(&table, with("V,V")), 0);
    assert_eq!(of(&table, "h", "/"), 0);
}

#[test]
fn within_a_host_and_path_more_headers_then_more_values_then_age_then_name_decide() {
    let headers = [("a", "1"), ("b", "2")].map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec())).to_vec();
    let by = |id: u64, created: i64, namespace: &str, headers: &[(&str, Option<&str>)]| RouteSpec {
        created,
        namespace: namespace.into(),
        ..spec(id, vec![rule(&["h"], &["/p"], headers)])
    };
    let ranked = [
        by(1, 9, "ns", &[("a", Some("1")), ("b", Some("2"))]),
        by(2, 9, "ns", &[("a", Some("1")), ("b", None)]),
        by(3, 9, "ns", &[("a", None), ("b", None)]),
        by(4, 9, "ns", &[("b", Some("2"))]),
        by(5, 9, "ns", &[("a", None)]),
        by(6, 1, "a", &[]),
        by(8, 5, "z", &[]),
        by(7, 5, "b", &[]),
    ];
    for skip in 0..ranked.len() {
        let mut rest = ranked[skip..].to_vec();
        let half = rest.len() / 2;
        rest.rotate_left(half);
        let table = table(rest);
        let expected = ranked[skip].id.0;
        assert_eq!(found(&table, Asked { headers: headers.clone(), ..request("h", "/p") }), expected);
    }
}

#[test]
fn a_rule_matches_as_a_whole() {
    let table = table(vec![spec(
        1,
        vec![rule(&["h"], &["/one"], &[]), rule(&["h"], &["/two"], &[("k", None)]), rule(&["g"], &[], &[])],
    )]);
    assert_eq!(of(&table, "h", "/one"), 1);
    assert_eq!(of(&table, "h", "/two"), 0, "one rule's path with another's headers");
    assert_eq!(of(&table, "g", "/two"), 1);
}

#[test]
fn only_what_a_candidate_needs_is_read() {
    let table = table(vec![
        spec(1, vec![rule(&["plain"], &[], &[])]),
        spec(2, vec![rule(&["deep"], &["/p"], &[])]),
        spec(3, vec![rule(&["headed"], &[], &[("k", None)])]),
    ]);
    let asked = |table: &Table, host: &str| {
        let mut request = request(host, "/p");
        table.find(&mut request);
        [request.authorities, request.paths, request.header_checks, request.clusters]
    };
    assert_eq!(asked(&table, "plain"), [1, 0, 0, 1]);
    assert_eq!(asked(&table, "deep"), [1, 1, 0, 1]);
    assert_eq!(asked(&table, "headed"), [1, 0, 1, 0]);
    assert_eq!(asked(&table, "stranger"), [1, 0, 0, 0]);
    let table = Table::new([1, 2]);
    assert_eq!(asked(&table, "plain"), [0; 4]);
    let table = self::table(vec![spec(1, vec![rule(&["*"], &[], &[])])]);
    assert_eq!(asked(&table, "plain"), [0, 0, 0, 1]);
    let table = self::table(vec![spec(1, vec![])]);
    assert_eq!(asked(&table, "plain"), [0, 0, 0, 1]);
}

#[test]
fn a_header_that_fails_is_not_asked_for_again_where_no_rule_needs_it() {
    let table = table(vec![
        spec(1, vec![rule(&["h"], &["/p/q"], &[("k", Some("v"))])]),
        spec(2, vec![rule(&["h"], &["/p"], &[])]),
    ]);
    let mut request = request("h", "/p/q/r");
    assert!(matches!(table.find(&mut request), Match::Route(_)));
    assert_eq!((request.paths, request.header_checks), (1, 1));
}

fn istio(port: u16, service: &str) -> ClusterPattern {
    ClusterPattern {
        prefix: format!("outbound|{port}|").into_bytes().into(),
        suffix: Some(format!("|{service}.ns.svc.cluster.local").into_bytes().into()),
    }
}

fn in_cluster(cluster: &str) -> Asked {
    Asked { cluster: cluster.into(), ..request("h", "/") }
}

#[test]
fn a_route_without_rules_is_selected_by_its_cluster_with_any_subset() {
    let mut table = table(vec![
        RouteSpec { cluster: istio(80, "one"), ..spec(1, vec![]) },
        RouteSpec { cluster: istio(80, "two"), ..spec(2, vec![rule(&[], &[], &[])]) },
        spec(3, vec![]),
        RouteSpec {
            cluster: ClusterPattern { prefix: Box::from(*b"x-"), suffix: Some(Box::from(*b"-y")) },
            ..spec(4, vec![])
        },
        // A rule that asks for nothing, beside one that asks for something.
        RouteSpec { cluster: istio(80, "five"), ..spec(5, vec![rule(&["five"], &[], &[]), Rule::default()]) },
    ]);
    assert_eq!(found(&table, in_cluster("outbound|80||one.ns.svc.cluster.local")), 1);
    assert_eq!(found(&table, in_cluster("outbound|80|v2|one.ns.svc.cluster.local")), 1);
    assert_eq!(found(&table, in_cluster("outbound|80|v2|two.ns.svc.cluster.local")), 2);
    assert_eq!(found(&table, in_cluster("app")), 3);
    assert_eq!(found(&table, in_cluster("x-sub-y")), 4);
    assert_eq!(found(&table, in_cluster("x--y")), 4);
    assert_eq!(found(&table, in_cluster("x-y")), 0);
    assert_eq!(found(&table, in_cluster("outbound|80||five.ns.svc.cluster.local")), 5);
    assert_eq!(of(&table, "five", "/"), 3, "by its rules it is 5's, but for its cluster");
    for none in
        ["outbound|81||one.ns.svc.cluster.local", "outbound|80|a|b|one.ns.svc.cluster.local", "apps", ""]
    {
        assert_eq!(found(&table, in_cluster(none)), 0, "{none}");
    }
    for id in 1..=5 {
        assert!(table.remove(RouteId(id)).is_some());
    }
    assert_eq!(table.index.len(), 0);
}

#[test]
fn of_routes_for_one_cluster_the_older_one_gets_the_request() {
    let by = |id, created| RouteSpec { created, ..spec(id, vec![]) };
    let whole = ClusterPattern { prefix: Box::from(*b"outbound|80||one"), suffix: None };
    let open = ClusterPattern { prefix: Box::from(*b"outbound|80|"), suffix: Some(Box::from(*b"|one")) };
    for (id, other) in [(1, 2), (2, 1)] {
        let table = table(vec![
            RouteSpec { cluster: whole.clone(), ..by(id, id as i64) },
            RouteSpec { cluster: open.clone(), ..by(other, other as i64) },
            RouteSpec { cluster: open.clone(), ..by(3, 3) },
        ]);
        assert_eq!(found(&table, in_cluster("outbound|80||one")), 1);
    }
}

#[test]
fn a_request_that_went_elsewhere_is_a_mismatch_unless_another_route_has_that_cluster() {
    let mut table = table(vec![spec(1, vec![rule(&["h"], &[], &[])])]);
    let Match::Route(slot) = table.find(&mut in_cluster("app")) else { panic!() };
    assert_eq!(table.find(&mut in_cluster("canary")), Match::Mismatch(slot));
    assert_eq!(table.find(&mut in_cluster("")), Match::Mismatch(slot));
    let canary = ClusterPattern { prefix: Box::from(*b"canary"), suffix: None };
    table.upsert(RouteSpec { cluster: canary, ..spec(2, vec![]) });
    assert_eq!(found(&table, in_cluster("canary")), 2);
}

/// Routes with the same rule, each to the cluster of its own name.
fn to_each(clusters: &[&str], rule: &Rule) -> Vec<RouteSpec> {
    let to = |cluster: &str| ClusterPattern { prefix: cluster.as_bytes().into(), suffix: None };
    let each = (1..).zip(clusters);
    let each = each.map(|(id, cluster)| RouteSpec {
        created: id as i64,
        cluster: to(cluster),
        ..spec(id, vec![rule.clone()])
    });
    each.collect()
}

#[test]
fn of_equal_rules_the_one_whose_target_the_request_goes_to_gets_it() {
    let mut table = table(to_each(&["one", "two", "two", "three"], &rule(&["h"], &["/p"], &[])));
    let in_cluster = |cluster: &str| Asked { cluster: cluster.into(), ..request("h", "/p/q") };
    assert_eq!(found(&table, in_cluster("one")), 1);
    assert_eq!(found(&table, in_cluster("two")), 2, "the older one of two to the same target");
    assert_eq!(found(&table, in_cluster("three")), 4);
    let oldest = table.slot_of(RouteId(1)).unwrap();
    assert_eq!(table.find(&mut in_cluster("none")), Match::Mismatch(oldest));
    // What asks for more, or lies deeper, is not equal: it goes first, and a mismatch is its own.
    table.upsert(RouteSpec { cluster: istio(80, "x"), ..spec(5, vec![rule(&["h"], &["/p/q"], &[])]) });
    let deeper = table.slot_of(RouteId(5)).unwrap();
    assert_eq!(table.find(&mut in_cluster("two")), Match::Mismatch(deeper));
    table.remove(RouteId(5));
    let headed = spec(6, vec![rule(&["h"], &["/p"], &[("k", Some("v"))])]);
    table.upsert(RouteSpec { cluster: istio(80, "x"), ..headed });
    let headed = table.slot_of(RouteId(6)).unwrap();
    let canary = || Asked { headers: vec![("k".into(), b"v".to_vec())], ..in_cluster("two") };
    assert_eq!(table.find(&mut canary()), Match::Mismatch(headed));
    assert_eq!(found(&table, in_cluster("two")), 2);
    // One that asks for as much of something that the request has not is not its equal.
    let other = spec(7, vec![rule(&["h"], &["/p"], &[("l", Some("v"))])]);
    table.upsert(RouteSpec { created: 9, ..other });
    assert_eq!(table.find(&mut Asked { cluster: b"app".to_vec(), ..canary() }), Match::Mismatch(headed));
}

#[test]
fn one_rule_for_a_host_and_path_costs_one_look_at_the_cluster_where_it_matches() {
    let table = table(to_each(&["one", "two"], &rule(&["h"], &[], &[("k", None)])));
    let with = |cluster: &str| Asked {
        headers: vec![("k".into(), Vec::new())],
        cluster: cluster.into(),
        ..request("h", "/")
    };
    let cost = |cluster: &str| {
        let mut request = with(cluster);
        table.find(&mut request);
        (request.clusters, request.header_checks)
    };
    assert_eq!(cost("one"), (1, 1));
    assert_eq!(cost("two"), (2, 2));
}

#[test]
fn generations_replace_each_other_forwards_only() {
    let mut table = table(vec![spec(1, vec![rule(&["old"], &[], &[])])]);
    let newer = RouteSpec { generation: 3, ..spec(1, vec![rule(&["new"], &["/a", "/b"], &[])]) };
    assert_eq!(table.upsert(newer.clone()), Upsert::Changed(0));
    assert_eq!(table.upsert(newer.clone()), Upsert::Same(0));
    assert_eq!(table.upsert(spec(1, vec![rule(&["old"], &[], &[])])), Upsert::Stale(0));
    assert_eq!((of(&table, "old", "/a"), of(&table, "new", "/a"), of(&table, "new", "/c")), (0, 1, 0));
    let limited = RouteSpec { generation: 4, max_held: Some(3), ..newer };
    assert_eq!(table.upsert(limited.clone()), Upsert::Same(0));
    assert_eq!(table.upsert(RouteSpec { generation: 5, ..limited.clone() }), Upsert::Same(0));
    assert_eq!(table.upsert(limited), Upsert::Stale(0));
    assert_eq!(table.get(0).unwrap().max_held, Some(3));
    // Deleted, and made again under the same name: its generation begins anew.
    let again = RouteSpec { created: 7, ..spec(1, vec![rule(&["again"], &[], &[])]) };
    assert_eq!(table.upsert(again), Upsert::Changed(0));
    assert_eq!((of(&table, "again", "/"), of(&table, "new", "/a")), (1, 0));
}

#[test]
fn what_is_removed_leaves_nothing_and_its_slot_is_used_again() {
    let mut table = table(vec![
        spec(1, vec![rule(&["a", "*.b", "*"], &["/x/y", "/z"], &[])]),
        spec(2, vec![rule(&["a"], &["/x"], &[])]),
    ]);
    assert_eq!(table.remove(RouteId(1)), Some(0));
    assert_eq!(table.remove(RouteId(1)), None);
    assert_eq!((of(&table, "a", "/x/y"), table.len()), (2, 1));
    assert_eq!((of(&table, "x.b", "/z"), of(&table, "q", "/z")), (0, 0));
    assert_eq!(table.index.len(), 3, "one host, its path tree's root, one segment");
    assert_eq!(table.upsert(spec(3, vec![rule(&["c"], &[], &[])])), Upsert::Inserted(0));
    assert_eq!(table.iter().map(|(slot, spec)| (slot, spec.id.0)).collect::<Vec<_>>(), [(0, 3), (1, 2)]);
    table.remove(RouteId(2));
    table.remove(RouteId(3));
    assert!(table.is_empty() && table.slot_of(RouteId(3)).is_none() && table.get(0).is_none());
    assert_eq!(table.index.len(), 0);
}

#[test]
fn depth_has_no_limit_on_either_side() {
    let deep = "/a".repeat(4_000);
    let mut table = table(vec![
        spec(1, vec![rule(&["h"], &[&deep], &[])]),
        spec(2, vec![rule(&["h", &format!("*.{}", "w.".repeat(120))], &["/a"], &[])]),
    ]);
    assert_eq!(of(&table, "h", &"/a".repeat(100_000)), 1);
    assert_eq!(of(&table, "h", &"/a".repeat(3_999)), 2);
    assert_eq!(of(&table, &format!("a.{}", "w.".repeat(120)), "/a"), 2);
    assert_eq!(of(&table, &format!("a.{}", "w.".repeat(119)), "/a"), 0);
    table.remove(RouteId(1));
    table.remove(RouteId(2));
    assert_eq!(table.index.len(), 0);
}

#[test]
fn a_segment_of_any_length_is_decoded() {
    let long = "y".repeat(5_000);
    let table = table(vec![spec(1, vec![rule(&["h"], &[&long], &[])])]);
    assert_eq!(of(&table, "h", &format!("/{}", "%79".repeat(5_000))), 1);
    assert_eq!(of(&table, "h", &format!("/{}", "%79".repeat(5_001))), 0);
    assert_eq!(of(&table, "h", &format!("/{}", "y".repeat(60_000))), 0);
}

#[test]
fn a_rule_may_say_the_same_thing_twice() {
    let mut table = table(vec![spec(1, vec![rule(&["h", "H:80", "h."], &["/a", "a/", "//a"], &[]); 2])]);
    assert_eq!(of(&table, "h", "/a"), 1);
    table.remove(RouteId(1));
    assert_eq!(table.index.len(), 0);
}
