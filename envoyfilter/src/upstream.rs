//! How a gateway connects to one Service: an EnvoyFilter for each object that says something of it.
//!
//! It is merged into the clusters that istiod makes of the Service, one for each subset. A merge adds to what istiod
//! has put there, with two exceptions that decide what is written here:
//!
//! * An entry of a map is replaced, not merged. All HTTP options of a cluster are one such entry, so it is written
//!   whole or not at all: with the protocol, which is istiod's choice by the Service's port.
//! * A list is appended to, and of two thresholds of a priority Envoy takes the first, istiod's. The thresholds of
//!   single hosts are a list of their own, and istiod leaves that empty.

#[cfg(test)]
mod tests;

use crate::{Binding, Error, settings::is_name};
use serde_json::{Map, Value, json};
use std::{num::NonZeroU32, time::Duration};

/// The label that every such EnvoyFilter has beside Sluice's name, and its value.
pub const UPSTREAM_LABEL: (&str, &str) = ("app.kubernetes.io/component", "upstream");
/// The annotation that names the object that it is for.
pub const OBJECT_ANNOTATION: &str = "sluice.dev/object";
/// Where Envoy has the HTTP options of a cluster.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// How long a connection stays that was opened for a request that has left meanwhile, where each request has one of
/// its own: a single-threaded server waits on it. It must outlast connecting, for which Istio allows 10 s, since the
/// time counts from the start of that.
const UNUSED: Duration = Duration::from_secs(15);

/// An EnvoyFilter for one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamFilter {
    /// Its name.
    pub name: String,
    /// The gateway's namespace, or the mesh's root namespace.
    pub namespace: String,
    /// The gateways that it is for.
    pub binding: Binding,
    /// The object, for people.
    pub object: String,
    /// The Service in full: `shop.default.svc.cluster.local`.
    pub host: String,
    /// The Service's port.
    pub port: u16,
    /// What is to be so.
    pub upstream: Upstream,
}

/// How to connect to a Service. What is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// The protocol where the HTTP options are written at all: the one that istiod would choose, or another.
    pub protocol: Protocol,
    /// Whether the protocol is another than istiod would choose.
    pub protocol_is_forced: bool,
    /// Whether each request has a connection of its own.
    pub disable_keep_alives: bool,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Option<Duration>,
    /// How long a connection without a request stays; zero: for ever.
    pub idle_timeout: Option<Duration>,
    /// How many connections a gateway opens to each Pod.
    pub max_connections: Option<NonZeroU32>,
    /// How a silent connection is kept alive.
    pub tcp_keepalive: TcpKeepalive,
}

/// What is spoken with a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
}

/// TCP keep-alive. What is `None` is the operating system's, once any of it is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Seconds of silence before the first probe.
    pub time: Option<NonZeroU32>,
    /// Seconds between two probes.
    pub interval: Option<NonZeroU32>,
    /// How many probes go unanswered before the connection is given up.
    pub probes: Option<NonZeroU32>,
}

// === impl Protocol ===

impl Protocol {
    /// What istiod chooses for a Service's port: its `appProtocol` decides, or else its name's part before the first
    /// `-`.
    pub fn of_port(name: Option<&str>, app_protocol: Option<&str>) -> Self {
        let text = app_protocol.or(name).unwrap_or_default().to_ascii_lowercase();
        // Kubernetes' own names count in appProtocol only; no port can be called so.
        if app_protocol == Some("kubernetes.io/h2c") || text.starts_with("grpc-web") {
            return Self::Http2;
        }
        match text.split('-').next() {
            Some("http2" | "grpc") => Self::Http2,
            _ => Self::Http1,
        }
    }

    fn options(self) -> Value {
        match self {
            Self::Http1 => json!({"http_protocol_options": {}}),
            Self::Http2 => json!({"http2_protocol_options": {}}),
        }
    }
}

// === impl Upstream ===

impl Upstream {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.cluster().is_empty()
    }

    /// Whether all of istiod's HTTP options of a cluster are replaced, whatever a DestinationRule has put there.
    pub fn replaces_http_options(&self) -> bool {
        self.http_options().is_some()
    }

    /// What is merged into a cluster.
    fn cluster(&self) -> Map<String, Value> {
        let mut cluster = Map::new();
        if let Some(timeout) = self.connect_timeout {
            cluster.insert("connect_timeout".to_owned(), seconds(timeout));
        }
        if let Some(most) = self.max_connections {
            let thresholds = json!({"per_host_thresholds": [{"max_connections": most}]});
            cluster.insert("circuit_breakers".to_owned(), thresholds);
        }
        if self.tcp_keepalive != TcpKeepalive::default() {
            let options = json!({"tcp_keepalive": self.tcp_keepalive.fields()});
            cluster.insert("upstream_connection_options".to_owned(), options);
        }
        if let Some(options) = self.http_options() {
            let options = json!({HTTP_OPTIONS: options});
            cluster.insert("typed_extension_protocol_options".to_owned(), options);
        }
        cluster
    }

    /// The whole entry, if any of it is to be another than istiod's.
    fn http_options(&self) -> Option<Value> {
        let mut common = Map::new();
        if self.disable_keep_alives {
            common.insert("max_requests_per_connection".to_owned(), json!(1));
        }
        let unused = self.disable_keep_alives.then(|| self.connect_timeout.unwrap_or_default().max(UNUSED));
        if let Some(timeout) = self.idle_timeout.or(unused) {
            common.insert("idle_timeout".to_owned(), seconds(timeout));
        }
        if common.is_empty() && !self.protocol_is_forced {
            return None;
        }
        let mut options = json!({
            "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
            "explicit_http_config": self.protocol.options(),
        });
        if !common.is_empty() {
            options["common_http_protocol_options"] = Value::Object(common);
        }
        Some(options)
    }
}

// === impl TcpKeepalive ===

impl TcpKeepalive {
    fn fields(&self) -> Value {
        let fields = [
            ("keepalive_time", self.time),
            ("keepalive_interval", self.interval),
            ("keepalive_probes", self.probes),
        ];
        let fields = fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), json!(value?))));
        Value::Object(fields.collect())
    }
}

// === impl UpstreamFilter ===

impl UpstreamFilter {
    /// The EnvoyFilter; `None` if there is nothing to say.
    ///
    /// # Errors
    /// If a name is none, or the selector selects everything.
    pub fn manifest(&self) -> Result<Option<Value>, Error> {
        for (field, name) in [("name", &self.name), ("host", &self.host)] {
            if !name.split('.').all(|label| !label.is_empty() && is_word(label)) {
                return Err(Error::Name {
                    field,
                    value: name.clone(),
                    dots: "; several may be joined by '.'",
                });
            }
        }
        if !is_name(&self.namespace) {
            return Err(Error::Name { field: "namespace", value: self.namespace.clone(), dots: "" });
        }
        self.binding.check()?;
        if self.upstream.is_empty() {
            return Ok(None);
        }
        let (binding, bound) = self.binding.field();
        Ok(Some(json!({
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": {"app.kubernetes.io/name": "sluice", UPSTREAM_LABEL.0: UPSTREAM_LABEL.1},
                "annotations": {OBJECT_ANNOTATION: self.object},
            },
            "spec": {
                binding: bound,
                "configPatches": [{
                    "applyTo": "CLUSTER",
                    // Without a subset: all of them.
                    "match": {
                        "context": "GATEWAY",
                        "cluster": {"service": self.host, "portNumber": self.port},
                    },
                    "patch": {"operation": "MERGE", "value": self.upstream.cluster()},
                }],
            },
        })))
    }
}

/// As Envoy reads durations.
fn seconds(duration: Duration) -> Value {
    let nanoseconds = format!("{:09}", duration.subsec_nanos());
    match nanoseconds.trim_end_matches('0') {
        "" => json!(format!("{}s", duration.as_secs())),
        fraction => json!(format!("{}.{fraction}s", duration.as_secs())),
    }
}

/// Of a name that may be longer than a DNS label, as objects' are.
fn is_word(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}
