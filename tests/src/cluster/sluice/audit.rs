//! The API server's own word on what was written, by whom and when.

use crate::cluster::bed::Bed;
use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use std::fs;

/// KEDA's operator.
pub const KEDA: &str = "system:serviceaccount:keda:keda-operator";

/// A request that has changed something, or was to.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Write {
    /// When it was answered.
    #[serde(rename = "stageTimestamp")]
    pub at: Timestamp,
    /// `create`, `update`, `patch`, `delete`.
    pub verb: String,
    user: User,
    #[serde(default, rename = "objectRef")]
    object: Object,
    response_status: Option<Response>,
    /// Of a ScaledObject's status alone.
    #[serde(default, rename = "requestObject")]
    request: serde_json::Value,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Response {
    #[serde(default)]
    code: u16,
}

// === impl Write ===

impl Write {
    /// Who did it.
    pub fn user(&self) -> &str {
        &self.user.username
    }

    /// Of what: `deployments/scale`.
    pub fn resource(&self) -> String {
        match self.object.subresource.as_str() {
            "" => self.object.resource.clone(),
            part => format!("{}/{part}", self.object.resource),
        }
    }

    /// The object's namespace.
    pub fn namespace(&self) -> &str {
        &self.object.namespace
    }

    /// The object's name; empty where the server chooses it.
    pub fn name(&self) -> &str {
        &self.object.name
    }

    /// Whether it was done.
    pub fn succeeded(&self) -> bool {
        self.response_status.as_ref().is_some_and(|status| status.code < 300)
    }

    /// Whether a patch of a ScaledObject's status sets a field of it.
    pub fn sets_status(&self, field: &str) -> bool {
        self.request.get("status").is_some_and(|status| status.get(field).is_some())
    }

    /// Microseconds since 1970.
    pub fn at_us(&self) -> u64 {
        u64::try_from(self.at.as_microsecond()).unwrap_or(0)
    }
}

/// All that KEDA wrote in a namespace, and every change of a scale in it, in the order of the answers.
///
/// # Errors
/// If the log cannot be read.
pub fn writes(bed: &Bed, namespace: &str) -> Result<Vec<Write>> {
    let path = bed.audit_log();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let mut writes = Vec::new();
    for line in whole.lines() {
        let write: Write = serde_json::from_str(line).with_context(|| format!("audit log: {line}"))?;
        if write.namespace() == namespace {
            writes.push(write);
        }
    }
    Ok(writes)
}

/// The changes of a workload's scale by KEDA's operator that were done, in that order.
///
/// # Errors
/// If the log cannot be read.
pub fn scales(bed: &Bed, namespace: &str, name: &str) -> Result<Vec<Write>> {
    let mut writes = writes(bed, namespace)?;
    writes.retain(|write| {
        write.user() == KEDA
            && write.resource() == "deployments/scale"
            && write.name() == name
            && write.succeeded()
    });
    Ok(writes)
}
