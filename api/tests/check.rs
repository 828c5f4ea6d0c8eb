//! What is wrong with an object is said, with field and mend, and whatever can be made of it is.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sluice_api::{
    Flaw, HttpScaledObject, InterceptorRoute,
    spec::{Check, Metrics, Port, Rate, Scaling, Spec},
};
use sluice_core::{metric::RateSpec, route::HostPattern};
use std::{collections::BTreeMap, time::Duration};

/// See the file's head.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mistake {
    change: Value,
    field: String,
    #[serde(rename = "refused")]
    _refused: String,
    flaw: Option<String>,
    flaw_field: Option<String>,
    unreadable: Option<String>,
    #[serde(default)]
    fatal: bool,
    #[serde(default)]
    harmless: bool,
}

/// `base` with `change` merged into it, `null` taking away.
fn changed(mut base: Value, change: &Value) -> Value {
    match (base.as_object_mut(), change) {
        (Some(fields), Value::Object(changes)) => {
            for (field, change) in changes {
                match change {
                    Value::Null => drop(fields.remove(field)),
                    change => {
                        let old = fields.remove(field).unwrap_or_default();
                        fields.insert(field.clone(), changed(old, change));
                    }
                }
            }
            base
        }
        (None, Value::Object(_)) => changed(json!({}), change),
        (_, change) => change.clone(),
    }
}

fn checked<T: Check + DeserializeOwned>(spec: &Value) -> Result<(Option<Spec>, Vec<Flaw>), String> {
    let object = json!({"metadata": {"name": "a", "namespace": "ns"}, "spec": spec});
    serde_json::from_value::<T>(object).map(|object| object.check()).map_err(|error| error.to_string())
}

fn http_base() -> Value {
    json!({"scaleTargetRef": {"name": "a", "service": "a", "port": 80}})
}

fn route_base() -> Value {
    json!({"target": {"service": "a", "port": 80}, "scalingMetric": {"concurrency": {"targetValue": 10}}})
}

/// An HTTPScaledObject with `change`, which is without a flaw.
fn http(change: &Value) -> Spec {
    let (spec, flaws) = checked::<HttpScaledObject>(&changed(http_base(), change)).unwrap();
    assert_eq!(flaws, [], "{change}");
    spec.unwrap()
}

/// An HTTPScaledObject with `change`, which has a flaw and is of use nevertheless.
fn flawed(change: &Value) -> Spec {
    let (spec, flaws) = checked::<HttpScaledObject>(&changed(http_base(), change)).unwrap();
    assert!(!flaws.is_empty(), "{change}");
    spec.unwrap()
}

fn seconds(window: u64, granularity: u64) -> RateSpec {
    RateSpec::new(Duration::from_secs(window), Duration::from_secs(granularity)).unwrap()
}

fn rate(spec: &Spec) -> Rate {
    assert_eq!(spec.metrics.concurrency, None);
    spec.metrics.rate.unwrap()
}

#[test]
fn every_mistake_is_said_with_field_and_mend() {
    let mistakes: BTreeMap<String, Vec<Mistake>> =
        serde_saphyr::from_str(include_str!("mistakes.yaml")).unwrap();
    assert_eq!(mistakes.keys().collect::<Vec<_>>(), ["HTTPScaledObject", "InterceptorRoute"]);
    for (kind, mistakes) in &mistakes {
        for mistake in mistakes {
            let outcome = match kind.as_str() {
                "HTTPScaledObject" => checked::<HttpScaledObject>(&changed(http_base(), &mistake.change)),
                _ => checked::<InterceptorRoute>(&changed(route_base(), &mistake.change)),
            };
            let case = format!("{kind} with {}", mistake.change);
            let (spec, flaws) = match (&mistake.unreadable, outcome) {
                (Some(text), Err(error)) => {
                    assert!(error.contains(text.as_str()), "{case}: {error}");
                    continue;
                }
                (_, outcome) => outcome.unwrap_or_else(|error| panic!("{case}: {error}")),
            };
            assert_eq!(mistake.unreadable, None, "{case} is read");
            assert_eq!(spec.is_none(), mistake.fatal, "{case}");
            assert_eq!(flaws.iter().any(Flaw::is_fatal), mistake.fatal, "{case}");
            if mistake.harmless {
                assert_eq!(flaws, [], "{case}");
                continue;
            }
            let [flaw] = &flaws[..] else { panic!("{case}: {flaws:?}") };
            assert_eq!(flaw.field(), mistake.flaw_field.as_ref().unwrap_or(&mistake.field), "{case}");
            let text = mistake.flaw.as_ref().unwrap_or_else(|| panic!("{case} has a flaw: {flaw}"));
            assert!(flaw.to_string().contains(text.as_str()), "{case}: {flaw}");
        }
    }
}

#[test]
fn whole_objects_are_read_as_what_they_say() {
    let spec = http(&json!({
        "scaleTargetRef": {"port": null, "portName": "http"},
        "hosts": ["Shop.Example.COM.", "*.shop.example.com:8080"],
        "pathPrefixes": ["/api", "v2/"],
        "headers": [{"name": "X-Tenant", "value": "Gold"}, {"name": "x-any"}],
        "replicas": {"min": 2, "max": 7},
        "scaledownPeriod": 60,
        "initialCooldownPeriod": 0,
        "timeouts": {"conditionWait": "20s"},
    }));
    assert_eq!(spec.target.port, Port::Name("http".to_owned()));
    let [rule] = &spec.rules[..] else { panic!("{:?}", spec.rules) };
    // Hosts are the same in any case, with or without a port and a last dot: the add-on's are not.
    let hosts = [
        HostPattern::Exact(b"shop.example.com".as_slice().into()),
        HostPattern::Wildcard(b"shop.example.com".as_slice().into()),
    ];
    assert_eq!(rule.hosts, hosts);
    assert_eq!(rule.headers[0].name, b"x-tenant".as_slice().into());
    assert_eq!(rule.headers[0].value, Some(b"Gold".as_slice().into()));
    assert_eq!(rule.headers[1].value, None);
    let scaling = Scaling { min: Some(2), max: Some(7), cooldown: Some(60), initial_cooldown: Some(0) };
    assert_eq!(spec.scaling, scaling);
    assert_eq!(spec.hold_timeout, Some(Duration::from_secs(20)));
    assert_eq!(spec.metrics, Metrics { concurrency: Some(100), rate: None });

    let route = changed(
        route_base(),
        &json!({"coldStart": {"maxPendingRequests": 3}, "scalingMetric": {"requestRate": {"targetValue": 4}}}),
    );
    let (spec, flaws) = checked::<InterceptorRoute>(&route).unwrap();
    assert_eq!(flaws, []);
    let spec = spec.unwrap();
    assert_eq!(spec.scaling, Scaling::default());
    assert_eq!(spec.max_held.map(u32::from), Some(3));
    let both = Metrics { concurrency: Some(10), rate: Some(Rate { target: 4, spec: seconds(60, 1) }) };
    assert_eq!(spec.metrics, both, "an InterceptorRoute can have both");
}

/// The add-on's scaler panics on an integer division by zero: one such object of one namespace stops it for all.
#[test]
fn a_granularity_below_a_second_crashes_nothing() {
    for granularity in ["0", "1ns", "500ms", "999ms"] {
        let spec = flawed(&json!({"scalingMetric": {"requestRate": {"granularity": granularity}}}));
        assert_eq!(rate(&spec).spec, seconds(60, 1), "{granularity}");
    }
}

/// The add-on indexes by whole seconds: 10 requests per second by 1.5 s come out as 5.25 instead of 15.
#[test]
fn a_granularity_of_a_second_and_a_half_is_one() {
    let spec = http(&json!({"scalingMetric": {"requestRate": {"granularity": "1.5s", "window": "1m30s"}}}));
    let wanted = RateSpec::new(Duration::from_secs(90), Duration::from_millis(1_500)).unwrap();
    assert_eq!(rate(&spec).spec, wanted);
}

/// The target value counts requests in the granularity, which therefore is kept.
#[test]
fn a_window_without_room_is_made_as_long_as_the_granularity() {
    let change =
        json!({"scalingMetric": {"requestRate": {"targetValue": 600, "window": "10s", "granularity": "1m"}}});
    assert_eq!(rate(&flawed(&change)), Rate { target: 600, spec: seconds(60, 60) });
    let change = json!({"scalingMetric": {"requestRate": {"window": "48h", "granularity": "36h"}}});
    assert_eq!(rate(&flawed(&change)).spec, seconds(86_400, 86_400));
}

/// The add-on's cache reads no list with such an object in it, and its operator writes no status.
#[test]
fn what_is_no_duration_takes_nothing_else_with_it() {
    let spec = flawed(&json!({
        "hosts": ["a"],
        "timeouts": {"conditionWait": "a while"},
        "scalingMetric": {"requestRate": {"targetValue": 7, "window": "soon"}},
    }));
    assert_eq!((spec.rules.len(), spec.hold_timeout), (1, None));
    assert_eq!(rate(&spec), Rate { target: 7, spec: seconds(60, 1) });
}

/// An hour in seconds: the add-on rounds one request in it to nothing (before 0.16).
#[test]
fn a_long_window_of_short_units_is_no_mistake() {
    let spec = http(&json!({"scalingMetric": {"requestRate": {"window": "1h"}}}));
    assert_eq!(rate(&spec).spec, seconds(3_600, 1));
}

/// The add-on's operator returns an error and writes no condition.
#[test]
fn of_two_metrics_concurrency_is_used() {
    let both = json!({"concurrency": {"targetValue": 5}, "requestRate": {"targetValue": 6}});
    let spec = flawed(&json!({"scalingMetric": both}));
    assert_eq!(spec.metrics, Metrics { concurrency: Some(5), rate: None });
}

/// The add-on hands bounds to KEDA as they are, which then scales nothing.
#[test]
fn bounds_are_such_that_keda_takes_them() {
    for (replicas, min, max) in [
        (json!({"min": 5, "max": 2}), Some(2), Some(2)),
        (json!({"min": 150}), Some(100), None),
        (json!({"min": -3}), Some(0), None),
        (json!({"max": 0}), None, Some(1)),
        (json!({"min": 4, "max": -1}), Some(1), Some(1)),
    ] {
        let scaling = flawed(&json!({"replicas": replicas})).scaling;
        assert_eq!((scaling.min, scaling.max), (min, max), "{replicas}");
    }
    let scaling = flawed(&json!({"scaledownPeriod": -1, "initialCooldownPeriod": -1})).scaling;
    assert_eq!((scaling.cooldown, scaling.initial_cooldown), (None, None));
}

/// In the add-on an InterceptorRoute without rules never matches.
#[test]
fn no_rules_are_the_targets_own() {
    for rules in [json!([]), json!([{}]), json!([{"hosts": ["*"]}])] {
        let (spec, flaws) =
            checked::<InterceptorRoute>(&changed(route_base(), &json!({"rules": rules}))).unwrap();
        assert_eq!(flaws, []);
        assert_eq!(spec.unwrap().rules, [], "{rules}");
    }
}

#[test]
fn hosts_paths_and_headers_that_no_request_has_are_said() {
    let change = json!({
        "hosts": ["a.example.com", "*.a.example.com", "[::1]:8080", "a_b", "a.*.com", "*a.com", "http://a.com", "a b"],
        "pathPrefixes": ["/", "", "/a%20b", "/a?b", "/a#b"],
        "headers": [{"name": "x-a", "value": "any thing"}, {"name": "x a"}, {"name": ":path"}, {"name": "é"}],
    });
    let (spec, flaws) = checked::<HttpScaledObject>(&changed(http_base(), &change)).unwrap();
    let fields: Vec<&str> = flaws.iter().map(Flaw::field).collect();
    let wanted = [
        "spec.hosts[4]",
        "spec.hosts[5]",
        "spec.hosts[6]",
        "spec.hosts[7]",
        "spec.pathPrefixes[3]",
        "spec.pathPrefixes[4]",
        "spec.headers[1].name",
        "spec.headers[2].name",
        "spec.headers[3].name",
    ];
    assert_eq!(fields, wanted);
    assert!(spec.is_some(), "what is right goes on");
    let rules = json!({"rules": [{}, {"paths": [{"value": "/"}, {"value": "/a?b"}], "hosts": ["a", "b/c"]}]});
    let (_, flaws) = checked::<InterceptorRoute>(&changed(route_base(), &rules)).unwrap();
    let fields: Vec<&str> = flaws.iter().map(Flaw::field).collect();
    assert_eq!(fields, ["spec.rules[1].hosts[1]", "spec.rules[1].paths[1].value"]);
}

#[test]
fn headers_that_no_response_can_have_are_said() {
    let response = json!({"headers": {"a b": "c", "x-fine": "a\tb é", "x-split": "a\r\nset-cookie: b"}});
    let change = json!({"staticRoutes": [{"rules": [{}], "response": response}]});
    let (_, flaws) = checked::<InterceptorRoute>(&changed(route_base(), &change)).unwrap();
    let fields: Vec<&str> = flaws.iter().map(Flaw::field).collect();
    assert_eq!(
        fields,
        ["spec.staticRoutes[0].response.headers", "spec.staticRoutes[0].response.headers[x-split]"]
    );
}
