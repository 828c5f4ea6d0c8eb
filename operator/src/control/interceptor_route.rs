//! One InterceptorRoute.

use super::{Context, Failure, Guarded};
use crate::{
    plan::{ObservedRoute, route_standing},
    standing::Written,
};
use kube::{ResourceExt, runtime::controller::Action};
use sluice_api::{InterceptorRoute, spec::Check, upstream::Upstream};
use sluice_core::route::Kind;
use std::sync::Arc;

/// Says on the object how it fares.
pub(super) async fn reconcile(
    guarded: Arc<Guarded<InterceptorRoute>>,
    context: Arc<Context>,
) -> Result<Action, Failure> {
    let object = match &guarded.0 {
        Ok(object) => object,
        Err(_) => {
            context.report_unreadable(&*guarded).await?;
            return Ok(Action::await_change());
        }
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let service = context.service(&namespace, &object.spec.target.service);
    let mut checked = object.check();
    checked.1.extend(Upstream::of(&object.metadata).1);
    let observed = ObservedRoute {
        object,
        checked: &checked,
        service: service.as_deref(),
        scaled_objects: &context.scaled_objects(Kind::InterceptorRoute, &namespace, &name, None),
    };
    let mut standing = route_standing(observed, &context.scaler);
    let spec = observed.checked.0.as_ref();
    standing.findings.extend(context.isolated(&namespace, &object.spec.target.service, spec));
    standing.findings.extend(context.upstream_of_route(object));
    let status = object.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    standing.findings.extend(context.prompt(Kind::InterceptorRoute, &namespace, &name, conditions));
    let written = Written {
        generation: status.and_then(|status| status.observed_generation),
        conditions,
        ..Written::default()
    };
    context.report(&*guarded, written, &standing).await?;
    context.warn_of_rules(&*guarded, conditions, &standing).await;
    Ok(Action::await_change())
}
