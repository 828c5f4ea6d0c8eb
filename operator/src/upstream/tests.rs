use super::*;
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use serde_json::{Value, json};
use std::{num::NonZeroU32, sync::Arc, time::Duration};

pub(super) fn gateways() -> Gateways {
    Gateways {
        namespace: "istio-system".to_owned(),
        binding: envoyfilter::Binding::selector(["istio=ingressgateway"]).unwrap(),
        cluster_domain: "cluster.local".to_owned(),
        defaults: Upstream::default(),
    }
}

pub(super) fn service(app_protocol: Option<&str>) -> Service {
    let port = |name: &str, port, app_protocol: Option<&str>| ServicePort {
        name: Some(name.to_owned()),
        port,
        app_protocol: app_protocol.map(str::to_owned),
        ..ServicePort::default()
    };
    let ports = vec![port("admin", 9000, None), port("http", 80, app_protocol)];
    Service { spec: Some(ServiceSpec { ports: Some(ports), ..ServiceSpec::default() }), ..Service::default() }
}

fn http(name: &str, created: &str, annotations: Value) -> HttpScaledObject {
    let object = json!({
        "apiVersion": "http.keda.sh/v1alpha1",
        "kind": "HTTPScaledObject",
        "metadata": {
            "name": name, "namespace": "default", "annotations": annotations,
            "creationTimestamp": format!("{created}T00:00:00Z"),
        },
        "spec": {"scaleTargetRef": {"name": "shop", "service": "shop", "portName": "http"}},
    });
    serde_json::from_value(object).unwrap()
}

pub(super) fn claim(name: &str, created: &str, annotations: Value) -> Claim {
    Claim::of_http(&http(name, created, annotations), false, &Upstream::default()).unwrap()
}

fn all_wanted(claims: &[Claim], app_protocol: Option<&str>) -> Vec<Wanted> {
    let shop = Arc::new(service(app_protocol));
    wanted(claims, &gateways(), |namespace, name| {
        ((namespace, name) == ("default", "shop")).then(|| Arc::clone(&shop))
    })
}

/// What is merged into the clusters of the only claim.
fn merged(annotations: Value, app_protocol: Option<&str>) -> Value {
    let wanted = all_wanted(&[claim("shop", "2026-01-01", annotations)], app_protocol);
    let [wanted] = &wanted[..] else { panic!("{wanted:?}") };
    wanted.spec["configPatches"][0]["patch"]["value"].clone()
}

#[test]
fn an_object_that_says_something_gets_a_filter_for_its_services_port() {
    let claim = claim("shop", "2026-01-01", json!({"sluice.dev/connect-timeout": "2s"}));
    let all = all_wanted(std::slice::from_ref(&claim), None);
    let [filter] = &all[..] else { panic!("{all:?}") };
    assert!(filter.name.starts_with("sluice-upstream-default-shop-"), "{}", filter.name);
    assert_eq!(filter.annotations["sluice.dev/object"], "HTTPScaledObject default/shop");
    assert_eq!(filter.spec["workloadSelector"], json!({"labels": {"istio": "ingressgateway"}}));
    // Its port is named in the object, and numbered for istiod.
    let cluster = &filter.spec["configPatches"][0]["match"]["cluster"];
    assert_eq!(*cluster, json!({"service": "shop.default.svc.cluster.local", "portNumber": 80}));
    let service = service(None);
    assert_eq!(stands(&claim, [&claim], Some(&service)), Standing::InForce(filter.name.clone()));
}

#[test]
fn an_object_that_says_nothing_gets_none() {
    let nothing = http("shop", "2026-01-01", json!({"sluice.dev/connect-timeout": "soon"}));
    assert_eq!(Claim::of_http(&nothing, false, &Upstream::default()), None);
    let something = http("shop", "2026-01-01", json!({"sluice.dev/connect-timeout": "1s"}));
    assert_eq!(
        Claim::of_http(&something, true, &Upstream::default()),
        None,
        "an InterceptorRoute's requests"
    );
    let mut leaving = something;
    leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
    assert_eq!(Claim::of_http(&leaving, false, &Upstream::default()), None);
    // What asks for what is so anyway.
    let plain = claim("shop", "2026-01-01", json!({"sluice.dev/disable-keep-alives": "false"}));
    assert_eq!(all_wanted(&[plain], None), []);
}

#[test]
fn what_holds_for_all_holds_where_an_object_says_nothing_else() {
    let defaults = Upstream { connect_timeout: Some(Duration::from_millis(500)), ..Upstream::default() };
    let silent = Claim::of_http(&http("shop", "2026-01-01", json!({})), false, &defaults).unwrap();
    assert_eq!(silent.upstream, defaults);
    let own = http("shop", "2026-01-01", json!({"sluice.dev/connect-timeout": "1s"}));
    let own = Claim::of_http(&own, false, &defaults).unwrap();
    assert_eq!(own.upstream.connect_timeout, Some(Duration::from_secs(1)));
}

#[test]
fn one_services_port_has_one_setting() {
    let limit = |most: &str| json!({"sluice.dev/max-connections": most});
    let old = claim("z-old", "2026-01-01", limit("1"));
    let new = claim("a-new", "2026-02-01", limit("2"));
    let same = claim("same", "2026-03-01", limit("1"));
    let all = [new.clone(), old.clone(), same.clone()];
    let names: Vec<String> = all_wanted(&all, None).into_iter().map(|it| it.name).collect();
    assert_eq!(names, [old.filter_name()]);
    let service = service(None);
    assert_eq!(stands(&old, &all, Some(&service)), Standing::InForce(old.filter_name()));
    assert_eq!(stands(&new, &all, Some(&service)), Standing::Yields(&old));
    assert_eq!(stands(&same, &all, Some(&service)), Standing::Same(&old));
    // By number or by name, it is the same port; another one is another matter.
    let numbered = Claim { target: Target { port: Port::Number(80), ..old.target.clone() }, ..new.clone() };
    assert_eq!(stands(&numbered, &all, Some(&service)), Standing::Yields(&old));
    let admin = Claim { target: Target { port: Port::Number(9000), ..old.target.clone() }, ..new };
    assert_eq!(stands(&admin, &all, Some(&service)), Standing::InForce(admin.filter_name()));
}

#[test]
fn a_service_that_is_not_there_has_no_settings_yet() {
    let claim = claim("shop", "2026-01-01", json!({"sluice.dev/max-connections": "1"}));
    assert_eq!(stands(&claim, [&claim], None), Standing::Unresolved);
    assert_eq!(stands(&claim, [&claim], Some(&Service::default())), Standing::Unresolved);
    assert_eq!(wanted(&[claim], &gateways(), |_, _| None::<Arc<Service>>), []);
}

#[test]
fn the_ports_own_protocol_stays_unless_the_object_says_otherwise() {
    let protocol = |annotations: Value, app_protocol| {
        let options = merged(annotations, app_protocol)["typed_extension_protocol_options"]
            ["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["explicit_http_config"]
            .clone();
        if options.get("http2_protocol_options").is_some() { "h2" } else { "h1" }
    };
    let h2c = Some("kubernetes.io/h2c");
    assert_eq!(protocol(json!({"sluice.dev/idle-timeout": "1s"}), None), "h1");
    assert_eq!(protocol(json!({"sluice.dev/idle-timeout": "1s"}), h2c), "h2");
    assert_eq!(protocol(json!({"sluice.dev/http2": "true"}), None), "h2");
    assert_eq!(protocol(json!({"sluice.dev/http2": "false"}), h2c), "h1");
    // A connection for each request goes before HTTP/2 that was asked for; what a port is, it stays.
    let both = json!({"sluice.dev/http2": "true", "sluice.dev/disable-keep-alives": "true"});
    assert_eq!(protocol(both.clone(), None), "h1");
    assert_eq!(protocol(both, h2c), "h2");
    assert_eq!(protocol(json!({"sluice.dev/disable-keep-alives": "true"}), h2c), "h2");
}

#[test]
fn names_are_valid_and_told_apart() {
    let of = |namespace: &str, name: &str| {
        let claim = claim("shop", "2026-01-01", json!({"sluice.dev/max-connections": "1"}));
        Claim { namespace: namespace.to_owned(), name: name.to_owned(), ..claim }.filter_name()
    };
    assert_ne!(of("a", "b-c"), of("a-b", "c"));
    assert_ne!(of("a", &"b".repeat(252)), of("a", &"b".repeat(253)));
    for name in ["shop", &"b".repeat(253), &format!("{}.{}", "b".repeat(217), "c".repeat(20)), "a.b"] {
        let name = of("default", name);
        assert!(name.len() <= MAX_NAME, "{name}");
        assert!(
            name.split('.')
                .all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')),
            "{name}"
        );
    }
}

#[test]
fn what_became_of_it_is_said() {
    let claim = claim("shop", "2026-01-01", json!({"sluice.dev/max-connections": "1"}));
    let in_force = Standing::InForce("sluice-x".to_owned());
    let said = |standing: &Standing<'_>, outcome: Option<Outcome>| {
        let finding = finding(standing, &claim.target, outcome.as_ref(), &[]);
        assert_eq!(finding.type_, UPSTREAM_APPLIED);
        (finding.truth.as_str(), finding.reason, finding.message)
    };
    assert_eq!(said(&in_force, None).0, "Unknown");
    let (truth, _, words) = said(&in_force, Some(Outcome::Applied));
    assert!(truth == "True" && words.contains("EnvoyFilter sluice-x"), "{words}");
    let (truth, reason, words) = said(&in_force, Some(Outcome::Failed("no rights".to_owned())));
    assert!((truth, reason) == ("False", "Failed") && words.contains("no rights"), "{words}");
    assert_eq!(said(&in_force, Some(Outcome::Foreign("x".to_owned()))).1, "NotOurs");
    let other = Claim {
        upstream: Upstream { max_connections: NonZeroU32::new(2), ..claim.upstream },
        ..claim.clone()
    };
    let (truth, reason, words) = said(&Standing::Yields(&other), None);
    assert!((truth, reason) == ("False", "Conflicted"), "{words}");
    assert!(words.starts_with("HTTPScaledObject default/shop is older"), "{words}");
    assert_eq!(said(&Standing::Same(&other), None).0, "True");
    assert_eq!(said(&Standing::Unresolved, None).0, "Unknown");
    // What is lost of a DestinationRule is no reason not to be ready, and said.
    let lost = [Lost { rule: "default/shop".to_owned(), fields: vec!["spec.x".to_owned()] }];
    let told = finding(&in_force, &claim.target, Some(&Outcome::Applied), &lost);
    assert_eq!((told.truth.as_str(), told.reason), ("True", RULE_OVERRIDDEN));
    assert!(told.message.contains("spec.x of the DestinationRule default/shop"), "{}", told.message);
}
