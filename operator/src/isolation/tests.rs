use super::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_envoyfilter::{Binding, Settings};
use std::sync::Arc;

fn read<K: DeserializeOwned>(namespace: &str, name: &str, spec: &Value) -> Arc<K> {
    let object = json!({
        "apiVersion": "x/v1", "kind": "X",
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

/// A VirtualService of `default` for the Gateway `edge/public`.
fn virtual_service(name: &str, hosts: &[&str], destination: &str) -> Arc<VirtualService> {
    let spec = json!({
        "hosts": hosts,
        "gateways": ["edge/public"],
        "http": [{"route": [{"destination": {"host": destination}}]}],
    });
    read("default", name, &spec)
}

fn istio_gateway(hosts: &[&str]) -> Arc<IstioGateway> {
    let spec = json!({"selector": {"istio": "ingressgateway"}, "servers": [{"hosts": hosts}]});
    read("edge", "public", &spec)
}

fn http_route(spec: Value) -> (String, ApiRoute) {
    ("default".to_owned(), serde_json::from_value(spec).unwrap())
}

fn domains(routes: &Routes, settings: &Settings, service: &str) -> Vec<String> {
    let index = routes.index(settings);
    let of = index.seen.get(&("default".to_owned(), service.to_owned()));
    of.into_iter().flatten().map(Domain::to_string).collect()
}

fn managed(service: &str, hosts: &[&str]) -> Managed {
    let hosts = hosts.iter().map(|host| Domain::new(host)).collect();
    Managed { service: ("default".to_owned(), service.to_owned()), hosts }
}

fn index(domains: &[&str]) -> Index {
    let domains = domains.iter().map(|domain| Domain::new(domain)).collect();
    let seen = BTreeMap::from([(("default".to_owned(), "shop".to_owned()), domains)]);
    Index { seen, ..Index::default() }
}

#[test]
fn domains_meet_in_the_narrower_one() {
    for (a, b, both) in [
        ("shop.example.com", "shop.example.com", Some("shop.example.com")),
        ("Shop.Example.com.", "shop.example.com", Some("shop.example.com")),
        ("*", "shop.example.com", Some("shop.example.com")),
        ("*", "*.example.com", Some("*.example.com")),
        ("*.example.com", "shop.example.com", Some("shop.example.com")),
        ("*.example.com", "*.a.example.com", Some("*.a.example.com")),
        ("*.example.com", "example.com", None),
        ("*.example.com", "shopexample.com", None),
        ("*.example.com", "*.example.org", None),
        ("a.example.com", "b.example.com", None),
        ("", "b.example.com", Some("b.example.com")),
    ] {
        let (a, b) = (Domain::new(a), Domain::new(b));
        let wanted = both.map(Domain::new);
        assert_eq!(a.meet(&b).cloned(), wanted, "{a} and {b}");
        assert_eq!(b.meet(&a).cloned(), wanted, "{b} and {a}");
    }
}

#[test]
fn a_virtual_service_has_the_hosts_that_its_gateway_has() {
    let virtual_services = vec![
        virtual_service("exact", &["shop.example.com", "shop.example.org"], "shop"),
        virtual_service("wild", &["*"], "api.default.svc.cluster.local"),
        virtual_service("other", &["other.example.com"], "elsewhere.example.net"),
    ];
    let routes = Routes {
        virtual_services,
        istio_gateways: vec![istio_gateway(&["*.example.com", "other/other.example.org"])],
        ..Routes::default()
    };
    let settings = Settings::default();
    assert_eq!(domains(&routes, &settings, "shop"), ["shop.example.com"]);
    assert_eq!(domains(&routes, &settings, "api"), ["*.example.com"]);
    assert_eq!(routes.index(&settings).seen.len(), 2);
}

#[test]
fn a_gateway_that_is_another_one_is_left_out_and_one_that_is_not_known_is_not() {
    let virtual_services = vec![virtual_service("exact", &["shop.example.com"], "shop")];
    let mut routes = Routes { virtual_services, ..Routes::default() };
    let settings = Settings::default();
    assert_eq!(domains(&routes, &settings, "shop"), ["shop.example.com"], "not read yet");
    let other = json!({"selector": {"istio": "other"}, "servers": [{"hosts": ["*"]}]});
    routes.istio_gateways = vec![read("edge", "public", &other)];
    assert_eq!(domains(&routes, &settings, "shop"), [""; 0]);
    // By other labels it may be the same Pods.
    let other = json!({"selector": {"app": "edge"}, "servers": [{"hosts": ["*"]}]});
    routes.istio_gateways = vec![read("edge", "public", &other)];
    assert_eq!(domains(&routes, &settings, "shop"), ["shop.example.com"]);
}

#[test]
fn the_meshs_own_routes_are_none_of_a_gateways() {
    let spec = |gateways: Value| {
        json!({
            "hosts": ["shop.example.com"], "gateways": gateways,
            "http": [{"route": [{"destination": {"host": "shop"}}]}],
        })
    };
    for gateways in [json!([]), json!(["mesh"])] {
        let virtual_services = vec![read("default", "a", &spec(gateways))];
        let routes = Routes { virtual_services, ..Routes::default() };
        assert_eq!(routes.index(&Settings::default()), Index::default());
    }
    let virtual_services = vec![read("default", "a", &spec(json!(["mesh", "local"])))];
    let routes = Routes { virtual_services, ..Routes::default() };
    assert_eq!(domains(&routes, &Settings::default(), "shop"), ["shop.example.com"]);
}

#[test]
fn a_host_without_a_dot_is_a_services() {
    let routes =
        Routes { virtual_services: vec![virtual_service("a", &["web"], "shop")], ..Routes::default() };
    assert_eq!(domains(&routes, &Settings::default(), "shop"), ["web.default.svc.cluster.local"]);
}

#[test]
fn a_delegate_leads_where_its_root_has_hosts() {
    let root = json!({
        "hosts": ["shop.example.com"], "gateways": ["edge/public"],
        "http": [{"delegate": {"name": "apps", "namespace": "default"}}],
    });
    let delegate = json!({"http": [{"route": [{"destination": {"host": "shop"}}]}]});
    let virtual_services = vec![read("edge", "root", &root), read("default", "apps", &delegate)];
    let routes = Routes { virtual_services, ..Routes::default() };
    assert_eq!(domains(&routes, &Settings::default(), "shop"), ["shop.example.com"]);
}

/// A VirtualService of `default` that says who sees it.
fn exported(name: &str, host: &str, export_to: Value) -> Arc<VirtualService> {
    let spec = json!({
        "hosts": [host], "gateways": ["edge/public"], "exportTo": export_to,
        "http": [{"route": [{"destination": {"host": "shop"}}]}],
    });
    read("default", name, &spec)
}

#[test]
fn what_the_gateways_namespace_does_not_see_is_told_apart() {
    let of = |export_to: Value, namespace: &str| {
        let virtual_services = vec![exported("a", "shop.example.com", export_to)];
        let routes = Routes { virtual_services, ..Routes::default() };
        domains(&routes, &Settings { namespace: namespace.to_owned(), ..Settings::default() }, "shop")
    };
    for seen in [json!([]), json!(["*"]), json!(["edge"]), json!([".", "edge"])] {
        assert_eq!(of(seen.clone(), "edge"), ["shop.example.com"], "{seen}");
    }
    for unseen in [json!(["."]), json!(["other"])] {
        assert_eq!(of(unseen.clone(), "edge"), [""; 0], "{unseen}");
    }
    assert_eq!(of(json!(["."]), "default"), ["shop.example.com"]);

    let virtual_services = vec![
        exported("private", "a.example.com", json!(["."])),
        exported("public", "b.example.com", json!(["edge"])),
    ];
    let routes = Routes { virtual_services, ..Routes::default() };
    let index = routes.index(&Settings { namespace: "edge".to_owned(), ..Settings::default() });
    let said = |hosts: &[&str]| {
        let known = Isolation::Known(Arc::new(index.clone()));
        let finding = finding(&known, &managed("shop", hosts), Some(&Outcome::Applied));
        (finding.reason, finding.message)
    };
    let (reason, message) = said(&["a.example.com", "b.example.com"]);
    assert_eq!(reason, "NotExported");
    let begins =
        "a.example.com is in the VirtualService default/private, which is exported to . and not to edge:";
    assert!(message.starts_with(begins), "{message}");
    assert_eq!(said(&["a.example.com"]).0, "NotExported");
    assert_eq!(said(&["b.example.com"]).0, "Enabled");
    assert_eq!(said(&["c.example.com"]).0, "NoVirtualHost");
    // The one that the gateway has is what there is for it.
    assert_eq!(said(&[]), ("Enabled", "on the virtual hosts b.example.com".to_owned()));
    // A gateway elsewhere may have the other one.
    let texts = |hosts: &[&str]| {
        index.all(&[managed("shop", hosts)]).iter().map(Domain::to_string).collect::<Vec<_>>()
    };
    assert_eq!(texts(&["a.example.com"]), ["a.example.com"]);
    assert_eq!(texts(&[]), ["a.example.com", "b.example.com"]);
}

#[test]
fn a_delegate_that_its_root_does_not_see_leads_nowhere() {
    let root = json!({
        "hosts": ["shop.example.com"], "gateways": ["edge/public"],
        "http": [{"delegate": {"name": "apps", "namespace": "default"}}],
    });
    let of = |export_to: Value| {
        let delegate =
            json!({"exportTo": export_to, "http": [{"route": [{"destination": {"host": "shop"}}]}]});
        let virtual_services = vec![read("edge", "root", &root), read("default", "apps", &delegate)];
        domains(&Routes { virtual_services, ..Routes::default() }, &Settings::default(), "shop")
    };
    assert_eq!(of(json!(["edge"])), ["shop.example.com"]);
    assert_eq!(of(json!(["."])), [""; 0]);
}

#[test]
fn a_route_of_the_gateway_api_has_its_listeners_hosts() {
    let route = |hostnames: Value, parents: Value| {
        http_route(json!({
            "hostnames": hostnames, "parentRefs": parents,
            "rules": [{"backendRefs": [{"name": "shop"}, {"name": "bucket", "kind": "Bucket", "group": "x"}]}],
        }))
    };
    let gateway = json!({
        "gatewayClassName": "istio",
        "listeners": [{"name": "a", "hostname": "*.example.com"}, {"name": "b", "hostname": "example.org"}],
    });
    let edge = json!([{"name": "public", "namespace": "edge"}]);
    let of = |hostnames: Value, parents: &Value, settings: &Settings| {
        let routes = Routes {
            api_gateways: vec![read("edge", "public", &gateway)],
            api_routes: vec![route(hostnames, parents.clone())],
            ..Routes::default()
        };
        domains(&routes, settings, "shop")
    };
    let settings = Settings::default();
    assert_eq!(of(json!(["shop.example.com"]), &edge, &settings), ["shop.example.com"]);
    assert_eq!(of(json!([]), &edge, &settings), ["*.example.com", "example.org"]);
    let listeners = json!([{"name": "more", "kind": "ListenerSet"}]);
    assert_eq!(of(json!(["shop.example.net"]), &listeners, &settings), ["shop.example.net"]);
    let mesh = json!([{"name": "shop", "kind": "Service", "group": ""}]);
    assert_eq!(of(json!(["shop.example.com"]), &mesh, &settings), [""; 0]);

    let bound = |namespace: &str, binding| Settings {
        namespace: namespace.to_owned(),
        binding,
        ..Settings::default()
    };
    let names = |name: &str| Binding::Gateways(vec![name.to_owned()]);
    assert_eq!(of(json!(["shop.example.com"]), &edge, &bound("edge", names("public"))), ["shop.example.com"]);
    assert_eq!(of(json!(["shop.example.com"]), &edge, &bound("edge", names("inner"))), [""; 0]);
    assert_eq!(of(json!(["shop.example.com"]), &edge, &bound("other", names("public"))), [""; 0]);
    let class = |name: &str| bound("istio-system", Binding::GatewayClasses(vec![name.to_owned()]));
    assert_eq!(of(json!(["shop.example.com"]), &edge, &class("istio")), ["shop.example.com"]);
    assert_eq!(of(json!(["shop.example.com"]), &edge, &class("other")), [""; 0]);
}

#[test]
fn an_object_has_the_virtual_hosts_that_share_hosts_with_it() {
    let all = index(&["*.example.com", "shop.example.com", "shop.example.org"]);
    let enabled = |hosts: &[&str]| {
        let enabled = all.enabled(&managed("shop", hosts));
        let texts = |domains: Vec<Domain>| domains.iter().map(Domain::to_string).collect::<Vec<_>>();
        (texts(enabled.domains.into_iter().collect()), texts(enabled.unmatched))
    };
    let every =
        || vec!["*.example.com".to_owned(), "shop.example.com".to_owned(), "shop.example.org".to_owned()];
    assert_eq!(enabled(&[]), (every(), vec![]));
    assert_eq!(enabled(&["*"]), (every(), vec![]));
    assert_eq!(enabled(&["shop.example.org"]), (vec!["shop.example.org".to_owned()], vec![]));
    assert_eq!(
        enabled(&["a.example.com", "a.example.net"]),
        (vec!["*.example.com".to_owned()], vec!["a.example.net".to_owned()])
    );
    assert_eq!(enabled(&["a.example.net"]).0, [""; 0]);
    let objects = [managed("shop", &["shop.example.org"]), managed("other", &[])];
    assert_eq!(all.all(&objects).len(), 1);
}

#[test]
fn what_is_said_of_an_object() {
    let known = Isolation::Known(Arc::new(index(&["shop.example.com"])));
    let of = |isolation: &Isolation, hosts: &[&str], outcome: Option<&Outcome>| {
        let finding = finding(isolation, &managed("shop", hosts), outcome);
        (finding.reason, finding.message)
    };
    let applied = Some(&Outcome::Applied);
    let (reason, message) = of(&known, &[], applied);
    assert_eq!((reason, message.as_str()), ("Enabled", "on the virtual hosts shop.example.com"));
    assert_eq!(of(&known, &[], None).0, "NotApplied");
    let failed = Outcome::Failed("no rights".to_owned());
    assert_eq!(of(&known, &[], Some(&failed)), ("NotApplied", "no rights".to_owned()));
    let (reason, message) = of(&known, &["shop.example.com", "b.example.com"], applied);
    assert_eq!(reason, "HostUnmatched");
    assert!(message.contains("default/shop has b.example.com"), "{message}");
    let (reason, message) = of(&known, &["b.example.com"], applied);
    assert_eq!(reason, "NoVirtualHost");
    assert!(message.contains("for b.example.com to the Service default/shop"), "{message}");
    assert_eq!(of(&Isolation::Unread, &[], applied).0, "RoutesUnread");
    assert_eq!(of(&Isolation::Unreadable("why".to_owned()), &[], applied).1, "why");
}
