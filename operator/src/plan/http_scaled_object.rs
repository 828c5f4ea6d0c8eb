//! An HTTPScaledObject: its ScaledObject, and what to say.

use super::{
    ADD_ON_FINALIZER, Plan, ScaledObjects, Scaler, Workload, Write, desired, fields,
    interceptor_route::{accepted, resolved, well},
    is_annotated,
    owner::{self, Whose},
    referrer, target,
};
use crate::standing::{ACCEPTED, Finding, SCALED_OBJECT_READY, Standing};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::json;
use sluice_api::{
    Flaw, HttpScaledObject, ORPHAN_SCALED_OBJECT, SKIP_SCALED_OBJECT_CREATION, ScaledObject, spec::Spec,
};
use sluice_core::route::Kind;
use std::sync::Arc;

/// What is known about an HTTPScaledObject.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// It.
    pub object: &'a HttpScaledObject,
    /// What it asks for, and what is wrong with it.
    pub checked: &'a (Option<Spec>, Vec<Flaw>),
    /// The Service that it names, if there is one.
    pub service: Option<&'a Service>,
    /// Those of its namespace.
    pub scaled_objects: &'a ScaledObjects,
    /// Whether there is an InterceptorRoute of its name, which takes its requests.
    pub is_overridden: bool,
    /// Whether the scaler can answer KEDA.
    pub scaler_answers: bool,
    /// Whether its workload was looked for and is not there.
    pub workload_missing: bool,
}

/// What to do about it.
pub fn plan(observed: Observed<'_>, scaler: &Scaler) -> Plan {
    let Observed { object, checked: (spec, flaws), service, scaled_objects, .. } = observed;
    let name = object.name_any();
    let namespace = object.namespace().unwrap_or_default();
    let (write, scaled) = match scaled_objects {
        ScaledObjects::Known(all) => {
            let of_name = all.iter().find(|it| it.metadata.name.as_deref() == Some(&name));
            scaled_object(observed, scaler, all, of_name.map(Arc::as_ref))
        }
        ScaledObjects::Unreadable(why) => (None, unreadable(why)),
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Plan { write: write.or_else(|| let_go(object)), standing: None };
    }
    let workload = Workload::of(&object.spec.scale_target_ref);
    let inert = object.spec.inert();
    let accepted = if observed.is_overridden {
        Finding::no(
            ACCEPTED,
            "Overridden",
            format!(
                "the InterceptorRoute {namespace}/{name} takes this object's requests; delete one of the two objects"
            ),
        )
    } else {
        accepted(spec.as_ref(), flaws, &inert)
    };
    let well = well(&scaled.message, &inert);
    let standing = Standing {
        generation: object.metadata.generation,
        findings: vec![accepted, resolved(&namespace, spec.as_ref(), service), scaled],
        well,
        target_workload: Some(workload.path()),
        target_service: spec
            .as_ref()
            .map(|spec| format!("{}:{}", spec.target.service, target::text(&spec.target))),
    };
    Plan { write, standing: Some(standing) }
}

/// What to say where ScaledObjects cannot be read.
pub(super) fn unreadable(why: &str) -> Finding {
    Finding::no(
        SCALED_OBJECT_READY,
        "KedaNotFound",
        format!(
            "ScaledObjects cannot be read ({why}); install KEDA, or give the operator the rights that its manifest names"
        ),
    )
}

/// What to do about the ScaledObject of its name, and what to say of it.
fn scaled_object(
    observed: Observed<'_>,
    scaler: &Scaler,
    all: &[Arc<ScaledObject>],
    of_name: Option<&ScaledObject>,
) -> (Option<Write>, Finding) {
    let object = observed.object;
    let name = object.name_any();
    let users_own = || referrer::finding(Kind::HttpScaledObject, &name, all, scaler);
    // The add-on looks at this one first, too.
    if is_annotated(&object.metadata, ORPHAN_SCALED_OBJECT) {
        let others = of_name.and_then(|it| Some((it, owner::without(it, object)?)));
        let write = others.map(|(it, others)| Write::Disown {
            owners: json!(others),
            version: it.metadata.resource_version.clone(),
        });
        return (write, users_own());
    }
    if object.metadata.deletion_timestamp.is_some() {
        return (None, users_own());
    }
    if is_annotated(&object.metadata, SKIP_SCALED_OBJECT_CREATION) {
        let ours = of_name.filter(|it| owner::owns(object, it) && it.metadata.deletion_timestamp.is_none());
        let write = ours.map(|it| Write::Delete {
            uid: it.metadata.uid.clone(),
            version: it.metadata.resource_version.clone(),
        });
        return (write, users_own());
    }
    let workload = Workload::of(&object.spec.scale_target_ref);
    if workload.name.is_empty() {
        let message = "spec.scaleTargetRef.name is empty; name the workload to scale".to_owned();
        return (None, Finding::no(SCALED_OBJECT_READY, "NoWorkload", message));
    }
    let Some(spec) = &observed.checked.0 else {
        let message = "the ScaledObject stays as it is until this object is valid";
        return (None, Finding::pending(SCALED_OBJECT_READY, "InvalidSpec", message));
    };
    let desired = desired::scaled_object(object, &spec.scaling, scaler);
    let rival = all.iter().find(|it| {
        it.metadata.name.as_deref() != Some(&name)
            && Workload::of_target(&it.spec.scale_target_ref).is(&workload)
    });
    let rival = rival.map(|rival| conflict(rival, &workload));
    let Some(of_name) = of_name else { return create(observed, scaler, desired, rival) };
    if of_name.metadata.deletion_timestamp.is_some() {
        let message = format!("the ScaledObject {name} of before is being deleted; a new one comes after it");
        return (None, Finding::pending(SCALED_OBJECT_READY, "Deleting", message));
    }
    match owner::whose(of_name, object) {
        Whose::Ours => {}
        Whose::Predecessors => {
            let message = format!(
                "the ScaledObject {name} belongs to an HTTPScaledObject of this name that is gone; a new one comes \
                 when Kubernetes has removed it"
            );
            return (None, Finding::pending(SCALED_OBJECT_READY, "Deleting", message));
        }
        Whose::Foreign(why) => {
            let message = format!(
                "there is a ScaledObject {name} already, and {why}; it is left alone. Delete or rename it, or set \
                 the annotation {SKIP_SCALED_OBJECT_CREATION} to \"true\" to keep it in the place of ours"
            );
            return (None, Finding::no(SCALED_OBJECT_READY, "NotOurs", message));
        }
    }
    let finding = match rival {
        Some(rival) => rival,
        None if observed.workload_missing => {
            let namespace = object.namespace().unwrap_or_default();
            let message = format!(
                "there is no {} {namespace}/{}; create it, or correct spec.scaleTargetRef",
                workload.kind, workload.name
            );
            Finding::no(SCALED_OBJECT_READY, "WorkloadNotFound", message)
        }
        None => referrer::keda(of_name),
    };
    (apply(of_name, desired), finding)
}

/// There is none of its name.
fn create(
    observed: Observed<'_>,
    scaler: &Scaler,
    desired: serde_json::Value,
    rival: Option<Finding>,
) -> (Option<Write>, Finding) {
    if let Some(rival) = rival {
        return (None, rival);
    }
    if !observed.scaler_answers {
        let message = format!(
            "KEDA is told of the app when the scaler can answer for it; no endpoint of the Service {}/{} is ready: \
             see whether its Pods run",
            scaler.namespace, scaler.service
        );
        return (None, Finding::no(SCALED_OBJECT_READY, "ScalerNotReady", message));
    }
    let message = format!("the ScaledObject {} is being created", observed.object.name_any());
    (Some(Write::Create(desired)), Finding::pending(SCALED_OBJECT_READY, "Creating", message))
}

/// Ours is there: whether it has to be written.
fn apply(of_name: &ScaledObject, mut desired: serde_json::Value) -> Option<Write> {
    let metadata = &of_name.metadata;
    let actual = serde_json::to_value(of_name).unwrap_or_default();
    if !fields::differ(metadata, &actual, &desired) {
        return None;
    }
    // With it, what is applied cannot be another object that has taken its place, nor a new one.
    desired["metadata"]["uid"] = json!(metadata.uid);
    Some(Write::Apply { object: desired, inherit: fields::inherited(metadata) })
}

fn conflict(rival: &ScaledObject, workload: &Workload) -> Finding {
    let owner = rival.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let of = owner.map_or(String::new(), |owner| format!(" (of {} {})", owner.kind, owner.name));
    let name = rival.metadata.name.as_deref().unwrap_or_default();
    Finding::no(
        SCALED_OBJECT_READY,
        "WorkloadTaken",
        format!(
            "ScaledObject {name}{of} scales {workload} too, and two of them undo each other's work; delete one of \
             the two, or let them scale different workloads"
        ),
    )
}

/// The add-on's finalizer is in the way of a deletion.
fn let_go(object: &HttpScaledObject) -> Option<Write> {
    let all = object.finalizers();
    let finalizers: Vec<String> = all.iter().filter(|it| *it != ADD_ON_FINALIZER).cloned().collect();
    (finalizers.len() < all.len())
        .then(|| Write::LetGo { finalizers, version: object.metadata.resource_version.clone() })
}
