use super::*;
use proptest::prelude::*;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(7_000_000_123 + ms * 1_000_000)
}

fn spec(window_ms: u64, granularity_ms: u64) -> RateSpec {
    RateSpec::new(Duration::from_millis(window_ms), Duration::from_millis(granularity_ms)).unwrap()
}

/// Requests at a steady rate from 0 to `ms`, told every 100 ms.
fn steady(window: &mut RateWindow, ms: u64, per_100ms: u64) {
    for tick in 0..ms / 100 {
        window.add(at(tick * 100), per_100ms);
    }
}

#[test]
fn the_unit_is_requests_per_granularity() {
    for (window_ms, granularity_ms, per_100ms, expected) in [
        (60_000, 1_000, 1, 10.0),
        (60_000, 10_000, 1, 100.0),
        // The add-on says 5.25 here: it cuts granularities to whole seconds.
        (60_000, 1_500, 1, 15.0),
        (7_000, 3_500, 2, 70.0),
        (3_600_000, 1_000, 1, 10.0),
    ] {
        let mut window = RateWindow::new(at(0), spec(window_ms, granularity_ms));
        steady(&mut window, 2 * window_ms, per_100ms);
        let value = window.value(at(2 * window_ms));
        assert!((value - expected).abs() <= expected * 0.02, "{window_ms} {granularity_ms}: {value}");
    }
}

#[test]
fn one_request_in_an_idle_hour_is_not_rounded_away_and_counts_for_just_the_window() {
    let mut window = RateWindow::new(at(0), spec(3_600_000, 1_000));
    let came = 2_400_000;
    window.add(at(came), 1);
    for after in [0, 1_800_000, 3_599_000] {
        let value = window.value(at(came + after));
        assert!(value > 0.0, "after {after} ms: {value}");
        assert_eq!(super::super::as_integer(value), 1);
    }
    // A part is a minute of the hour: the request was somewhere in it.
    assert_eq!(window.value(at(came + 3_600_000 + 60_000)), 0.0);
}

#[test]
fn a_sudden_stop_decays_to_exactly_nothing() {
    let mut window = RateWindow::new(at(0), spec(60_000, 1_000));
    steady(&mut window, 120_000, 1);
    let mut last = f64::MAX;
    for second in 120..=181 {
        let value = window.value(at(second * 1_000));
        assert!(value <= last + 1e-9, "{second}: {value} after {last}");
        last = value;
    }
    assert_eq!(last, 0.0);
    assert_eq!(window.parts.len(), 0);
}

#[test]
fn the_first_requests_are_averaged_over_the_time_that_was_seen() {
    let mut window = RateWindow::new(at(0), spec(60_000, 1_000));
    window.add(at(10), 1);
    assert_eq!(window.value(at(10)), 1.0, "one request is no burst of a hundred a second");
    steady(&mut window, 5_000, 1);
    let value = window.value(at(5_000));
    assert!((10.0..=10.3).contains(&value), "{value}");
}

#[test]
fn holes_count_as_nothing_and_late_tellings_are_counted() {
    let mut window = RateWindow::new(at(0), spec(10_000, 1_000));
    window.add(at(10_000), 10);
    window.add(at(17_000), 10);
    window.add(at(16_000), 10);
    let value = window.value(at(18_000));
    assert!((value - 3.0).abs() < 1e-9, "{value}");
}

#[test]
fn another_window_keeps_what_is_known() {
    let mut window = RateWindow::new(at(0), spec(60_000, 1_000));
    steady(&mut window, 60_000, 1);
    window.set_spec(at(60_000), spec(30_000, 1_000));
    let value = window.value(at(60_000));
    assert!((value - 10.0).abs() < 0.5, "{value}");
    window.set_spec(at(60_000), spec(30_000, 2_000));
    let value = window.value(at(60_000));
    assert!((value - 20.0).abs() < 1.0, "{value}");
}

#[test]
fn what_is_wrong_is_named_with_its_mend() {
    let error = |window_ms, granularity_ms| {
        RateSpec::new(Duration::from_millis(window_ms), Duration::from_millis(granularity_ms))
            .unwrap_err()
            .to_string()
    };
    assert!(error(60_000, 0).contains("granularity is 0ns; make it 1s or longer"));
    assert!(error(60_000, 999).contains("granularity"));
    assert!(error(1_000, 2_000).contains("at least as long"));
    assert!(error(86_400_001, 1_000).contains("24h or shorter"));
    assert_eq!(RateSpec::default(), spec(60_000, 1_000));
}

proptest! {
    #[test]
    fn it_is_a_number_bounded_by_what_came_and_of_bounded_size(
        window_ms in 1_000..100_000u64,
        granularity_ms in 1_000..100_000u64,
        events in prop::collection::vec((0..20_000u64, 0..1_000u64), 0..60),
    ) {
        let mut window = RateWindow::new(at(0), spec(window_ms.max(granularity_ms), granularity_ms));
        let (mut now, mut total) = (0, 0u64);
        for (passed, arrivals) in events {
            now += passed;
            total += arrivals;
            window.add(at(now), arrivals);
            let value = window.value(at(now));
            prop_assert!(value.is_finite() && value >= 0.0);
            prop_assert!(value <= total as f64 + 1e-6);
            prop_assert_eq!(arrivals > 0 && value == 0.0, false);
            prop_assert!(window.parts.len() as u64 <= PARTS + 2);
        }
    }
}
