//! ScaledObjects that somebody has paused. KEDA calls them ready all the same.

use crate::standing::{Finding, SCALED_OBJECT_READY};
use kube::ResourceExt;
use sluice_api::{HttpScaledObject, ScaledObject};

/// Annotations with which KEDA wakes no app. With the first it does so whatever its value is: a number.
const STOPPING: [&str; 3] = [
    "autoscaling.keda.sh/paused-replicas",
    "autoscaling.keda.sh/paused",
    "autoscaling.keda.sh/paused-scale-out",
];
/// With this one an app wakes, and stays awake. That is what whoever sets it wants: nothing is wrong.
const SCALE_IN: &str = "autoscaling.keda.sh/paused-scale-in";

/// What a pause means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// There is none.
    None,
    /// The app does not go to sleep.
    ScaleIn,
    /// The app does not wake: what to say.
    Stops(Finding),
}

/// How a ScaledObject is paused, by KEDA's word. `source` is the HTTPScaledObject that its annotations are copied from.
pub(super) fn pause(scaled_object: &ScaledObject, source: Option<&HttpScaledObject>) -> Pause {
    let conditions = scaled_object.status.as_ref().map(|status| status.conditions.as_slice());
    let mut conditions = conditions.into_iter().flatten();
    if !conditions.any(|condition| condition.type_ == "Paused" && condition.status == "True") {
        return Pause::None;
    }
    let annotations = scaled_object.annotations();
    let is_on = |key: &str| annotations.get(key).is_some_and(|value| key == STOPPING[0] || !is_false(value));
    let name = scaled_object.name_any();
    let stopping: Vec<&str> = STOPPING.into_iter().filter(|key| is_on(key)).collect();
    if stopping.is_empty() {
        return if is_on(SCALE_IN) {
            Pause::ScaleIn
        } else {
            Pause::Stops(Finding::pending(
                SCALED_OBJECT_READY,
                "KedaPending",
                format!(
                    "KEDA says that ScaledObject {name} is paused, and no annotation of it says so any more; if that \
                     stays so, see whether KEDA's operator runs"
                ),
            ))
        };
    }
    let is_copied = |key: &&str| source.is_some_and(|source| source.annotations().contains_key(*key));
    let (copied, own): (Vec<&str>, Vec<&str>) = stopping.into_iter().partition(is_copied);
    let mut mends = Vec::new();
    if let (Some(source), false) = (source, copied.is_empty()) {
        let source = source.name_any();
        mends
            .push(format!("{} off HTTPScaledObject {source}, from which it is copied", copied.join(" and ")));
    }
    if !own.is_empty() {
        mends.push(format!("{} off ScaledObject {name}", own.join(" and ")));
    }
    Pause::Stops(Finding::no(
        SCALED_OBJECT_READY,
        "Paused",
        format!(
            "ScaledObject {name} is paused, so KEDA does not wake the app; take the annotation {}",
            mends.join(", and ")
        ),
    ))
}

/// As KEDA reads it: what is neither true nor false is true.
fn is_false(value: &str) -> bool {
    ["0", "f", "F", "false", "FALSE", "False"].contains(&value)
}
