//! Where an object's requests go: whether that is there.

use crate::standing::{Finding, RESOLVED_REFS};
use k8s_openapi::api::core::v1::Service;
use sluice_api::spec::{Port, Target};

/// What is to be said of the target. `service` is the one of its name, if there is one.
pub(super) fn finding(namespace: &str, target: &Target, service: Option<&Service>) -> Finding {
    let Some(service) = service else {
        return Finding::no(
            RESOLVED_REFS,
            "ServiceNotFound",
            format!("there is no Service {namespace}/{}; create it or correct the name", target.service),
        );
    };
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let is_there = ports.iter().any(|port| match &target.port {
        Port::Number(number) => port.port == i32::from(*number),
        Port::Name(name) => port.name.as_deref() == Some(name),
    });
    if is_there {
        let message = format!("requests go to Service {namespace}/{}, port {}", target.service, text(target));
        return Finding::yes(RESOLVED_REFS, "Resolved", message);
    }
    let names: Vec<String> = ports
        .iter()
        .map(|port| match &port.name {
            Some(name) => format!("{} ({name})", port.port),
            None => port.port.to_string(),
        })
        .collect();
    let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Finding::no(
        RESOLVED_REFS,
        "PortNotFound",
        format!(
            "the Service {namespace}/{} has no port {} (it has {has}); add it to the Service, or correct this object",
            target.service,
            text(target)
        ),
    )
}

/// The port as the user names it.
pub(super) fn text(target: &Target) -> String {
    match &target.port {
        Port::Number(number) => number.to_string(),
        Port::Name(name) => name.clone(),
    }
}
