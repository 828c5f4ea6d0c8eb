//! Which fields of an object are ours, and whether they are as they have to be.
//!
//! Server-side apply removes a field that its manager has applied before and does not any more. Whether that is to
//! be done can be told from `managedFields` alone, so nothing is written (and nobody asked) when all is as it should.

use crate::FIELD_MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::{Map, Value};

const APPLY: &str = "Apply";
const UPDATE: &str = "Update";

/// Whether the operator has applied it.
pub(super) fn is_applied_by_us(metadata: &ObjectMeta) -> bool {
    entries(metadata).any(is_ours)
}

/// Whether `actual`, whose metadata is `metadata`, lacks something of `desired`, or has something that we have put
/// there and that is not in `desired`.
pub(super) fn differ(metadata: &ObjectMeta, actual: &Value, desired: &Value) -> bool {
    if !contains(actual, desired) {
        return true;
    }
    match entries(metadata).find(|entry| is_ours(entry)).and_then(|entry| entry.fields_v1.as_ref()) {
        Some(fields) => {
            let fields = &fields.0;
            ["labels", "annotations"].iter().any(|part| {
                let part_of = |value: &Value| value.get("metadata").and_then(|it| it.get(part)).cloned();
                let fields = fields.get("f:metadata").and_then(|it| it.get(format!("f:{part}")));
                is_left_over(fields, part_of(desired).as_ref())
            }) || is_left_over(fields.get("f:spec"), desired.get("spec"))
        }
        None => true,
    }
}

/// `managedFields` as they are when whoever wrote the spec hands it to us, so that a field of his that is not
/// wanted any more goes. `None` if there is nothing to hand over: we have applied it before, or nobody else wrote it.
pub(super) fn inherited(metadata: &ObjectMeta) -> Option<Value> {
    if is_applied_by_us(metadata) {
        return None;
    }
    let is_testator = |entry: &ManagedFieldsEntry| {
        entry.operation.as_deref() == Some(UPDATE)
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:triggers").is_some())
    };
    let first = entries(metadata).position(is_testator)?;
    let entries = entries(metadata).enumerate().map(|(number, entry)| {
        let mut entry = entry.clone();
        // One entry of a manager and an operation: further ones keep what they have.
        if number == first {
            entry.manager = Some(FIELD_MANAGER.to_owned());
            entry.operation = Some(APPLY.to_owned());
        }
        entry
    });
    serde_json::to_value(entries.collect::<Vec<_>>()).ok()
}

fn entries(metadata: &ObjectMeta) -> impl Iterator<Item = &ManagedFieldsEntry> {
    metadata.managed_fields.iter().flatten()
}

fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(FIELD_MANAGER)
        && entry.operation.as_deref() == Some(APPLY)
        && entry.subresource.as_deref().unwrap_or_default().is_empty()
}

/// Whether everything in `part` is in `whole`. Lists are values, but for lists of objects that have a `uid`.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) if part.iter().any(|it| it.get("uid").is_some()) => {
            part.iter().all(|part| whole.contains(part))
        }
        (whole, part) => whole == part,
    }
}

/// Whether a field that is owned (`FieldsV1`) is not in `desired`.
fn is_left_over(owned: Option<&Value>, desired: Option<&Value>) -> bool {
    let empty = Map::new();
    let Some(owned) = owned.and_then(Value::as_object) else { return false };
    let desired = match desired {
        Some(Value::Object(desired)) => desired,
        // A value, or a list as a whole: it is there, and `contains` has compared it.
        Some(_) => return false,
        None => &empty,
    };
    owned.iter().any(|(key, owned)| {
        // Other prefixes are of list items; "." is the map itself.
        let Some(field) = key.strip_prefix("f:") else { return false };
        match desired.get(field) {
            None => true,
            desired => is_left_over(Some(owned), desired),
        }
    })
}
