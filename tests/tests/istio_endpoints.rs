//! Requests go to Pods, whatever a Service and its EndpointSlices look like: what the add-on's direct Pod routing has
//! to care for, in a gateway.

#[path = "istio_endpoints/addresses.rs"]
mod addresses;
#[path = "istio_endpoints/authorities.rs"]
mod authorities;
#[path = "istio_endpoints/pod.rs"]
mod pod;
#[path = "istio_endpoints/ports.rs"]
mod ports;
#[path = "istio_endpoints/tls.rs"]
mod tls;
