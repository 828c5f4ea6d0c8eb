//! InterceptorRoute, `http.keda.sh/v1beta1`.
#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function, where nothing reaches it"
)]
#![allow(clippy::duplicated_attributes, reason = "columns are of the same type")]

use crate::{
    http_scaled_object::{granularity, window},
    shared::{HeaderMatch, lenient_conditions},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Requests of an app whose ScaledObject the user writes himself.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "http.keda.sh",
    version = "v1beta1",
    kind = "InterceptorRoute",
    plural = "interceptorroutes",
    namespaced,
    status = "InterceptorRouteStatus",
    derive = "PartialEq",
    doc = "Requests of an app whose ScaledObject the user writes himself.",
    printcolumn(name = "TargetService", type_ = "string", json_path = ".spec.target.service"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct InterceptorRouteSpec {
    /// The Service and port that requests go to.
    pub target: Target,
    /// Which requests are the app's: any of these selects them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub rules: Option<Vec<RoutingRule>>,
    /// What to scale on: at least one of the two.
    pub scaling_metric: RouteScalingMetric,
    /// What happens while the target is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
    /// How long the parts of a request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<RouteTimeouts>,
    /// Requests that are answered here, the first one that matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub static_routes: Option<Vec<StaticRoute>>,
}

/// Where requests go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.portName) != has(self.port)").message("exactly one of 'port' or 'portName' must be set")
)]
pub struct Target {
    /// The Service, of the object's namespace.
    #[schemars(length(min = 1))]
    pub service: String,
    /// Its port by number. Exactly one of this and `portName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Its port by name. Exactly one of this and `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub port_name: Option<String>,
}

/// One way to select a request: host and path and headers all have to match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoutingRule {
    /// Any of these: `a.example.com`, `*.example.com` (any depth, not the apex), `*`. None: any host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hosts: Option<Vec<String>>,
    /// Any of these. None: any path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub paths: Option<Vec<PathMatch>>,
    /// All of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Option<Vec<HeaderMatch>>,
}

/// A path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PathMatch {
    /// A prefix, by whole segments.
    #[schemars(length(min = 1))]
    pub value: String,
}

/// What to scale on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.concurrency) || has(self.requestRate)").message("at least one of 'concurrency' or 'requestRate' must be set")
)]
pub struct RouteScalingMetric {
    /// Requests under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<RouteConcurrency>,
    /// Requests per granularity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<RouteRequestRate>,
}

/// Scaling on requests under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteConcurrency {
    /// Requests under way per replica.
    #[schemars(range(min = 1))]
    pub target_value: i32,
}

/// Scaling on the rate of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteRequestRate {
    /// Requests per granularity and replica.
    #[schemars(range(min = 1))]
    pub target_value: i32,
    /// The time over which the rate is averaged, as Go writes durations.
    #[serde(default = "window")]
    pub window: String,
    /// The unit of time that the rate is given in, as Go writes durations.
    #[serde(default = "granularity")]
    pub granularity: String,
}

/// What happens while the target is not ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.fallback) || has(self.placeholder) || has(self.maxPendingRequests)").message("at least one of 'fallback', 'placeholder' or 'maxPendingRequests' must be set"),
    validation = Rule::new("!has(self.overflow) || self.overflow != 'Placeholder' || has(self.placeholder)").message("overflow 'Placeholder' needs 'placeholder'")
)]
pub struct ColdStart {
    /// Where requests go whose target does not become ready in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<ColdStartFallback>,
    /// What requests are answered instead of being held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<ColdStartPlaceholder>,
    /// How many requests may be held; further ones go the way of `overflow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_pending_requests: Option<i32>,
    /// What becomes of requests beyond `maxPendingRequests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
}

/// What becomes of requests beyond the limit of held ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Overflow {
    /// They are answered 503.
    #[default]
    Reject,
    /// They are answered with the placeholder.
    Placeholder,
}

/// Where requests go whose target does not become ready in time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ColdStartFallback {
    /// The Service.
    pub service: ServiceRef,
}

/// A port of a Service of the object's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.portName) != has(self.port)").message("exactly one of 'port' or 'portName' must be set")
)]
pub struct ServiceRef {
    /// The Service.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Its port by number. Exactly one of this and `portName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Its port by name. Exactly one of this and `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub port_name: Option<String>,
}

/// What requests are answered instead of being held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ColdStartPlaceholder {
    /// The answer; its status is 503 where it names none.
    pub response: StaticResponse,
}

/// An answer that does not come from the app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.body) && has(self.bodyFromConfigMap))").message("at most one of 'body' or 'bodyFromConfigMap' may be set")
)]
pub struct StaticResponse {
    /// The HTTP status. Left out: 503 of a placeholder, 200 of a static route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub status_code: Option<i32>,
    /// The body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub body: Option<String>,
    /// Where the body is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_from_config_map: Option<ConfigMapKeyRef>,
    /// Headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
}

/// A body in a ConfigMap of the object's namespace that carries [`crate::RESPONSE_BODY_LABEL`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ConfigMapKeyRef {
    /// The ConfigMap.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The key. Left out: the request's path without its leading slash, `index.html` for the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// How long the parts of a request may take, as Go writes durations. Left out, the global settings apply; `0s`
/// is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteTimeouts {
    /// How long a request waits for the target to become ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<String>,
    /// How long the request takes as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// How long the response's headers may take, from when the request was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header: Option<String>,
}

/// Requests that are answered without the app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticRoute {
    /// Which ones: any of these selects them.
    #[schemars(length(min = 1))]
    pub rules: Vec<RoutingRule>,
    /// The answer; its status is 200 where it names none.
    pub response: StaticResponse,
    /// When they are.
    #[serde(default)]
    pub response_mode: ResponseMode,
}

/// When a static route answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ResponseMode {
    /// While the target is not ready.
    #[default]
    WhenUnavailable,
    /// Always.
    Always,
}

/// What is known of the object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InterceptorRouteStatus {
    /// Conditions, one of each type.
    #[serde(default, deserialize_with = "lenient_conditions", skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
