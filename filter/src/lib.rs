//! The filter as Envoy loads it: host callbacks become core events, core outcomes become host calls, and
//! nothing is decided here.
//!
//! - [`host`]: what the filter asks of Envoy, as a trait.
//! - [`plugin`]: one plugin configuration in one worker: its requests, its links, its metrics.
//! - [`vm`]: the plugins that share a VM (two, while a configuration is being replaced).
//! - [`config`], [`wire`]: the outside's words parsed into core's types.
//! - `abi` (on Wasm only): the proxy-wasm ABI itself, and the only unsafe code.
//!
//! The proxy-wasm SDK is not used. Its header accessors panic on bytes that are not UTF-8 and on every status
//! that it did not expect, which would trap the VM and strand what it holds; its `dispatch_grpc_call` takes the
//! target as `&str`, which a serialized `GrpcService` is not; and its context table, boxed contexts and
//! an allocation per value read are on the way of every request.

pub mod config;
pub mod headers;
pub mod host;
pub mod plugin;
pub mod recall;
pub mod stats;
pub mod vm;
pub mod wire;

mod request;
mod verdict;

#[cfg(target_arch = "wasm32")]
mod abi;
