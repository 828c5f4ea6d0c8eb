use super::*;
use std::collections::BTreeMap;

const NAMESPACE: &str = "edge";

fn wanted() -> Wanted {
    let spec = json!({
        "priority": 100,
        "workloadSelector": {"labels": {"istio": "ingressgateway"}},
        "configPatches": [{"applyTo": "CLUSTER"}],
    });
    Wanted {
        name: "sluice".to_owned(),
        labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        annotations: BTreeMap::from([("c".to_owned(), "d".to_owned())]),
        spec: spec.as_object().unwrap().clone(),
    }
}

/// As the API server has it once it is applied.
fn applied() -> Value {
    let mut object = wanted().object(NAMESPACE, Part::Filter, Some("u"));
    object["metadata"]["resourceVersion"] = json!("7");
    object["metadata"]["managedFields"] = json!([{"manager": FIELD_MANAGER, "operation": "Apply"}]);
    object
}

fn stepped(there: &Value) -> Step {
    step(Some(&read(there)), NAMESPACE, Part::Filter, &wanted())
}

fn read(there: &Value) -> EnvoyFilter {
    serde_json::from_value(there.clone()).unwrap()
}

#[test]
fn what_is_not_there_is_made_with_our_labels() {
    let Step::Create(object) = step(None, NAMESPACE, Part::Filter, &wanted()) else { panic!("not made") };
    let metadata = &object["metadata"];
    let labels = json!({"a": "b", MANAGED_BY: "sluice-operator", PART: "filter"});
    assert_eq!(metadata["labels"], labels);
    assert_eq!((&metadata["namespace"], metadata.get("uid")), (&json!("edge"), None));
    assert_eq!(object["spec"], Value::Object(wanted().spec));
}

#[test]
fn what_is_as_it_has_to_be_is_kept() {
    assert_eq!(stepped(&applied()), Step::Keep);
    // What others write beside it is theirs.
    let mut there = applied();
    there["metadata"]["labels"]["team"] = json!("edge");
    there["metadata"]["annotations"]["note"] = json!("x");
    assert_eq!(stepped(&there), Step::Keep);
}

#[test]
fn what_was_changed_is_put_back() {
    for (field, value) in [
        ("/metadata/labels/a", json!("other")),
        ("/metadata/annotations/c", json!("other")),
        ("/spec/priority", json!(1)),
        ("/spec/configPatches", json!([])),
    ] {
        let mut there = applied();
        *there.pointer_mut(field).unwrap() = value;
        let Step::Apply { object, purge } = stepped(&there) else { panic!("{field} is not put back") };
        assert_eq!(purge, None, "{field}");
        assert_eq!(object["metadata"]["uid"], "u", "another one must not be met");
        assert_eq!(object["spec"], Value::Object(wanted().spec));
    }
}

#[test]
fn what_nobody_wants_in_it_is_taken_out() {
    let mut there = applied();
    there["spec"]["workloadSelector"]["labels"]["more"] = json!("x");
    there["spec"]["targetRefs"] = json!([]);
    let Step::Apply { purge: Some(purge), .. } = stepped(&there) else { panic!("not taken out") };
    assert_eq!(purge["spec"]["targetRefs"], Value::Null);
    let labels = json!({"istio": "ingressgateway", "more": null});
    assert_eq!(purge["spec"]["workloadSelector"]["labels"], labels);
    assert_eq!(purge["spec"]["priority"], 100);
    assert_eq!(purge["metadata"]["resourceVersion"], "7");
}

#[test]
fn what_is_somebody_elses_is_left_alone() {
    let mut there = applied();
    there["metadata"]["labels"] = json!({"a": "b"});
    there["metadata"]["managedFields"] = json!([{"manager": "kubectl", "operation": "Apply"}]);
    assert_eq!(stepped(&there), Step::Foreign);
    // An update by this name is not an apply: a status, a merge.
    there["metadata"]["managedFields"] = json!([{"manager": FIELD_MANAGER, "operation": "Update"}]);
    assert_eq!(stepped(&there), Step::Foreign);
    // Handed over.
    there["metadata"]["labels"][MANAGED_BY] = json!(FIELD_MANAGER);
    assert!(matches!(stepped(&there), Step::Apply { .. }));
}

#[test]
fn a_label_that_was_taken_off_is_put_on_again() {
    let mut there = applied();
    there["metadata"]["labels"] = json!({});
    assert!(matches!(stepped(&there), Step::Apply { .. }));
}

#[test]
fn one_that_is_going_is_waited_for() {
    let mut there = applied();
    there["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    there["spec"]["priority"] = json!(1);
    assert_eq!(stepped(&there), Step::Keep);
    assert_eq!(deletable(&read(&there)), None);
}

#[test]
fn only_what_we_made_is_deleted() {
    assert_eq!(deletable(&read(&applied())), Some(Part::Filter));
    let mut copy = applied();
    copy["metadata"]["managedFields"] = json!([{"manager": "kubectl-create", "operation": "Update"}]);
    assert_eq!(deletable(&read(&copy)), None);
    let mut unlabelled = applied();
    unlabelled["metadata"]["labels"] = json!({PART: "filter"});
    assert_eq!(deletable(&read(&unlabelled)), None);
    let mut unknown = applied();
    unknown["metadata"]["labels"][PART] = json!("later");
    assert_eq!(deletable(&read(&unknown)), None);
}

#[test]
fn parts_are_known_by_their_labels() {
    for part in Part::ALL {
        assert_eq!(Part::of(part.as_str()), Some(part));
    }
}
