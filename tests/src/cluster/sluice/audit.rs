//! The API server's own word on what was written, by whom and when.

use crate::cluster::bed::Bed;
use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use std::fs;

/// KEDA's operator.
pub const KEDA: &str = "system:serviceaccount:keda:keda-operator";
/// Sluice's operator.
pub const OPERATOR: &str = "system:serviceaccount:sluice-system:sluice-operator";
/// The verb of what changes nothing.
const READ: &str = "get";

/// A request that has changed something, or was to; KEDA's reading of a scale; or whatever Sluice's operator asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// When it had come.
    #[serde(rename = "requestReceivedTimestamp")]
    pub received: Timestamp,
    /// When it was answered.
    #[serde(rename = "stageTimestamp")]
    pub at: Timestamp,
    /// `create`, `update`, `patch`, `delete`; of KEDA's, `get` of a scale alone.
    pub verb: String,
    user: User,
    #[serde(default, rename = "objectRef")]
    object: Object,
    response_status: Option<Response>,
    /// Of a ScaledObject's status alone.
    #[serde(default, rename = "requestObject")]
    body: serde_json::Value,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Object {
    api_group: String,
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

// === impl Request ===

impl Request {
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

    /// The right that it took, as roles say it: `patch apps/deployments/scale`, `list /services`.
    pub fn right(&self) -> String {
        format!("{} {}/{}", self.verb, self.object.api_group, self.resource())
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
        self.body.get("status").is_some_and(|status| status.get(field).is_some())
    }

    /// When it was answered, in microseconds since 1970.
    pub fn at_us(&self) -> u64 {
        micros(self.at)
    }

    /// When it had come, in microseconds since 1970.
    pub fn received_us(&self) -> u64 {
        micros(self.received)
    }
}

fn micros(at: Timestamp) -> u64 {
    u64::try_from(at.as_microsecond()).unwrap_or(0)
}

/// All that KEDA wrote in a namespace, and every change of a scale in it, in the order of the answers.
///
/// # Errors
/// If the log cannot be read.
pub fn writes(bed: &Bed, namespace: &str) -> Result<Vec<Request>> {
    let mut all = requests(bed, namespace)?;
    all.retain(|request| request.verb != READ);
    Ok(all)
}

/// KEDA's readings of a workload's scale, in the order of the answers: one goes before each write of it.
///
/// # Errors
/// If the log cannot be read.
pub fn reads(bed: &Bed, namespace: &str, name: &str) -> Result<Vec<Request>> {
    let mut all = requests(bed, namespace)?;
    all.retain(|request| request.verb == READ && request.name() == name && request.succeeded());
    Ok(all)
}

/// All that Sluice's operator has asked for since the cluster was started, whatever the answer.
///
/// # Errors
/// If the log cannot be read.
pub fn operators(bed: &Bed) -> Result<Vec<Request>> {
    let mut all = everything(bed)?;
    all.retain(|request| request.user() == OPERATOR);
    Ok(all)
}

fn requests(bed: &Bed, namespace: &str) -> Result<Vec<Request>> {
    let mut all = everything(bed)?;
    all.retain(|request| request.namespace() == namespace && request.user() != OPERATOR);
    Ok(all)
}

fn everything(bed: &Bed) -> Result<Vec<Request>> {
    let path = bed.audit_log();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let mut requests = Vec::new();
    for line in whole.lines() {
        requests.push(serde_json::from_str(line).with_context(|| format!("audit log: {line}"))?);
    }
    Ok(requests)
}

/// The changes of a workload's scale by KEDA's operator that were done, in that order.
///
/// # Errors
/// If the log cannot be read.
pub fn scales(bed: &Bed, namespace: &str, name: &str) -> Result<Vec<Request>> {
    let mut writes = writes(bed, namespace)?;
    writes.retain(|write| {
        write.user() == KEDA
            && write.resource() == "deployments/scale"
            && write.name() == name
            && write.succeeded()
    });
    Ok(writes)
}
