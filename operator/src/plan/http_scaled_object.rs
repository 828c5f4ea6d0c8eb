//! An HTTPScaledObject: its ScaledObject, and what to say.

use super::{
    Claims, Plan, ScaledObjects, Scaler, Workload, Write, claim, desired, fields,
    interceptor_route::{accepted, resolved, well},
    is_annotated, leaving,
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
    /// The Service that it names, if there is one; or why Services cannot be read.
    pub service: Result<Option<&'a Service>, &'a str>,
    /// Those of its namespace.
    pub scaled_objects: &'a ScaledObjects,
    /// HTTPScaledObjects of its namespace that have the same workload scaled.
    pub claims: Claims<'a>,
    /// Whether there is an InterceptorRoute of its name, which takes its requests.
    pub is_overridden: bool,
    /// Whether the scaler can answer KEDA; or why its EndpointSlices cannot be read.
    pub scaler_answers: Result<bool, &'a str>,
    /// Whether its workload was looked for and is not there.
    pub workload_missing: bool,
}

/// What to do about it, unless it is being deleted.
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
    Plan { write, standing }
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
        return (of_name.and_then(|it| leaving::disown(&object.metadata, it)), users_own());
    }
    if is_annotated(&object.metadata, SKIP_SCALED_OBJECT_CREATION) {
        let ours = of_name.filter(|it| owner::owns(object, it) && it.metadata.deletion_timestamp.is_none());
        return (ours.map(|it| delete(it, "deleted, as the annotation asks")), users_own());
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
    let mut desired = desired::scaled_object(object, &spec.scaling, scaler);
    let rivals: Vec<&Arc<ScaledObject>> = all
        .iter()
        .filter(|it| {
            it.metadata.name.as_deref() != Some(&name)
                && Workload::of_target(&it.spec.scale_target_ref).is(&workload)
        })
        .collect();
    let rival = rivals.first().map(|rival| rival.as_ref());
    let taken = || claim::taken(object, &workload, rival, observed.claims);
    let Some(of_name) = of_name else {
        return taken().map_or_else(|| create(observed, scaler, desired), |taken| (None, taken));
    };
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
    let scales = Workload::of_target(&of_name.spec.scale_target_ref);
    if !scales.is(&workload) {
        if let Some(mut taken) = taken() {
            taken.message.push_str(&format!(". Until then ScaledObject {name} scales {scales}, as before"));
            return (None, taken);
        }
    } else if let Some(finding) = claim::superseded(object, &workload, &rivals, observed.claims) {
        // As it goes, KEDA is not to set a number of replicas.
        desired["spec"]["advanced"]["restoreToOriginalReplicaCount"] = json!(false);
        let why = "deleted, since an older HTTPScaledObject has the workload scaled";
        return (Some(apply(of_name, desired).unwrap_or_else(|| delete(of_name, why))), finding);
    }
    let finding = match rival {
        Some(rival) => claim::conflict(rival, &workload, ""),
        None if observed.workload_missing => {
            let namespace = object.namespace().unwrap_or_default();
            let message = format!(
                "there is no {} {namespace}/{}; create it, or correct spec.scaleTargetRef",
                workload.kind, workload.name
            );
            Finding::no(SCALED_OBJECT_READY, "WorkloadNotFound", message)
        }
        None => referrer::keda(of_name, Some(object)),
    };
    (apply(of_name, desired), finding)
}

/// There is none of its name.
fn create(observed: Observed<'_>, scaler: &Scaler, desired: serde_json::Value) -> (Option<Write>, Finding) {
    let waits = format!(
        "KEDA is told of the app when the scaler can answer for it; endpoints of the Service {}/{}",
        scaler.namespace, scaler.service
    );
    match observed.scaler_answers {
        Ok(true) => {}
        Ok(false) => {
            let message = format!("{waits}: none is ready; see whether its Pods run");
            return (None, Finding::no(SCALED_OBJECT_READY, "ScalerNotReady", message));
        }
        Err(why) => {
            let message = format!(
                "{waits} cannot be read ({why}); give the operator the rights that its manifest names"
            );
            return (None, Finding::pending(SCALED_OBJECT_READY, "EndpointsUnreadable", message));
        }
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

/// Ours is to go.
fn delete(of_name: &ScaledObject, why: &'static str) -> Write {
    let metadata = &of_name.metadata;
    Write::Delete { uid: metadata.uid.clone(), version: metadata.resource_version.clone(), why }
}
