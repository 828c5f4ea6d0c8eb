mod claims;
mod paused;
mod target;

use super::*;
use crate::{
    FIELD_MANAGER,
    standing::{SCALED_OBJECT_READY, Truth},
};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use sluice_api::{HttpScaledObject, InterceptorRoute, spec::Check};

fn scaler() -> Scaler {
    Scaler {
        service: "sluice-scaler".to_owned(),
        namespace: "sluice-system".to_owned(),
        port: 9090,
        authentication: None,
    }
}

/// An object with `change` merged into it, `null` taking away.
fn changed(mut base: Value, change: Value) -> Value {
    match (&mut base, change) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (field, change) in changes {
                if change.is_null() {
                    fields.remove(&field);
                } else {
                    let old = fields.remove(&field).unwrap_or_default();
                    fields.insert(field, changed(old, change));
                }
            }
            base
        }
        (_, change) => change,
    }
}

fn object(change: Value) -> HttpScaledObject {
    let object = json!({
        "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject",
        "metadata": {
            "name": "shop", "namespace": "ns", "uid": "u1", "generation": 4, "resourceVersion": "70",
            "labels": {"team": "a"},
        },
        "spec": {
            "hosts": ["shop.example.com"],
            "scaleTargetRef": {"name": "app", "service": "svc", "port": 80},
            "replicas": {"max": 5},
        },
    });
    serde_json::from_value(changed(object, change)).unwrap()
}

fn service(port: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "svc"}, "spec": {"ports": [port]}})).unwrap()
}

/// The ScaledObject as it is after it was applied: what the API server and KEDA add is there.
fn applied(object: &HttpScaledObject, change: Value) -> ScaledObject {
    let spec = object.check().0.unwrap();
    let desired = desired::scaled_object(object, &spec.scaling, &scaler());
    let fields = json!({
        "f:metadata": {
            "f:labels": {"f:team": {}},
            "f:ownerReferences": {"k:{\"uid\":\"u1\"}": {}},
        },
        "f:spec": {
            "f:advanced": {"f:restoreToOriginalReplicaCount": {}},
            "f:maxReplicaCount": {}, "f:pollingInterval": {}, "f:triggers": {},
            "f:scaleTargetRef": {"f:name": {}},
        },
    });
    let added = json!({
        "metadata": {
            "uid": "s1", "resourceVersion": "71", "finalizers": ["finalizer.keda.sh"],
            "labels": {"scaledobject.keda.sh/name": "shop"},
            "managedFields": [
                {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields},
                {"manager": "keda", "operation": "Update", "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:metadata": {"f:finalizers": {}}}},
            ],
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    serde_json::from_value(changed(changed(desired, added), change)).unwrap()
}

/// A ScaledObject that a user has written.
fn users(name: &str, workload: &str, trigger: Value) -> ScaledObject {
    serde_json::from_value(json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
        "metadata": {"name": name, "namespace": "ns", "uid": "s9"},
        "spec": {"scaleTargetRef": {"name": workload}, "triggers": [trigger]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}

fn trigger(keys: Value) -> Value {
    changed(
        json!({"type": "external-push", "metadata": {"scalerAddress": "sluice-scaler.sluice-system:9090"}}),
        json!({"metadata": keys}),
    )
}

struct World {
    scaled_objects: Vec<ScaledObject>,
    /// All of the namespace.
    objects: Vec<HttpScaledObject>,
    service: Option<Service>,
    scaler_answers: bool,
    is_overridden: bool,
    workload_missing: bool,
}

impl World {
    fn new(scaled_objects: Vec<ScaledObject>) -> Self {
        Self {
            scaled_objects,
            objects: Vec::new(),
            service: Some(service(json!({"port": 80}))),
            scaler_answers: true,
            is_overridden: false,
            workload_missing: false,
        }
    }

    fn plan(&self, object: &HttpScaledObject) -> Plan {
        let all = self.scaled_objects.iter().cloned().map(Arc::new).collect();
        let claims = |workload: &Workload| -> Vec<Claim> {
            self.objects.iter().filter_map(|it| Claim::of(it, workload)).collect()
        };
        let observed = Observed {
            object,
            checked: &object.check(),
            service: Ok(self.service.as_ref()),
            scaled_objects: &ScaledObjects::Known(all),
            claims: Claims(&claims),
            is_overridden: self.is_overridden,
            scaler_answers: Ok(self.scaler_answers),
            workload_missing: self.workload_missing,
        };
        plan(observed, &scaler())
    }

    /// The write, and Ready in two words.
    fn decide(&self, object: &HttpScaledObject) -> (Option<Write>, Truth, &'static str) {
        let plan = self.plan(object);
        let ready = plan.standing.ready();
        (plan.write, ready.truth, ready.reason)
    }
}

#[test]
fn there_is_none_so_it_is_made_once_the_scaler_answers() {
    let object = object(json!({}));
    let mut world = World::new(vec![]);
    let (write, truth, reason) = world.decide(&object);
    let Some(Write::Create(made)) = write else { panic!("{write:?}") };
    assert_eq!((truth, reason), (Truth::Unknown, "Creating"));
    assert_eq!(
        made,
        json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {
                "name": "shop", "namespace": "ns", "labels": {"team": "a"},
                "ownerReferences": [{
                    "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject", "name": "shop", "uid": "u1",
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {
                "scaleTargetRef": {"name": "app"},
                "pollingInterval": 15,
                "maxReplicaCount": 5,
                "advanced": {"restoreToOriginalReplicaCount": true},
                "triggers": [{"type": "external-push", "metadata": {
                    "scalerAddress": "sluice-scaler.sluice-system:9090", "httpScaledObject": "shop",
                }}],
            },
        })
    );
    world.scaler_answers = false;
    assert_eq!(world.decide(&object), (None, Truth::False, "ScalerNotReady"));
}

#[test]
fn ours_as_it_has_to_be_is_not_written() {
    let object = object(json!({}));
    let mut world = World::new(vec![applied(&object, json!({}))]);
    assert_eq!(world.decide(&object), (None, Truth::True, "Reconciled"));
    world.scaler_answers = false;
    assert_eq!(world.decide(&object), (None, Truth::True, "Reconciled"), "that is for new ones");
}

#[test]
fn ours_that_differs_is_brought_up_to_date() {
    let plain = object(json!({}));
    let written =
        |object: &HttpScaledObject, scaled_object: ScaledObject| match World::new(vec![scaled_object])
            .plan(object)
            .write
        {
            Some(Write::Apply { object, inherit }) => (object, inherit),
            other => panic!("{other:?}"),
        };
    let by_hand = applied(&plain, json!({"spec": {"maxReplicaCount": 50}}));
    let (desired, inherit) = written(&plain, by_hand);
    assert_eq!(desired["spec"]["maxReplicaCount"], 5);
    assert_eq!(desired["metadata"]["uid"], "s1", "so that it cannot be another one");
    assert_eq!(inherit, None);
    // What was asked for before and is not any more can be told from who owns the fields.
    let before = applied(&plain, json!({}));
    written(&object(json!({"spec": {"replicas": null}})), before.clone());
    written(&object(json!({"metadata": {"labels": null}})), before.clone());
    written(&object(json!({"metadata": {"annotations": {"new": "one"}}})), before.clone());
    written(&object(json!({"spec": {"scaledownPeriod": 7}})), before.clone());
    written(&object(json!({"spec": {"scaleTargetRef": {"kind": "StatefulSet"}}})), before.clone());
    // What is somebody else's is nobody's business.
    let more = json!({"metadata": {"annotations": {"autoscaling.keda.sh/paused": "true"}}, "spec": {"minReplicaCount": 1}});
    assert_eq!(World::new(vec![applied(&plain, more)]).plan(&plain).write, None);
}

#[test]
fn what_the_add_on_has_made_is_inherited() {
    let object = object(json!({}));
    let fields = json!({"f:spec": {"f:triggers": {}, "f:cooldownPeriod": {}}});
    let theirs = applied(
        &object,
        json!({"spec": {"cooldownPeriod": 99}, "metadata": {"managedFields": [
            {"manager": "keda", "operation": "Update", "fieldsV1": {"f:status": {}}, "subresource": "status"},
            {"manager": "operator", "operation": "Update", "fieldsV1": fields},
        ]}}),
    );
    let Some(Write::Apply { inherit: Some(inherit), .. }) = World::new(vec![theirs]).plan(&object).write
    else {
        panic!("nothing is inherited")
    };
    assert_eq!(inherit[0]["manager"], "keda");
    assert_eq!((&inherit[1]["manager"], &inherit[1]["operation"]), (&json!(FIELD_MANAGER), &json!("Apply")));
    assert_eq!(inherit[1]["fieldsV1"], fields);
}

#[test]
fn what_is_not_ours_is_never_written() {
    let object = object(json!({}));
    let owner = |kind: &str, name: &str| {
        let owner = json!({"apiVersion": "http.keda.sh/v1alpha1", "kind": kind, "name": name, "uid": "u7", "controller": true});
        json!({"metadata": {"ownerReferences": [owner]}})
    };
    let unmanaged = json!({"metadata": {"managedFields": null, "ownerReferences": null}});
    for (change, truth, reason) in [
        (unmanaged, Truth::False, "NotOurs"),
        (owner("Shop", "x"), Truth::False, "NotOurs"),
        (owner("HTTPScaledObject", "other"), Truth::False, "NotOurs"),
        // One of this name that is gone: garbage collection is on its way.
        (owner("HTTPScaledObject", "shop"), Truth::Unknown, "Deleting"),
        // Freed by somebody, but for something else.
        (
            json!({"metadata": {"ownerReferences": null}, "spec": {"triggers": [trigger(json!({"httpScaledObject": "x"}))]}}),
            Truth::False,
            "NotOurs",
        ),
        (json!({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}}), Truth::Unknown, "Deleting"),
    ] {
        let world = World::new(vec![applied(&object, change.clone())]);
        assert_eq!(world.decide(&object), (None, truth, reason), "{change}");
    }
}

#[test]
fn an_orphan_of_ours_is_taken_back() {
    let object = object(json!({}));
    let orphan = applied(&object, json!({"metadata": {"ownerReferences": null}}));
    let write = World::new(vec![orphan]).plan(&object).write;
    assert!(matches!(write, Some(Write::Apply { inherit: None, .. })), "{write:?}");
}

#[test]
fn skip_deletes_what_is_owned_and_nothing_else() {
    let skip =
        object(json!({"metadata": {"annotations": {sluice_api::SKIP_SCALED_OBJECT_CREATION: "true"}}}));
    let plain = object(json!({}));
    let ours = applied(&plain, json!({}));
    let write = World::new(vec![ours]).plan(&skip).write;
    let Some(Write::Delete { uid, version, .. }) = write else { panic!("{write:?}") };
    assert_eq!((uid.as_deref(), version.as_deref()), (Some("s1"), Some("71")));
    assert_eq!(World::new(vec![]).decide(&skip), (None, Truth::False, "ScaledObjectNotFound"));
    let own = users("shop", "app", trigger(json!({"httpScaledObject": "shop"})));
    assert_eq!(World::new(vec![own]).decide(&skip), (None, Truth::True, "Reconciled"));
    let going = applied(&plain, json!({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}}));
    assert_eq!(World::new(vec![going]).plan(&skip).write, None);
    let not = object(json!({"metadata": {"annotations": {sluice_api::SKIP_SCALED_OBJECT_CREATION: "yes"}}}));
    assert!(matches!(World::new(vec![]).plan(&not).write, Some(Write::Create(_))));
}

#[test]
fn orphan_goes_before_everything_else() {
    let annotations = json!({"metadata": {"annotations": {
        sluice_api::ORPHAN_SCALED_OBJECT: "true", sluice_api::SKIP_SCALED_OBJECT_CREATION: "true",
    }}});
    let orphaned = object(annotations.clone());
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u8"});
    let ours = json!({"apiVersion": "v1", "kind": "x", "name": "x", "uid": "u1"});
    let scaled = applied(&object(json!({})), json!({"metadata": {"ownerReferences": [ours, other]}}));
    let disown = Write::Disown { owners: json!([other]), version: Some("71".to_owned()) };
    assert_eq!(World::new(vec![scaled.clone()]).plan(&orphaned).write, Some(disown.clone()));
    let free = applied(&object(json!({})), json!({"metadata": {"ownerReferences": null}}));
    assert_eq!(World::new(vec![free]).decide(&orphaned), (None, Truth::True, "Reconciled"));
    // Also while it is being deleted, and before anybody lets go of it.
    let gone = changed(
        annotations,
        json!({"metadata": {
            "deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": [ADD_ON_FINALIZER, "other"],
        }}),
    );
    let gone = object(gone);
    let known = |all: Vec<ScaledObject>| ScaledObjects::Known(all.into_iter().map(Arc::new).collect());
    assert_eq!(leaving(&gone.metadata, &known(vec![scaled])), Some(disown));
    let let_go = Write::LetGo { finalizers: vec!["other".to_owned()], version: Some("70".to_owned()) };
    assert_eq!(leaving(&gone.metadata, &known(vec![])), Some(let_go.clone()));
    let away = ScaledObjects::Unreadable("the server could not find it".to_owned());
    assert_eq!(leaving(&gone.metadata, &away), Some(let_go));
}

#[test]
fn a_deleted_object_takes_its_scaled_object_along_and_makes_nothing_new() {
    let gone =
        object(json!({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["other"]}}));
    let ours = ScaledObjects::Known(vec![Arc::new(applied(&object(json!({})), json!({})))]);
    assert_eq!(leaving(&gone.metadata, &ours), None);
}

#[test]
fn what_is_wrong_is_said_worst_first() {
    let plain = object(json!({}));
    let mut world = World::new(vec![applied(&plain, json!({}))]);
    world.service = None;
    assert_eq!(world.decide(&plain), (None, Truth::False, "ServiceNotFound"));
    world.service = Some(service(json!({"port": 81, "name": "web"})));
    assert_eq!(world.decide(&plain), (None, Truth::False, "PortNotFound"));
    let named = object(json!({"spec": {"scaleTargetRef": {"port": null, "portName": "web"}}}));
    assert_eq!(world.decide(&named), (None, Truth::True, "Reconciled"));
    world.is_overridden = true;
    assert_eq!(world.decide(&named), (None, Truth::False, "Overridden"));
    world.is_overridden = false;
    let nobody = object(json!({"spec": {"scaleTargetRef": {"name": null}}}));
    world.service = Some(service(json!({"port": 80})));
    assert_eq!(world.decide(&nobody), (None, Truth::False, "NoWorkload"));
    // Nothing can be made of it: what is there stays as it is.
    let broken = object(json!({"spec": {"scaleTargetRef": {"port": null}, "replicas": {"max": 9}}}));
    assert_eq!(world.decide(&broken), (None, Truth::False, "InvalidSpec"));
    // Something can: it is said, and the rest applies.
    let flawed = object(json!({"spec": {"replicas": {"max": -1}}}));
    let (write, truth, reason) = World::new(vec![]).decide(&flawed);
    let Some(Write::Create(made)) = write else { panic!("{write:?}") };
    assert_eq!(
        (made["spec"]["maxReplicaCount"].clone(), truth, reason),
        (json!(1), Truth::False, "InvalidSpec")
    );
}

#[test]
fn kedas_word_is_passed_on() {
    let object = object(json!({}));
    let says = |status: Value| World::new(vec![applied(&object, json!({"status": status}))]);
    let not = json!({"conditions": [{"type": "Ready", "status": "False", "message": "no such thing"}]});
    let mut world = says(not);
    let standing = world.plan(&object).standing;
    assert_eq!(standing.ready().reason, "KedaNotReady");
    assert!(standing.ready().message.contains("no such thing"), "{}", standing.ready().message);
    world.workload_missing = true;
    assert_eq!(world.decide(&object), (None, Truth::False, "WorkloadNotFound"));
    assert_eq!(says(json!({"conditions": null})).decide(&object), (None, Truth::Unknown, "KedaPending"));
}

#[test]
fn without_keda_nothing_is_tried() {
    let object = object(json!({}));
    let observed = Observed {
        object: &object,
        checked: &object.check(),
        service: Ok(None),
        scaled_objects: &ScaledObjects::Unreadable("the server could not find it".to_owned()),
        claims: Claims(&|_| Vec::new()),
        is_overridden: false,
        scaler_answers: Ok(true),
        workload_missing: false,
    };
    let plan = plan(observed, &scaler());
    assert_eq!(plan.write, None);
    let finding = plan.standing.findings.into_iter().find(|it| it.type_ == SCALED_OBJECT_READY).unwrap();
    assert_eq!((finding.truth, finding.reason), (Truth::False, "KedaNotFound"));
}

#[test]
fn the_status_names_workload_and_service() {
    let plain = World::new(vec![]).plan(&object(json!({}))).standing;
    assert_eq!(plain.target_workload.as_deref(), Some("apps/v1/Deployment/app"));
    assert_eq!(plain.target_service.as_deref(), Some("svc:80"));
    assert_eq!(plain.generation, Some(4));
    let other = object(json!({"spec": {"scaleTargetRef": {
        "kind": "Rollout", "apiVersion": "argoproj.io/v1alpha1", "port": null, "portName": "http",
    }}}));
    let other = World::new(vec![]).plan(&other).standing;
    assert_eq!(other.target_workload.as_deref(), Some("argoproj.io/v1alpha1/Rollout/app"));
    assert_eq!(other.target_service.as_deref(), Some("svc:http"));
}

#[test]
fn tls_is_by_a_cluster_trigger_authentication() {
    let object = object(json!({"metadata": {"annotations": {
        "kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "kept",
    }}}));
    let scaler = Scaler { authentication: Some("sluice".to_owned()), ..scaler() };
    let made = desired::scaled_object(&object, &object.check().0.unwrap().scaling, &scaler);
    let reference = &made["spec"]["triggers"][0]["authenticationRef"];
    assert_eq!(*reference, json!({"name": "sluice", "kind": "ClusterTriggerAuthentication"}));
    assert_eq!(made["metadata"]["annotations"], json!({"note": "kept"}));
}

#[test]
fn an_address_is_the_scalers_in_any_of_its_forms() {
    let scaler = scaler();
    for address in [
        "sluice-scaler.sluice-system:9090",
        "sluice-scaler.sluice-system.svc:9090",
        "sluice-scaler.sluice-system.svc.cluster.local:9090",
        "sluice-scaler.sluice-system.svc.cluster.local.:9090",
    ] {
        assert!(scaler.is_at(address), "{address}");
    }
    for address in [
        "",
        "sluice-scaler.sluice-system",
        "sluice-scaler.sluice-system:9091",
        "sluice-scaler.other:9090",
        "sluice-scaler.sluice-system2:9090",
        "sluice-scaler:9090",
    ] {
        assert!(!scaler.is_at(address), "{address}");
    }
}

#[test]
fn an_interceptor_route_says_what_its_scaled_object_lacks() {
    let route: InterceptorRoute = serde_json::from_value(json!({
        "apiVersion": "http.keda.sh/v1beta1", "kind": "InterceptorRoute",
        "metadata": {"name": "shop", "namespace": "ns", "generation": 2},
        "spec": {"target": {"service": "svc", "port": 80}, "scalingMetric": {"concurrency": {"targetValue": 1}}},
    }))
    .unwrap();
    let service = service(json!({"port": 80}));
    let says = |all: Vec<ScaledObject>| {
        let observed = ObservedRoute {
            object: &route,
            checked: &route.check(),
            service: Ok(Some(&service)),
            scaled_objects: &ScaledObjects::Known(all.into_iter().map(Arc::new).collect()),
        };
        let ready = route_standing(observed, &scaler()).ready();
        (ready.truth, ready.reason)
    };
    let own = |trigger: Value| users("own", "app", trigger);
    assert_eq!(says(vec![]), (Truth::False, "ScaledObjectNotFound"));
    let good = trigger(json!({"interceptorRoute": "shop"}));
    assert_eq!(says(vec![own(good.clone())]), (Truth::True, "Reconciled"));
    let elsewhere = changed(good.clone(), json!({"metadata": {"scalerAddress": "a.b:9090"}}));
    assert_eq!(says(vec![own(elsewhere.clone())]), (Truth::False, "OtherScaler"));
    let pulled = changed(good.clone(), json!({"type": "external"}));
    assert_eq!(says(vec![own(pulled)]), (Truth::False, "WrongTriggerType"));
    assert_eq!(
        says(vec![own(elsewhere), own(good)]),
        (Truth::True, "Reconciled"),
        "one that works is enough"
    );
    let of_other = trigger(json!({"interceptorRoute": "other"}));
    assert_eq!(says(vec![own(of_other)]), (Truth::False, "ScaledObjectNotFound"));
}

#[test]
fn a_field_on_which_nothing_acts_is_named_and_does_no_harm() {
    let route = |more: Value| -> InterceptorRoute {
        let spec = json!({"target": {"service": "svc", "port": 80}, "scalingMetric": {"concurrency": {"targetValue": 1}}});
        serde_json::from_value(json!({
            "apiVersion": "http.keda.sh/v1beta1", "kind": "InterceptorRoute",
            "metadata": {"name": "shop", "namespace": "ns"},
            "spec": changed(spec, more),
        }))
        .unwrap()
    };
    let own = users("own", "app", trigger(json!({"interceptorRoute": "shop"})));
    let service = service(json!({"port": 80}));
    let scaled_objects = ScaledObjects::Known(vec![Arc::new(own)]);
    let says = |object: InterceptorRoute| {
        let checked = object.check();
        let observed = ObservedRoute {
            object: &object,
            checked: &checked,
            service: Ok(Some(&service)),
            scaled_objects: &scaled_objects,
        };
        let standing = route_standing(observed, &scaler());
        (standing.ready(), standing.findings[0].clone())
    };
    let (_, accepted) = says(route(json!({})));
    assert_eq!((accepted.truth, accepted.reason), (Truth::True, "Valid"));
    let idle = json!({
        "timeouts": {"request": "3s"}, "staticRoutes": [{"rules": [{}], "response": {"body": "x"}}],
    });
    let (ready, accepted) = says(route(idle.clone()));
    assert_eq!((accepted.truth, accepted.reason), (Truth::True, "PartlyInForce"));
    assert_eq!(
        accepted.message,
        "its values are valid, but Sluice does not act on spec.timeouts.request (the timeout of the gateway's route \
         applies), spec.staticRoutes (their requests are treated like any other)"
    );
    assert_eq!((ready.truth, ready.reason), (Truth::True, "Reconciled"));
    let ends = "; without effect: spec.timeouts.request, spec.staticRoutes";
    assert!(ready.message.ends_with(ends), "{}", ready.message);

    let (ready, accepted) = says(route(changed(idle, json!({"rules": [{"hosts": ["a b"]}]}))));
    assert_eq!((ready.truth, accepted.reason), (Truth::False, "InvalidSpec"));
    assert!(
        ready.message.contains("Besides, Sluice does not act on spec.timeouts.request"),
        "{}",
        ready.message
    );
}

#[test]
fn the_fallback_of_an_http_scaled_object_is_named_too() {
    let object = object(json!({"spec": {"coldStartTimeoutFailoverRef": {"service": "away", "port": 80}}}));
    let checked = object.check();
    let observed = Observed {
        object: &object,
        checked: &checked,
        service: Ok(None),
        scaled_objects: &ScaledObjects::Known(Vec::new()),
        claims: Claims(&|_| Vec::new()),
        is_overridden: false,
        scaler_answers: Ok(true),
        workload_missing: false,
    };
    let standing = plan(observed, &scaler()).standing;
    let accepted = &standing.findings[0];
    assert_eq!((accepted.truth, accepted.reason), (Truth::True, "PartlyInForce"));
    assert!(
        accepted.message.contains("spec.coldStartTimeoutFailoverRef (a request whose"),
        "{}",
        accepted.message
    );
}
