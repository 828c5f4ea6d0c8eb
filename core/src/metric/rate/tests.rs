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
fn one_request_in_an_idle_window_is_not_rounded_away_and_counts_for_just_the_window() {
    for (window_ms, granularity_ms) in
        [(60_000, 1_000), (3_600_000, 1_000), (1_000, 1_000), (86_400_000, 1_000)]
    {
        let mut window = RateWindow::new(at(0), spec(window_ms, granularity_ms));
        let came = 2 * window_ms + 456;
        assert_eq!(window.value(at(came)), 0.0);
        window.add(at(came), 1);
        for after in [0, window_ms / 2, window_ms - 1] {
            let value = window.value(at(came + after));
            assert_eq!(value, granularity_ms as f64 / window_ms as f64, "after {after} ms");
            assert_eq!(super::super::as_integer(value), 1);
        }
        assert_eq!(window.value(at(came + window_ms)), 0.0);
    }
}

#[test]
fn a_request_at_the_clocks_origin_counts() {
    let mut window = RateWindow::new(Instant::default(), RateSpec::default());
    window.add(Instant::default(), 1);
    assert_eq!(window.value(Instant::default()), 1.0);
}

#[test]
fn a_sudden_stop_decays_to_exactly_nothing() {
    let mut window = RateWindow::new(at(0), spec(60_000, 1_000));
    steady(&mut window, 120_000, 1);
    let mut last = f64::MAX;
    for second in 120..180 {
        let value = window.value(at(second * 1_000));
        assert!(value <= last + 1e-9, "{second}: {value} after {last}");
        assert!((value - (180 - second) as f64 / 6.0).abs() < 0.2, "{second}: {value}");
        last = value;
    }
    assert!(window.value(at(179_899)) > 0.0, "the last one came at 119.9 s");
    assert_eq!(window.value(at(179_900)), 0.0);
    window.add(at(180_000), 0);
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
    // Nothing is known of the hour before: the value is not 1/120 of what it was.
    window.set_spec(at(60_000), spec(3_600_000, 1_000));
    let value = window.value(at(60_000));
    assert!((value - 10.0).abs() < 0.5, "{value}");
    let value = window.value(at(90_000));
    assert!((value - 5.0).abs() < 0.5, "half of what is known was idle: {value}");
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

/// Arrivals one by one.
fn exact(arrivals: &[(u64, u64)], now: u64, window_ms: u64) -> (u64, u64) {
    let within =
        |age: u64| arrivals.iter().filter(move |(came, _)| *came + age > now).map(|(_, count)| count);
    // One part of slack on either side: that is how far arrivals are spread.
    let part = window_ms / u64::from(PARTS) + 1;
    (within(window_ms - part.min(window_ms)).sum(), within(window_ms + part).sum())
}

proptest! {
    #[test]
    fn it_counts_what_came_within_the_window(
        window_ms in 1_000..100_000u64,
        granularity_ms in 1_000..100_000u64,
        events in prop::collection::vec((0..20_000u64, 0..1_000u64), 0..90),
    ) {
        let window_ms = window_ms.max(granularity_ms);
        let mut window = RateWindow::new(at(0), spec(window_ms, granularity_ms));
        let mut arrivals = Vec::new();
        let mut now = 0;
        for (passed, count) in events {
            now += passed;
            window.add(at(now), count);
            arrivals.push((now, count));
            for later in [now, now + passed, now + window_ms - 1] {
                let observed = later.max(granularity_ms).min(window_ms);
                let total = window.value(at(later)) * observed as f64 / granularity_ms as f64;
                let (least, most) = exact(&arrivals, later, window_ms);
                prop_assert!(total >= least as f64 - 1e-6, "{} < {}", total, least);
                prop_assert!(total <= most as f64 + 1e-6, "{} > {}", total, most);
            }
            // Nothing that came in the window is ever told as nothing, and nothing is told when nothing came.
            prop_assert_eq!(window.value(at(now + window_ms - 1)) > 0.0, arrivals.iter().any(|(came, count)| {
                *count > 0 && *came + window_ms > now + window_ms - 1
            }));
            prop_assert_eq!(window.value(at(now + window_ms)), 0.0);
            prop_assert!(window.parts.len() <= PARTS as usize + 2);
        }
    }

    #[test]
    fn whatever_happens_it_is_a_number_of_bounded_size(
        origin in any::<u64>(),
        events in prop::collection::vec((any::<u32>(), any::<u64>(), 1..86_400u64, 1..86_400u64), 0..60),
    ) {
        let mut now = Instant::from_nanos(origin);
        let mut window = RateWindow::new(now, RateSpec::default());
        for (passed, arrivals, one, other) in events {
            now = now.after(Duration::from_micros(passed.into()));
            window.add(now, arrivals);
            if arrivals % 3 == 0 {
                window.set_spec(now, spec(one.max(other) * 1_000, one.min(other) * 1_000));
            }
            let value = window.value(now);
            prop_assert!(value.is_finite() && value >= 0.0);
            prop_assert!(arrivals == 0 || value > 0.0);
            prop_assert!(window.parts.len() <= 2 * PARTS as usize);
        }
    }
}
