//! One InterceptorRoute.

use super::{Context, Failure, Guarded};
use crate::{
    plan::{ObservedRoute, route_standing},
    standing::Written,
};
use kube::{Resource, ResourceExt, runtime::controller::Action};
use sluice_api::{InterceptorRoute, spec::Check, upstream::Upstream};
use sluice_core::route::Kind;
use std::sync::Arc;

/// Says on the object how it fares.
pub(super) async fn reconcile(
    guarded: Arc<Guarded<InterceptorRoute>>,
    context: Arc<Context>,
) -> Result<Action, Failure> {
    if guarded.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let object = match &guarded.0 {
        Ok(object) => object,
        Err(_) => {
            context.report_unreadable(&*guarded).await?;
            return Ok(Action::await_change());
        }
    };
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let service = context.service(&namespace, &object.spec.target.service);
    let mut checked = object.check();
    checked.1.extend(Upstream::of(&object.metadata).1);
    let observed = ObservedRoute {
        object,
        checked: &checked,
        service: service.as_ref().map(Option::as_deref).map_err(String::as_str),
        scaled_objects: &context.scaled_objects(Kind::InterceptorRoute, &namespace, &name, None),
    };
    let mut standing = route_standing(observed, &context.scaler);
    let spec = observed.checked.0.as_ref();
    standing.findings.extend(context.isolated(&namespace, &object.spec.target.service, spec));
    standing.findings.extend(context.upstream_of_route(object));
    let status = object.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    standing.findings.extend(context.shown(Kind::InterceptorRoute, &namespace, &name, conditions));
    let written = Written {
        generation: status.and_then(|status| status.observed_generation),
        conditions,
        ..Written::default()
    };
    context.report(&*guarded, written, &standing).await?;
    context.warn_of_rules(&*guarded, conditions, &standing).await;
    Ok(Action::await_change())
}

/// Whether it takes the requests of the HTTPScaledObject of its name. One of which nothing can be made does not.
///
/// A scaler that has known it when it could be used goes by that version until it is mended, and overrides; one that
/// has come since does not. What scalers remember is not known here: the object then says how it fares with those that
/// have come, and the route says that it is invalid.
pub(super) fn overrides(route: &Guarded<InterceptorRoute>) -> bool {
    route.0.as_ref().is_ok_and(|route| route.check().0.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_route_of_which_nothing_can_be_made_overrides_nothing() {
        let does = |target: serde_json::Value| {
            let route = json!({
                "metadata": {"name": "shop", "namespace": "ns"},
                "spec": {"target": target, "scalingMetric": {"concurrency": {"targetValue": 1}}},
            });
            overrides(&serde_json::from_value(route).unwrap())
        };
        assert!(does(json!({"service": "svc", "port": 80})));
        assert!(!does(json!({"service": "svc"})), "a port is missing");
        assert!(!does(json!({"service": "svc", "port": "http"})), "it does not read");
    }
}
