mod conflicts;

use super::*;
use serde_json::{Value, json};
use sluice_core::{
    metric::RateSpec,
    route::{ClusterPattern, HostPattern, Rule},
};

struct Bed {
    index: Index,
}

impl Bed {
    fn new() -> Self {
        Self::with(Defaults {
            cluster_template: ClusterTemplate::ISTIO.parse().unwrap(),
            hold_timeout: None,
            max_held: None,
        })
    }

    fn with(defaults: Defaults) -> Self {
        Self { index: Index::new(defaults) }
    }

    fn apply(&mut self, object: Object) -> Changes {
        let mut changes = Changes::new();
        self.index.take(vec![Event::Apply(object)], &mut changes);
        changes
    }

    fn delete(&mut self, kind: ObjectKind, name: &str) -> Changes {
        let mut changes = Changes::new();
        let reference = ObjectRef { kind, namespace: "ns".to_owned(), name: name.to_owned() };
        self.index.take(vec![Event::Delete(reference)], &mut changes);
        changes
    }

    fn entry(&self, kind: Kind) -> &Entry {
        self.index.get(kind, "ns", "app").unwrap()
    }

    fn route(&self, kind: Kind) -> Published {
        match &self.entry(kind).standing {
            Standing::Routed { route, .. } => route.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn ready(&self, kind: Kind) -> Condition {
        let name = Name { namespace: "ns".to_owned(), name: "app".to_owned() };
        self.entry(kind).conditions(kind, &name, 0, None).remove(0)
    }
}

fn object(kind: &str, spec: &Value) -> Value {
    json!({"metadata": {"name": "app", "namespace": "ns", "generation": 4}, "kind": kind, "spec": spec})
}

fn http(spec: &Value) -> Object {
    Object::HttpScaledObject(Box::new(serde_json::from_value(object("HTTPScaledObject", spec)).unwrap()))
}

fn interceptor(spec: &Value) -> Object {
    Object::InterceptorRoute(Box::new(serde_json::from_value(object("InterceptorRoute", spec)).unwrap()))
}

fn plain() -> Object {
    http(&json!({"hosts": ["a.example.com"], "scaleTargetRef": {"service": "svc", "port": 80}}))
}

fn named() -> Object {
    http(&json!({"hosts": ["a.example.com"], "scaleTargetRef": {"service": "svc", "portName": "http"}}))
}

fn service(spec: &Value) -> Object {
    let service = json!({"metadata": {"name": "svc", "namespace": "ns"}, "spec": spec});
    Object::Service(Box::new(serde_json::from_value(service).unwrap()))
}

fn two_ports() -> Object {
    service(&json!({"ports": [{"port": 80, "name": "http"}, {"port": 9090, "name": "metrics"}]}))
}

fn slice(name: &str, port: &str, ready: bool) -> Object {
    slice_of("svc", name, port, ready)
}

fn slice_of(service: &str, name: &str, port: &str, ready: bool) -> Object {
    let slice = json!({
        "metadata": {"name": name, "namespace": "ns", "labels": {SERVICE_NAME_LABEL: service}},
        "addressType": "IPv4",
        "ports": [{"name": port, "port": 8080}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
    });
    Object::EndpointSlice(Box::new(serde_json::from_value(slice).unwrap()))
}

const HTTP: Kind = Kind::HttpScaledObject;
const ROUTE: Kind = Kind::InterceptorRoute;

#[test]
fn an_object_becomes_a_route_and_says_so_once() {
    let mut bed = Bed::new();
    let changes = bed.apply(plain());
    let id = route_id(HTTP, "ns", "app");
    let published = changes[&id].clone().unwrap();
    let expected = RouteSpec {
        id,
        kind: HTTP,
        namespace: "ns".into(),
        name: "app".into(),
        generation: 4,
        created: 0,
        rules: vec![Rule { hosts: vec![HostPattern::parse("a.example.com")], ..Rule::default() }],
        cluster: ClusterPattern {
            prefix: b"outbound|80|".as_slice().into(),
            suffix: Some(b"|svc.ns.svc.cluster.local".as_slice().into()),
        },
        hold_timeout: None,
        max_held: None,
    };
    assert_eq!(*published.spec, expected);
    assert_eq!(published.hint, Hint::Unknown);
    assert_eq!(published.metrics, Metrics { concurrency: Some(100), rate: None });
    assert!(bed.apply(plain()).is_empty(), "nothing changed");
    assert_eq!(bed.delete(ObjectKind::HttpScaledObject, "app")[&id], None);
    assert!(bed.delete(ObjectKind::HttpScaledObject, "app").is_empty());
}

#[test]
fn route_ids_are_the_same_everywhere() {
    // printf '%s' HTTPScaledObject/ns/app | sha256sum
    assert_eq!(format!("{:016x}", route_id(HTTP, "ns", "app").0), "ebb1d006b8f37b85");
    assert_eq!(format!("{:016x}", route_id(ROUTE, "ns", "app").0), "cb03afd7af1a5f45");
}

#[test]
fn a_target_is_unknown_then_not_ready_then_ready() {
    let mut bed = Bed::new();
    bed.apply(plain());
    assert_eq!(bed.route(HTTP).hint, Hint::Unknown);
    assert_eq!(bed.ready(HTTP).reason, "ServiceNotFound");
    assert_eq!(bed.apply(two_ports()).len(), 1);
    assert_eq!(bed.route(HTTP).hint, Hint::NotReady, "a Service without slices has nothing ready");
    assert!(bed.ready(HTTP).status);
    assert!(bed.apply(slice("s", "http", false)).is_empty());
    assert_eq!(bed.apply(slice("s", "http", true)).len(), 1);
    assert_eq!(bed.route(HTTP).hint, Hint::Ready);
    assert!(bed.apply(slice("t", "http", true)).is_empty(), "ready already");
    assert!(bed.delete(ObjectKind::EndpointSlice, "s").is_empty(), "another slice has one");
    assert_eq!(bed.delete(ObjectKind::EndpointSlice, "t").len(), 1);
    assert_eq!(bed.route(HTTP).hint, Hint::NotReady);
    assert_eq!(bed.delete(ObjectKind::Service, "svc").len(), 1);
    assert_eq!(bed.route(HTTP).hint, Hint::Unknown);
}

#[test]
fn a_target_is_as_ready_as_its_own_port() {
    let mut bed = Bed::new();
    bed.apply(plain());
    bed.apply(two_ports());
    bed.apply(slice("s", "metrics", true));
    assert_eq!(bed.route(HTTP).hint, Hint::NotReady);
    bed.apply(http(&json!({"scaleTargetRef": {"service": "svc", "port": 9090}})));
    assert_eq!(bed.route(HTTP).hint, Hint::Ready);
    bed.apply(http(&json!({"scaleTargetRef": {"service": "svc", "portName": "metrics"}})));
    assert_eq!(bed.route(HTTP).hint, Hint::Ready);
}

#[test]
fn a_number_is_the_services_and_its_endpoints_are_found_by_the_ports_name() {
    let mut bed = Bed::new();
    bed.apply(plain());
    bed.apply(two_ports());
    bed.apply(slice("s", "http", true));
    assert_eq!(bed.route(HTTP).hint, Hint::Ready, "80 is http, and http is 8080 on the Pods");
    bed.apply(http(&json!({"scaleTargetRef": {"service": "svc", "port": 8080}})));
    assert_eq!(bed.ready(HTTP).reason, "PortNotFound");
    assert_eq!(bed.route(HTTP).hint, Hint::Unknown);
}

#[test]
fn a_port_that_gets_another_name_is_found_by_it() {
    let mut bed = Bed::new();
    bed.apply(plain());
    bed.apply(two_ports());
    bed.apply(slice("s", "http", true));
    let renamed = service(&json!({"ports": [{"port": 80, "name": "web"}]}));
    assert_eq!(bed.apply(renamed).len(), 1);
    assert_eq!(bed.route(HTTP).hint, Hint::NotReady, "its slices still say http");
    assert_eq!(bed.apply(slice("s", "web", true)).len(), 1);
    assert_eq!(bed.route(HTTP).hint, Hint::Ready);
}

#[test]
fn a_services_only_port_may_have_no_name() {
    let mut bed = Bed::new();
    bed.apply(plain());
    bed.apply(service(&json!({"ports": [{"port": 80}]})));
    bed.apply(slice("s", "", true));
    assert_eq!(bed.route(HTTP).hint, Hint::Ready);
}

#[test]
fn the_order_in_which_objects_come_makes_no_difference() {
    let mut bed = Bed::new();
    bed.apply(slice("s", "http", true));
    bed.apply(two_ports());
    bed.apply(named());
    let route = bed.route(HTTP);
    assert_eq!(route.hint, Hint::Ready);
    assert!(route.spec.cluster.matches(b"outbound|80||svc.ns.svc.cluster.local"));
}

#[test]
fn a_slice_that_changes_its_service_is_taken_from_the_old_one() {
    let mut bed = Bed::new();
    bed.apply(plain());
    bed.apply(two_ports());
    bed.apply(slice("s", "http", true));
    assert_eq!(bed.apply(slice_of("other", "s", "http", true)).len(), 1);
    assert_eq!(bed.route(HTTP).hint, Hint::NotReady);
}

#[test]
fn a_port_by_name_needs_the_service_and_outlives_it() {
    let mut bed = Bed::new();
    assert!(bed.apply(named()).is_empty(), "no number, no cluster");
    assert_eq!(bed.entry(HTTP).standing, Standing::Unresolved { missing: Missing::Service });
    assert_eq!(bed.ready(HTTP).reason, "ServiceNotFound");
    assert_eq!(bed.apply(two_ports()).len(), 1);
    assert!(bed.route(HTTP).spec.cluster.matches(b"outbound|80||svc.ns.svc.cluster.local"));
    bed.delete(ObjectKind::Service, "svc");
    let route = bed.route(HTTP);
    assert!(route.spec.cluster.matches(b"outbound|80||svc.ns.svc.cluster.local"), "as last known");
    assert_eq!(route.hint, Hint::Unknown);
    bed.apply(service(&json!({"ports": [{"port": 8081, "name": "http"}]})));
    assert!(bed.route(HTTP).spec.cluster.matches(b"outbound|8081||svc.ns.svc.cluster.local"));
}

#[test]
fn a_port_that_the_service_does_not_have_is_said() {
    let mut bed = Bed::new();
    bed.apply(service(&json!({"ports": [{"port": 81, "name": "other"}]})));
    bed.apply(plain());
    assert_eq!(bed.route(HTTP).hint, Hint::Unknown);
    let ready = bed.ready(HTTP);
    assert_eq!((ready.status, ready.reason), (false, "PortNotFound"));
    assert!(ready.message.contains("ns/svc has no port 80"), "{}", ready.message);
    bed.apply(named());
    assert!(bed.ready(HTTP).message.contains("no port \"http\""), "{}", bed.ready(HTTP).message);
}

#[test]
fn what_is_outside_the_cluster_is_known_to_the_gateway_alone() {
    let mut bed = Bed::new();
    bed.apply(plain());
    bed.apply(service(&json!({"type": "ExternalName", "externalName": "example.com"})));
    assert_eq!(bed.route(HTTP).hint, Hint::Unknown);
    assert!(bed.ready(HTTP).status);
}

#[test]
fn a_template_without_port_needs_no_service() {
    let mut bed = Bed::with(Defaults {
        cluster_template: "{service}_{namespace}".parse().unwrap(),
        hold_timeout: None,
        max_held: None,
    });
    bed.apply(named());
    assert!(bed.route(HTTP).spec.cluster.matches(b"svc_ns"));
}

#[test]
fn an_interceptor_route_takes_the_place_of_its_namesake_and_gives_it_back() {
    let mut bed = Bed::new();
    bed.apply(plain());
    let both = bed.apply(interceptor(&json!({
        "target": {"service": "svc", "port": 80},
        "scalingMetric": {"concurrency": {"targetValue": 5}},
    })));
    assert_eq!(both[&route_id(HTTP, "ns", "app")], None);
    assert!(both[&route_id(ROUTE, "ns", "app")].is_some());
    assert_eq!(bed.entry(HTTP).standing, Standing::Overridden);
    assert_eq!(bed.ready(HTTP).reason, "Overridden");
    let back = bed.delete(ObjectKind::InterceptorRoute, "app");
    assert!(back[&route_id(HTTP, "ns", "app")].is_some());
    assert_eq!(back[&route_id(ROUTE, "ns", "app")], None);
}

#[test]
fn an_interceptor_route_that_says_nothing_usable_takes_nobodys_place() {
    let mut bed = Bed::new();
    bed.apply(plain());
    let bad = interceptor(&json!({"target": {"service": "svc"}, "scalingMetric": {}}));
    assert!(bed.apply(bad).is_empty());
    assert!(bed.ready(HTTP).reason != "Overridden");
}

#[test]
fn an_object_that_turns_bad_keeps_what_it_said() {
    let mut bed = Bed::new();
    bed.apply(two_ports());
    bed.apply(plain());
    let bad = http(&json!({"scaleTargetRef": {"service": "svc", "port": 80, "portName": "http"}}));
    assert!(bed.apply(bad).is_empty());
    assert!(bed.route(HTTP).spec.cluster.matches(b"outbound|80||svc.ns.svc.cluster.local"));
    let ready = bed.ready(HTTP);
    assert_eq!((ready.status, ready.reason), (false, "InvalidSpec"));
    assert!(ready.message.contains("spec.scaleTargetRef names a port twice"), "{}", ready.message);
    assert!(ready.message.contains("stays in force"), "{}", ready.message);
    bed.apply(plain());
    assert!(bed.ready(HTTP).status);
}

#[test]
fn a_target_that_cannot_be_is_no_route() {
    for (target, flaw) in [
        (json!({"service": "svc"}), Flaw::NoPort { field: "spec.scaleTargetRef" }),
        (json!({"service": "svc", "port": 0, "portName": ""}), Flaw::NoPort { field: "spec.scaleTargetRef" }),
        (
            json!({"service": "svc", "port": 1, "portName": "a"}),
            Flaw::TwoPorts { field: "spec.scaleTargetRef" },
        ),
        (
            json!({"service": "svc", "port": 65_536}),
            Flaw::Port { field: "spec.scaleTargetRef.port", port: 65_536 },
        ),
        (json!({"service": "svc", "port": -1}), Flaw::Port { field: "spec.scaleTargetRef.port", port: -1 }),
        (json!({"service": "", "port": 1}), Flaw::NoService { field: "spec.scaleTargetRef.service" }),
    ] {
        let mut bed = Bed::new();
        assert!(bed.apply(http(&json!({"scaleTargetRef": target}))).is_empty());
        assert_eq!(bed.entry(HTTP).flaws, [flaw]);
        assert_eq!(bed.entry(HTTP).standing, Standing::Invalid);
        assert_eq!(bed.ready(HTTP).reason, "InvalidSpec");
    }
}

#[test]
fn a_zero_port_beside_a_name_is_one_left_out() {
    let mut bed = Bed::new();
    bed.apply(http(&json!({"scaleTargetRef": {"service": "svc", "port": 0, "portName": "http"}})));
    assert_eq!(bed.entry(HTTP).flaws, []);
}

#[test]
fn what_can_be_worked_around_is_said_and_worked_around() {
    let rate = |rate: Value| {
        http(&json!({
            "scaleTargetRef": {"service": "svc", "port": 80}, "scalingMetric": {"requestRate": rate},
        }))
    };
    let metric = |metric: Value| {
        http(&json!({
            "scaleTargetRef": {"service": "svc", "port": 80}, "scalingMetric": metric,
        }))
    };
    let default = Metrics { concurrency: None, rate: Some(Rate { target: 100, spec: RateSpec::default() }) };
    let minute = Duration::from_secs(60);
    let by_minute = RateSpec::new(minute, minute).unwrap();
    let by_minute = Metrics { concurrency: None, rate: Some(Rate { target: 100, spec: by_minute }) };
    for (object, field, metrics) in [
        (rate(json!({"granularity": "100ms"})), "spec.scalingMetric.requestRate.granularity", default),
        (
            rate(json!({"window": "1s", "granularity": "1m"})),
            "spec.scalingMetric.requestRate.window",
            by_minute,
        ),
        (rate(json!({"window": "forever"})), "spec.scalingMetric.requestRate.window", default),
        (rate(json!({"granularity": "-1s"})), "spec.scalingMetric.requestRate.granularity", default),
        (rate(json!({"targetValue": 0})), "spec.scalingMetric.requestRate.targetValue", default),
        (
            metric(json!({"concurrency": {"targetValue": 7}, "requestRate": {}})),
            "spec.scalingMetric",
            Metrics { concurrency: Some(7), rate: None },
        ),
    ] {
        let mut bed = Bed::new();
        bed.apply(object);
        let entry = bed.entry(HTTP);
        assert_eq!(entry.flaws.len(), 1, "{:?}", entry.flaws);
        assert_eq!(entry.flaws[0].field(), field);
        assert!(!entry.flaws[0].is_fatal());
        assert_eq!(bed.route(HTTP).metrics, metrics);
        assert_eq!(bed.ready(HTTP).reason, "InvalidSpec");
    }
}

#[test]
fn metrics_are_what_the_object_says() {
    let http_metrics = |spec: Value| {
        let mut spec = spec;
        spec["scaleTargetRef"] = json!({"service": "svc", "port": 80});
        let mut bed = Bed::new();
        bed.apply(http(&spec));
        assert_eq!(bed.entry(HTTP).flaws, []);
        bed.route(HTTP).metrics
    };
    let concurrency = |target| Metrics { concurrency: Some(target), rate: None };
    assert_eq!(http_metrics(json!({})), concurrency(100));
    assert_eq!(http_metrics(json!({"targetPendingRequests": 20})), concurrency(20));
    let both = json!({"targetPendingRequests": 20, "scalingMetric": {"concurrency": {"targetValue": 30}}});
    assert_eq!(http_metrics(both), concurrency(30));
    let hour = RateSpec::new(Duration::from_secs(3_600), Duration::from_secs(10)).unwrap();
    let rate =
        json!({"scalingMetric": {"requestRate": {"targetValue": 3, "window": "1h", "granularity": "10s"}}});
    assert_eq!(http_metrics(rate), Metrics { concurrency: None, rate: Some(Rate { target: 3, spec: hour }) });

    let mut bed = Bed::new();
    bed.apply(interceptor(&json!({
        "target": {"service": "svc", "port": 80},
        "scalingMetric": {"concurrency": {"targetValue": 5}, "requestRate": {"targetValue": 6}},
    })));
    let rate = Some(Rate { target: 6, spec: RateSpec::default() });
    assert_eq!(bed.route(ROUTE).metrics, Metrics { concurrency: Some(5), rate });
    bed.apply(interceptor(&json!({"target": {"service": "svc", "port": 80}, "scalingMetric": {}})));
    assert_eq!(bed.entry(ROUTE).flaws, [Flaw::NoMetric]);
    assert_eq!(bed.route(ROUTE).metrics, concurrency(100));
}

#[test]
fn how_long_and_how_many_are_held_is_the_objects_word_or_else_the_scalers() {
    let mut bed = Bed::with(Defaults {
        cluster_template: ClusterTemplate::ISTIO.parse().unwrap(),
        hold_timeout: Some(Duration::from_secs(20)),
        max_held: NonZeroU32::new(50),
    });
    let limits = |bed: &Bed, kind| {
        let spec = bed.route(kind).spec;
        (spec.hold_timeout.map(|timeout| timeout.as_millis()), spec.max_held)
    };
    bed.apply(plain());
    assert_eq!(limits(&bed, HTTP), (Some(20_000), Some(50)));
    let route = |readiness: Option<&str>, max: Option<i32>| {
        let mut spec = json!({
            "target": {"service": "svc", "port": 80},
            "scalingMetric": {"concurrency": {"targetValue": 1}},
        });
        if let Some(readiness) = readiness {
            spec["timeouts"] = json!({"readiness": readiness});
        }
        if let Some(max) = max {
            spec["coldStart"] = json!({"maxPendingRequests": max});
        }
        interceptor(&spec)
    };
    bed.apply(route(Some("1m30s"), Some(7)));
    assert_eq!(limits(&bed, ROUTE), (Some(90_000), Some(7)));
    bed.apply(route(Some("0s"), None));
    assert_eq!(limits(&bed, ROUTE), (None, Some(50)), "0s is no limit");
    bed.apply(route(Some("soon"), Some(0)));
    assert_eq!(limits(&bed, ROUTE), (Some(20_000), Some(50)));
    let fields: Vec<&str> = bed.entry(ROUTE).flaws.iter().map(Flaw::field).collect();
    assert_eq!(fields, ["spec.coldStart.maxPendingRequests", "spec.timeouts.readiness"]);
}

#[test]
fn what_selects_every_request_is_left_to_the_cluster() {
    let rules = |object: Object| {
        let kind = if matches!(object, Object::HttpScaledObject(_)) { HTTP } else { ROUTE };
        let mut bed = Bed::new();
        bed.apply(object);
        bed.route(kind).spec.rules.len()
    };
    let http_rules = |spec: Value| {
        let mut spec = spec;
        spec["scaleTargetRef"] = json!({"service": "svc", "port": 80});
        rules(http(&spec))
    };
    for spec in [
        json!({}),
        json!({"hosts": []}),
        json!({"hosts": ["*"]}),
        json!({"hosts": [""]}),
        json!({"hosts": ["a.example.com", "*"], "pathPrefixes": ["/"]}),
    ] {
        assert_eq!(http_rules(spec.clone()), 0, "{spec}");
    }
    for spec in [
        json!({"hosts": ["a.example.com"]}),
        json!({"pathPrefixes": ["/api"]}),
        json!({"headers": [{"name": "x-a"}]}),
    ] {
        assert_eq!(http_rules(spec.clone()), 1, "{spec}");
    }
    let route_rules = |given: Value| {
        rules(interceptor(&json!({
            "target": {"service": "svc", "port": 80},
            "scalingMetric": {"concurrency": {"targetValue": 1}},
            "rules": given,
        })))
    };
    assert_eq!(route_rules(json!([])), 0);
    assert_eq!(route_rules(json!([{"hosts": ["a"]}, {}])), 0);
    assert_eq!(route_rules(json!([{"hosts": ["a"]}, {"paths": [{"value": "/b"}]}])), 2);
}

#[test]
fn hosts_and_headers_that_nothing_matches_are_said() {
    let mut bed = Bed::new();
    bed.apply(http(&json!({
        "scaleTargetRef": {"service": "svc", "port": 80},
        "hosts": ["*.example.com", "a.*.com", "*a.com"],
        "headers": [{"name": ""}],
    })));
    let fields: Vec<&str> = bed.entry(HTTP).flaws.iter().map(Flaw::field).collect();
    assert_eq!(fields, ["spec.hosts[1]", "spec.hosts[2]", "spec.headers[0].name"]);
    assert_eq!(bed.route(HTTP).spec.rules.len(), 1);
}

#[test]
fn a_body_that_is_in_no_config_map_is_said() {
    let mut bed = Bed::new();
    let from =
        |name: &str, key: Value| json!({"response": {"bodyFromConfigMap": {"name": name, "key": key}}});
    let mut first = from("pages", json!("wait.html"));
    first["rules"] = json!([{}]);
    let mut second = from("pages", Value::Null);
    second["rules"] = json!([{}]);
    bed.apply(interceptor(&json!({
        "target": {"service": "svc", "port": 80},
        "scalingMetric": {"concurrency": {"targetValue": 5}},
        "coldStart": {"placeholder": from("other", json!("a"))},
        "staticRoutes": [first, second],
    })));
    let map = |name: &str, data: Value| {
        let map = json!({"metadata": {"name": name, "namespace": "ns"}, "data": data});
        Object::ConfigMap(Box::new(serde_json::from_value(map).unwrap()))
    };
    let missing = |bed: &Bed| -> Vec<(&'static str, String)> {
        let name = Name { namespace: "ns".to_owned(), name: "app".to_owned() };
        let conditions = bed.entry(ROUTE).conditions(ROUTE, &name, 0, None);
        let bodies = conditions.into_iter().filter(|condition| condition.type_ == "ResponseBodies");
        bodies.map(|condition| (condition.reason, condition.message)).collect()
    };
    let (reason, message) = missing(&bed).remove(0);
    assert_eq!(reason, "ConfigMapNotFound");
    for part in [
        "spec.coldStart.placeholder.response.bodyFromConfigMap: the ConfigMap ns/other",
        "spec.staticRoutes[0].response.bodyFromConfigMap: the ConfigMap ns/pages",
        "spec.staticRoutes[1].response.bodyFromConfigMap: the ConfigMap ns/pages",
        "http.keda.sh/response-body: \"true\"",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    bed.apply(map("pages", json!({"index.html": "wait"})));
    bed.apply(map("other", json!({"a": "b"})));
    let (reason, message) = missing(&bed).remove(0);
    assert_eq!(reason, "KeyNotFound");
    assert!(message.contains("ns/pages has no key \"wait.html\""), "{message}");
    assert!(!message.contains("staticRoutes[1]"), "any path may be asked for: {message}");
    bed.apply(map("pages", json!({"wait.html": "wait"})));
    assert_eq!(missing(&bed), []);
    bed.delete(ObjectKind::ConfigMap, "other");
    assert_eq!(missing(&bed)[0].0, "ConfigMapNotFound");
}

#[test]
fn requests_that_went_elsewhere_are_a_condition() {
    let mut bed = Bed::new();
    bed.apply(plain());
    let name = Name { namespace: "ns".to_owned(), name: "app".to_owned() };
    let conditions = bed.entry(HTTP).conditions(HTTP, &name, 3, None);
    assert_eq!(conditions[1].type_, "TargetMismatch");
    assert!(conditions[1].status && conditions[1].message.starts_with("3 requests"));
}

#[test]
fn targets_of_other_namespaces_have_nothing_to_do_with_it() {
    let mut bed = Bed::new();
    bed.apply(plain());
    let mut elsewhere =
        json!({"metadata": {"name": "svc", "namespace": "other"}, "spec": {"ports": [{"port": 80}]}});
    let object = |value: &Value| Object::Service(Box::new(serde_json::from_value(value.clone()).unwrap()));
    assert!(bed.apply(object(&elsewhere)).is_empty());
    elsewhere["metadata"]["namespace"] = json!("ns");
    assert_eq!(bed.apply(object(&elsewhere)).len(), 1);
}
