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

/// What an InterceptorRoute asks for.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "http.keda.sh",
    version = "v1beta1",
    kind = "InterceptorRoute",
    plural = "interceptorroutes",
    category = "keda-http",
    namespaced,
    status = "InterceptorRouteStatus",
    derive = "PartialEq",
    doc = "The requests of an app, which are held while it is scaled from zero. The ScaledObject is the user's own: \
           its trigger of type external-push names this object in metadata.interceptorRoute.",
    printcolumn(name = "TargetService", type_ = "string", json_path = ".spec.target.service"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct InterceptorRouteSpec {
    /// The Service and port that the gateway's routes send the app's requests to.
    pub target: Target,
    /// Which requests are the app's: those that any of these rules selects and the gateway sends to the target. Left
    /// out: all that it sends there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub rules: Option<Vec<RoutingRule>>,
    /// What the app is scaled on: concurrency, requestRate or both.
    pub scaling_metric: RouteScalingMetric,
    /// What happens to requests while the app is not ready. Left out: they are held. Sluice acts on maxPendingRequests
    /// only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
    /// How long the parts of a request may take. Left out: as the gateway's and the scaler's settings say. Sluice acts
    /// on readiness only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<RouteTimeouts>,
    /// Requests that are answered without the app, and do not wake it; the first of these that selects a request
    /// answers it. Accepted and kept; Sluice does not act on it: such requests go to the app and wake it, like any
    /// other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub static_routes: Option<Vec<StaticRoute>>,
}

/// The Service and port that the app's requests go to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = crate::rules::one_port())]
pub struct Target {
    /// The Service, in the object's namespace.
    #[schemars(length(min = 1))]
    pub service: String,
    /// The Service's port by number. Exactly one of port and portName is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The Service's port by name. Exactly one of port and portName is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub port_name: Option<String>,
}

/// One way to select requests: by host and path and headers, all that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoutingRule {
    /// Hosts, any of these: a.example.com, *.example.com (any depth, but not example.com itself) or * (any host). Left
    /// out: any host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hosts: Option<Vec<String>>,
    /// Paths, any of these. Left out: any path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub paths: Option<Vec<PathMatch>>,
    /// Headers, all of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Option<Vec<HeaderMatch>>,
}

/// A path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PathMatch {
    /// A prefix of whole segments: /api is also /api/v1, but not /apis.
    #[schemars(length(min = 1))]
    pub value: String,
}

/// What the app is scaled on: concurrency, requestRate or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.concurrency) || has(self.requestRate)")
        .message("set at least one of 'concurrency' and 'requestRate'")
)]
pub struct RouteScalingMetric {
    /// Scale on the requests that are under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<RouteConcurrency>,
    /// Scale on the rate at which requests come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<RouteRequestRate>,
}

/// Scaling on the requests that are under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteConcurrency {
    /// Requests under way per replica.
    #[schemars(range(min = 1))]
    pub target_value: i32,
}

/// Scaling on the rate at which requests come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = crate::rules::window_holds_granularity())]
pub struct RouteRequestRate {
    /// Requests per granularity and replica.
    #[schemars(range(min = 1))]
    pub target_value: i32,
    /// The time over which the rate is averaged: a duration such as 30s or 1m30s, at least as long as granularity
    /// and at most 24h.
    #[serde(default = "window")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = crate::rules::duration(), validation = crate::rules::window())]
    pub window: String,
    /// The unit of time of the rate: a duration such as 1s or 1m, at least 1s.
    #[serde(default = "granularity")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = crate::rules::duration(), validation = crate::rules::granularity())]
    pub granularity: String,
}

/// What happens to requests while the app is not ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.fallback) || has(self.placeholder) || has(self.maxPendingRequests)")
        .message("set at least one of 'fallback', 'placeholder' and 'maxPendingRequests', or leave coldStart out"),
    validation = Rule::new("!has(self.overflow) || self.overflow != 'Placeholder' || has(self.placeholder)")
        .message("set 'placeholder' too, or make 'overflow' Reject")
)]
pub struct ColdStart {
    /// The Service that a request goes to when the app does not become ready in time. Accepted and kept; Sluice does
    /// not act on it: such a request is answered 504.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<ColdStartFallback>,
    /// What requests are answered instead of being held; with overflow Placeholder: those for which there is no room.
    /// Accepted and kept; Sluice does not act on it: requests are held, and answered 503 where there is no room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<ColdStartPlaceholder>,
    /// How many requests each worker of a gateway holds at a time, at most as many as the gateway's limit; what comes
    /// beyond is answered 503. Left out: as many as the scaler's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_pending_requests: Option<i32>,
    /// What becomes of requests beyond maxPendingRequests: they are answered 503 (Reject), or with the placeholder
    /// (Placeholder). Left out: Reject. Sluice does not act on Placeholder: they are answered 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
}

/// What becomes of requests beyond maxPendingRequests: they are answered 503 (Reject), or with the placeholder
/// (Placeholder). Left out: Reject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Overflow {
    /// They are answered 503.
    #[default]
    Reject,
    /// They are answered with the placeholder.
    Placeholder,
}

/// Where requests go when the app does not become ready in time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ColdStartFallback {
    /// The Service and its port.
    pub service: ServiceRef,
}

/// A Service and its port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = crate::rules::one_port())]
pub struct ServiceRef {
    /// The Service, in the object's namespace.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The Service's port by number. Exactly one of port and portName is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The Service's port by name. Exactly one of port and portName is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub port_name: Option<String>,
}

/// What requests are answered instead of being held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ColdStartPlaceholder {
    /// The answer. Its status is 503 where it names none.
    pub response: StaticResponse,
}

/// An answer that does not come from the app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.body) && has(self.bodyFromConfigMap))")
        .message("keep one of 'body' and 'bodyFromConfigMap'")
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
    /// The ConfigMap that has the body, in the object's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_from_config_map: Option<ConfigMapKeyRef>,
    /// The response's headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
}

/// A body in a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ConfigMapKeyRef {
    /// The ConfigMap. It has to carry the label http.keda.sh/response-body with the value "true".
    #[schemars(length(min = 1))]
    pub name: String,
    /// The key in it. Left out: the request's path without its leading slash, index.html for /.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// How long the parts of a request may take: durations such as 500ms, 30s or 1m30s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteTimeouts {
    /// How long a request is held until the app is ready, at most as long as the gateway's limit; then it is answered
    /// 504. 0s: as long as the gateway's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = crate::rules::duration())]
    pub readiness: Option<String>,
    /// How long a request may take as a whole. 0s: without a limit. Accepted and kept; Sluice does not act on it: the
    /// timeout of the gateway's route applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = crate::rules::duration())]
    pub request: Option<String>,
    /// How long the app may take from the request's forwarding to the response's headers. 0s: without a limit. Accepted
    /// and kept; Sluice does not act on it: the timeout of the gateway's route applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = crate::rules::duration())]
    pub response_header: Option<String>,
}

/// Requests that are answered without the app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticRoute {
    /// Which requests: those that any of these rules selects. {} selects every request.
    #[schemars(length(min = 1))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub rules: Vec<RoutingRule>,
    /// The answer. Its status is 200 where it names none.
    pub response: StaticResponse,
    /// When they are answered: always (Always), or while the app is not ready (WhenUnavailable).
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

/// What has become of an InterceptorRoute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InterceptorRouteStatus {
    /// The generation of the object that the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is so and what is not, one condition of each type. Ready says whether requests can be counted and held; if
    /// not, its message says what to do.
    #[serde(default, deserialize_with = "lenient_conditions", skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
