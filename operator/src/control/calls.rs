//! The writes that a plan asks for.

use super::{Context, Failure, Guarded, failure, kind, limit};
use crate::{
    FIELD_MANAGER,
    plan::{Workload, Write},
};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
    core::{ApiResource, GroupVersionKind},
    runtime::events::EventType,
};
use serde_json::json;
use sluice_api::{HttpScaledObject, ScaledObject};
use std::time::Instant;

impl Context {
    /// Carries out a write; the ScaledObject of that name as it is then.
    pub(super) async fn write(
        &self,
        object: &Guarded<HttpScaledObject>,
        namespace: &str,
        name: &str,
        write: Write,
    ) -> Result<Option<ScaledObject>, Failure> {
        let objects: Api<Guarded<ScaledObject>> = Api::namespaced(self.client.clone(), namespace);
        let merge = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let outcome = match write {
            Write::Create(desired) => {
                // What is known may be old, and apply would merge into whatever there is: without force, and only
                // if there is nothing.
                let what = "reading the ScaledObject";
                let there = limit::answer(objects.get_opt(name)).await;
                let there = there.map_err(|error| Failure::of(what, error))?;
                if let Some(there) = there {
                    return read(there).map(Some);
                }
                let permit = self.may_write()?;
                let apply = PatchParams::apply(FIELD_MANAGER);
                let made = permit.call(objects.patch(name, &apply, &Patch::Apply(&desired))).await;
                let made = made.map_err(|error| failure::of_creation("creating the ScaledObject", error))?;
                Outcome { now: Some(read(made)?), verb: "create", told: ("Created", "created") }
            }
            Write::Apply { object: desired, inherit } => {
                let permit = self.may_write()?;
                let what = "applying the ScaledObject";
                if let Some(fields) = inherit {
                    let patch =
                        json!({"metadata": {"uid": desired["metadata"]["uid"], "managedFields": fields}});
                    let inherited = permit.call(objects.patch(name, &merge, &Patch::Merge(&patch))).await;
                    inherited.map_err(|error| Failure::of(what, error))?;
                }
                // It is ours: whoever has set a field that follows from the HTTPScaledObject has to set it there.
                let apply = PatchParams::apply(FIELD_MANAGER).force();
                let applied = permit.call(objects.patch(name, &apply, &Patch::Apply(&desired))).await;
                let applied = applied.map_err(|error| Failure::of(what, error))?;
                Outcome { now: Some(read(applied)?), verb: "apply", told: ("Updated", "brought up to date") }
            }
            Write::Delete { uid, version, why } => {
                let permit = self.may_write()?;
                let preconditions = Preconditions { uid, resource_version: version };
                let parameters =
                    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
                let deleted = permit.call(objects.delete(name, &parameters)).await;
                let deleted = deleted.map_err(|error| Failure::of("deleting the ScaledObject", error))?;
                // KEDA's finalizer keeps it for a moment.
                let now = deleted.left().map(read).transpose()?;
                let now = now.filter(|it| it.metadata.deletion_timestamp.is_some());
                Outcome { now, verb: "delete", told: ("Deleted", why) }
            }
            Write::Disown { owners, version } => {
                let permit = self.may_write()?;
                let patch = json!({"metadata": {"resourceVersion": version, "ownerReferences": owners}});
                let free = permit.call(objects.patch(name, &merge, &Patch::Merge(&patch))).await;
                let free = free.map_err(|error| Failure::of("orphaning the ScaledObject", error))?;
                let told = ("Orphaned", "set free, as the annotation asks: it survives this object");
                Outcome { now: Some(read(free)?), verb: "disown", told }
            }
            // Not of the ScaledObject.
            Write::LetGo { .. } => return Ok(None),
        };
        self.metrics.wrote("ScaledObject", outcome.verb);
        self.pace().wrote(super::key(object), Instant::now());
        let (reason, words) = outcome.told;
        tracing::info!(namespace, name, "ScaledObject {words}");
        self.tell(object, EventType::Normal, reason, "Reconcile", format!("ScaledObject {name} {words}"))
            .await;
        Ok(outcome.now)
    }

    /// Takes the add-on's finalizer off an object.
    pub(super) async fn let_go(
        &self,
        namespace: &str,
        name: &str,
        finalizers: &[String],
        version: Option<&str>,
    ) -> Result<(), Failure> {
        let permit = self.may_write()?;
        let objects: Api<Guarded<HttpScaledObject>> = Api::namespaced(self.client.clone(), namespace);
        let merge = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
        match permit.call(objects.patch(name, &merge, &Patch::Merge(&patch))).await {
            Ok(_) => self.metrics.wrote(kind::<HttpScaledObject>(), "finalize"),
            // Gone, or somebody else's turn has come: its next event tells.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(Failure::of("taking off the add-on's finalizer", error)),
        }
        Ok(())
    }

    /// Whether a workload is not there. Only for kinds that the operator may read: for others nobody knows.
    pub(super) async fn is_missing(&self, namespace: &str, workload: &Workload) -> bool {
        if workload.api_version != "apps/v1" || !["Deployment", "StatefulSet"].contains(&&*workload.kind) {
            return false;
        }
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", &workload.kind));
        let objects: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        matches!(limit::answer(objects.get_metadata_opt(&workload.name)).await, Ok(None))
    }
}

/// What came of a write.
struct Outcome {
    now: Option<ScaledObject>,
    verb: &'static str,
    /// The Event's reason, and in words.
    told: (&'static str, &'static str),
}

fn read(guarded: Guarded<ScaledObject>) -> Result<ScaledObject, Failure> {
    let what = "reading the ScaledObject";
    guarded.0.map_err(|invalid| Failure::Refused { what, why: invalid.error })
}
