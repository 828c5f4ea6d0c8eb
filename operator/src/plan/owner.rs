//! Whose a ScaledObject is. Nothing that is not ours is ever written.

use super::{Reference, fields, references};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sluice_api::{HttpScaledObject, ScaledObject};
use sluice_core::route::Kind;

/// Whose a ScaledObject is, from the point of view of the HTTPScaledObject of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This HTTPScaledObject's.
    Ours,
    /// An HTTPScaledObject's of the same name that is gone: it goes too, and makes place.
    Predecessors,
    /// Somebody else's, with who that is.
    Foreign(String),
}

/// Whose it is.
pub(super) fn whose(scaled_object: &ScaledObject, object: &HttpScaledObject) -> Whose {
    let owners = scaled_object.metadata.owner_references.as_deref().unwrap_or_default();
    if owners.iter().any(|owner| is_object(owner, &object.metadata)) {
        return Whose::Ours;
    }
    if let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) {
        let is_predecessor = owner.kind == "HTTPScaledObject"
            && owner.api_version.starts_with("http.keda.sh/")
            && Some(&owner.name) == object.metadata.name.as_ref();
        return if is_predecessor {
            Whose::Predecessors
        } else {
            Whose::Foreign(format!("it belongs to {} {}", owner.kind, owner.name))
        };
    }
    // One that we have written and that has no owner was orphaned: by the annotation, or by a deletion that leaves
    // dependents. It stays ours to keep, as long as it is still about this object.
    if fields::is_applied_by_us(&scaled_object.metadata) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let ours = Reference { kind: Kind::HttpScaledObject, name: name.to_owned() };
        return if references(scaled_object).any(|it| it == ours) {
            Whose::Ours
        } else {
            Whose::Foreign("its triggers have been changed to name something else".to_owned())
        };
    }
    Whose::Foreign("this operator has not made it".to_owned())
}

/// Its owner references without those to the object with this metadata; `None` if there are none.
pub(super) fn without(scaled_object: &ScaledObject, object: &ObjectMeta) -> Option<Vec<OwnerReference>> {
    let owners = scaled_object.metadata.owner_references.as_deref().unwrap_or_default();
    let others: Vec<OwnerReference> =
        owners.iter().filter(|owner| !is_object(owner, object)).cloned().collect();
    (others.len() < owners.len()).then_some(others)
}

/// Whether this object is among its owners.
pub(super) fn owns(object: &HttpScaledObject, scaled_object: &ScaledObject) -> bool {
    without(scaled_object, &object.metadata).is_some()
}

fn is_object(owner: &OwnerReference, object: &ObjectMeta) -> bool {
    object.uid.as_ref().is_some_and(|uid| *uid == owner.uid)
}
