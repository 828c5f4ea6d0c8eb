//! The controllers: an HTTPScaledObject gets its ScaledObject, and every object says how it fares.
//!
//! What to do is decided in plain code, from what is known to what is to be written: [`plan`], [`standing`],
//! [`lease`], [`pace`], [`envoy_filter`],
//! [`isolation`], [`evidence`], [`lag`]. The calls are made around it: `control` reads and writes objects, [`run`] starts and ends
//! everything.

pub mod config;
mod control;
pub mod envoy_filter;
pub mod evidence;
mod http;
pub mod isolation;
pub mod lag;
pub mod lease;
mod metrics;
pub mod pace;
pub mod plan;
pub mod run;
pub mod standing;
pub mod upstream;
mod watch;

/// The name by which the operator owns fields of objects, and reports events.
pub const FIELD_MANAGER: &str = "sluice-operator";
