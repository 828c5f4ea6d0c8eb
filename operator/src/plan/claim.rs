//! Who may scale a workload that several want to scale: one of them alone.
//!
//! Two ScaledObjects for one workload undo each other's work: KEDA puts the app to sleep for the one that is idle, under
//! the requests of the other. So:
//!
//! - Whoever has a ScaledObject for the workload keeps it. Neither a new object nor an edit of another one takes an app
//!   away from what scales it.
//! - Where nobody has one, the oldest HTTPScaledObject gets it; of one second, the one whose name comes first.
//! - Where two HTTPScaledObjects have one each (each was made before the other was seen, or both before this operator
//!   came), the younger's goes. Before it goes it is told not to restore a number of replicas: KEDA would, and that
//!   number is of the time when it was made, zero as a rule.
//! - A ScaledObject that a user has written is his to take away, whoever came first.

use super::{Workload, is_annotated};
use crate::standing::{Finding, SCALED_OBJECT_READY};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::OwnerReference, jiff::Timestamp};
use sluice_api::{
    HttpScaledObject, ORPHAN_SCALED_OBJECT, SKIP_SCALED_OBJECT_CREATION, ScaledObject, spec::Check,
};
use std::{fmt, sync::Arc};

/// An HTTPScaledObject for which a workload is to be scaled. The smaller one goes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    created: Option<Timestamp>,
    name: String,
    uid: Option<String>,
}

/// Looks up who claims the workload of an object, in its namespace: by an index, and only where it matters, since each of
/// those found has to be checked.
#[derive(Clone, Copy)]
pub struct Claims<'a>(pub &'a dyn Fn(&Workload) -> Vec<Claim>);

/// The workload that an object has scaled; `None` where it makes no ScaledObject.
pub fn claimed(object: &HttpScaledObject) -> Option<Workload> {
    let is_out = object.metadata.deletion_timestamp.is_some()
        || is_annotated(&object.metadata, ORPHAN_SCALED_OBJECT)
        || is_annotated(&object.metadata, SKIP_SCALED_OBJECT_CREATION);
    let workload = Workload::of(&object.spec.scale_target_ref);
    (!is_out && !workload.name.is_empty() && object.check().0.is_some()).then_some(workload)
}

/// Somebody else is to scale the workload, and no ScaledObject of this object may begin to: what to say.
pub(super) fn taken(
    object: &HttpScaledObject,
    workload: &Workload,
    rival: Option<&ScaledObject>,
    claims: Claims<'_>,
) -> Option<Finding> {
    let so = ", so this object gets none";
    if let Some(rival) = rival {
        return Some(conflict(rival, workload, so));
    }
    let own = Claim::by(object);
    let elder = claims.0(workload).into_iter().filter(|it| *it < own).min()?;
    Some(finding(&format!("HTTPScaledObject {}, which is older,", elder.name), workload, so))
}

/// This object has a ScaledObject for the workload, and so has an older one: what to say. Ours is to go.
pub(super) fn superseded(
    object: &HttpScaledObject,
    workload: &Workload,
    rivals: &[&Arc<ScaledObject>],
    claims: Claims<'_>,
) -> Option<Finding> {
    let staying = rivals.iter().filter(|it| it.metadata.deletion_timestamp.is_none());
    let mut owned = staying.filter_map(|it| Some((*it, owner(it)?))).peekable();
    owned.peek()?;
    let own = Claim::by(object);
    let elders: Vec<Claim> = claims.0(workload).into_iter().filter(|it| *it < own).collect();
    let (rival, _) = owned.find(|(_, owner)| elders.iter().any(|it| it.uid.as_ref() == Some(&owner.uid)))?;
    Some(conflict(rival, workload, ", so this object gets none"))
}

/// What to say of a ScaledObject that scales the workload, too; with what follows from it.
pub(super) fn conflict(rival: &ScaledObject, workload: &Workload, so: &str) -> Finding {
    let of = owner(rival).map_or(String::new(), |owner| format!(" (of {} {})", owner.kind, owner.name));
    let name = rival.metadata.name.as_deref().unwrap_or_default();
    finding(&format!("ScaledObject {name}{of}"), workload, so)
}

fn finding(who: &str, workload: &Workload, so: &str) -> Finding {
    Finding::no(
        SCALED_OBJECT_READY,
        "WorkloadTaken",
        format!(
            "{who} scales {workload} too, and two ScaledObjects undo each other's work{so}; delete one of the two \
             (one object can have the hosts and paths of both), or let them scale different workloads"
        ),
    )
}

fn owner(scaled_object: &ScaledObject) -> Option<&OwnerReference> {
    scaled_object.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

// === impl Claim ===

impl Claim {
    /// An object's claim on this workload, if it has one.
    pub fn of(object: &HttpScaledObject, workload: &Workload) -> Option<Self> {
        // Most are of another name, and what comes after costs more.
        let is_named = object.spec.scale_target_ref.name.as_ref() == Some(&workload.name);
        (is_named && claimed(object).is_some_and(|it| it.is(workload))).then(|| Self::by(object))
    }

    fn by(object: &HttpScaledObject) -> Self {
        let metadata = &object.metadata;
        Self {
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone(),
        }
    }
}

// === impl Claims ===

impl fmt::Debug for Claims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims")
    }
}
