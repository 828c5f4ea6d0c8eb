//! How a gateway connects to an app: what an object says of it is in the running Envoy, and on the wire.

#[path = "istio_upstream/app.rs"]
mod app;
#[path = "istio_upstream/config.rs"]
mod config;
#[path = "istio_upstream/keepalive.rs"]
mod keepalive;
#[path = "istio_upstream/wire.rs"]
mod wire;
#[path = "istio_upstream/wsgi.rs"]
mod wsgi;
