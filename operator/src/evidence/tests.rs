use super::*;
use crate::standing::{ACCEPTED, ENDPOINTS_PROMPT, Standing, Written};
use k8s_openapi::jiff::Timestamp;

fn key(name: &str) -> Key {
    (Kind::HttpScaledObject, "ns".to_owned(), name.to_owned())
}

fn scaler(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8080))
}

/// A scaler's answer: its workers, and how many requests of the object `x` went elsewhere.
fn answer(workers: u64, mismatches: u64) -> Answer {
    let seen = Seen { mismatches, ..Seen::default() };
    Answer { workers, objects: BTreeMap::from([(key("x"), seen)]) }
}

/// A round in which these scalers answer, of which there are no more.
fn round(evidence: &mut Evidence, answers: Vec<Answer>) -> Concerned {
    let answers: BTreeMap<SocketAddr, Answer> = (1..).map(scaler).zip(answers).collect();
    evidence.retain(&answers.keys().copied().collect());
    evidence.take(answers, true)
}

/// The conditions as the API server has them after `findings`.
fn said(findings: Vec<Finding>) -> Vec<Condition> {
    let standing = Standing {
        generation: None,
        findings,
        well: String::new(),
        target_workload: None,
        target_service: None,
    };
    let update = standing.update(Written::default(), Timestamp::UNIX_EPOCH).unwrap();
    serde_json::from_value(update.status["conditions"].clone()).unwrap()
}

/// The reasons of what is said of `x`.
fn reasons(evidence: &Evidence, before: &[Condition]) -> Vec<&'static str> {
    evidence.findings(&key("x"), before).iter().map(|finding| finding.reason).collect()
}

fn these(keys: &[Key]) -> Concerned {
    Concerned::These(keys.iter().cloned().collect())
}

#[test]
fn a_scaler_is_read() {
    let answer = br#"{"workers": 2, "more": 1, "objects": [
        {"kind":"HTTPScaledObject","namespace":"a","name":"x","endpointLag":{"wakes":3,"lagUs":101000,"holdUs":null}},
        {"kind":"InterceptorRoute","namespace":"b","name":"x","mismatches":7,"conflict":"why","more":1},
        {"kind":"Other","namespace":"b","name":"x","mismatches":5}
    ]}"#;
    let lag = Some(Lag { wakes: 3, lag_us: 101_000, hold_us: None });
    let first = Seen { lag, ..Seen::default() };
    let second = Seen { lag: None, mismatches: 7, conflict: Some("why".to_owned()) };
    let key = |kind, namespace: &str| (kind, namespace.to_owned(), "x".to_owned());
    let objects = [(key(Kind::HttpScaledObject, "a"), first), (key(Kind::InterceptorRoute, "b"), second)];
    assert_eq!(read(answer).unwrap(), Answer { workers: 2, objects: objects.into() });
    assert!(read(b"<html>").is_err());
    assert!(read(b"[]").is_err());
}

#[test]
fn before_scalers_have_answered_nothing_is_said_and_nothing_taken_back() {
    let mut evidence = Evidence::default();
    assert_eq!(evidence.findings(&key("x"), &[]), []);
    let all = vec![
        Finding::no(GATEWAY_LINKED, "NoGateway", "none"),
        Finding::yes(CONFLICTED, "ShadowedBy", "another"),
        Finding::yes(TARGET_MISMATCH, "RoutedElsewhere", "some"),
        Finding::no(ENDPOINTS_PROMPT, "Late", "by far"),
    ];
    let before = said(all.clone());
    assert_eq!(evidence.findings(&key("x"), &before), all);
    assert_eq!(round(&mut evidence, vec![]), these(&[]));
    assert_eq!(evidence.findings(&key("x"), &before), all);
    // Somebody else's words are not kept.
    let mut others = before.clone();
    others.iter_mut().for_each(|it| it.reason = "Other".to_owned());
    assert_eq!(evidence.findings(&key("x"), &others), []);
    // That a conflict is over is known at once; of the rest it cannot be yet.
    assert_eq!(round(&mut evidence, vec![answer(0, 9)]), Concerned::All);
    assert_eq!(reasons(&evidence, &before), ["NoGateway", "RoutedElsewhere", "Late"]);
}

#[test]
fn a_gateway_is_linked_as_soon_as_one_is_and_missed_only_after_some_rounds() {
    let mut evidence = Evidence::default();
    for _ in 1..ALONE {
        round(&mut evidence, vec![answer(0, 0), answer(0, 0)]);
        assert_eq!(evidence.is_linked(), None);
    }
    // One that does not answer may have a gateway.
    let answers = || BTreeMap::from([(scaler(1), answer(0, 0))]);
    evidence.take(answers(), false);
    assert_eq!(evidence.is_linked(), None);
    assert_eq!(evidence.take(answers(), true), Concerned::All);
    assert_eq!(reasons(&evidence, &[]), ["NoGateway"]);
    assert_eq!(round(&mut evidence, vec![answer(0, 0), answer(1, 0)]), Concerned::All);
    assert_eq!(reasons(&evidence, &[]), ["Linked"]);
    for _ in 1..ALONE {
        assert_eq!(round(&mut evidence, vec![answer(0, 0)]), these(&[]));
        assert_eq!(reasons(&evidence, &[]), ["Linked"]);
    }
    assert_eq!(round(&mut evidence, vec![answer(0, 0)]), Concerned::All);
    assert_eq!(reasons(&evidence, &[]), ["NoGateway"]);
}

#[test]
fn requests_that_go_elsewhere_are_said_until_none_has_for_some_rounds() {
    let mut evidence = Evidence::default();
    // Of what a scaler says first, nobody knows when it was.
    round(&mut evidence, vec![answer(1, 5), answer(1, 5)]);
    assert_eq!(reasons(&evidence, &[]), ["Linked"]);
    assert_eq!(round(&mut evidence, vec![answer(1, 6), answer(1, 5)]), these(&[key("x")]));
    assert_eq!(round(&mut evidence, vec![answer(1, 6), answer(1, 6)]), these(&[]));
    assert_eq!(reasons(&evidence, &[]), ["Linked", "RoutedElsewhere"]);
    // One that has started anew, in the place of one that is gone, counts anew.
    for count in [0, 1] {
        round(&mut evidence, vec![answer(1, 6), answer(1, count)]);
    }
    let before = said(evidence.findings(&key("x"), &[]));
    let mut rounds = 0;
    while reasons(&evidence, &before).contains(&"RoutedElsewhere") {
        rounds += 1;
        assert!(rounds <= QUIET, "it never ends");
        let concerned = round(&mut evidence, vec![answer(1, 6), answer(1, 1)]);
        assert_eq!(concerned == these(&[key("x")]), rounds == QUIET, "{concerned:?}");
    }
    assert_eq!(rounds, QUIET);
    assert_eq!(round(&mut evidence, vec![answer(1, 6), answer(1, 2)]), these(&[key("x")]));
    assert_eq!(reasons(&evidence, &[]), ["Linked", "RoutedElsewhere"]);
}

#[test]
fn what_was_said_of_another_time_ends_though_no_scaler_remembers_it() {
    let mut evidence = Evidence::default();
    let before = said(vec![Finding::yes(TARGET_MISMATCH, "RoutedElsewhere", "some")]);
    for number in 1..=QUIET {
        assert!(number == 1 || reasons(&evidence, &before).contains(&"RoutedElsewhere"), "{number}");
        let concerned = round(&mut evidence, vec![Answer { workers: 1, ..Answer::default() }]);
        assert_eq!(concerned == Concerned::All, number == 1 || number == QUIET, "{number}");
    }
    assert_eq!(reasons(&evidence, &before), ["Linked"]);
}

#[test]
fn a_conflict_is_said_while_a_scaler_says_it() {
    let mut evidence = Evidence::default();
    let conflict = |words: Option<&str>| {
        let seen = Seen { conflict: words.map(str::to_owned), ..Seen::default() };
        Answer { workers: 1, objects: BTreeMap::from([(key("x"), seen)]) }
    };
    round(&mut evidence, vec![conflict(None)]);
    assert_eq!(round(&mut evidence, vec![conflict(Some("those of y"))]), these(&[key("x")]));
    assert_eq!(round(&mut evidence, vec![conflict(Some("those of y"))]), these(&[]));
    let findings = evidence.findings(&key("x"), &[]);
    assert_eq!(findings[1], Finding::yes(CONFLICTED, "ShadowedBy", "those of y"));
    let before = said(findings);
    assert_eq!(round(&mut evidence, vec![Answer { workers: 1, ..Answer::default() }]), these(&[key("x")]));
    assert_eq!(reasons(&evidence, &before), ["Linked"]);
}

#[test]
fn ready_claims_no_more_than_was_shown() {
    let ready = |finding: Option<Finding>| {
        let mut findings = vec![Finding::yes(ACCEPTED, "Valid", "fine")];
        findings.extend(finding);
        let standing = Standing {
            generation: None,
            findings,
            well: format!("{}; KEDA scales it", crate::standing::COUNTED),
            target_workload: None,
            target_service: None,
        };
        standing.ready()
    };
    let plain = "requests through linked gateways are counted and held; KEDA scales it";
    for (finding, wanted) in [
        (None, plain),
        (Some(Finding::yes(GATEWAY_LINKED, "Linked", "one")), plain),
        (
            Some(Finding::no(GATEWAY_LINKED, "NoGateway", "none")),
            "requests are neither counted nor held, since no gateway is linked (see GatewayLinked); KEDA scales it",
        ),
        (
            Some(Finding::yes(CONFLICTED, "ShadowedBy", "y")),
            "requests are counted and held but for those that an older object has (see Conflicted); KEDA scales it",
        ),
        (
            Some(Finding::yes(TARGET_MISMATCH, "RoutedElsewhere", "some")),
            "requests are counted and held but for those that go elsewhere (see TargetMismatch); KEDA scales it",
        ),
    ] {
        let ready = ready(finding);
        assert_eq!((ready.truth, ready.reason, ready.message.as_str()), (Truth::True, "Reconciled", wanted));
    }
}
