//! What to do about an object, from what is known: one write at most, and what its status is to say.
//!
//! ```text
//!  object ─┬─ being deleted ──▶ orphan the ScaledObject if asked to, then let go of the object
//!          ├─ orphan ─────────▶ take our owner reference off the ScaledObject
//!          ├─ skip ───────────▶ delete the ScaledObject if it is ours
//!          ├─ of no use ──────▶ nothing: what is there stays in force
//!          └─ else ───────────▶ the ScaledObject of its name: none → create it, once the scaler answers, and unless
//!                                                                    another object has the workload scaled
//!                                                             ours → keep it as it has to be
//!                                                             not ours → say so, leave it alone
//! ```

mod claim;
pub mod desired;
mod fields;
mod http_scaled_object;
mod interceptor_route;
mod leaving;
mod owner;
mod paused;
mod referrer;
mod target;
#[cfg(test)]
mod tests;
mod workload;

pub use claim::{Claim, Claims, claimed};
pub use http_scaled_object::{Observed, plan};
pub use interceptor_route::{ObservedRoute, standing as route_standing};
pub use leaving::leaving;
pub use referrer::{Reference, references};
pub use workload::Workload;

use crate::standing::Standing;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use sluice_api::{Flaw, ScaledObject};
use std::sync::Arc;

/// The add-on's finalizer, which objects that it has seen carry. Nobody but us takes it off once the add-on is gone.
pub const ADD_ON_FINALIZER: &str = "httpscaledobject.http.keda.sh";

/// The scaler as KEDA is to call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaler {
    /// Its Service.
    pub service: String,
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's port.
    pub port: u16,
    /// The ClusterTriggerAuthentication for TLS.
    pub authentication: Option<String>,
}

/// The ScaledObjects of an object's namespace.
#[derive(Clone, Debug)]
pub enum ScaledObjects {
    /// They have been read.
    Known(Vec<Arc<ScaledObject>>),
    /// They cannot be read, for this reason.
    Unreadable(String),
}

/// One write. Each names what it is a change of, so that it fails if that is not what is there.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// There is none of that name: make it.
    Create(Value),
    /// Ours is not as it has to be. With [`Value`]s for server-side apply.
    Apply {
        /// How it has to be.
        object: Value,
        /// Whoever wrote its fields before us, the add-on, hands them to us: the `managedFields` for that.
        inherit: Option<Value>,
    },
    /// Ours is not wanted any more.
    Delete {
        /// Its uid.
        uid: Option<String>,
        /// Its version.
        version: Option<String>,
        /// What people are told of it.
        why: &'static str,
    },
    /// Ours is to survive its owner: the owner references that stay.
    Disown {
        /// `metadata.ownerReferences`.
        owners: Value,
        /// Its version.
        version: Option<String>,
    },
    /// The object itself is being deleted, and waits only for the add-on: the finalizers that stay.
    LetGo {
        /// `metadata.finalizers`.
        finalizers: Vec<String>,
        /// The object's version.
        version: Option<String>,
    },
}

/// What is to be done about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to write, if anything; then it is to be planned anew.
    pub write: Option<Write>,
    /// What the object's status is to say.
    pub standing: Standing,
}

// === impl Scaler ===

impl Scaler {
    /// What a trigger's `scalerAddress` has to be.
    pub fn address(&self) -> String {
        format!("{}.{}:{}", self.service, self.namespace, self.port)
    }

    /// Whether a trigger's address leads to it, in any of the forms that a Service's name has.
    pub fn is_at(&self, address: &str) -> bool {
        let Some((host, port)) = address.rsplit_once(':') else { return false };
        let service = format!("{}.{}", self.service, self.namespace);
        let rest = host.strip_prefix(service.as_str());
        let is_host = rest.is_some_and(|rest| {
            rest.is_empty() || rest == "." || rest == ".svc" || rest.starts_with(".svc.")
        });
        is_host && port.parse() == Ok(self.port)
    }
}

/// Whether the annotation is there with the value that the add-on wants.
fn is_annotated(metadata: &ObjectMeta, annotation: &str) -> bool {
    let value = metadata.annotations.as_ref().and_then(|annotations| annotations.get(annotation));
    value.is_some_and(|value| value == "true")
}

/// All flaws as one text.
fn said(flaws: &[Flaw]) -> String {
    let flaws: Vec<String> = flaws.iter().map(|flaw| format!("{} {flaw}", flaw.field())).collect();
    flaws.join("; ")
}
