//! What both objects have in common.
#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function, where nothing reaches it"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A header that a request has to carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct HeaderMatch {
    /// The header's name, in any case.
    #[schemars(length(min = 1), regex(pattern = crate::rules::HEADER_NAME))]
    pub name: String,
    /// What one of the header's values has to be, exactly. Left out: the header has to be there, with whatever value.
    /// Empty: it has to be there with an empty value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Reads the conditions that are ones and drops the others: the add-on's older versions stored some without a
/// transition time, and an object must not be lost for its status.
pub(crate) fn lenient_conditions<'de, D>(deserializer: D) -> Result<Vec<Condition>, D::Error>
where
    D: Deserializer<'de>,
{
    let conditions = Option::<Vec<serde_json::Value>>::deserialize(deserializer)?;
    let conditions = conditions.unwrap_or_default().into_iter();
    Ok(conditions.filter_map(|condition| serde_json::from_value(condition).ok()).collect())
}

/// Reads `null` as what is not there: Go writes it for a list that is nil.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
