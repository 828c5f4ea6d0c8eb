//! Falling asleep and waking: the endpoints from before.

use super::*;

/// Asleep since 0, without ever having been forwarded to; the gateway lists its last endpoint still.
fn asleep() -> Bed {
    let mut bed = Bed::new(limits());
    bed.gate.set_hint(at(0), 0, Hint::Ready);
    bed.gate.set_hint(at(0), 0, Hint::NotReady);
    bed.world.set(b"app", true);
    bed
}

/// Asleep since that millisecond, and open until then; the gateway lists its last endpoint still.
fn asleep_after_use(slept: u64) -> Bed {
    let mut bed = Bed::new(limits());
    bed.gate.set_hint(at(0), 0, Hint::Ready);
    bed.world.set(b"app", true);
    assert_eq!(bed.arrive(0, 1), Arrival::Forward);
    bed.gate.depart(at(1), 1);
    bed.world.looks.clear();
    bed.gate.set_hint(at(slept), 0, Hint::NotReady);
    bed
}

#[test]
fn a_dying_pod_that_envoy_still_lists_gets_nothing() {
    let mut bed = Bed::new(limits());
    bed.world.set(b"app", true);
    bed.gate.set_hint(at(0), 0, Hint::Ready);
    assert_eq!(bed.arrive(0, 1), Arrival::Forward);
    bed.gate.set_hint(at(10), 0, Hint::NotReady);
    assert_eq!(bed.arrive(11, 2), Arrival::Hold);
    assert_eq!(bed.poll(2_000), []);
    bed.world.set(b"app", false);
    bed.gate.set_hint(at(3_000), 0, Hint::Ready);
    assert_eq!(bed.poll(3_000), []);
    bed.world.set(b"app", true);
    assert_eq!(bed.poll(3_002), [release(2, 2_991)]);
}

#[test]
fn for_ten_seconds_after_a_wake_a_quiet_spell_costs_a_look() {
    let mut bed = Bed::new(limits());
    bed.world.set(b"app", true);
    bed.gate.set_hint(at(0), 0, Hint::Ready);
    bed.gate.set_hint(at(1), 0, Hint::NotReady);
    bed.gate.set_hint(at(20_000), 0, Hint::Ready);
    for (ms, looks) in [(20_000, 1), (20_100, 2), (29_999, 3), (30_000, 3), (40_000, 3)] {
        let stream = u32::try_from(ms).unwrap();
        assert_eq!(bed.arrive(ms, stream), Arrival::Forward);
        assert_eq!(bed.arrive(ms, stream + 1), Arrival::Forward);
        bed.gate.depart(at(ms), stream);
        bed.gate.depart(at(ms), stream + 1);
        assert_eq!(bed.world.looks.len(), looks, "at {ms} ms");
    }
    bed.gate.set_hint(at(50_000), 0, Hint::NotReady);
    bed.gate.set_hint(at(70_000), 0, Hint::Ready);
    assert_eq!(bed.arrive(70_000, 1), Arrival::Forward);
    bed.gate.depart(at(70_001), 1);
    bed.world.set(b"app", false);
    assert_eq!(bed.arrive(70_010, 2), Arrival::Hold);
}

/// The next Pod is ready while the gateway still lists the last one; then the gateway hears that one is gone, and only
/// after that of the other.
#[test]
fn endpoints_that_are_left_over_from_before_the_sleep_get_nothing() {
    let mut bed = asleep();
    assert_eq!(bed.arrive(1, 1), Arrival::Hold);
    bed.gate.set_hint(at(10), 0, Hint::Ready);
    assert_eq!(bed.poll(10), []);
    assert_eq!(bed.arrive(11, 2), Arrival::Hold);
    assert_eq!(bed.poll(35), []);
    bed.world.set(b"app", false);
    assert_eq!(bed.poll(60), []);
    bed.world.set(b"app", true);
    assert_eq!(bed.poll(62), [release(1, 61), release(2, 51)]);
    assert_eq!(bed.counts().lags.sum_us(), 52_000);
    assert_eq!(bed.arrive(63, 3), Arrival::Forward);
    assert_eq!(bed.world.looks.len(), 4);
}

#[test]
fn while_an_app_sleeps_somebody_looks_whether_its_last_endpoint_is_gone() {
    let mut bed = asleep();
    assert_eq!(bed.arrive(1, 1), Arrival::Hold);
    assert_eq!(bed.poll(26), []);
    bed.world.set(b"app", false);
    assert_eq!(bed.poll(51), []);
    assert_eq!(bed.world.looks.len(), 2);
    assert_eq!(bed.poll(1_050), []);
    assert_eq!(bed.world.looks.len(), 2, "nothing is left that could go");
    bed.world.set(b"app", true);
    bed.gate.set_hint(at(1_051), 0, Hint::Ready);
    assert_eq!(bed.poll(1_051), [release(1, 1_050)], "no doubt, no delay");
}

/// What was open when it fell asleep: a request that comes next must not have to wait because nobody has looked.
#[test]
fn while_an_app_sleeps_and_nobody_waits_some_looks_find_out_when_its_last_endpoint_is_gone() {
    // One that never goes.
    let mut bed = asleep_after_use(1_000);
    assert_eq!(bed.looks(1_000, 20_000), [125, 250, 500, 1_000, 2_000, 4_000, 8_000].map(|ms| 1_000 + ms));
    assert_eq!(bed.gate.next_due(), None);

    // One that goes as the scaler has it gone, and comes back with the next Pod.
    let mut bed = asleep_after_use(1_000);
    bed.world.set(b"app", false);
    assert_eq!(bed.looks(1_000, 3_000), [1_125]);
    assert_eq!(bed.gate.next_due(), None);
    bed.world.set(b"app", true);
    bed.gate.set_hint(at(3_000), 0, Hint::Ready);
    assert_eq!(bed.arrive(3_000, 2), Arrival::Forward, "no doubt, no delay");

    // One that wakes before anybody has seen it gone: as long as the scaler says "ready", who comes decides.
    let mut bed = asleep_after_use(1_000);
    bed.gate.set_hint(at(1_100), 0, Hint::Ready);
    assert_eq!(bed.looks(1_100, 9_000), [] as [u64; 0]);

    // One that somebody waits for in between.
    let mut bed = asleep_after_use(1_000);
    assert_eq!(bed.looks(1_000, 1_150), [1_125]);
    assert_eq!(bed.arrive(1_150, 3), Arrival::Hold);
    assert_eq!(bed.looks(1_150, 1_210), [1_150, 1_175, 1_200]);
    bed.gate.depart(at(1_210), 3);
    assert_eq!(bed.looks(1_210, 2_000), [1_225, 1_450, 1_900]);
}

#[test]
fn nobody_looks_at_a_sleeping_app_that_was_not_used_or_is_gone() {
    // Never forwarded to since it was seen empty.
    let mut bed = Bed::new(limits());
    assert_eq!(bed.arrive(0, 1), Arrival::Hold);
    bed.gate.depart(at(1), 1);
    bed.world.looks.clear();
    bed.gate.set_hint(at(1), 0, Hint::Ready);
    bed.gate.set_hint(at(2), 0, Hint::NotReady);
    assert_eq!(bed.looks(2, 20_000), [] as [u64; 0]);

    // Its lane is forgotten for others, its route is removed, or another is in its place.
    for end in 0..3 {
        let mut bed = asleep_after_use(2);
        assert!(bed.gate.next_due().is_some());
        match end {
            0 => {
                for subset in 0..8u8 {
                    bed.gate.lane(Owner::Route(0), &[subset]).unwrap();
                }
            }
            1 => bed.gate.remove_route(at(3), 0),
            _ => bed.gate.set_route(at(3), 0, &spec(7), false),
        }
        assert_eq!(bed.gate.next_due(), None);
        assert_eq!(bed.looks(3, 1_000), [] as [u64; 0]);
    }
}

#[test]
fn the_first_that_waits_looks_at_once_whether_the_last_endpoint_is_gone() {
    let mut bed = Bed::new(limits());
    bed.gate.set_hint(at(0), 0, Hint::Ready);
    bed.gate.set_hint(at(0), 0, Hint::NotReady);
    assert_eq!(bed.arrive(5_000, 1), Arrival::Hold);
    assert_eq!(bed.looks(5_000, 5_900), [5_000]);
    // The new endpoint is there before the scaler's word.
    bed.world.set(b"app", true);
    bed.gate.set_hint(at(5_900), 0, Hint::Ready);
    assert_eq!(bed.poll(5_900), [release(1, 900)]);

    // Who comes and goes does not look more often than who stays.
    let mut bed = asleep();
    for ms in 0..100 {
        assert_eq!(bed.arrive(ms, 1), Arrival::Hold);
        bed.poll(ms);
        bed.gate.depart(at(ms), 1);
    }
    assert_eq!(bed.world.looks.len(), 4);
}

#[test]
fn endpoints_that_were_exchanged_in_one_go_count_as_the_new_ones_after_a_while() {
    for (slept, wakes) in [(10, 10 + 1_000), (9_999, 9_999 + 1_000), (10_000, 10_000)] {
        let mut bed = asleep();
        bed.gate.set_hint(at(slept), 0, Hint::Ready);
        // No request came before: nobody has looked while it slept.
        let first = bed.arrive(slept, 1);
        if wakes == slept {
            assert_eq!(first, Arrival::Forward, "slept for {slept} ms");
            continue;
        }
        assert_eq!(first, Arrival::Hold, "slept for {slept} ms");
        let released = (slept..wakes + 30).find_map(|ms| bed.poll(ms).pop().map(|outcome| (ms, outcome)));
        let (at, outcome) = released.unwrap();
        assert!((wakes..wakes + 30).contains(&at), "slept for {slept} ms, released at {at}");
        assert_eq!(outcome, release(1, at - slept));
    }
}
