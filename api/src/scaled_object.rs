//! ScaledObject, `keda.sh/v1alpha1`: what is written of it, and what is read.
//!
//! Its definition is KEDA's and not ours, hence without a schema. What KEDA has and this has not is not here, so
//! that server-side apply owns exactly the fields that are named; reading takes whatever is left out for left out,
//! since users write ScaledObjects too.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How KEDA scales a workload.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "keda.sh",
    version = "v1alpha1",
    kind = "ScaledObject",
    plural = "scaledobjects",
    shortname = "so",
    namespaced,
    schema = "disabled",
    status = "ScaledObjectStatus",
    derive = "PartialEq",
    doc = "How KEDA scales a workload."
)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaledObjectSpec {
    /// The workload.
    pub scale_target_ref: ScaleTarget,
    /// Seconds between two questions whether it is active; KEDA's default is 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polling_interval: Option<i32>,
    /// Seconds without activity before the workload scales to zero; KEDA's default is 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown_period: Option<i32>,
    /// Seconds after the creation in which it does not scale to zero; KEDA's default is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_cooldown_period: Option<i32>,
    /// The fewest replicas; KEDA's default is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_replica_count: Option<i32>,
    /// The most replicas; KEDA's default is 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replica_count: Option<i32>,
    /// What most do not need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advanced: Option<Advanced>,
    /// What is scaled on: at least one.
    #[serde(deserialize_with = "crate::shared::null_is_default")]
    pub triggers: Vec<Trigger>,
}

/// A workload of the ScaledObject's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleTarget {
    /// Its API version; KEDA's default is `apps/v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Its kind; KEDA's default is `Deployment`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name. KEDA accepts no empty one.
    pub name: String,
}

/// What most do not need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Advanced {
    /// Whether the workload gets back, at the ScaledObject's deletion, the number of replicas it had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_to_original_replica_count: Option<bool>,
}

/// What is scaled on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trigger {
    /// The kind of scaler: [`EXTERNAL_PUSH`] is ours.
    #[serde(rename = "type")]
    pub type_: String,
    /// A name that is the trigger's alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the scaler is told: its address, and keys of its own.
    #[serde(deserialize_with = "crate::shared::null_is_default")]
    pub metadata: BTreeMap<String, String>,
    /// Where keys and certificates are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_ref: Option<AuthenticationRef>,
}

/// A TriggerAuthentication of the ScaledObject's namespace, or a ClusterTriggerAuthentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthenticationRef {
    /// Its name.
    pub name: String,
    /// Its kind; KEDA's default is `TriggerAuthentication`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// What KEDA has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaledObjectStatus {
    /// `Ready`, `Active`, `Fallback`, `Paused`, ….
    #[serde(deserialize_with = "crate::shared::null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ScaledObjectCondition>,
    /// The names of the triggers' metrics. KEDA takes no activation for a trigger before its name is here.
    #[serde(deserialize_with = "crate::shared::null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub external_metric_names: Vec<String>,
    /// When it was last active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_active_time: Option<Time>,
    /// The HorizontalPodAutoscaler that KEDA made for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hpa_name: Option<String>,
}

/// A condition as KEDA has them: without times and generation, unlike everybody else's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScaledObjectCondition {
    /// What is so or not.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The type of a trigger whose scaler tells KEDA by itself when there is something to do.
pub const EXTERNAL_PUSH: &str = "external-push";
