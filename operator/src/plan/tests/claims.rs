//! Several objects for one workload.

use super::*;
use kube::ResourceExt;

const EARLY: &str = "2026-01-02T03:04:05Z";
const LATE: &str = "2026-01-02T03:04:06Z";

/// An object for the workload `app`.
fn named(name: &str, created: &str, change: Value) -> HttpScaledObject {
    let metadata = json!({"name": name, "uid": format!("u-{name}"), "creationTimestamp": created});
    object(changed(json!({"metadata": metadata}), change))
}

fn among(objects: &[&HttpScaledObject], scaled_objects: Vec<ScaledObject>) -> World {
    World { objects: objects.iter().copied().cloned().collect(), ..World::new(scaled_objects) }
}

fn said(plan: &Plan) -> String {
    let ready = plan.standing.ready();
    assert_eq!((ready.truth, ready.reason), (Truth::False, "WorkloadTaken"), "{}", ready.message);
    ready.message
}

#[test]
fn a_workload_is_scaled_by_one() {
    let object = object(json!({}));
    let rival = users("rival", "app", json!({"type": "cpu", "metadata": {}}));
    assert_eq!(World::new(vec![rival.clone()]).decide(&object), (None, Truth::False, "WorkloadTaken"));
    let ours = applied(&object, json!({"spec": {"maxReplicaCount": 9}}));
    let (write, truth, reason) = World::new(vec![ours, rival]).decide(&object);
    assert!(matches!(write, Some(Write::Apply { .. })), "ours is kept up: {write:?}");
    assert_eq!((truth, reason), (Truth::False, "WorkloadTaken"));
    let mut other = users("other", "app", json!({"type": "cpu", "metadata": {}}));
    other.spec.scale_target_ref.kind = Some("StatefulSet".to_owned());
    assert!(matches!(World::new(vec![other]).plan(&object).write, Some(Write::Create(_))));
}

#[test]
fn of_two_that_come_together_the_older_one_gets_the_workload() {
    for (first, second) in [
        (named("z", EARLY, json!({})), named("a", LATE, json!({}))),
        // Of one second: the one whose name comes first.
        (named("a", EARLY, json!({})), named("b", EARLY, json!({}))),
    ] {
        let world = among(&[&second, &first], vec![]);
        assert!(matches!(world.plan(&first).write, Some(Write::Create(_))));
        let plan = world.plan(&second);
        assert_eq!(plan.write, None);
        let said = said(&plan);
        let older =
            format!("HTTPScaledObject {}, which is older, scales Deployment app too", first.name_any());
        assert!(said.starts_with(&older) && said.contains("so this object gets none; delete one"), "{said}");
        // It is one of the two, not neither, while the scaler is not there.
        let world = World { scaler_answers: false, ..world };
        assert_eq!(world.decide(&first).2, "ScalerNotReady");
        assert_eq!(world.decide(&second).2, "WorkloadTaken");
    }
}

#[test]
fn an_object_that_makes_no_scaled_object_is_in_nobodys_way() {
    let second = named("second", LATE, json!({}));
    for change in [
        json!({"metadata": {"annotations": {sluice_api::SKIP_SCALED_OBJECT_CREATION: "true"}}}),
        json!({"metadata": {"annotations": {sluice_api::ORPHAN_SCALED_OBJECT: "true"}}}),
        json!({"metadata": {"deletionTimestamp": LATE, "finalizers": ["x"]}}),
        json!({"spec": {"scaleTargetRef": {"name": "other"}}}),
        json!({"spec": {"scaleTargetRef": {"kind": "StatefulSet"}}}),
        // Nothing can be made of it.
        json!({"spec": {"scaleTargetRef": {"port": null}}}),
    ] {
        let first = named("first", EARLY, change.clone());
        let write = among(&[&first, &second], vec![]).plan(&second).write;
        assert!(matches!(write, Some(Write::Create(_))), "{change}: {write:?}");
    }
}

#[test]
fn whoever_has_a_scaled_object_for_a_workload_keeps_it() {
    // The older one was for another workload when the younger one's was made.
    let (first, second) = (named("first", EARLY, json!({})), named("second", LATE, json!({})));
    let world = among(&[&first, &second], vec![applied(&second, json!({}))]);
    assert_eq!(world.decide(&second), (None, Truth::True, "Reconciled"));
    let plan = world.plan(&first);
    assert_eq!(plan.write, None);
    let said = said(&plan);
    assert!(said.starts_with("ScaledObject second (of HTTPScaledObject second) scales"), "{said}");
}

#[test]
fn an_edit_takes_no_workload_away_from_what_scales_it() {
    let first = named("first", EARLY, json!({}));
    let before = named("second", LATE, json!({"spec": {"scaleTargetRef": {"name": "former"}}}));
    let second = named("second", LATE, json!({}));
    let mine = applied(&before, json!({}));
    // Whether the other one's is there already, or about to be made.
    let theirs = applied(&first, json!({"metadata": {"uid": "s2"}}));
    for scaled_objects in [vec![mine.clone(), theirs], vec![mine.clone()]] {
        let plan = among(&[&first, &second], scaled_objects).plan(&second);
        assert_eq!(plan.write, None);
        let said = said(&plan);
        let ends = ". Until then ScaledObject second scales Deployment former, as before";
        assert!(said.contains("first") && said.ends_with(ends), "{said}");
    }
    let write = among(&[&second], vec![mine]).plan(&second).write;
    assert!(matches!(write, Some(Write::Apply { .. })), "{write:?}");
}

#[test]
fn where_both_have_one_the_younger_ones_goes_and_restores_nothing() {
    let (first, second) = (named("first", EARLY, json!({})), named("second", LATE, json!({})));
    let theirs = applied(&first, json!({"metadata": {"uid": "s2"}}));
    let world =
        |mine: ScaledObject, theirs: &ScaledObject| among(&[&first, &second], vec![mine, theirs.clone()]);
    let before = applied(&second, json!({}));
    let plan = world(before.clone(), &theirs).plan(&second);
    let Some(Write::Apply { object: told, .. }) = &plan.write else { panic!("{:?}", plan.write) };
    assert_eq!(told["spec"]["advanced"]["restoreToOriginalReplicaCount"], false);
    assert!(said(&plan).starts_with("ScaledObject first (of HTTPScaledObject first) scales"));
    let change = json!({"spec": {"advanced": {"restoreToOriginalReplicaCount": false}}});
    let plan = world(applied(&second, change), &theirs).plan(&second);
    assert!(matches!(plan.write, Some(Write::Delete { .. })), "{:?}", plan.write);
    said(&plan);
    // The older one's stays.
    assert_eq!(world(before.clone(), &theirs).decide(&first), (None, Truth::False, "WorkloadTaken"));
    // And so do both while the older one's goes, or where it is no HTTPScaledObject's that has this workload scaled.
    let going = json!({"metadata": {"uid": "s2", "deletionTimestamp": LATE}});
    let free = json!({"metadata": {"uid": "s2", "ownerReferences": null}});
    for theirs in [applied(&first, going), applied(&first, free)] {
        assert_eq!(world(before.clone(), &theirs).plan(&second).write, None);
    }
    let elsewhere = named("first", EARLY, json!({"spec": {"scaleTargetRef": {"name": "other"}}}));
    assert_eq!(among(&[&elsewhere, &second], vec![before, theirs]).plan(&second).write, None);
}

#[test]
fn the_others_are_looked_at_only_where_it_matters() {
    let plain = object(json!({}));
    let looked = std::cell::Cell::new(false);
    let claims = |_: &Workload| {
        looked.set(true);
        Vec::new()
    };
    let scaled_objects = ScaledObjects::Known(vec![Arc::new(applied(&plain, json!({})))]);
    let observed = Observed {
        object: &plain,
        checked: &plain.check(),
        service: Ok(None),
        scaled_objects: &scaled_objects,
        claims: Claims(&claims),
        is_overridden: false,
        scaler_answers: Ok(true),
        workload_missing: false,
    };
    plan(observed, &scaler());
    assert!(!looked.get(), "all is as it should be");
    plan(Observed { scaled_objects: &ScaledObjects::Known(Vec::new()), ..observed }, &scaler());
    assert!(looked.get());
}
