//! The EnvoyFilter that brings Sluice into an Istio gateway, with the module inline.
//!
//! `template.yaml` says what is in it; [`Settings`] is what a user chooses; [`Manifest`] is the two and a module
//! together: as YAML to be applied by hand, and as a value for whoever applies it through the API.

mod error;
mod isolation;
mod manifest;
mod settings;
mod upstream;

pub use error::Error;
pub use isolation::{ISOLATION_LIMIT, isolation};
pub use manifest::{ANNOTATION_LIMIT, Manifest};
pub use settings::{Binding, Limits, Scaler, Settings};
pub use upstream::{OBJECT_ANNOTATION, Protocol, TcpKeepalive, UPSTREAM_LABEL, Upstream, UpstreamFilter};
