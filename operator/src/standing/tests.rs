use super::*;

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn standing(findings: Vec<Finding>) -> Standing {
    Standing {
        generation: Some(3),
        findings,
        well: "all is well".to_owned(),
        target_workload: Some("apps/v1/Deployment/app".to_owned()),
        target_service: None,
    }
}

fn conditions(update: &Update) -> Vec<Condition> {
    serde_json::from_value(update.status["conditions"].clone()).unwrap()
}

fn written<'a>(standing: &'a Standing, conditions: &'a [Condition]) -> Written<'a> {
    Written {
        generation: standing.generation,
        conditions,
        target_workload: standing.target_workload.as_deref(),
        target_service: standing.target_service.as_deref(),
    }
}

#[test]
fn ready_is_the_first_that_is_false_then_the_first_that_is_unknown() {
    let yes = Finding::yes(ACCEPTED, "Valid", "fine");
    let no = Finding::no(SCALED_OBJECT_READY, "Conflict", "not ours");
    let pending = Finding::pending(RESOLVED_REFS, "Pending", "wait");
    let ready = standing(vec![yes.clone(), pending.clone(), no]).ready();
    assert_eq!((ready.type_, ready.truth, ready.reason), (READY, Truth::False, "Conflict"));
    let ready = standing(vec![yes.clone(), pending]).ready();
    assert_eq!((ready.truth, ready.message.as_str()), (Truth::Unknown, "wait"));
    let ready = standing(vec![yes]).ready();
    assert_eq!(
        (ready.truth, ready.reason, ready.message.as_str()),
        (Truth::True, "Reconciled", "all is well")
    );
}

#[test]
fn late_endpoints_are_said_and_are_no_reason_not_to_be_ready() {
    let late = Finding::no(ENDPOINTS_PROMPT, "Late", "by far");
    let standing = standing(vec![Finding::yes(ACCEPTED, "Valid", "fine"), late]);
    assert_eq!(standing.ready().truth, Truth::True);
    let conditions = conditions(&standing.update(Written::default(), time(0)).unwrap());
    let said = |it: &Condition| (it.type_.clone(), it.status.clone());
    assert_eq!(said(&conditions[0]), (READY.to_owned(), "True".to_owned()));
    assert_eq!(said(&conditions[2]), (ENDPOINTS_PROMPT.to_owned(), "False".to_owned()));
}

#[test]
fn what_is_written_already_is_not_written_again() {
    let standing = standing(vec![Finding::yes(ACCEPTED, "Valid", "fine")]);
    let update = standing.update(Written::default(), time(0)).unwrap();
    let conditions = conditions(&update);
    assert_eq!(standing.update(written(&standing, &conditions), time(60)), None);
    let mut changed = standing.clone();
    changed.target_workload = None;
    let update = changed.update(written(&standing, &conditions), time(60)).unwrap();
    assert_eq!(update.status["targetWorkload"], Value::Null, "a merge patch removes what is null");
    assert_eq!(update.news, None, "nothing that an event would tell");
}

/// As under the add-on's definitions.
#[test]
fn an_observed_generation_that_the_api_server_drops_is_not_written_again() {
    let mut standing = standing(vec![Finding::yes(ACCEPTED, "Valid", "fine")]);
    let conditions = conditions(&standing.update(Written::default(), time(0)).unwrap());
    let stored = standing.clone();
    let stored = Written { generation: None, ..written(&stored, &conditions) };
    assert_eq!(standing.update(stored, time(60)), None);
    standing.generation = Some(4);
    assert!(standing.update(stored, time(60)).is_some(), "another generation");
}

#[test]
fn a_conditions_time_is_that_of_its_change() {
    let mut standing = standing(vec![Finding::no(ACCEPTED, "InvalidSpec", "field a")]);
    let first = conditions(&standing.update(Written::default(), time(0)).unwrap());
    standing.findings = vec![Finding::no(ACCEPTED, "InvalidSpec", "field b")];
    standing.generation = Some(4);
    let update = standing.update(written(&standing, &first), time(10)).unwrap();
    let second = conditions(&update);
    assert!(second.iter().all(|it| it.last_transition_time == Time(time(0))), "{second:?}");
    assert!(second.iter().all(|it| it.observed_generation == Some(4)));
    assert_eq!(update.news.unwrap().message, "field b");
    standing.findings = vec![Finding::yes(ACCEPTED, "Valid", "fine")];
    let third = conditions(&standing.update(written(&standing, &second), time(20)).unwrap());
    assert!(third.iter().all(|it| it.last_transition_time == Time(time(20))), "{third:?}");
}

#[test]
fn somebody_elses_conditions_stay() {
    let standing = standing(vec![Finding::yes(ACCEPTED, "Valid", "fine")]);
    let other = Finding::yes("Approved", "Friday", "by somebody").condition(Some(1), &[], time(0));
    let before = Written { conditions: std::slice::from_ref(&other), ..Written::default() };
    let conditions = conditions(&standing.update(before, time(5)).unwrap());
    let types: Vec<&str> = conditions.iter().map(|it| it.type_.as_str()).collect();
    assert_eq!(types, [READY, ACCEPTED, "Approved"]);
    assert_eq!(conditions[2], other);
}

#[test]
fn a_message_is_no_longer_than_its_schema_takes() {
    let finding = Finding::no(ACCEPTED, "InvalidSpec", "ä".repeat(MAX_MESSAGE));
    let condition = finding.condition(None, &[], time(0));
    assert_eq!(condition.message.len(), MAX_MESSAGE);
}
