//! The Kubernetes objects that Sluice reads and writes, as they are on the wire.
//!
//! They are the add-on's (0.16), so that what was written for it applies unchanged: [`HttpScaledObject`] and
//! [`InterceptorRoute`]. The types are lenient where the add-on is: what its schema lets pass has to
//! deserialize here, since an object that does not is lost to whoever watches. Durations are therefore strings,
//! and numbers are unchecked: whoever uses an object checks it, and says on that object what is wrong.

mod definitions;
mod flaw;
mod http_scaled_object;
mod inert;
mod interceptor_route;
mod rules;
pub mod scaled_object;
mod shared;
pub mod spec;
pub mod upstream;

pub use definitions::definitions;
pub use flaw::Flaw;
pub use http_scaled_object::{
    ConcurrencyMetric, FailoverRef, HttpScaledObject, HttpScaledObjectSpec, HttpScaledObjectStatus, Replicas,
    RequestRateMetric, ScaleTargetRef, ScalingMetric, Timeouts,
};
pub use inert::Inert;
pub use interceptor_route::{
    ColdStart, ColdStartFallback, ColdStartPlaceholder, ConfigMapKeyRef, InterceptorRoute,
    InterceptorRouteSpec, InterceptorRouteStatus, Overflow, PathMatch, ResponseMode, RouteConcurrency,
    RouteRequestRate, RouteScalingMetric, RouteTimeouts, RoutingRule, ServiceRef, StaticResponse,
    StaticRoute, Target,
};
pub use scaled_object::{ScaledObject, ScaledObjectSpec, ScaledObjectStatus};
pub use shared::HeaderMatch;

/// The API group of both objects.
pub const GROUP: &str = "http.keda.sh";
/// The label that a ConfigMap carries (with `"true"`) whose content may become a response's body.
pub const RESPONSE_BODY_LABEL: &str = "http.keda.sh/response-body";
/// With `"true"` on an HTTPScaledObject no ScaledObject is made for it, and an owned one of its name is deleted.
pub const SKIP_SCALED_OBJECT_CREATION: &str = "httpscaledobject.keda.sh/skip-scaledobject-creation";
/// With `"true"` on an HTTPScaledObject its ScaledObject loses its owner reference, and so survives it.
pub const ORPHAN_SCALED_OBJECT: &str = "httpscaledobject.keda.sh/orphan-scaledobject";
