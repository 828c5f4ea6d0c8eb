//! What Services and EndpointSlices say of where an app can be reached.

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

/// The label by which a slice names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// A Service, as far as targets need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// It is another name of something outside: it never has endpoints.
    pub is_external: bool,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, by which slices know it; empty where it has none.
    pub name: String,
    /// Its number, by which clusters know it.
    pub number: u16,
    /// What it speaks, where the Service says.
    pub app_protocol: Option<String>,
}

/// An EndpointSlice: where each of its ports can be reached. Kept small, since a cluster has more of them than of
/// anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceSpec {
    /// The Service that it belongs to.
    pub service: String,
    /// Its ports by name, empty where the port has none, each with its number here. In another slice the same name
    /// may have another number.
    pub ports: Box<[(Box<str>, u16)]>,
    /// Addresses of endpoints that are ready, each once, at all of these ports.
    pub addresses: Box<[IpAddr]>,
}

/// A Service for HTTP/3 has the same number twice, and only one of the two is a gateway's target.
fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

// === impl ServiceSpec ===

impl From<&Service> for ServiceSpec {
    fn from(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
        let ports = ports.filter(|port| is_tcp(port.protocol.as_deref())).filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            let name = port.name.clone().unwrap_or_default();
            Some(ServicePort { name, number, app_protocol: port.app_protocol.clone() })
        });
        Self {
            is_external: spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName"),
            ports: ports.collect(),
        }
    }
}

// === impl SliceSpec ===

impl SliceSpec {
    /// What a slice says; `None` if it belongs to no Service.
    pub fn read(slice: &EndpointSlice) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?.clone();
        let addresses: BTreeSet<IpAddr> = slice
            .endpoints
            .iter()
            .filter(|endpoint| {
                let conditions = endpoint.conditions.as_ref();
                let ready = conditions.and_then(|it| it.ready).unwrap_or(true);
                let terminating = conditions.and_then(|it| it.terminating).unwrap_or(false);
                ready && !terminating
            })
            .flat_map(|endpoint| &endpoint.addresses)
            // Slices of type FQDN have names for addresses: nobody connects to those.
            .filter_map(|address| address.parse().ok())
            .collect();
        let ports = slice.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref()));
        let ports = ports.filter_map(|port| {
            // A port without a number is "all ports": nothing that a Service could mean.
            let number = u16::try_from(port.port?).ok()?;
            Some((port.name.as_deref().unwrap_or_default().into(), number))
        });
        Some(Self { service, ports: ports.collect(), addresses: addresses.into_iter().collect() })
    }

    fn ready(&self, port: &str) -> impl Iterator<Item = SocketAddr> {
        let numbers = self.ports.iter().filter(move |(name, _)| **name == *port).map(|(_, number)| *number);
        numbers.flat_map(|number| self.addresses.iter().map(move |address| SocketAddr::new(*address, number)))
    }
}

/// Where the port of that name can be reached, by all slices of its Service.
pub(super) fn ready<'a>(slices: impl IntoIterator<Item = &'a SliceSpec>, port: &str) -> BTreeSet<SocketAddr> {
    slices.into_iter().flat_map(|slice| slice.ready(port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn slice(ports: Value, endpoints: Value) -> SliceSpec {
        let slice = json!({
            "metadata": {"name": "s", "labels": {SERVICE_NAME_LABEL: "app"}},
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": endpoints,
        });
        SliceSpec::read(&serde_json::from_value(slice).unwrap()).unwrap()
    }

    fn reached(slices: &[SliceSpec], port: &str) -> Vec<String> {
        ready(slices, port).into_iter().map(|address| address.to_string()).collect()
    }

    #[test]
    fn ready_left_out_is_ready_and_terminating_is_not() {
        let endpoints = json!([
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.4"], "conditions": {}},
            {"addresses": ["10.0.0.5"], "conditions": {"ready": true, "terminating": true}},
            {"addresses": ["10.0.0.6"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        ]);
        let slice = slice(json!([{"name": "http", "port": 80}]), endpoints);
        assert_eq!(reached(&[slice], "http"), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.4:80"]);
    }

    #[test]
    fn an_address_in_several_slices_counts_once() {
        let one = slice(json!([{"name": "http", "port": 80}]), json!([{"addresses": ["10.0.0.1"]}]));
        let two = slice(
            json!([{"name": "http", "port": 80}]),
            json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.2"]}]),
        );
        assert_eq!(reached(&[one, two], "http"), ["10.0.0.1:80", "10.0.0.2:80"]);
    }

    #[test]
    fn one_name_may_have_another_number_in_each_slice() {
        let old = slice(json!([{"name": "http", "port": 8080}]), json!([{"addresses": ["10.0.0.1"]}]));
        let new = slice(json!([{"name": "http", "port": 9090}]), json!([{"addresses": ["10.0.0.2"]}]));
        assert_eq!(reached(&[old, new], "http"), ["10.0.0.1:8080", "10.0.0.2:9090"]);
    }

    #[test]
    fn named_and_unnamed_ports_are_kept_apart() {
        let named = slice(json!([{"name": "http", "port": 80}]), json!([{"addresses": ["10.0.0.1"]}]));
        let unnamed = slice(json!([{"port": 81}]), json!([{"addresses": ["10.0.0.2"]}]));
        let empty = slice(json!([{"name": "", "port": 82}]), json!([{"addresses": ["10.0.0.3"]}]));
        let all = [named, unnamed, empty];
        assert_eq!(reached(&all, "http"), ["10.0.0.1:80"]);
        assert_eq!(reached(&all, ""), ["10.0.0.2:81", "10.0.0.3:82"]);
    }

    #[test]
    fn named_and_unnamed_ports_of_one_slice_are_kept_apart() {
        let both = slice(
            json!([{"name": "http", "port": 80}, {"name": null, "port": 81}]),
            json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]),
        );
        let all = [both];
        assert_eq!(reached(&all, "http"), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(reached(&all, ""), ["10.0.0.1:81", "10.0.0.2:81"]);
    }

    #[test]
    fn each_address_is_paired_with_the_number_that_the_port_has_there() {
        // A rollout that moves the port: some Pods are in both slices for a moment.
        let old = slice(
            json!([{"name": "http", "port": 8080}, {"name": "metrics", "port": 9100}]),
            json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]),
        );
        let new = slice(
            json!([{"name": "http", "port": 8081}, {"name": "metrics", "port": 9100}]),
            json!([{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1"]}]),
        );
        let all = [old, new];
        assert_eq!(reached(&all, "http"), ["10.0.0.1:8080", "10.0.0.1:8081", "10.0.0.2:8081"]);
        assert_eq!(reached(&all, "metrics"), ["10.0.0.1:9100", "10.0.0.2:9100"]);
    }

    #[test]
    fn a_slice_without_endpoints_has_none_whatever_the_others_have() {
        let empty = slice(json!([{"name": "http", "port": 80}]), json!([]));
        let null = slice(json!([{"name": "http", "port": 80}]), Value::Null);
        assert!(reached(&[empty.clone(), null.clone()], "http").is_empty());
        let one = slice(json!([{"name": "http", "port": 80}]), json!([{"addresses": ["10.0.0.1"]}]));
        assert_eq!(reached(&[empty, one, null], "http"), ["10.0.0.1:80"]);
        assert!(reached(&[], "http").is_empty());
    }

    #[test]
    fn only_what_is_reached_by_tcp_counts() {
        let slice = slice(
            json!([
                {"name": "quic", "port": 443, "protocol": "UDP"}, {"name": "https", "port": 443, "protocol": "TCP"},
                {"name": "sctp", "port": 443, "protocol": "SCTP"}, {"name": "plain", "port": 80},
            ]),
            json!([{"addresses": ["10.0.0.1"]}]),
        );
        assert_eq!(slice.ports.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["https", "plain"]);
        let service = json!({"spec": {"ports": [
            {"port": 443, "name": "quic", "protocol": "UDP"}, {"port": 443, "name": "https", "protocol": "TCP"},
        ]}});
        let spec = ServiceSpec::from(&serde_json::from_value::<Service>(service).unwrap());
        assert_eq!(spec.ports.iter().map(|port| &*port.name).collect::<Vec<_>>(), ["https"]);
    }

    #[test]
    fn a_target_is_as_ready_as_its_own_port() {
        let slice = slice(
            json!([{"name": "http", "port": 80}, {"name": "metrics", "port": 9090}]),
            json!([{"addresses": ["10.0.0.1"]}]),
        );
        let slices = [slice];
        assert_eq!(reached(&slices, "http"), ["10.0.0.1:80"]);
        assert_eq!(reached(&slices, "metrics"), ["10.0.0.1:9090"]);
        assert!(reached(&slices, "grpc").is_empty());
    }

    #[test]
    fn a_port_without_a_number_and_an_endpoint_without_an_address_are_nothing() {
        let no_number = slice(json!([{"name": "http"}]), json!([{"addresses": ["10.0.0.1"]}]));
        let no_address = slice(json!([{"name": "http", "port": 80}]), json!([{"addresses": []}]));
        let no_ports = slice(Value::Null, json!([{"addresses": ["10.0.0.1"]}]));
        assert!(reached(&[no_number, no_address, no_ports], "http").is_empty());
    }

    #[test]
    fn addresses_of_both_families_are_reached_and_names_are_not() {
        let six = slice(json!([{"name": "http", "port": 80}]), json!([{"addresses": ["fd00::1"]}]));
        let four = slice(json!([{"name": "http", "port": 80}]), json!([{"addresses": ["10.0.0.1"]}]));
        let name = slice(json!([{"name": "http", "port": 80}]), json!([{"addresses": ["app.example.com"]}]));
        assert_eq!(reached(&[six, four, name], "http"), ["10.0.0.1:80", "[fd00::1]:80"]);
    }

    #[test]
    fn a_slice_of_no_service_is_none() {
        let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": []});
        assert_eq!(SliceSpec::read(&serde_json::from_value(slice).unwrap()), None);
    }

    #[test]
    fn a_services_ports_are_kept_with_name_number_and_protocol() {
        let service = json!({
            "metadata": {"name": "a"},
            "spec": {"ports": [
                {"port": 80, "name": "http", "targetPort": "web", "appProtocol": "kubernetes.io/h2c"},
                {"port": 81},
                {"port": 99999},
            ]},
        });
        let spec = ServiceSpec::from(&serde_json::from_value::<Service>(service).unwrap());
        let port = |name: &str, number, app_protocol: Option<&str>| ServicePort {
            name: name.to_owned(),
            number,
            app_protocol: app_protocol.map(str::to_owned),
        };
        assert_eq!(spec.ports, [port("http", 80, Some("kubernetes.io/h2c")), port("", 81, None)]);
        assert!(!spec.is_external);
    }
}
