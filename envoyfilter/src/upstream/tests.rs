use super::*;
use std::collections::BTreeMap;

fn filter(upstream: Upstream) -> UpstreamFilter {
    UpstreamFilter {
        name: "sluice-default-shop".to_owned(),
        namespace: "istio-system".to_owned(),
        binding: Binding::selector(["istio=ingressgateway"]).unwrap(),
        object: "HTTPScaledObject default/shop".to_owned(),
        host: "shop.default.svc.cluster.local".to_owned(),
        port: 80,
        upstream,
    }
}

fn cluster(upstream: Upstream) -> Value {
    let manifest = filter(upstream).manifest().unwrap().unwrap();
    manifest["spec"]["configPatches"][0]["patch"]["value"].clone()
}

fn some(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

#[test]
fn it_says_whose_clusters_it_is_for() {
    let upstream = Upstream { connect_timeout: Some(Duration::from_millis(1500)), ..Upstream::default() };
    let manifest = filter(upstream).manifest().unwrap().unwrap();
    assert_eq!(
        manifest,
        json!({
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {
                "name": "sluice-default-shop",
                "namespace": "istio-system",
                "labels": {"app.kubernetes.io/name": "sluice", "app.kubernetes.io/component": "upstream"},
                "annotations": {"sluice.dev/object": "HTTPScaledObject default/shop"},
            },
            "spec": {
                "workloadSelector": {"labels": {"istio": "ingressgateway"}},
                "configPatches": [{
                    "applyTo": "CLUSTER",
                    "match": {
                        "context": "GATEWAY",
                        "cluster": {"service": "shop.default.svc.cluster.local", "portNumber": 80},
                    },
                    "patch": {"operation": "MERGE", "value": {"connect_timeout": "1.5s"}},
                }],
            },
        })
    );
}

#[test]
fn what_says_nothing_has_no_filter() {
    assert_eq!(filter(Upstream::default()).manifest().unwrap(), None);
    // istiod's own choice is nothing to say.
    let upstream = Upstream { protocol: Protocol::Http2, ..Upstream::default() };
    assert_eq!(filter(upstream).manifest().unwrap(), None);
}

/// Timeouts, limits and probes are merged: the entry with istiod's HTTP options is not touched.
#[test]
fn http_options_are_left_alone_where_nothing_of_them_is_asked_for() {
    let upstream = Upstream {
        connect_timeout: Some(Duration::from_secs(2)),
        max_connections: some(7),
        tcp_keepalive: TcpKeepalive { time: some(60), interval: some(10), probes: None },
        ..Upstream::default()
    };
    assert_eq!(
        cluster(upstream),
        json!({
            "connect_timeout": "2s",
            "circuit_breakers": {"per_host_thresholds": [{"max_connections": 7}]},
            "upstream_connection_options": {
                "tcp_keepalive": {"keepalive_time": 60, "keepalive_interval": 10},
            },
        })
    );
}

#[test]
fn http_options_are_written_whole() {
    let options = |upstream| cluster(upstream)["typed_extension_protocol_options"][HTTP_OPTIONS].clone();
    let kind = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let upstream = Upstream {
        protocol: Protocol::Http2,
        idle_timeout: Some(Duration::from_secs(30)),
        ..Upstream::default()
    };
    assert_eq!(
        options(upstream),
        json!({
            "@type": kind,
            "common_http_protocol_options": {"idle_timeout": "30s"},
            "explicit_http_config": {"http2_protocol_options": {}},
        })
    );
    let upstream = Upstream { disable_keep_alives: true, ..Upstream::default() };
    assert_eq!(
        options(upstream),
        json!({
            "@type": kind,
            "common_http_protocol_options": {"max_requests_per_connection": 1, "idle_timeout": "15s"},
            "explicit_http_config": {"http_protocol_options": {}},
        })
    );
    let upstream = Upstream { protocol: Protocol::Http2, protocol_is_forced: true, ..Upstream::default() };
    let forced = json!({"@type": kind, "explicit_http_config": {"http2_protocol_options": {}}});
    assert_eq!(options(upstream), forced);
}

/// An unused connection is not closed while it is still being made.
#[test]
fn an_unused_connection_outlasts_connecting() {
    let timeout = |connect, idle| {
        let upstream = Upstream {
            disable_keep_alives: true,
            connect_timeout: Some(Duration::from_secs(connect)),
            idle_timeout: idle,
            ..Upstream::default()
        };
        let options = &cluster(upstream)["typed_extension_protocol_options"][HTTP_OPTIONS];
        options["common_http_protocol_options"]["idle_timeout"].clone()
    };
    assert_eq!(timeout(20, None), "20s");
    assert_eq!(timeout(1, None), "15s");
    assert_eq!(timeout(20, Some(Duration::ZERO)), "0s");
}

#[test]
fn the_protocol_is_the_one_that_istiod_chooses() {
    let chosen = [
        (Some("http"), None, Protocol::Http1),
        (None, None, Protocol::Http1),
        (Some("web"), None, Protocol::Http1),
        (Some("http2"), None, Protocol::Http2),
        (Some("http2-web"), None, Protocol::Http2),
        (Some("grpc-api"), None, Protocol::Http2),
        (Some("grpc-web"), None, Protocol::Http2),
        (Some("http"), Some("kubernetes.io/h2c"), Protocol::Http2),
        (Some("http"), Some("GRPC"), Protocol::Http2),
        (Some("http2"), Some("http"), Protocol::Http1),
        (Some("http2"), Some("kubernetes.io/ws"), Protocol::Http1),
    ];
    for (name, app_protocol, protocol) in chosen {
        assert_eq!(Protocol::of_port(name, app_protocol), protocol, "{name:?} {app_protocol:?}");
    }
}

#[test]
fn it_is_never_for_everything() {
    let upstream = Upstream { max_connections: some(1), ..Upstream::default() };
    let mut everything = filter(upstream);
    everything.binding = Binding::Selector(BTreeMap::new());
    assert!(everything.manifest().unwrap_err().to_string().contains("selector is empty"));
    // Without a host it would be for the clusters of all Services.
    let nobody = UpstreamFilter { host: String::new(), ..filter(upstream) };
    assert!(nobody.manifest().unwrap_err().to_string().starts_with("host: "));
    let elsewhere = UpstreamFilter { namespace: "A".to_owned(), ..filter(upstream) };
    assert!(elsewhere.manifest().unwrap_err().to_string().starts_with("namespace: "));
}
