use super::*;

#[test]
fn errors_in_a_row_wait_longer_and_longer_until_one_goes_well() {
    let mut pace = Pace::default();
    let waits: Vec<Duration> = (0..12).map(|_| pace.failed("a")).collect();
    assert_eq!(waits[..3], [500, 1000, 2000].map(Duration::from_millis));
    assert_eq!(waits[11], LAST_BACKOFF);
    assert_eq!(pace.failed("b"), FIRST_BACKOFF, "each object has its own");
    pace.succeeded(&"a");
    assert_eq!(pace.failed("a"), FIRST_BACKOFF);
    pace.forget(&"a");
    assert_eq!(pace.failed("a"), FIRST_BACKOFF);
}

#[test]
fn whoever_undoes_every_write_is_answered_slower_and_slower() {
    let mut pace = Pace::default();
    let start = Instant::now();
    for _ in 0..FREE_WRITES {
        pace.wrote("a", start);
        assert_eq!(pace.pause(&"a", start), None);
    }
    let mut now = start;
    let mut pauses = Vec::new();
    for _ in 0..10 {
        pace.wrote("a", now);
        let pause = pace.pause(&"a", now).unwrap();
        pauses.push(pause);
        now += pause;
        assert_eq!(pace.pause(&"a", now), None, "and then it goes on");
    }
    assert_eq!(pauses[..2], [500, 1000].map(Duration::from_millis));
    assert_eq!(pauses[9], LAST_PAUSE);
    assert_eq!(pace.pause(&"b", now), None);
    now += FORGIVEN_AFTER;
    pace.wrote("a", now);
    assert_eq!(pace.pause(&"a", now), None, "what is long ago is forgotten");
}

#[test]
fn what_a_status_was_written_over_is_known_by_its_version() {
    let mut pace = Pace::default();
    assert!(!pace.is_superseded(&"a", "1"));
    pace.superseded("a", "1".to_owned());
    assert!(pace.is_superseded(&"a", "1"));
    assert!(!pace.is_superseded(&"a", "2"), "it has come back");
    assert!(!pace.is_superseded(&"b", "1"));
    pace.forget(&"a");
    assert!(!pace.is_superseded(&"a", "1"));
}
