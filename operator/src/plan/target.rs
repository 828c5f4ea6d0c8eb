//! Where an object's requests go: whether that is there.

use crate::standing::{Finding, RESOLVED_REFS};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use sluice_api::spec::{Port, Target};

/// What is to be said of the target. `service` is the one of its name, if there is one; or why Services cannot be read.
pub(super) fn finding(namespace: &str, target: &Target, service: Result<Option<&Service>, &str>) -> Finding {
    let service = match service {
        Ok(service) => service,
        Err(why) => {
            let message = format!(
                "whether there is a Service {namespace}/{} is not known: Services cannot be read ({why}); give the \
                 operator the rights that its manifest names",
                target.service
            );
            return Finding::pending(RESOLVED_REFS, "ServicesUnreadable", message);
        }
    };
    let Some(service) = service else {
        return Finding::no(
            RESOLVED_REFS,
            "ServiceNotFound",
            format!("there is no Service {namespace}/{}; create it or correct the name", target.service),
        );
    };
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    // Where a Service has a number twice, for HTTP/3, only the one of the two is a gateway's target.
    let tcp = |port: &&ServicePort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    let is_named = ports.iter().filter(tcp).any(|port| match &target.port {
        Port::Number(number) => port.port == i32::from(*number),
        Port::Name(name) => port.name.as_deref() == Some(name),
    });
    // What is outside needs no ports to be reached.
    let is_external = spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    if is_named || is_external && matches!(target.port, Port::Number(_)) {
        let message = format!("requests go to Service {namespace}/{}, port {}", target.service, text(target));
        return Finding::yes(RESOLVED_REFS, "Resolved", message);
    }
    let names: Vec<String> = ports
        .iter()
        .map(|port| {
            let words = [port.name.as_deref(), port.protocol.as_deref().filter(|_| !tcp(&port))];
            let words: Vec<&str> = words.into_iter().flatten().collect();
            match words.as_slice() {
                [] => port.port.to_string(),
                words => format!("{} ({})", port.port, words.join(", ")),
            }
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
