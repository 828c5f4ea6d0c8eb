use super::*;
use proptest::{collection::vec, prelude::*};

fn at(ms: u64) -> Instant {
    Instant::from_nanos(3_000_000_000 + ms * 1_000_000)
}

fn window() -> (ConcurrencyWindow, Share) {
    (ConcurrencyWindow::new(at(0), ConcurrencyWindow::DEFAULT), Share::new(at(0)))
}

fn assert_near(value: f64, expected: f64) {
    assert!((value - expected).abs() <= expected * 0.001 + 1e-9, "{value} instead of {expected}");
}

#[test]
fn ten_requests_a_second_of_half_a_second_are_five() {
    let (mut window, mut share) = window();
    for tick in 1..=80u32 {
        window.observe(at(u64::from(tick) * 250), &mut share, 1_250_000, tick % 11, 0);
        assert_near(window.value(at(u64::from(tick) * 250)), 5.0 * (f64::from(tick) / 4.0).min(1.0));
    }
}

#[test]
fn a_request_between_two_words_is_seen_until_the_window_has_passed() {
    let (mut window, mut share) = window();
    window.observe(at(20_250), &mut share, 0, 0, 0);
    assert_eq!(window.value(at(20_250)), 0.0);
    window.observe(at(20_500), &mut share, 3_000, 0, 0);
    assert_near(window.value(at(20_500)), 0.0003);
    assert!(window.value(at(30_200)) > 0.0);
    assert_eq!(window.value(at(30_500)), 0.0);
}

#[test]
fn a_gauge_that_stands_still_needs_no_word() {
    let (mut window, mut share) = window();
    window.observe(at(10_000), &mut share, 0, 3, 0);
    assert_near(window.value(at(15_000)), 1.5);
    assert_near(window.value(at(60_000)), 3.0);
    window.observe(at(60_000), &mut share, 150_000_000, 3, 0);
    assert_near(window.value(at(60_000)), 3.0);
    window.observe(at(60_001), &mut share, 3_000, 0, 0);
    assert_near(window.value(at(65_001)), 1.5);
    assert_eq!(window.value(at(70_502)), 0.0);
}

#[test]
fn a_silent_worker_counts_while_another_one_talks() {
    let (mut window, mut silent) = window();
    let mut busy = Share::new(at(0));
    window.observe(at(0), &mut silent, 0, 100, 0);
    for tick in 1..=100u32 {
        window.observe(at(u64::from(tick) * 250), &mut busy, 500_000, tick % 5, 0);
    }
    assert_near(window.value(at(25_000)), 102.0);
    // All of the hundred had gone at 20 s, and now it says so.
    window.observe(at(25_000), &mut silent, 2_000_000_000, 0, 0);
    assert_near(window.value(at(25_000)), 2.0 + 80.0);
    assert_eq!(window.in_flight(), 0);
}

#[test]
fn what_was_believed_for_too_long_is_taken_back() {
    let (mut window, mut share) = window();
    window.observe(at(20_000), &mut share, 0, 50, 0);
    assert_near(window.value(at(22_000)), 10.0);
    // They were gone after a millisecond.
    window.observe(at(22_000), &mut share, 50_000, 0, 0);
    assert_near(window.value(at(22_000)), 0.005);
}

#[test]
fn rounding_leaves_nothing() {
    for gauge in 1..50 {
        let (mut window, mut share) = window();
        window.observe(Instant::from_nanos(23_000_000_001), &mut share, 0, gauge, 0);
        window.value(Instant::from_nanos(23_100_000_007));
        let mut other = Share::new(at(0));
        window.observe(Instant::from_nanos(23_333_333_337 + u64::from(gauge) * 7), &mut other, 0, 0, 0);
        window.observe(Instant::from_nanos(24_777_777_771), &mut share, 0, 0, 0);
        assert_eq!(window.value(Instant::from_nanos(24_777_777_771)), 0.0, "{gauge}");
    }
}

#[test]
fn what_waits_counts_at_once_and_in_full() {
    let (mut window, mut share) = window();
    let mut other = Share::new(at(0));
    window.observe(at(20_001), &mut share, 0, 40, 40);
    window.observe(at(20_001), &mut other, 0, 3, 2);
    assert_eq!(window.value(at(20_002)), 42.0);
    assert_eq!((window.in_flight(), window.held()), (43, 42));
    assert_eq!((share.in_flight(), share.held()), (40, 40));
    window.observe(at(20_020), &mut share, 700_000, 0, 0);
    assert_eq!(window.value(at(20_020)), 2.0);
    window.leave(at(20_030), other);
    assert_eq!((window.in_flight(), window.held()), (0, 0));
    assert!(window.value(at(20_030)) < 1.0);
    assert_eq!(window.value(at(30_531)), 0.0);
}

#[test]
fn a_window_that_has_just_begun_is_averaged_over_its_age() {
    let (mut window, mut share) = window();
    window.observe(at(0), &mut share, 0, 100, 0);
    // A scaler that starts again does not tell less than there is.
    assert_near(window.value(at(2_000)), 100.0);
    assert_near(window.value(at(100)), 10.0);
}

#[test]
fn words_at_one_moment_lose_nothing_and_a_clock_that_goes_back_harms_nothing() {
    let (mut window, mut share) = window();
    window.observe(at(20_100), &mut share, 50_000, 1, 0);
    window.observe(at(20_100), &mut share, 50_000, 1, 0);
    window.observe(at(20_000), &mut share, 50_000, 0, 0);
    // The first of them was said of all the time until then, of which half is past.
    let first = 50_000.0 * 10_000.0 / 20_100.0;
    assert_near(window.value(at(19_000)), (first + 100_000.0) / 10e6);
}

proptest! {
    #[test]
    fn it_is_the_mean_of_what_was_said(
        window_ms in 0..20_000u64,
        steps in vec((0..3_000u64, 0..3usize, 0..20u32, 0..10u32), 1..80),
    ) {
        let mut window = ConcurrencyWindow::new(at(0), Duration::from_millis(window_ms));
        let mut shares = [Share::new(at(0)); 3];
        let (mut now, mut most) = (0u64, 0u64);
        for (passed, worker, in_flight, held) in steps {
            now += passed;
            // What is said is what the gauge was: nothing is ever to be corrected.
            let share = &mut shares[worker];
            let us = u64::from(share.in_flight) * nanos(at(now).since(share.told)) / 1_000;
            window.observe(at(now), share, us, in_flight, held.min(in_flight));
            let sum: u64 = shares.iter().map(|share| u64::from(share.in_flight)).sum();
            prop_assert_eq!(window.in_flight(), sum);
            most = most.max(sum);
            for later in [0, passed, 100_000] {
                let value = window.value(at(now + later));
                prop_assert!(value.is_finite() && value >= window.held() as f64);
                prop_assert!(value <= most as f64 * 1.000_001, "{} of {}", value, most);
                if later == 100_000 {
                    assert_near(value, sum as f64);
                }
            }
        }
    }

    #[test]
    fn whatever_is_said_it_is_a_number_and_gone_with_the_window(
        steps in vec((any::<u32>(), 0..3usize, any::<u64>(), any::<u32>(), any::<u32>()), 1..40),
        origin in 0..u64::MAX / 2,
    ) {
        let mut now = Instant::from_nanos(origin);
        let mut window = ConcurrencyWindow::new(now, ConcurrencyWindow::DEFAULT);
        let mut shares = [Share::new(now); 3];
        for (passed, worker, request_us, in_flight, held) in steps {
            now = now.after(Duration::from_nanos(u64::from(passed) * 4));
            window.observe(now, &mut shares[worker], request_us, in_flight, held);
            let value = window.value(now);
            prop_assert!(value.is_finite() && value >= 0.0);
        }
        for share in shares {
            window.leave(now, share);
        }
        prop_assert_eq!((window.in_flight(), window.held()), (0, 0));
        prop_assert_eq!(window.value(now.after(Duration::from_millis(10_001))), 0.0);
    }
}
