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

/// An app that scales on its HTTP requests, with the ScaledObject made for it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "http.keda.sh",
    version = "v1alpha1",
    kind = "HTTPScaledObject",
    root = "HttpScaledObject",
    singular = "httpscaledobject",
    plural = "httpscaledobjects",
    shortname = "httpso",
    namespaced,
    status = "HttpScaledObjectStatus",
    derive = "PartialEq",
    doc = "An app that scales on its HTTP requests, with the ScaledObject made for it.",
    printcolumn(name = "TargetWorkload", type_ = "string", json_path = ".status.targetWorkload"),
    printcolumn(name = "TargetService", type_ = "string", json_path = ".status.targetService"),
    printcolumn(name = "MinReplicas", type_ = "integer", json_path = ".spec.replicas.min"),
    printcolumn(name = "MaxReplicas", type_ = "integer", json_path = ".spec.replicas.max"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct HttpScaledObjectSpec {
    /// Hosts whose requests are the app's: `a.example.com`, `*.example.com` (any depth, not the apex), `*`. None:
    /// any host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// Prefixes of the path, by whole segments. None: any path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefixes: Option<Vec<String>>,
    /// Headers that a request has to carry, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Option<Vec<HeaderMatch>>,
    /// The workload to scale, and the Service and port that its requests go to.
    pub scale_target_ref: ScaleTargetRef,
    /// Where requests go whose target does not become ready in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start_timeout_failover_ref: Option<FailoverRef>,
    /// Bounds of the number of replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// Deprecated: the target value of the concurrency metric, where `scalingMetric` says none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_pending_requests: Option<i32>,
    /// Seconds without activity before the app scales to zero; KEDA's default is 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaledown_period: Option<i32>,
    /// Seconds after the object's creation in which it does not scale to zero; KEDA's default is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_cooldown_period: Option<i32>,
    /// What to scale on: concurrency or request rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling_metric: Option<ScalingMetric>,
    /// How long the parts of a request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

/// The workload to scale, and where its requests go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.portName) != has(self.port)").message("must define either the 'portName' or the 'port'")
)]
pub struct ScaleTargetRef {
    /// The workload's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The workload's API version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// The workload's kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The Service that requests go to, of the object's namespace.
    pub service: String,
    /// The Service's port by number. Exactly one of this and `portName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// The Service's port by name. Exactly one of this and `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
}

/// Where requests go whose target does not become ready in time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.portName) != has(self.port)").message("must define either the 'portName' or the 'port'")
)]
pub struct FailoverRef {
    /// The Service, of the object's namespace.
    pub service: String,
    /// Its port by number. Exactly one of this and `portName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Its port by name. Exactly one of this and `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
    /// Seconds that the target has to become ready.
    #[serde(default = "failover_seconds")]
    pub timeout_seconds: i32,
}

/// Bounds of the number of replicas. KEDA's own defaults are 0 and 100.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Replicas {
    /// The fewest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i32>,
    /// The most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i32>,
}

/// What to scale on. Not both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingMetric {
    /// Requests under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencyMetric>,
    /// Requests per granularity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<RequestRateMetric>,
}

/// Scaling on requests under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConcurrencyMetric {
    /// Requests under way per replica.
    #[serde(default = "target_value")]
    pub target_value: i64,
}

/// Scaling on the rate of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestRateMetric {
    /// Requests per granularity and replica.
    #[serde(default = "target_value")]
    pub target_value: i64,
    /// The time over which the rate is averaged, as Go writes durations.
    #[serde(default = "window")]
    pub window: String,
    /// The unit of time that the rate is given in, as Go writes durations.
    #[serde(default = "granularity")]
    pub granularity: String,
}

/// How long the parts of a request may take, as Go writes durations. Left out, the global settings apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// How long a request waits for the target to become ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition_wait: Option<String>,
    /// How long the response's headers may take, from when the request was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header: Option<String>,
}

/// What the operator has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpScaledObjectStatus {
    /// `<apiVersion>/<kind>/<name>` of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_workload: Option<String>,
    /// `<service>:<port>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_service: Option<String>,
    /// Conditions, one of each type.
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
