//! ScaledObjects that somebody has paused.

use super::*;
use serde_json::Map;

const PAUSED: &str = "autoscaling.keda.sh/paused";
const REPLICAS: &str = "autoscaling.keda.sh/paused-replicas";
const SCALE_OUT: &str = "autoscaling.keda.sh/paused-scale-out";
const SCALE_IN: &str = "autoscaling.keda.sh/paused-scale-in";

/// KEDA calls a ScaledObject that is paused ready.
fn status(paused: &str) -> Value {
    json!({"status": {"conditions": [
        {"type": "Ready", "status": "True"}, {"type": "Paused", "status": paused},
    ]}})
}

fn annotations(all: &[(&str, &str)]) -> Value {
    let all: Map<String, Value> = all.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({"metadata": {"annotations": all}})
}

/// What is said where the HTTPScaledObject has `copied`, and its ScaledObject `own` besides.
fn ready(copied: &[(&str, &str)], own: &[(&str, &str)], paused: &str) -> (Truth, &'static str, String) {
    let object = object(annotations(copied));
    let scaled_object = applied(&object, changed(annotations(own), status(paused)));
    let ready = World::new(vec![scaled_object]).plan(&object).standing.ready();
    (ready.truth, ready.reason, ready.message)
}

#[test]
fn the_annotation_is_named_and_where_it_is() {
    let starts = "ScaledObject shop is paused, so KEDA does not wake the app; take the annotation ";
    for (copied, own, mend) in [
        (
            vec![(PAUSED, "true")],
            vec![],
            format!("{PAUSED} off HTTPScaledObject shop, from which it is copied"),
        ),
        (vec![], vec![(PAUSED, "true")], format!("{PAUSED} off ScaledObject shop")),
        // Any value but those that are false.
        (vec![], vec![(PAUSED, "")], format!("{PAUSED} off ScaledObject shop")),
        (vec![], vec![(REPLICAS, "0"), (PAUSED, "false")], format!("{REPLICAS} off ScaledObject shop")),
        (vec![], vec![(SCALE_OUT, "true"), (SCALE_IN, "true")], format!("{SCALE_OUT} off ScaledObject shop")),
        (
            vec![(SCALE_OUT, "true")],
            vec![(PAUSED, "true"), (REPLICAS, "2")],
            format!(
                "{SCALE_OUT} off HTTPScaledObject shop, from which it is copied, and {REPLICAS} and {PAUSED} off \
                 ScaledObject shop"
            ),
        ),
    ] {
        assert_eq!(ready(&copied, &own, "True"), (Truth::False, "Paused", format!("{starts}{mend}")));
    }
}

#[test]
fn an_app_that_only_stays_awake_is_well() {
    let (truth, reason, message) = ready(&[(SCALE_IN, "true")], &[], "True");
    assert_eq!((truth, reason), (Truth::True, "Reconciled"));
    assert!(message.contains("only up: scaling in is paused"), "{message}");
}

#[test]
fn what_counts_is_what_keda_has_made_of_it() {
    assert_eq!(ready(&[(PAUSED, "true")], &[], "False").1, "Reconciled", "not yet");
    let (truth, reason, _) = ready(&[], &[], "True");
    assert_eq!((truth, reason), (Truth::Unknown, "KedaPending"), "not any more");
    let object = object(annotations(&[(PAUSED, "true")]));
    let broken = json!({"status": {"conditions": [
        {"type": "Paused", "status": "True"}, {"type": "Ready", "status": "False", "message": "no such thing"},
    ]}});
    let world = World::new(vec![applied(&object, broken)]);
    assert_eq!(world.decide(&object).2, "KedaNotReady", "what is wrong besides comes first");
}

#[test]
fn a_users_own_scaled_object_is_named() {
    let skip = object(json!({"metadata": {"annotations": {
        sluice_api::SKIP_SCALED_OBJECT_CREATION: "true", PAUSED: "true",
    }}}));
    let own = users("own", "app", trigger(json!({"httpScaledObject": "shop"})));
    let own = serde_json::to_value(own).unwrap();
    let own = changed(own, changed(annotations(&[(PAUSED, "true")]), status("True")));
    let ready = World::new(vec![serde_json::from_value(own).unwrap()]).plan(&skip).standing.ready();
    assert_eq!(ready.reason, "Paused");
    assert!(ready.message.ends_with(&format!("{PAUSED} off ScaledObject own")), "{}", ready.message);
}
