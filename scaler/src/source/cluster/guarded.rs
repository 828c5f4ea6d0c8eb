//! An object as the API server tells it, read so that a bad one harms nobody else.

use kube::{Resource, api::ObjectMeta};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;
use std::borrow::Cow;

/// An object, or what is wrong with it, under its name in either case: a list with one object that does not read
/// is still a list of all others.
///
/// A resource itself, and the same one: what kube does with a kind, it does with its guarded objects.
#[derive(Clone, Debug)]
pub(super) struct Guarded<K> {
    /// Its namespace, name and version, and nothing else.
    meta: ObjectMeta,
    /// The object.
    object: Result<K, Unreadable>,
}

/// Why an object does not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// The field's path; empty where it is not one field's.
    pub(super) field: String,
    /// What is wrong with it.
    pub(super) error: String,
}

// === impl Guarded ===

impl<K> Guarded<K> {
    /// `metadata.namespace`; empty where there is none.
    pub(super) fn namespace(&self) -> &str {
        self.meta.namespace.as_deref().unwrap_or_default()
    }

    /// `metadata.name`; empty where there is none.
    pub(super) fn name(&self) -> &str {
        self.meta.name.as_deref().unwrap_or_default()
    }

    /// `metadata.resourceVersion`; empty where there is none.
    pub(super) fn version(&self) -> &str {
        self.meta.resource_version.as_deref().unwrap_or_default()
    }

    /// The object.
    pub(super) fn into_object(self) -> Result<K, Unreadable> {
        self.object
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Guarded<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let text = |field: &str| {
            let text = value.get("metadata").and_then(|meta| meta.get(field)).and_then(Value::as_str);
            text.map(str::to_owned)
        };
        let meta = ObjectMeta {
            namespace: text("namespace"),
            name: text("name"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        trim(&mut value);
        let object = serde_path_to_error::deserialize(value).map_err(|error| {
            let field = error.path().to_string();
            Unreadable {
                field: if field == "." { String::new() } else { field },
                error: error.inner().to_string(),
            }
        });
        Ok(Self { meta, object })
    }
}

/// Drops what nobody here reads: it is half of most objects, and an object should not be lost for what
/// somebody else has written into its status.
fn trim(value: &mut Value) {
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use kube::core::ObjectList;
    use serde_json::json;
    use sluice_api::HttpScaledObject;

    fn read<K: DeserializeOwned>(value: &Value) -> Guarded<K> {
        // As the client does: from text.
        serde_json::from_str(&value.to_string()).unwrap()
    }

    #[test]
    fn what_does_not_read_keeps_its_name_and_names_its_field() {
        let guarded: Guarded<HttpScaledObject> = read(&json!({
            "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject",
            "metadata": {"name": "a", "namespace": "n", "resourceVersion": "7"},
            "spec": {"scaleTargetRef": {"service": "a", "port": "http"}},
        }));
        assert_eq!((guarded.namespace(), guarded.name(), guarded.version()), ("n", "a", "7"));
        let unreadable = guarded.object.unwrap_err();
        assert_eq!(unreadable.field, "spec.scaleTargetRef.port");
        assert!(unreadable.error.contains("invalid type"), "{}", unreadable.error);
    }

    #[test]
    fn what_is_not_even_an_object_is_unreadable_and_no_error() {
        for value in [json!(null), json!("text"), json!({}), json!({"metadata": 3}), json!([1])] {
            let guarded: Guarded<HttpScaledObject> = read(&value);
            assert!(guarded.object.is_err(), "{value}");
            assert_eq!(guarded.name(), "");
        }
    }

    #[test]
    fn what_nobody_reads_is_dropped_and_cannot_be_wrong() {
        let guarded: Guarded<Service> = read(&json!({
            "metadata": {
                "name": "a", "labels": {"a": "b"}, "managedFields": "nonsense",
            },
            "spec": {"ports": [{"port": 80}]},
            "status": {"loadBalancer": "nonsense"},
        }));
        let service = guarded.object.unwrap();
        assert_eq!(service.metadata.managed_fields, None);
        assert_eq!(service.status, None);
        assert_eq!(service.metadata.labels.unwrap()["a"], "b");
    }

    #[test]
    fn a_page_with_a_bad_object_is_a_page_of_the_others() {
        let page = json!({
            "kind": "ServiceList", "apiVersion": "v1",
            "metadata": {"resourceVersion": "9", "continue": "token", "remainingItemCount": 3},
            "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}, "spec": {"ports": 1}}],
        });
        let page: ObjectList<Guarded<Service>> = serde_json::from_str(&page.to_string()).unwrap();
        let read: Vec<bool> = page.items.iter().map(|item| item.object.is_ok()).collect();
        assert_eq!(read, [true, false]);
    }

    #[test]
    fn a_guarded_object_is_asked_for_as_the_object_itself() {
        assert_eq!(
            Guarded::<HttpScaledObject>::url_path(&(), Some("n")),
            HttpScaledObject::url_path(&(), Some("n"))
        );
        assert_eq!(Guarded::<Service>::url_path(&(), None), "/api/v1/services");
    }
}
