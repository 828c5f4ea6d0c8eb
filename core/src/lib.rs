//! Sluice's domain: which route a request belongs to ([`table`]), whether it may go on or has to wait
//! ([`gate`]), what is counted of it ([`count`]), what a worker and a scaler say to each other and when
//! ([`link`]), and what KEDA is told ([`metric`]).
//!
//! Events go in, outcomes come out, and `now` is an argument: nothing here does I/O or reads a clock, so the
//! same code runs in a Wasm module, in a native Envoy module and in a test.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod count;
pub mod gate;
pub mod link;
pub mod metric;
pub mod route;
pub mod table;
pub mod time;
pub mod worker;
