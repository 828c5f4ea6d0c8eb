//! DestinationRules of which something is lost where an object says how the gateway connects to the same Service: the
//! HTTP options of a cluster are replaced as a whole. No I/O.

use super::{Claim, Gateways};
use crate::isolation::{in_full, is_exported};
use k8s_openapi::api::core::v1::Service;
use kube::{CustomResource, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluice_api::upstream::Upstream;
use std::{collections::BTreeSet, fmt};

/// Where Istio looks for the rules of the whole mesh, unless it is told otherwise.
const ROOT: &str = "istio-system";

/// How clients connect to a Service, by Istio's own API.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "DestinationRule",
    namespaced,
    schema = "disabled",
    doc = "How clients connect to a Service, by Istio's own API."
)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRuleSpec {
    /// The Service: `shop`, or in full, or with a `*` for its first labels.
    pub host: String,
    /// The namespaces of the clients that it is for; none: all.
    pub export_to: Vec<String>,
    /// What it says for all of the Service.
    pub traffic_policy: TrafficPolicy,
    /// What it says for some of its Pods.
    pub subsets: Vec<Subset>,
}

/// A part of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// What is said for it.
    pub traffic_policy: TrafficPolicy,
}

/// What is said for all ports and for some.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// For all that have nothing of their own.
    pub connection_pool: ConnectionPool,
    /// For some.
    pub port_level_settings: Vec<PortPolicy>,
}

/// What is said for a port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortPolicy {
    /// The port.
    pub port: PortNumber,
    /// What it has instead.
    pub connection_pool: ConnectionPool,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortNumber {
    /// Its number.
    pub number: u32,
}

/// Settings of connections, as they are written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionPool {
    /// Those of HTTP.
    pub http: Map<String, Value>,
    /// Those of TCP.
    pub tcp: Map<String, Value>,
}

/// Fields of a DestinationRule that are without effect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    /// The DestinationRule, as `namespace/name`.
    pub rule: String,
    /// Their paths.
    pub fields: Vec<String>,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the DestinationRule {}", self.fields.join(", "), self.rule)
    }
}

/// What of `rules` is without effect while `claim` is in force: what istiod makes HTTP options of, but for what the
/// claim says itself.
pub fn lost<'a>(
    claim: &Claim,
    service: Option<&Service>,
    rules: impl IntoIterator<Item = &'a DestinationRule>,
    gateways: &Gateways,
) -> Vec<Lost> {
    let Some((port, protocol)) = claim.port(service) else { return Vec::new() };
    if !super::settings(&claim.upstream, protocol).replaces_http_options() {
        return Vec::new();
    }
    let host = claim.host(gateways);
    let mut all = Vec::new();
    for rule in rules {
        if !is_for(rule, claim, &host, gateways) {
            continue;
        }
        let mut fields = BTreeSet::new();
        rule.spec.traffic_policy.lost("spec", port, &claim.upstream, &mut fields);
        for subset in &rule.spec.subsets {
            let at = format!("spec.subsets[{}]", subset.name);
            subset.traffic_policy.lost(&at, port, &claim.upstream, &mut fields);
        }
        if !fields.is_empty() {
            let rule = format!("{}/{}", rule.namespace().unwrap_or_default(), rule.name_any());
            all.push(Lost { rule, fields: fields.into_iter().collect() });
        }
    }
    // A store has no order, and a status must not change with it.
    all.sort();
    all
}

/// Whether the gateway connects by it, as far as that can be known.
fn is_for(rule: &DestinationRule, claim: &Claim, host: &str, gateways: &Gateways) -> bool {
    let namespace = rule.namespace().unwrap_or_default();
    let given = rule.spec.host.trim_end_matches('.').to_ascii_lowercase();
    let full = in_full(&given, &namespace, &gateways.cluster_domain);
    let is_host = match full.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix),
        None => host == full,
    };
    let is_seen = [gateways.namespace.as_str(), &claim.namespace, ROOT].contains(&namespace.as_str());
    is_host && is_seen && is_exported(&rule.spec.export_to, &namespace, &gateways.namespace)
}

// === impl TrafficPolicy ===

impl TrafficPolicy {
    fn lost(&self, at: &str, port: u16, said: &Upstream, fields: &mut BTreeSet<String>) {
        let of_port = |it: &&PortPolicy| it.port.number == u32::from(port);
        let (pool, at) = match self.port_level_settings.iter().find(of_port) {
            // It takes the place of what is said for all ports, also where it says nothing.
            Some(policy) => {
                (&policy.connection_pool, format!("{at}.trafficPolicy.portLevelSettings[{port}]"))
            }
            None => (&self.connection_pool, format!("{at}.trafficPolicy")),
        };
        let has_http_idle = is_set(&pool.http, "idleTimeout");
        for (part, values, field, is_said) in [
            ("http", &pool.http, "idleTimeout", said.idle_timeout.is_some()),
            ("http", &pool.http, "maxRequestsPerConnection", said.disable_keep_alives == Some(true)),
            ("http", &pool.http, "maxConcurrentStreams", said.disable_keep_alives == Some(true)),
            ("http", &pool.http, "http2KeepAlive", false),
            ("http", &pool.http, "h2UpgradePolicy", said.http2.is_some()),
            ("http", &pool.http, "useClientProtocol", said.http2.is_some()),
            // HTTP's own goes before it.
            ("tcp", &pool.tcp, "idleTimeout", said.idle_timeout.is_some() || has_http_idle),
            ("tcp", &pool.tcp, "maxConnectionDuration", false),
        ] {
            if !is_said && is_set(values, field) {
                fields.insert(format!("{at}.connectionPool.{part}.{field}"));
            }
        }
    }
}

/// Whether it says something else than nothing: a number of 0 and the like are the same as nothing there.
fn is_set(values: &Map<String, Value>, field: &str) -> bool {
    match values.get(field) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => text != "DEFAULT",
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tests::{claim, gateways, service};
    use serde_json::json;

    fn rule(namespace: &str, spec: Value) -> DestinationRule {
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"namespace": namespace, "name": "shop"}, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    /// What is lost of these, as text.
    fn of(annotations: Value, rules: &[DestinationRule]) -> Vec<String> {
        let claim = claim("shop", "2026-01-01", annotations);
        let lost = lost(&claim, Some(&service(None)), rules, &gateways());
        lost.iter().map(Lost::to_string).collect()
    }

    fn pool(fields: Value) -> Value {
        json!({"host": "shop", "trafficPolicy": {"connectionPool": fields}})
    }

    #[test]
    fn what_the_options_are_made_of_is_lost_where_they_are_replaced() {
        let all = [rule(
            "default",
            pool(json!({
                "http": {
                    "idleTimeout": "30s", "maxRequestsPerConnection": 5, "maxConcurrentStreams": 7,
                    "http2KeepAlive": {"interval": "1s"}, "h2UpgradePolicy": "UPGRADE", "useClientProtocol": true,
                    "http1MaxPendingRequests": 3, "maxRetries": 4,
                },
                "tcp": {"idleTimeout": "20s", "maxConnectionDuration": "1h", "connectTimeout": "1s", "maxConnections": 4},
            })),
        )];
        let [text] = &of(json!({"sluice.dev/disable-keep-alives": "true"}), &all)[..] else { panic!() };
        let at = "spec.trafficPolicy.connectionPool";
        assert_eq!(
            *text,
            format!(
                "{at}.http.h2UpgradePolicy, {at}.http.http2KeepAlive, {at}.http.idleTimeout, \
                 {at}.http.useClientProtocol, {at}.tcp.maxConnectionDuration of the DestinationRule default/shop"
            )
        );
        // What the object says itself is not lost, but said otherwise.
        let [text] = &of(json!({"sluice.dev/idle-timeout": "1m"}), &all)[..] else { panic!() };
        assert!(!text.contains("idleTimeout") && text.contains("maxRequestsPerConnection"), "{text}");
        let [text] = &of(json!({"sluice.dev/http2": "true"}), &all)[..] else { panic!() };
        assert!(!text.contains("h2UpgradePolicy") && text.contains("http.idleTimeout"), "{text}");
        // These are merged, field by field.
        let merged = json!({
            "sluice.dev/connect-timeout": "1s", "sluice.dev/max-connections": "3", "sluice.dev/tcp-keepalive-time": "3s",
        });
        assert_eq!(of(merged, &all), [""; 0]);
        // As the port is by itself: nothing is replaced.
        assert_eq!(of(json!({"sluice.dev/http2": "false"}), &all), [""; 0]);
    }

    #[test]
    fn a_rule_that_says_nothing_of_it_loses_nothing() {
        let idle = json!({"sluice.dev/idle-timeout": "1m"});
        for nothing in [
            json!({}),
            json!({"http": {"maxRetries": 3, "h2UpgradePolicy": "DEFAULT", "useClientProtocol": false}}),
            json!({"http": {"maxRequestsPerConnection": 0, "idleTimeout": "3s"}, "tcp": {"idleTimeout": "2s"}}),
        ] {
            assert_eq!(of(idle.clone(), &[rule("default", pool(nothing))]), [""; 0]);
        }
    }

    #[test]
    fn ports_and_subsets_are_told_apart() {
        let once = |number: u32| json!({"port": {"number": number}, "connectionPool": {"http": {"maxRequestsPerConnection": 1}}});
        let spec = json!({
            "host": "shop",
            "trafficPolicy": {
                "connectionPool": {"tcp": {"maxConnectionDuration": "1h"}}, "portLevelSettings": [once(80), once(9000)],
            },
            "subsets": [{"name": "v1"}, {"name": "v2", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnectionDuration": "2h"}}}}],
        });
        assert_eq!(
            of(json!({"sluice.dev/idle-timeout": "1m"}), &[rule("default", spec)]),
            ["spec.subsets[v2].trafficPolicy.connectionPool.tcp.maxConnectionDuration, \
              spec.trafficPolicy.portLevelSettings[80].connectionPool.http.maxRequestsPerConnection of the DestinationRule \
              default/shop"]
        );
    }

    #[test]
    fn only_rules_by_which_the_gateway_connects_count() {
        let once = json!({"connectionPool": {"http": {"maxRequestsPerConnection": 1}}});
        let counts = |namespace: &str, host: &str, export_to: Value| {
            let rule = rule(namespace, json!({"host": host, "exportTo": export_to, "trafficPolicy": once}));
            !of(json!({"sluice.dev/idle-timeout": "1m"}), &[rule]).is_empty()
        };
        for (namespace, host) in [
            ("default", "shop"),
            ("default", "shop.default.svc.cluster.local"),
            ("istio-system", "shop.default.svc.cluster.local"),
            ("istio-system", "*.default.svc.cluster.local"),
            ("istio-system", "*.local"),
        ] {
            assert!(counts(namespace, host, json!([])), "{namespace} {host}");
            assert!(counts(namespace, host, json!(["*"])), "{namespace} {host}");
        }
        assert!(!counts("default", "shops", json!([])));
        assert!(!counts("istio-system", "shop", json!([])), "another Service");
        assert!(!counts("other", "shop.default.svc.cluster.local", json!([])), "of that namespace's clients");
        assert!(!counts("default", "shop", json!(["."])), "of the app's own namespace's clients");
        assert!(counts("default", "shop", json!([".", "istio-system"])));
    }
}
