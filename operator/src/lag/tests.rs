use super::*;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use sluice_core::route::Kind;

fn lag(wakes: u64, lag_ms: u64, hold_ms: u64) -> Option<Lag> {
    Some(Lag { wakes, lag_us: lag_ms * 1_000, hold_us: Some(hold_ms * 1_000) })
}

/// The condition as the API server has it after `finding`.
fn said(finding: &Finding) -> [Condition; 1] {
    [Condition {
        type_: finding.type_.to_owned(),
        status: finding.truth.as_str().to_owned(),
        reason: finding.reason.to_owned(),
        message: finding.message.clone(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }]
}

fn is_prompt(lag: Option<Lag>, before: &[Condition]) -> bool {
    finding(lag, before).unwrap().truth == Truth::True
}

#[test]
fn nothing_is_said_before_the_third_wake() {
    assert_eq!(finding(None, &[]), None);
    assert_eq!(finding(lag(2, 5_000, 6_000), &[]), None);
    assert!(!is_prompt(lag(3, 5_000, 6_000), &[]));
}

#[test]
fn istiods_debounce_is_late_and_its_setting_is_named() {
    let late = finding(lag(5, 102, 900), &[]).unwrap();
    assert_eq!((late.truth, late.reason), (Truth::False, "Late"));
    for words in ["PILOT_ENABLE_EDS_DEBOUNCE=false", "last 5 wakes", "50 to 200 ms"] {
        assert!(late.message.contains(words), "{}", late.message);
    }
    assert!(is_prompt(lag(5, 12, 900), &[]));
}

#[test]
fn what_is_a_small_part_of_the_wait_is_not_late() {
    assert!(is_prompt(lag(5, 102, 30_000), &[]));
    assert!(!is_prompt(lag(5, 102, 2_000), &[]));
    // Nobody was released: all of the wait was in vain.
    assert!(!is_prompt(Some(Lag { wakes: 5, lag_us: 102_000, hold_us: None }), &[]));
}

#[test]
fn it_does_not_waver_and_it_recovers() {
    let late = said(&finding(lag(5, 51, 200), &[]).unwrap());
    let prompt = said(&finding(lag(5, 49, 200), &[]).unwrap());
    for ms in 26..=50 {
        assert!(!is_prompt(lag(5, ms, 200), &late), "{ms}");
        assert!(is_prompt(lag(5, ms, 200), &prompt), "{ms}");
    }
    for hold_ms in [2_100, 3_900] {
        assert!(!is_prompt(lag(5, 100, hold_ms), &late), "{hold_ms}");
        assert!(is_prompt(lag(5, 100, hold_ms), &prompt), "{hold_ms}");
    }
    assert!(is_prompt(lag(5, 25, 200), &late));
    assert!(is_prompt(lag(5, 100, 4_100), &late));
}

#[test]
fn the_next_measurement_of_the_same_says_the_same() {
    assert_eq!(finding(lag(5, 98, 900), &[]), finding(lag(5, 131, 1_400), &[]));
    assert_eq!(finding(lag(3, 2, 900), &[]), finding(lag(5, 14, 1_400), &[]));
    let seconds = finding(lag(5, 10_100, 12_000), &[]).unwrap().message;
    assert!(seconds.contains("more than 5 s"), "{seconds}");
}

#[test]
fn what_was_said_stays_while_nobody_knows_better() {
    for lag_ms in [5, 500] {
        let before = finding(lag(4, lag_ms, 900), &[]);
        let said = said(before.as_ref().unwrap());
        assert_eq!(finding(None, &said), before, "no scaler answers");
        assert_eq!(finding(lag(1, 250, 900), &said), before, "it has just started");
    }
    let mut other = said(&finding(lag(4, 500, 900), &[]).unwrap());
    other[0].reason = "Somebody".to_owned();
    assert_eq!(finding(None, &other), None);
}

#[test]
fn of_several_scalers_the_one_that_knows_most_is_believed() {
    let of = |wakes, lag_ms| {
        let key = (Kind::HttpScaledObject, "a".to_owned(), "x".to_owned());
        Lags::from([(key, lag(wakes, lag_ms, 900).unwrap())])
    };
    for all in [[of(5, 100), of(1, 3), Lags::new()], [Lags::new(), of(1, 3), of(5, 100)]] {
        assert_eq!(together(all), of(5, 100));
    }
    assert_eq!(together([of(5, 100), of(5, 99)]), together([of(5, 99), of(5, 100)]));
}
