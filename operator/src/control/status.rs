//! Writing an object's status, and telling people what has changed.

use super::{Context, Failure, Guarded, kind, limit};
use crate::{
    FIELD_MANAGER,
    standing::{ACCEPTED, Finding, RESOLVED_REFS, SCALED_OBJECT_READY, Standing, Truth, Written},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, NamespaceResourceScope},
    runtime::events::{Event, EventType},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// What an object of ours has to be for its status to be written.
pub(super) trait Ours:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Ours for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

impl Context {
    /// Has the object's status say how it fares, unless it says so already.
    pub(super) async fn report<K: Ours>(
        &self,
        object: &Guarded<K>,
        written: Written<'_>,
        standing: &Standing,
    ) -> Result<(), Failure> {
        let Some(update) = standing.update(written, Timestamp::now()) else { return Ok(()) };
        let permit = self.may_write()?;
        let objects: Api<Guarded<K>> =
            Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        // With the version: what was read may be old, and the newer status must not be undone.
        let patch = json!({
            "metadata": {"resourceVersion": object.resource_version()},
            "status": update.status,
        });
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patched = permit
            .call(objects.patch_status(&object.name_any(), &parameters, &Patch::Merge(&patch)))
            .await
            .map_err(|error| Failure::of("writing the status", error))?;
        // Where nothing has changed there is no event to wait for.
        if let Some(before) =
            object.resource_version().filter(|it| patched.resource_version().as_ref() != Some(it))
        {
            self.pace().superseded(super::key(object), before);
        }
        self.metrics.wrote(kind::<K>(), "status");
        if let Some(news) = update.news {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            tracing::info!(
                kind = kind::<K>(),
                namespace,
                name,
                ready = news.truth.as_str(),
                reason = news.reason,
                message = news.message,
                "status"
            );
            let type_ = match news.truth {
                Truth::True => EventType::Normal,
                Truth::False => EventType::Warning,
                // What comes of it is told.
                Truth::Unknown => return Ok(()),
            };
            self.tell(object, type_, news.reason, "Reconcile", news.message).await;
        }
        Ok(())
    }

    /// Tells people of something. That this fails is no reason to do anything else.
    pub(super) async fn tell<K: Ours>(
        &self,
        object: &Guarded<K>,
        type_: EventType,
        reason: &str,
        action: &str,
        note: String,
    ) {
        /// What the API server takes.
        const MAX_NOTE: usize = 1024;
        let end = (0..=MAX_NOTE.min(note.len())).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: note.get(..end).map(str::to_owned),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = limit::answer(self.recorder.publish(&event, &object.object_ref(&()))).await {
            tracing::debug!(%error, reason, "an Event was not written");
        }
    }

    /// Says on an object that does not read that it does not, and goes on.
    pub(super) async fn report_unreadable<K: Ours>(&self, object: &Guarded<K>) -> Result<(), Failure> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        self.metrics.reconciled(kind::<K>(), "unreadable");
        // Read by itself, as whatever it is: what is known of it is not enough to name the field, and its status is
        // in there, too.
        let objects: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &namespace, &ApiResource::erase::<K>(&()));
        let raw = limit::answer(objects.get(&name)).await;
        let raw = raw.map_err(|error| Failure::of("reading an object", error))?;
        if raw.resource_version() != object.resource_version() {
            return Err(Failure::Outdated);
        }
        let value = serde_json::to_value(&raw).unwrap_or_default();
        let Err(error) = serde_path_to_error::deserialize::<_, K>(value) else {
            return Err(Failure::Outdated);
        };
        let error = format!("{}: {}", error.path(), error.inner());
        let status = raw.data.get("status");
        let field = |field: &str| status.and_then(|status| status.get(field));
        let conditions = field("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let conditions: Vec<Condition> =
            conditions.into_iter().filter_map(|it| serde_json::from_value(it).ok()).collect();
        let text = |name: &str| field(name).and_then(Value::as_str);
        let written = Written {
            generation: field("observedGeneration").and_then(Value::as_i64),
            conditions: &conditions,
            target_workload: text("targetWorkload"),
            target_service: text("targetService"),
        };
        self.report(object, written, &unreadable(object.meta().generation, written, &error)).await
    }
}

/// What is to be said of an object that does not read. What it said of its target stays.
fn unreadable(generation: Option<i64>, written: Written<'_>, error: &str) -> Standing {
    let waits = |type_| Finding::pending(type_, "Unreadable", "not known before the object can be read");
    let message = format!(
        "the object cannot be read: {error}. Correct that value, and install Sluice's CustomResourceDefinitions, \
         which refuse such values. Until then nothing of this version is in force"
    );
    Standing {
        generation,
        findings: vec![
            Finding::no(ACCEPTED, "Unreadable", message),
            waits(RESOLVED_REFS),
            waits(SCALED_OBJECT_READY),
        ],
        well: String::new(),
        target_workload: written.target_workload.map(str::to_owned),
        target_service: written.target_service.map(str::to_owned),
    }
}
