use super::*;
use sluice_core::route::RouteId;

fn rule(hosts: &[&str], paths: &[&str], headers: &[(&str, Option<&str>)]) -> Rule {
    let header = |(name, value): &(&str, Option<&str>)| HeaderRule {
        name: name.as_bytes().into(),
        value: value.map(|value| value.as_bytes().into()),
    };
    Rule {
        hosts: hosts.iter().map(|host| HostPattern::parse(host)).collect(),
        paths: paths.iter().map(|path| path.as_bytes().into()).collect(),
        headers: headers.iter().map(header).collect(),
    }
}

/// Made at `created`, with the name `app-<created>`.
fn spec(created: i64, cluster: &str, rules: Vec<Rule>) -> Arc<RouteSpec> {
    Arc::new(RouteSpec {
        id: RouteId(created.unsigned_abs()),
        kind: Kind::HttpScaledObject,
        namespace: "ns".into(),
        name: format!("app-{created}").into(),
        generation: 1,
        created,
        rules,
        cluster: ClusterPattern { prefix: cluster.as_bytes().into(), suffix: None },
        hold_timeout: None,
        max_held: None,
    })
}

fn claims(specs: &[Arc<RouteSpec>]) -> Claims {
    let mut claims = Claims::default();
    specs.iter().for_each(|spec| claims.insert(spec));
    claims
}

#[test]
fn the_older_of_two_that_ask_for_the_same_casts_a_shadow_in_whatever_order_they_came() {
    let old = spec(1, "app", vec![rule(&["h"], &["/a", "b/"], &[("k", None), ("l", Some("v"))])]);
    let new = spec(2, "app", vec![rule(&["g", "H:80"], &["//b"], &[("l", Some("v")), ("k", None)])]);
    for specs in [[Arc::clone(&old), Arc::clone(&new)], [Arc::clone(&new), Arc::clone(&old)]] {
        let mut claims = claims(&specs);
        assert_eq!(claims.shadow(&old), None);
        let shadow = claims.shadow(&new).unwrap();
        assert_eq!((&*shadow.name, shadow.lost, shadow.all), ("app-1", 1, 2));
        let message = shadow.message();
        for words in
            ["requests for h/b with its 2 headers", "HTTPScaledObject ns/app-1", "1 of the 2", "Delete one"]
        {
            assert!(message.contains(words), "{message}");
        }
        claims.remove(&old);
        assert_eq!(claims.shadow(&new), None);
        claims.remove(&new);
        assert!(claims.is_empty());
    }
}

#[test]
fn what_differs_in_anything_is_no_conflict() {
    let old = spec(1, "app", vec![rule(&["h"], &["/a"], &[("k", None)])]);
    for new in [
        spec(2, "other", vec![rule(&["h"], &["/a"], &[("k", None)])]),
        spec(2, "app", vec![rule(&["*.h"], &["/a"], &[("k", None)])]),
        spec(2, "app", vec![rule(&["h"], &["/a/b"], &[("k", None)])]),
        spec(2, "app", vec![rule(&["h"], &["/a"], &[("k", Some("v"))])]),
        spec(2, "app", vec![rule(&["h"], &["/a"], &[])]),
        spec(2, "app", vec![]),
    ] {
        let claims = claims(&[Arc::clone(&old), Arc::clone(&new)]);
        assert_eq!((claims.shadow(&old), claims.shadow(&new)), (None, None), "{new:?}");
    }
}

#[test]
fn those_that_ask_for_their_target_alone_conflict_too() {
    let (old, new) = (spec(1, "app", vec![]), spec(2, "app", vec![Rule::default()]));
    let shadow = claims(&[Arc::clone(&new), old]).shadow(&new).unwrap();
    assert!(shadow.message().starts_with("requests for this target are already"), "{}", shadow.message());
}

#[test]
fn who_says_a_thing_twice_is_not_in_his_own_shadow() {
    let spec = spec(1, "app", vec![rule(&["h", "h."], &["/a", "/a/"], &[]); 2]);
    let mut claims = claims(std::slice::from_ref(&spec));
    assert_eq!(claims.shadow(&spec), None);
    claims.remove(&spec);
    assert!(claims.is_empty());
}

#[test]
fn a_message_is_short_however_much_is_asked_for() {
    let asks: Vec<String> =
        (0..2 * MAX_CLAIMS).map(|number| format!("/{number}/{}", "ü".repeat(999))).collect();
    let asks: Vec<&str> = asks.iter().map(String::as_str).collect();
    let (old, new) =
        (spec(1, "app", vec![rule(&[], &asks, &[])]), spec(2, "app", vec![rule(&[], &asks, &[])]));
    let shadow = claims(&[old, Arc::clone(&new)]).shadow(&new).unwrap();
    assert_eq!((shadow.lost, shadow.all), (MAX_CLAIMS, MAX_CLAIMS));
    let message = shadow.message();
    assert!(message.len() < 1_000 && message.starts_with("requests for any host/0/ü"), "{message}");
}
