//! HTTPScaledObject, `http.keda.sh/v1alpha1`.
#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function, where nothing reaches it"
)]
#![allow(clippy::duplicated_attributes, reason = "columns are of the same type")]

use crate::shared::{HeaderMatch, lenient_conditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// What an HTTPScaledObject asks for.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "http.keda.sh",
    version = "v1alpha1",
    kind = "HTTPScaledObject",
    root = "HttpScaledObject",
    singular = "httpscaledobject",
    plural = "httpscaledobjects",
    shortname = "httpso",
    category = "keda-http",
    namespaced,
    status = "HttpScaledObjectStatus",
    derive = "PartialEq",
    doc = "An app that is scaled on its HTTP requests, from and to zero. The operator makes the ScaledObject for it.",
    printcolumn(name = "TargetWorkload", type_ = "string", json_path = ".status.targetWorkload"),
    printcolumn(name = "TargetService", type_ = "string", json_path = ".status.targetService"),
    printcolumn(name = "MinReplicas", type_ = "integer", json_path = ".spec.replicas.min"),
    printcolumn(name = "MaxReplicas", type_ = "integer", json_path = ".spec.replicas.max"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct HttpScaledObjectSpec {
    /// Hosts whose requests are the app's, as far as the gateway sends them to its Service: a.example.com,
    /// *.example.com (any depth, but not example.com itself) or * (any host). Left out: any host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// Paths whose requests are the app's, as prefixes of whole segments: /api is also /api/v1, but not /apis. Left
    /// out: any path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefixes: Option<Vec<String>>,
    /// Headers that a request has to carry to be the app's, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Option<Vec<HeaderMatch>>,
    /// The workload to scale, and the Service and port that the gateway's routes send its requests to.
    pub scale_target_ref: ScaleTargetRef,
    /// The Service that a request goes to when the app does not become ready in time. Accepted and kept; Sluice does
    /// not act on it: such a request is answered 504.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start_timeout_failover_ref: Option<FailoverRef>,
    /// Bounds of the number of replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// Deprecated, use scalingMetric.concurrency.targetValue, which goes before it. Requests under way per replica;
    /// 100 if neither is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub target_pending_requests: Option<i32>,
    /// Seconds without a request before the app is scaled to zero. Left out: KEDA's default, 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub scaledown_period: Option<i32>,
    /// Seconds after the ScaledObject was made in which the app is not scaled to zero. Left out: KEDA's default, 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub initial_cooldown_period: Option<i32>,
    /// What the app is scaled on: concurrency or requestRate. Left out: a concurrency of targetPendingRequests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling_metric: Option<ScalingMetric>,
    /// How long the parts of a request may take. Left out: as the gateway's and the scaler's settings say. Sluice acts
    /// on conditionWait only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

/// The workload to scale, and where its requests go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = crate::rules::one_port())]
pub struct ScaleTargetRef {
    /// The workload's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The workload's API version. Left out: apps/v1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// The workload's kind. Left out: Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The Service that requests go to, in the object's namespace.
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

/// The Service that a request goes to when the app does not become ready in time. Accepted and kept; Sluice does not
/// act on it: such a request is answered 504.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = crate::rules::one_port())]
pub struct FailoverRef {
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
    /// Seconds that the app has to become ready. Sluice does not act on it: conditionWait of timeouts says how long a
    /// request is held.
    #[serde(default = "failover_seconds")]
    #[schemars(range(min = 0))]
    pub timeout_seconds: i32,
}

/// Bounds of the number of replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = crate::rules::replica_bounds())]
pub struct Replicas {
    /// The fewest. Left out: KEDA's default, 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min: Option<i32>,
    /// The most. Left out: KEDA's default, 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max: Option<i32>,
}

/// What the app is scaled on: not more than one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.concurrency) && has(self.requestRate))")
        .message("keep one of 'concurrency' and 'requestRate'; an InterceptorRoute can have both")
)]
pub struct ScalingMetric {
    /// Scale on the requests that are under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencyMetric>,
    /// Scale on the rate at which requests come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<RequestRateMetric>,
}

/// Scaling on the requests that are under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConcurrencyMetric {
    /// Requests under way per replica.
    #[serde(default = "target_value")]
    #[schemars(range(min = 1, max = 4294967295u32))]
    pub target_value: i64,
}

/// Scaling on the rate at which requests come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = crate::rules::window_holds_granularity())]
pub struct RequestRateMetric {
    /// Requests per granularity and replica.
    #[serde(default = "target_value")]
    #[schemars(range(min = 1, max = 4294967295u32))]
    pub target_value: i64,
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

/// How long the parts of a request may take: durations such as 500ms, 30s or 1m30s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// How long a request is held until the app is ready, at most as long as the gateway's limit; then it is answered
    /// 504. 0s: as long as the gateway's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = crate::rules::duration())]
    pub condition_wait: Option<String>,
    /// How long the app may take from the request's forwarding to the response's headers. Accepted and kept; Sluice
    /// does not act on it: the timeout of the gateway's route applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = crate::rules::duration())]
    pub response_header: Option<String>,
}

/// What has become of an HTTPScaledObject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpScaledObjectStatus {
    /// The workload: its API version, kind and name, with slashes between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_workload: Option<String>,
    /// The Service and its port, with a colon between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_service: Option<String>,
    /// The generation of the object that the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is so and what is not, one condition of each type. Ready says whether requests can be counted and held and
    /// the app is scaled; if not, its message says what to do.
    #[serde(default, deserialize_with = "lenient_conditions", skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl Default for ConcurrencyMetric {
    fn default() -> Self {
        Self { target_value: target_value() }
    }
}

impl Default for RequestRateMetric {
    fn default() -> Self {
        Self { target_value: target_value(), window: window(), granularity: granularity() }
    }
}

// The defaults of the add-on's schema, here too since not everything that is read has passed an API server.

fn failover_seconds() -> i32 {
    30
}

fn target_value() -> i64 {
    100
}

pub(crate) fn window() -> String {
    "1m".to_owned()
}

pub(crate) fn granularity() -> String {
    "1s".to_owned()
}
