//! A ScaledObject is written as KEDA reads it, and read as KEDA and users write it.

use kube::{CustomResourceExt, Resource, core::ObjectMeta};
use serde_json::{Value, json};
use sluice_api::{
    ScaledObject, ScaledObjectSpec,
    scaled_object::{Advanced, AuthenticationRef, EXTERNAL_PUSH, ScaleTarget, Trigger},
};
use std::collections::BTreeMap;

/// As a user has it and KEDA completes it, with much that is not ours.
const STORED: &str = r#"
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: shop
  namespace: store
  generation: 3
  finalizers: [finalizer.keda.sh]
  labels: {scaledobject.keda.sh/name: shop}
spec:
  scaleTargetRef: {name: shop, kind: Deployment, apiVersion: apps/v1, envSourceContainerName: main}
  pollingInterval: 15
  cooldownPeriod: 60
  initialCooldownPeriod: 0
  idleReplicaCount: 0
  minReplicaCount: 1
  maxReplicaCount: 10
  fallback: {failureThreshold: 3, replicas: 2}
  advanced:
    restoreToOriginalReplicaCount: true
    horizontalPodAutoscalerConfig: {behavior: {scaleDown: {stabilizationWindowSeconds: 300}}}
    scalingModifiers: {}
  triggers:
    - type: external-push
      name: http
      metricType: AverageValue
      metadata: {scalerAddress: "sluice-scaler.sluice-system:9090", interceptorRoute: shop}
      authenticationRef: {name: mtls, kind: ClusterTriggerAuthentication}
    - type: cron
      metadata: {timezone: Etc/UTC, start: 0 8 * * *, end: 0 18 * * *, desiredReplicas: "2"}
status:
  conditions:
    - {type: Ready, status: "True", reason: ScaledObjectReady, message: ScaledObject is defined correctly}
    - {type: Active, status: "False"}
    - {type: Fallback, status: Unknown}
  externalMetricNames: [s0-http_shop_concurrency]
  hpaName: keda-hpa-shop
  lastActiveTime: "2026-01-02T03:04:05Z"
  originalReplicaCount: 1
  scaleTargetGVKR: {group: apps, kind: Deployment, resource: deployments, version: v1}
  scaleTargetKind: apps/v1.Deployment
  triggersActivity: {s0-http_shop_concurrency: {isActive: false}}
"#;

#[test]
fn it_is_kedas() {
    assert_eq!((&*ScaledObject::group(&()), &*ScaledObject::version(&())), ("keda.sh", "v1alpha1"));
    assert_eq!((&*ScaledObject::kind(&()), &*ScaledObject::plural(&())), ("ScaledObject", "scaledobjects"));
    assert_eq!(ScaledObject::crd_name(), "scaledobjects.keda.sh");
}

#[test]
fn all_that_is_touched_is_read_and_the_rest_is_no_obstacle() {
    let object: ScaledObject = serde_saphyr::from_str(STORED).unwrap();
    let spec = &object.spec;
    let target = ScaleTarget {
        api_version: Some("apps/v1".to_owned()),
        kind: Some("Deployment".to_owned()),
        name: "shop".to_owned(),
    };
    assert_eq!(spec.scale_target_ref, target);
    assert_eq!((spec.min_replica_count, spec.max_replica_count), (Some(1), Some(10)));
    assert_eq!((spec.cooldown_period, spec.initial_cooldown_period), (Some(60), Some(0)));
    assert_eq!(spec.polling_interval, Some(15));
    assert_eq!(spec.advanced, Some(Advanced { restore_to_original_replica_count: Some(true) }));
    let [push, cron] = &spec.triggers[..] else { panic!("{:?}", spec.triggers) };
    assert_eq!((push.type_.as_str(), push.name.as_deref()), (EXTERNAL_PUSH, Some("http")));
    assert_eq!(push.metadata["interceptorRoute"], "shop");
    let authentication =
        AuthenticationRef { name: "mtls".to_owned(), kind: Some("ClusterTriggerAuthentication".to_owned()) };
    assert_eq!(push.authentication_ref, Some(authentication));
    assert_eq!((cron.type_.as_str(), cron.metadata["desiredReplicas"].as_str()), ("cron", "2"));
    let status = object.status.unwrap();
    let conditions: Vec<(&str, &str)> =
        status.conditions.iter().map(|it| (it.type_.as_str(), it.status.as_str())).collect();
    assert_eq!(conditions, [("Ready", "True"), ("Active", "False"), ("Fallback", "Unknown")]);
    assert_eq!(status.conditions[0].reason.as_deref(), Some("ScaledObjectReady"));
    assert_eq!(status.external_metric_names, ["s0-http_shop_concurrency"]);
    assert_eq!(status.hpa_name.as_deref(), Some("keda-hpa-shop"));
    assert_eq!(status.last_active_time.unwrap().0.as_second(), 1_767_323_045);
}

#[test]
fn what_is_not_there_or_null_is_left_out() {
    for text in [
        "{metadata: {name: a}, spec: {}}",
        "{metadata: {name: a}, spec: {scaleTargetRef: {}, triggers: null}, status: {}}",
        "{metadata: {name: a}, spec: {triggers: []}, status: {conditions: null, externalMetricNames: null}}",
    ] {
        let object: ScaledObject = serde_saphyr::from_str(text).unwrap();
        assert_eq!(object.spec, ScaledObjectSpec::default(), "{text}");
        let status = object.status.unwrap_or_default();
        assert_eq!((status.conditions, status.external_metric_names), (Vec::new(), Vec::new()), "{text}");
    }
    let trigger: Trigger = serde_json::from_value(json!({"type": "cpu", "metadata": null})).unwrap();
    assert_eq!(trigger, Trigger { type_: "cpu".to_owned(), ..Trigger::default() });
}

/// Under server-side apply, what is written is what is owned: a field too many takes it from whoever set it.
#[test]
fn what_is_written_is_what_was_set_and_nothing_else() {
    let written = |spec: ScaledObjectSpec| {
        let metadata = ObjectMeta { name: Some("shop".to_owned()), ..ObjectMeta::default() };
        serde_json::to_value(ScaledObject { metadata, spec, status: None }).unwrap()
    };
    let trigger = |metadata: &[(&str, &str)]| Trigger {
        type_: EXTERNAL_PUSH.to_owned(),
        metadata: metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        ..Trigger::default()
    };
    let least = ScaledObjectSpec {
        scale_target_ref: ScaleTarget { name: "shop".to_owned(), ..ScaleTarget::default() },
        triggers: vec![trigger(&[("scalerAddress", "sluice-scaler.sluice-system:9090")])],
        ..ScaledObjectSpec::default()
    };
    let wanted = json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "shop"},
        "spec": {
            "scaleTargetRef": {"name": "shop"},
            "triggers": [
                {"type": "external-push", "metadata": {"scalerAddress": "sluice-scaler.sluice-system:9090"}},
            ],
        },
    });
    assert_eq!(written(least), wanted);
    let all: ScaledObject = serde_saphyr::from_str(STORED).unwrap();
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut known = fields(&serde_json::to_value(&all).unwrap()["spec"]);
    known.sort();
    // What an HTTPScaledObject becomes; `idleReplicaCount` and `fallback` are the user's in any ScaledObject.
    let wanted = [
        "advanced",
        "cooldownPeriod",
        "initialCooldownPeriod",
        "maxReplicaCount",
        "minReplicaCount",
        "pollingInterval",
        "scaleTargetRef",
        "triggers",
    ];
    assert_eq!(known, wanted);
    let again = serde_json::to_value(&all.spec).unwrap();
    assert_eq!(again["advanced"], json!({"restoreToOriginalReplicaCount": true}));
    assert_eq!(serde_json::from_value::<ScaledObjectSpec>(again).unwrap(), all.spec);
    assert_eq!(trigger(&[]).metadata, BTreeMap::new());
}
