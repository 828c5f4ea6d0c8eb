//! Envoy's configuration: what Istio's gateway has where it matters to the filter, in a static bootstrap.
//!
//! As in an Istio gateway: route timeout 0, stream idle timeout 0, WebSocket upgrades, EDS clusters with a panic
//! threshold of 0 and circuit breakers wide open. Unlike it: no route retries, so that the tests see what the
//! filter does by itself.

use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The name of the one listener.
pub const LISTENER: &str = "ingress";

/// The cluster of all scalers: any of them can tell endpoints.
const ALL_SCALERS: &str = "sluice-scalers";

/// What Istio sets where a circuit breaker is to be none.
const NO_LIMIT: u32 = u32::MAX;

/// What an Envoy is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the listener is bound. Port 0: any free one.
    pub listener: SocketAddr,
    /// The filter; none makes a plain Envoy.
    pub filter: Option<Filter>,
    /// The scalers' clusters: name and address.
    pub scalers: Vec<(String, SocketAddr)>,
    /// Hosts and the cluster that they are routed to.
    pub routes: Vec<Route>,
    /// The apps' clusters.
    pub apps: Vec<AppCluster>,
    /// Where a line of JSON per request is written.
    pub access_log: PathBuf,
}

/// The filter and its plugin configuration.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The module.
    pub wasm: PathBuf,
    /// The plugin configuration.
    pub config: Value,
}

/// A virtual host.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its domains, as Envoy reads them: `*` and `*.example.com` are possible.
    pub domains: Vec<String>,
    /// The cluster.
    pub cluster: String,
}

/// An app's cluster.
#[derive(Clone, Debug)]
pub struct AppCluster {
    /// Its name.
    pub name: String,
    /// Who tells its endpoints.
    pub eds: Eds,
    /// How Envoy talks to the app.
    pub upstream: Upstream,
}

/// Who tells a cluster's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eds {
    /// A file, in a folder of its own.
    File(PathBuf),
    /// The scalers, all behind one cluster.
    Scalers(Protocol),
}

/// How Envoy asks the scalers for endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// State of the world, a stream per cluster.
    StateOfTheWorld,
    /// Incremental, a stream per cluster.
    Incremental,
    /// State of the world, one stream for all clusters.
    Aggregated,
}

/// The protocol towards an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// What the client speaks.
    AsDownstream,
    /// HTTP/2, one connection per worker however many requests there are: a connection at the app is a worker.
    Http2,
}

// === impl Config ===

impl Config {
    /// The bootstrap.
    pub fn bootstrap(&self) -> Value {
        let mut clusters: Vec<Value> = self
            .apps
            .iter()
            .map(AppCluster::to_json)
            .chain(self.scalers.iter().map(|(name, address)| scaler_cluster(name, &[*address])))
            .collect();
        if self.apps.iter().any(|app| matches!(app.eds, Eds::Scalers(_))) {
            let addresses: Vec<SocketAddr> = self.scalers.iter().map(|(_, address)| *address).collect();
            clusters.push(scaler_cluster(ALL_SCALERS, &addresses));
        }
        let mut bootstrap = json!({
            "node": {"id": "router~127.0.0.1~gateway.test~test.svc.cluster.local", "cluster": "gateway.test"},
            "admin": {"address": socket_address(SocketAddr::from(([127, 0, 0, 1], 0)))},
            "static_resources": {"listeners": [self.listener()], "clusters": clusters},
        });
        if self.apps.iter().any(|app| app.eds == Eds::Scalers(Protocol::Aggregated)) {
            bootstrap["dynamic_resources"] = json!({"ads_config": xds_source("GRPC")});
        }
        bootstrap
    }

    fn listener(&self) -> Value {
        let hosts: Vec<Value> = self
            .routes
            .iter()
            .enumerate()
            .map(|(index, route)| {
                json!({
                    "name": format!("host-{index}"),
                    "domains": route.domains,
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": route.cluster, "timeout": "0s"}}],
                })
            })
            .collect();
        let mut filters = Vec::new();
        if let Some(filter) = &self.filter {
            filters.push(filter.to_json());
        }
        filters.push(typed(
            "envoy.filters.http.router",
            "envoy.extensions.filters.http.router.v3.Router",
            json!({}),
        ));
        json!({
            "name": LISTENER,
            "address": socket_address(self.listener),
            // Connections alternate between the workers, so that a test with two of them reaches both.
            "connection_balance_config": {"exact_balance": {}},
            "filter_chains": [{"filters": [typed(
                "envoy.filters.network.http_connection_manager",
                "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                json!({
                    "stat_prefix": LISTENER,
                    "codec_type": "AUTO",
                    "stream_idle_timeout": "0s",
                    "upgrade_configs": [{"upgrade_type": "websocket"}],
                    "http2_protocol_options": {"max_concurrent_streams": 100_000},
                    "access_log": [self.access_log()],
                    "route_config": {"name": "local", "virtual_hosts": hosts},
                    "http_filters": filters,
                }),
            )]}],
        })
    }

    fn access_log(&self) -> Value {
        typed(
            "envoy.access_loggers.file",
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            json!({
                "path": self.access_log,
                "log_format": {"json_format": {
                    "start": "%START_TIME(%s.%6f)%",
                    "released_after_us": "%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:us)%",
                    "first_byte_after_us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_BEG:us)%",
                    "status": "%RESPONSE_CODE%",
                    "details": "%RESPONSE_CODE_DETAILS%",
                    "flags": "%RESPONSE_FLAGS%",
                    "method": "%REQ(:METHOD)%",
                    "authority": "%REQ(:AUTHORITY)%",
                    "path": "%REQ(:PATH)%",
                    "id": "%REQ(x-test-id)%",
                    "sluice": "%FILTER_STATE(wasm.sluice:PLAIN)%",
                }},
            }),
        )
    }
}

// === impl Filter ===

impl Filter {
    fn to_json(&self) -> Value {
        typed(
            "sluice",
            "envoy.extensions.filters.http.wasm.v3.Wasm",
            json!({"config": {
                "name": "sluice",
                "root_id": "sluice",
                "failure_policy": "FAIL_RELOAD",
                "vm_config": {
                    "vm_id": "sluice",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": self.wasm}},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": self.config.to_string(),
                },
            }}),
        )
    }
}

// === impl AppCluster ===

impl AppCluster {
    fn to_json(&self) -> Value {
        let http2 = json!({"max_concurrent_streams": 100_000});
        let protocol = match self.upstream {
            Upstream::AsDownstream => json!({"use_downstream_protocol_config": {
                "http_protocol_options": {}, "http2_protocol_options": http2,
            }}),
            Upstream::Http2 => json!({"explicit_http_config": {"http2_protocol_options": http2}}),
        };
        json!({
            "name": self.name,
            "type": "EDS",
            "connect_timeout": "10s",
            "eds_cluster_config": {"eds_config": self.eds.to_json()},
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
            "circuit_breakers": {"thresholds": [{
                "max_connections": NO_LIMIT, "max_pending_requests": NO_LIMIT,
                "max_requests": NO_LIMIT, "max_retries": NO_LIMIT,
            }]},
            "typed_extension_protocol_options": http_protocol_options(protocol),
        })
    }
}

// === impl Eds ===

impl Eds {
    fn to_json(&self) -> Value {
        let mut source = match self {
            Self::File(path) => {
                let dir = path.parent().unwrap_or(Path::new("."));
                json!({"path_config_source": {"path": path, "watched_directory": {"path": dir}}})
            }
            Self::Scalers(Protocol::StateOfTheWorld) => json!({"api_config_source": xds_source("GRPC")}),
            Self::Scalers(Protocol::Incremental) => json!({"api_config_source": xds_source("DELTA_GRPC")}),
            Self::Scalers(Protocol::Aggregated) => json!({"ads": {}}),
        };
        source["resource_api_version"] = json!("V3");
        // Envoy listens once it knows all endpoints, however long that takes.
        source["initial_fetch_timeout"] = json!("0s");
        source
    }
}

fn xds_source(api_type: &str) -> Value {
    json!({
        "api_type": api_type,
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {
            "cluster_name": ALL_SCALERS,
            // Envoy's own are 0.5 s and 30 s: long to be without news when a scaler is back.
            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
        }}],
    })
}

fn scaler_cluster(name: &str, addresses: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> =
        addresses.iter().map(|address| json!({"endpoint": {"address": socket_address(*address)}})).collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": endpoints}],
        },
        "typed_extension_protocol_options":
            http_protocol_options(json!({"explicit_http_config": {"http2_protocol_options": {}}})),
    })
}

fn http_protocol_options(mut options: Value) -> Value {
    options["@type"] = json!("type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions");
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options})
}

fn typed(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("type.googleapis.com/{kind}"));
    json!({"name": name, "typed_config": config})
}

/// An address as Envoy writes it.
pub(crate) fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
