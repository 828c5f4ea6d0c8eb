//! The scaler: what gateways need to know to hold and release requests, and what KEDA needs to know to scale.
//!
//! Layout, along the way of what is known:
//! - [`source`] reads objects and tells what changed
//! - [`index`] makes routes of them: plain state, no I/O
//! - [`board`] is the route table as gateways hear it, [`ledger`] what gateways have counted
//! - [`hub`] holds these together
//! - [`link`] speaks with gateways, [`keda`] with KEDA, [`eds`] with plain Envoys, [`http`] with people and
//!   Prometheus
//! - [`run`](mod@run) starts all of it, and ends it gracefully
//!
//! Replicas share nothing: every gateway worker tells each of them everything.

pub mod board;
pub mod clock;
pub mod config;
pub mod eds;
pub mod http;
pub mod hub;
pub mod index;
pub mod keda;
pub mod ledger;
pub mod link;
pub mod run;
pub mod source;
pub mod tls;
