//! ScaledObjects that users have written, about an object of ours.

use super::{
    Scaler,
    desired::{HTTP_SCALED_OBJECT, INTERCEPTOR_ROUTE, SCALER_ADDRESS},
    paused::{Pause, pause},
};
use crate::standing::{Finding, SCALED_OBJECT_READY};
use sluice_api::{
    HttpScaledObject, ScaledObject,
    scaled_object::{EXTERNAL_PUSH, Trigger},
};
use sluice_core::route::Kind;
use std::sync::Arc;

/// An object that a trigger names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its kind.
    pub kind: Kind,
    /// Its name, in the ScaledObject's namespace.
    pub name: String,
}

/// All objects that a ScaledObject's triggers name.
pub fn references(scaled_object: &ScaledObject) -> impl Iterator<Item = Reference> + '_ {
    scaled_object.spec.triggers.iter().flat_map(|trigger| {
        let named = |kind| trigger_names(trigger, kind).map(|name| Reference { kind, name: name.to_owned() });
        [named(Kind::HttpScaledObject), named(Kind::InterceptorRoute)].into_iter().flatten()
    })
}

/// What is to be said of an object whose ScaledObject the user writes himself, by those of its namespace.
pub(super) fn finding(kind: Kind, name: &str, all: &[Arc<ScaledObject>], scaler: &Scaler) -> Finding {
    let mut found = all.iter().flat_map(|scaled_object| {
        let triggers = scaled_object.spec.triggers.iter();
        triggers.map(move |trigger| (scaled_object, trigger))
    });
    let mut findings: Vec<Finding> = Vec::new();
    let key = key(kind);
    for (scaled_object, trigger) in found.by_ref().filter(|(_, it)| trigger_names(it, kind) == Some(name)) {
        let by = scaled_object.metadata.name.as_deref().unwrap_or_default();
        let address = trigger.metadata.get(SCALER_ADDRESS).map_or("", String::as_str);
        findings.push(if trigger.type_ != EXTERNAL_PUSH {
            Finding::no(
                SCALED_OBJECT_READY,
                "WrongTriggerType",
                format!(
                    "the trigger of ScaledObject {by} that names this object is of type {:?}, which does not wake \
                     the app when a request comes; make it {EXTERNAL_PUSH}",
                    trigger.type_
                ),
            )
        } else if !scaler.is_at(address) {
            Finding::no(
                SCALED_OBJECT_READY,
                "OtherScaler",
                format!(
                    "ScaledObject {by} asks a scaler at {address:?}, which does not count this object's requests; \
                     set {SCALER_ADDRESS} of its trigger to {}",
                    scaler.address()
                ),
            )
        } else {
            keda(scaled_object, None)
        });
    }
    let well = findings.iter().position(|it| it.truth == crate::standing::Truth::True);
    match well {
        Some(well) => findings.swap_remove(well),
        None if !findings.is_empty() => findings.swap_remove(0),
        None => Finding::no(
            SCALED_OBJECT_READY,
            "ScaledObjectNotFound",
            format!(
                "no ScaledObject of this namespace names this object, so nothing scales the app; create one with a \
                 trigger of type {EXTERNAL_PUSH} whose metadata has {SCALER_ADDRESS}: {} and {key}: {name}",
                scaler.address()
            ),
        ),
    }
}

/// What KEDA says of a ScaledObject. `source` is the HTTPScaledObject that it was made for.
pub(super) fn keda(scaled_object: &ScaledObject, source: Option<&HttpScaledObject>) -> Finding {
    let name = scaled_object.metadata.name.as_deref().unwrap_or_default();
    let conditions = scaled_object.status.as_ref().map(|status| status.conditions.as_slice());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    let pause = pause(scaled_object, source);
    match (ready.map(|ready| (ready.status.as_str(), ready)), pause) {
        (Some(("True", _)), Pause::None) => {
            let message = format!("KEDA scales the app by ScaledObject {name}");
            Finding::yes(SCALED_OBJECT_READY, "Ready", message)
        }
        (Some(("True", _)), Pause::ScaleIn) => {
            let message =
                format!("KEDA scales the app by ScaledObject {name}, only up: scaling in is paused");
            Finding::yes(SCALED_OBJECT_READY, "Ready", message)
        }
        // What is wrong besides comes first: it stays when the pause ends.
        (Some(("False", ready)), _) => {
            let words =
                ready.message.as_deref().filter(|message| !message.is_empty()).unwrap_or("nothing more");
            Finding::no(
                SCALED_OBJECT_READY,
                "KedaNotReady",
                format!(
                    "KEDA cannot scale by ScaledObject {name}; it says: {words}. `kubectl describe scaledobject \
                     {name}` tells more"
                ),
            )
        }
        (_, Pause::Stops(finding)) => finding,
        _ => Finding::pending(
            SCALED_OBJECT_READY,
            "KedaPending",
            format!(
                "KEDA has not said yet whether it can scale by ScaledObject {name}; if that stays so, see \
                     whether KEDA's operator runs"
            ),
        ),
    }
}

fn trigger_names(trigger: &Trigger, kind: Kind) -> Option<&str> {
    trigger.metadata.get(key(kind)).map(String::as_str).filter(|name| !name.is_empty())
}

fn key(kind: Kind) -> &'static str {
    match kind {
        Kind::HttpScaledObject => HTTP_SCALED_OBJECT,
        Kind::InterceptorRoute => INTERCEPTOR_ROUTE,
    }
}
