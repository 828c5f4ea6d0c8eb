//! A cluster's endpoints as they go over the wire: encoded once, shared by all streams that they go to.

use prost::Message as _;
use sluice_proto::{
    envoy::config::{
        core::v3::{Address, SocketAddress, address, socket_address},
        endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint},
    },
    google::protobuf::Any,
};
use std::{
    collections::BTreeSet,
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddr,
    str::FromStr,
    sync::Arc,
};

/// The type of all resources here.
pub(super) const TYPE_URL: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// A cluster's endpoints.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) name: Arc<str>,
    pub(super) version: Version,
    pub(super) is_empty: bool,
    pub(super) any: Any,
}

/// What tells one state of a resource from another. It comes from the content alone: an Envoy that comes with what
/// another replica told it, or this one in an earlier life, need not be told it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version(u64);

// === impl Resource ===

impl Resource {
    pub(super) fn new(name: Arc<str>, endpoints: &BTreeSet<SocketAddr>) -> Self {
        let lb_endpoints: Vec<LbEndpoint> = endpoints.iter().map(lb_endpoint).collect();
        let is_empty = lb_endpoints.is_empty();
        let localities = if is_empty { Vec::new() } else { vec![LocalityLbEndpoints { lb_endpoints }] };
        let assignment = ClusterLoadAssignment { cluster_name: name.to_string(), endpoints: localities };
        let value = assignment.encode_to_vec();
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let version = Version(hasher.finish());
        Self { name, version, is_empty, any: Any { type_url: TYPE_URL.to_owned(), value: value.into() } }
    }
}

fn lb_endpoint(endpoint: &SocketAddr) -> LbEndpoint {
    let address = SocketAddress {
        address: endpoint.ip().to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(endpoint.port().into())),
    };
    let address = Address { address: Some(address::Address::SocketAddress(address)) };
    LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint { address: Some(address) })),
    }
}

// === impl Version ===

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}
