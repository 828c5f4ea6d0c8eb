//! One HTTPScaledObject.

use super::{Context, Failure, Guarded, index::Topic, interceptor_route::overrides};
use crate::{
    plan::{Claim, Claims, Observed, Plan, ScaledObjects, Workload, Write, leaving, plan},
    standing::{Finding, SCALED_OBJECT_READY, Standing, Written},
};
use kube::{Resource, ResourceExt, runtime::controller::Action, runtime::reflector::ObjectRef};
use sluice_api::{HttpScaledObject, spec::Check, upstream::Upstream};
use sluice_core::route::Kind;
use std::{sync::Arc, time::Duration};

/// How many writes one look leads to at most: a creation that finds somebody else's there, and a repair.
const MAX_ROUNDS: usize = 4;
/// How often a workload that is missing is looked for: workloads are of any kind, and not followed.
const WORKLOAD_AGAIN: Duration = Duration::from_secs(30);

/// Brings the ScaledObject to what it has to be, and says on the object how it fares.
pub(super) async fn reconcile(
    guarded: Arc<Guarded<HttpScaledObject>>,
    context: Arc<Context>,
) -> Result<Action, Failure> {
    if guarded.meta().deletion_timestamp.is_some() {
        return leave(&guarded, &context).await;
    }
    let object = match &guarded.0 {
        Ok(object) => object,
        Err(_) => {
            context.report_unreadable(&*guarded).await?;
            return Ok(Action::await_change());
        }
    };
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let workload = Workload::of(&object.spec.scale_target_ref);
    let service = context.service(&namespace, &object.spec.scale_target_ref.service);
    let mut checked = object.check();
    checked.1.extend(Upstream::of(&object.metadata).1);
    let mut scaled_objects =
        context.scaled_objects(Kind::HttpScaledObject, &namespace, &name, Some(&workload));
    let route = context.stores.routes.get(&ObjectRef::new(&name).within(&namespace));
    let is_overridden = route.is_some_and(|route| overrides(&route));
    let claims = |workload: &Workload| context.claims(&namespace, workload);
    let scaler_answers = context.scaler_answers();
    let look = |scaled_objects: &ScaledObjects, workload_missing| {
        let observed = Observed {
            object,
            checked: &checked,
            service: service.as_ref().map(Option::as_deref).map_err(String::as_str),
            scaled_objects,
            claims: Claims(&claims),
            is_overridden,
            scaler_answers: scaler_answers.as_ref().copied().map_err(String::as_str),
            workload_missing,
        };
        plan(observed, &context.scaler)
    };
    let mut refused = None;
    let mut planned = look(&scaled_objects, false);
    for _ in 0..MAX_ROUNDS {
        let Some(write) = planned.write.take() else { break };
        match context.write(&guarded, &namespace, &name, write).await {
            // What was written is known before the watch tells it.
            Ok(now) => scaled_objects.replace(&name, now),
            Err(failure @ Failure::Refused { .. }) => {
                refused = Some(failure);
                break;
            }
            Err(failure) => return Err(failure),
        }
        planned = look(&scaled_objects, false);
    }
    let Plan { mut standing, .. } = planned;
    let mut again = Action::await_change();
    if let Some(failure) = &refused {
        let message = format!("the API server refuses the ScaledObject ({failure}); correct what it names");
        replace(&mut standing, Finding::no(SCALED_OBJECT_READY, "Refused", message));
    } else if standing.ready().reason == "KedaNotReady" {
        // KEDA's words for it are "Target resource doesn't exist", of one of several things.
        if context.is_missing(&namespace, &workload).await {
            standing = look(&scaled_objects, true).standing;
            again = Action::requeue(WORKLOAD_AGAIN);
        }
    }
    let target = &object.spec.scale_target_ref.service;
    standing.findings.extend(context.isolated(&namespace, target, checked.0.as_ref()));
    standing.findings.extend(context.upstream_of_http(object));
    let status = object.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    // The other object of its name has the requests, and says how they fare.
    if !is_overridden {
        standing.findings.extend(context.shown(Kind::HttpScaledObject, &namespace, &name, conditions));
    }
    let written = Written {
        generation: status.and_then(|status| status.observed_generation),
        conditions,
        target_workload: status.and_then(|status| status.target_workload.as_deref()),
        target_service: status.and_then(|status| status.target_service.as_deref()),
    };
    context.report(&*guarded, written, &standing).await?;
    context.warn_of_rules(&*guarded, conditions, &standing).await;
    refused.map_or(Ok(again), Err)
}

/// It is being deleted: does what is left to do. That it does not read is in nobody's way.
async fn leave(guarded: &Guarded<HttpScaledObject>, context: &Context) -> Result<Action, Failure> {
    let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
    let mut scaled_objects = context.scaled_objects(Kind::HttpScaledObject, &namespace, &name, None);
    for _ in 0..MAX_ROUNDS {
        match leaving(guarded.meta(), &scaled_objects) {
            None => break,
            Some(Write::LetGo { finalizers, version }) => {
                // The next word about it is that it is gone.
                context.let_go(&namespace, &name, &finalizers, version.as_deref()).await?;
                break;
            }
            Some(write) => {
                scaled_objects.replace(&name, context.write(guarded, &namespace, &name, write).await?)
            }
        }
    }
    Ok(Action::await_change())
}

/// Puts a finding in the place of the one of its type.
fn replace(standing: &mut Standing, finding: Finding) {
    standing.findings.retain(|it| it.type_ != finding.type_);
    standing.findings.push(finding);
}

impl Context {
    /// Who claims a workload.
    fn claims(&self, namespace: &str, workload: &Workload) -> Vec<Claim> {
        let all = self.stores.index.http.about(namespace, &[Topic::workload(workload)].into());
        all.iter().filter_map(|it| Claim::of(it.0.as_ref().ok()?, workload)).collect()
    }
}

impl ScaledObjects {
    /// The one of this name is this now, or gone.
    fn replace(&mut self, name: &str, now: Option<sluice_api::ScaledObject>) {
        if let Self::Known(all) = self {
            all.retain(|it| it.metadata.name.as_deref() != Some(name));
            all.extend(now.map(Arc::new));
        }
    }
}
