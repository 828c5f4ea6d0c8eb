//! An HTTPScaledObject that is being deleted. Only its metadata counts: one that does not read is let go as well.

use super::{ADD_ON_FINALIZER, ScaledObjects, Write, is_annotated, owner};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sluice_api::{ORPHAN_SCALED_OBJECT, ScaledObject};

/// What is left to do about it: its ScaledObject goes with it, unless it is to be an orphan.
pub fn leaving(metadata: &ObjectMeta, scaled_objects: &ScaledObjects) -> Option<Write> {
    let of_name = match scaled_objects {
        ScaledObjects::Known(all) => all.iter().find(|it| it.metadata.name == metadata.name),
        ScaledObjects::Unreadable(_) => None,
    };
    let orphan = of_name.filter(|_| is_annotated(metadata, ORPHAN_SCALED_OBJECT));
    orphan.and_then(|it| disown(metadata, it)).or_else(|| let_go(metadata))
}

/// Sets a ScaledObject free, if it is the object's.
pub(super) fn disown(metadata: &ObjectMeta, scaled_object: &ScaledObject) -> Option<Write> {
    let owners = serde_json::json!(owner::without(scaled_object, metadata)?);
    Some(Write::Disown { owners, version: scaled_object.metadata.resource_version.clone() })
}

/// The add-on's finalizer is in the way of the deletion.
fn let_go(metadata: &ObjectMeta) -> Option<Write> {
    let all = metadata.finalizers.as_deref().unwrap_or_default();
    let finalizers: Vec<String> = all.iter().filter(|it| *it != ADD_ON_FINALIZER).cloned().collect();
    (finalizers.len() < all.len())
        .then(|| Write::LetGo { finalizers, version: metadata.resource_version.clone() })
}
