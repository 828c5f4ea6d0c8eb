//! The ScaledObject as it has to be.

use super::Scaler;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use sluice_api::{
    HttpScaledObject, ScaledObject, ScaledObjectSpec,
    scaled_object::{Advanced, AuthenticationRef, EXTERNAL_PUSH, ScaleTarget, Trigger},
    spec::Scaling,
};
use std::collections::BTreeMap;

/// Seconds between KEDA's own questions, as the add-on has it. What matters comes over the stream; this is what
/// notices, at the latest, that the app may go to sleep.
const POLLING_INTERVAL: i32 = 15;
/// What kubectl remembers of what was applied. On a copy it would be a lie, and it names the wrong kind.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The trigger's key for its scaler.
pub const SCALER_ADDRESS: &str = "scalerAddress";
/// The trigger's key for the object whose requests it is about.
pub const HTTP_SCALED_OBJECT: &str = "httpScaledObject";
/// The same for an InterceptorRoute.
pub const INTERCEPTOR_ROUTE: &str = "interceptorRoute";

/// The ScaledObject for `object`, for server-side apply: with the fields that the operator wants to have, no others.
pub fn scaled_object(object: &HttpScaledObject, scaling: &Scaling, scaler: &Scaler) -> Value {
    let name = object.name_any();
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let reference = &object.spec.scale_target_ref;
    let metadata =
        [(SCALER_ADDRESS.to_owned(), scaler.address()), (HTTP_SCALED_OBJECT.to_owned(), name.clone())];
    let authentication = scaler
        .authentication
        .clone()
        .map(|name| AuthenticationRef { name, kind: Some("ClusterTriggerAuthentication".to_owned()) });
    let spec = ScaledObjectSpec {
        scale_target_ref: ScaleTarget {
            api_version: given(&reference.api_version),
            kind: given(&reference.kind),
            name: given(&reference.name).unwrap_or_default(),
        },
        polling_interval: Some(POLLING_INTERVAL),
        cooldown_period: scaling.cooldown,
        initial_cooldown_period: scaling.initial_cooldown,
        min_replica_count: scaling.min,
        max_replica_count: scaling.max,
        advanced: Some(Advanced { restore_to_original_replica_count: Some(true) }),
        triggers: vec![Trigger {
            type_: EXTERNAL_PUSH.to_owned(),
            name: None,
            metadata: metadata.into(),
            authentication_ref: authentication,
        }],
    };
    let mut annotations: BTreeMap<String, String> = object.annotations().clone();
    annotations.remove(LAST_APPLIED);
    let mut metadata = json!({"name": name, "namespace": object.namespace()});
    for (field, map) in [("labels", object.labels()), ("annotations", &annotations)] {
        if !map.is_empty() {
            metadata[field] = json!(map);
        }
    }
    metadata["ownerReferences"] = json!([{
        "apiVersion": HttpScaledObject::api_version(&()),
        "kind": HttpScaledObject::kind(&()),
        "name": object.name_any(),
        "uid": object.uid(),
        "controller": true,
        "blockOwnerDeletion": true,
    }]);
    json!({
        "apiVersion": ScaledObject::api_version(&()),
        "kind": ScaledObject::kind(&()),
        "metadata": metadata,
        "spec": spec,
    })
}
