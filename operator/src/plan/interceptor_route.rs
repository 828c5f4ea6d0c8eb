//! An InterceptorRoute: its ScaledObject is the user's own, so there is only something to say.

use super::{ScaledObjects, Scaler, http_scaled_object::unreadable, referrer, said, target};
use crate::standing::{ACCEPTED, COUNTED, Finding, RESOLVED_REFS, Standing};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use sluice_api::{Flaw, Inert, InterceptorRoute, spec::Spec};
use sluice_core::route::Kind;

/// What is known about an InterceptorRoute.
#[derive(Clone, Copy, Debug)]
pub struct ObservedRoute<'a> {
    /// It.
    pub object: &'a InterceptorRoute,
    /// What it asks for, and what is wrong with it.
    pub checked: &'a (Option<Spec>, Vec<Flaw>),
    /// The Service that it names, if there is one; or why Services cannot be read.
    pub service: Result<Option<&'a Service>, &'a str>,
    /// Those of its namespace.
    pub scaled_objects: &'a ScaledObjects,
}

/// How it fares.
pub fn standing(observed: ObservedRoute<'_>, scaler: &Scaler) -> Standing {
    let ObservedRoute { object, checked: (spec, flaws), service, scaled_objects } = observed;
    let name = object.name_any();
    let namespace = object.namespace().unwrap_or_default();
    let scaled = match scaled_objects {
        ScaledObjects::Known(all) => referrer::finding(Kind::InterceptorRoute, &name, all, scaler),
        ScaledObjects::Unreadable(why) => unreadable(why),
    };
    let inert = object.spec.inert();
    let well = well(&scaled.message, &inert);
    Standing {
        generation: object.metadata.generation,
        findings: vec![
            accepted(spec.as_ref(), flaws, &inert),
            resolved(&namespace, spec.as_ref(), service),
            scaled,
        ],
        well,
        target_workload: None,
        target_service: None,
    }
}

/// What an object says with which all is well.
pub(super) fn well(scaled: &str, inert: &[Inert]) -> String {
    let mut well = format!("{COUNTED}; {scaled}");
    if !inert.is_empty() {
        let fields: Vec<&str> = inert.iter().map(|it| it.field).collect();
        well.push_str("; without effect: ");
        well.push_str(&fields.join(", "));
    }
    well
}

/// What the check says. A field on which nothing acts is nothing wrong, but whoever sets it hears of it.
pub(super) fn accepted(spec: Option<&Spec>, flaws: &[Flaw], inert: &[Inert]) -> Finding {
    let without: Vec<String> = inert.iter().map(Inert::to_string).collect();
    let without = without.join(", ");
    if flaws.is_empty() {
        return match inert {
            [] => Finding::yes(ACCEPTED, "Valid", "all of its values can be used"),
            _ => {
                let message = format!("its values are valid, but Sluice does not act on {without}");
                Finding::yes(ACCEPTED, "PartlyInForce", message)
            }
        };
    }
    let mut message = said(flaws);
    if spec.is_none() {
        message.push_str(". Until then nothing of this version is in force");
    }
    if !inert.is_empty() {
        message.push_str(". Besides, Sluice does not act on ");
        message.push_str(&without);
    }
    Finding::no(ACCEPTED, "InvalidSpec", message)
}

/// Whether the target is there.
pub(super) fn resolved(
    namespace: &str,
    spec: Option<&Spec>,
    service: Result<Option<&Service>, &str>,
) -> Finding {
    match spec {
        Some(spec) => target::finding(namespace, &spec.target, service),
        None => Finding::pending(
            RESOLVED_REFS,
            "InvalidSpec",
            "the target cannot be looked for before it is valid",
        ),
    }
}
