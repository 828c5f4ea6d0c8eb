//! The EnvoyFilters that the operator owns in the gateway's namespace: what is wanted, and what to do about what is
//! there. No I/O; `control::envoy_filters` makes the calls.
//!
//! ```text
//!  of that name ─┬─ none ──────────▶ make it
//!                ├─ ours ──────────▶ keep it exactly as it has to be
//!                └─ not ours ──────▶ say so, leave it alone
//!  ours, and no longer wanted ─────▶ delete it
//! ```
//!
//! Ours is what has our label, or what we have applied: taking the label off is a change like any other, and
//! putting it on hands an EnvoyFilter over. What is deleted has to be both, and to be of the part that does not want
//! it any more: a copy that somebody made of one of ours has our label, too.

#[cfg(test)]
mod tests;
mod wants;

pub use wants::{Outcome, Part, Wanted, Wants};

use crate::FIELD_MANAGER;
use kube::{CustomResource, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The label that says who manages an object: [`FIELD_MANAGER`] for ours.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label that says which part of the operator wants it: a [`Part`].
pub const PART: &str = "sluice.dev/part";

/// A change of istiod's configuration for gateways. Its spec is taken as it is.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "networking.istio.io",
    version = "v1alpha3",
    kind = "EnvoyFilter",
    plural = "envoyfilters",
    namespaced,
    schema = "disabled",
    derive = "PartialEq",
    doc = "A change of istiod's configuration for gateways."
)]
pub struct EnvoyFilterSpec {
    /// Its fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// What to do about the EnvoyFilter of a wanted one's name.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing: it is as it has to be, or it is just going.
    Keep,
    /// There is none: make it, of this object for server-side apply, without force.
    Create(Value),
    /// Ours is not as it has to be.
    Apply {
        /// How it has to be, for server-side apply.
        object: Value,
        /// It has fields that nobody wants, which server-side apply leaves alone: first this merge patch.
        purge: Option<Value>,
    },
    /// It is somebody else's.
    Foreign,
}

/// What to do, given what is there of its name.
pub fn step(there: Option<&EnvoyFilter>, namespace: &str, part: Part, wanted: &Wanted) -> Step {
    let Some(there) = there else { return Step::Create(wanted.object(namespace, part, None)) };
    if !is_ours(there) {
        return Step::Foreign;
    }
    if there.metadata.deletion_timestamp.is_some() {
        return Step::Keep;
    }
    let labels = wanted.labels(part);
    let is_labelled =
        labels.iter().all(|(key, value)| there.labels().get(*key).is_some_and(|it| it == value));
    let annotations = &wanted.annotations;
    let is_annotated = annotations.iter().all(|(key, value)| there.annotations().get(key) == Some(value));
    if is_labelled && is_annotated && there.spec.fields == wanted.spec {
        return Step::Keep;
    }
    let purge = surplus(&there.spec.fields, &wanted.spec).then(|| {
        json!({
            "metadata": {"uid": there.metadata.uid, "resourceVersion": there.metadata.resource_version},
            "spec": replacement(&there.spec.fields, &wanted.spec),
        })
    });
    Step::Apply { object: wanted.object(namespace, part, there.metadata.uid.as_deref()), purge }
}

/// The part whose it is, if it may be deleted when that part does not want it any more.
pub fn deletable(there: &EnvoyFilter) -> Option<Part> {
    if !(is_labelled(there) && is_applied(there)) || there.metadata.deletion_timestamp.is_some() {
        return None;
    }
    there.labels().get(PART).and_then(|name| Part::of(name))
}

fn is_ours(there: &EnvoyFilter) -> bool {
    is_labelled(there) || is_applied(there)
}

fn is_labelled(there: &EnvoyFilter) -> bool {
    there.labels().get(MANAGED_BY).is_some_and(|manager| manager == FIELD_MANAGER)
}

fn is_applied(there: &EnvoyFilter) -> bool {
    there.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
    })
}

/// Whether there are fields that are not wanted. Lists are owned whole, hence put right by applying.
fn surplus(there: &Map<String, Value>, wanted: &Map<String, Value>) -> bool {
    there.iter().any(|(field, value)| match (value, wanted.get(field)) {
        (Value::Object(value), Some(Value::Object(wanted))) => surplus(value, wanted),
        (_, wanted) => wanted.is_none(),
    })
}

/// A merge patch that makes the wanted fields of those that are there, and no others.
fn replacement(there: &Map<String, Value>, wanted: &Map<String, Value>) -> Value {
    let mut patch = wanted.clone();
    for (field, value) in there {
        let change = match (value, wanted.get(field)) {
            (Value::Object(value), Some(Value::Object(wanted))) => replacement(value, wanted),
            (_, None) => Value::Null,
            (_, Some(_)) => continue,
        };
        patch.insert(field.clone(), change);
    }
    Value::Object(patch)
}
