//! When `true` and `false` are told on a stream.

use crate::ledger::Look;
use sluice_core::time::Instant;
use std::time::Duration;

/// After how long `true` is told again while requests wait and nothing is ready; then after twice as long, and so on up to
/// [`REFRESH`]. An activation can be lost: KEDA drops those that come before the HPA exists, and one that races a scale to
/// zero finds replicas that are going. But most are not, and apps that start slowly, or a hundred that start at once,
/// would have KEDA spend its requests on what it knows.
pub(super) const REPEAT: Duration = Duration::from_millis(1_500);
/// How often it is told while the app is merely active. Each `true` on a running app is a PATCH of its
/// ScaledObject's status, and KEDA's client has 20 requests a second for all objects together.
pub(super) const REFRESH: Duration = Duration::from_secs(10);
/// How close two of them are at most when the target went down in between: one that crashes again and again must
/// not turn into a flood.
pub(super) const FLOOR: Duration = Duration::from_millis(50);

/// What was told on a stream.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    told: Option<bool>,
    /// When `true` was last told, and how often the target had gone down until then.
    last: Option<(Instant, u64)>,
    /// How often in a row it was told again, because requests wait.
    again: u32,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Tell this now.
    Tell(bool),
    /// Look again at that time, or when something changes.
    Wait(Option<Instant>),
}

// === impl Pulse ===

impl Pulse {
    /// What was told last.
    pub(super) fn told(&self) -> Option<bool> {
        self.told
    }

    /// What to do, as things are now.
    pub(super) fn beat(&mut self, now: Instant, look: Look) -> Beat {
        if !look.is_active {
            return if self.told == Some(false) { Beat::Wait(None) } else { self.tell(now, look, 0) };
        }
        let (due, again) = match (self.told, self.last) {
            (Some(true), Some((last, downs))) => match look.is_waiting {
                true if look.downs != downs => (last.after(FLOOR), 0),
                true => (last.after(self.pause()), self.again.saturating_add(1)),
                false => (last.after(REFRESH), 0),
            },
            _ => (now, 0),
        };
        if due <= now {
            return self.tell(now, look, again);
        }
        Beat::Wait(Some(look.until.map_or(due, |until| due.min(until))))
    }

    /// From one `true` to the next while requests wait.
    fn pause(&self) -> Duration {
        REPEAT.saturating_mul(2_u32.saturating_pow(self.again)).min(REFRESH)
    }

    fn tell(&mut self, now: Instant, look: Look, again: u32) -> Beat {
        self.told = Some(look.is_active);
        self.again = again;
        if look.is_active {
            self.last = Some((now, look.downs));
        }
        Beat::Tell(look.is_active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(5_000_000_000 + ms * 1_000_000)
    }

    const IDLE: Look = Look { is_active: false, until: None, is_waiting: false, downs: 0 };
    const BUSY: Look = Look { is_active: true, ..IDLE };
    const WAITING: Look = Look { is_waiting: true, ..BUSY };

    #[test]
    fn the_state_is_told_on_open() {
        assert_eq!(Pulse::default().beat(at(0), IDLE), Beat::Tell(false));
        assert_eq!(Pulse::default().beat(at(0), BUSY), Beat::Tell(true));
    }

    #[test]
    fn both_edges_are_told_at_once_however_close() {
        let mut pulse = Pulse::default();
        for ms in 0..5 {
            assert_eq!(pulse.beat(at(ms), IDLE), Beat::Tell(false));
            assert_eq!(pulse.beat(at(ms), IDLE), Beat::Wait(None));
            assert_eq!(pulse.beat(at(ms), WAITING), Beat::Tell(true));
        }
    }

    #[test]
    fn while_requests_wait_it_is_told_again_less_and_less_often() {
        let mut pulse = Pulse::default();
        let told: Vec<u64> =
            (0..60_000).filter(|ms| pulse.beat(at(*ms), WAITING) == Beat::Tell(true)).collect();
        assert_eq!(told, [0, 1_500, 4_500, 10_500, 20_500, 30_500, 40_500, 50_500]);
        assert_eq!(pulse.beat(at(60_000), IDLE), Beat::Tell(false));
        assert_eq!(pulse.beat(at(61_000), WAITING), Beat::Tell(true));
        assert_eq!(pulse.beat(at(61_001), WAITING), Beat::Wait(Some(at(62_500))), "from the beginning");
    }

    #[test]
    fn it_is_told_again_while_requests_wait_and_seldom_while_they_do_not() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.beat(at(0), WAITING), Beat::Tell(true));
        assert_eq!(pulse.beat(at(1), WAITING), Beat::Wait(Some(at(1_500))));
        assert_eq!(pulse.beat(at(1_500), WAITING), Beat::Tell(true));
        assert_eq!(pulse.beat(at(1_600), BUSY), Beat::Wait(Some(at(11_500))));
        assert_eq!(pulse.beat(at(2_000), WAITING), Beat::Wait(Some(at(4_500))), "waiting anew is no edge");
        assert_eq!(pulse.beat(at(2_500), BUSY), Beat::Wait(Some(at(11_500))));
        assert_eq!(pulse.beat(at(11_500), BUSY), Beat::Tell(true));
    }

    #[test]
    fn a_target_that_went_down_since_the_last_true_needs_another_at_once() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.beat(at(0), WAITING), Beat::Tell(true));
        let down = Look { downs: 1, ..WAITING };
        assert_eq!(pulse.beat(at(10), down), Beat::Wait(Some(at(50))));
        assert_eq!(pulse.beat(at(100), down), Beat::Tell(true));
        assert_eq!(pulse.beat(at(200), down), Beat::Wait(Some(at(1_600))));
    }

    #[test]
    fn the_end_of_activity_is_looked_at_when_it_comes() {
        let mut pulse = Pulse::default();
        let ending = Look { until: Some(at(30)), ..BUSY };
        assert_eq!(pulse.beat(at(0), ending), Beat::Tell(true));
        assert_eq!(pulse.beat(at(1), ending), Beat::Wait(Some(at(30))));
        assert_eq!(pulse.beat(at(30), IDLE), Beat::Tell(false));
    }

    #[test]
    fn true_never_comes_faster_than_it_may_without_an_edge() {
        let mut pulse = Pulse::default();
        let mut told = Vec::new();
        for ms in 0..60_000 {
            let look = if ms % 7 < 3 { WAITING } else { BUSY };
            if pulse.beat(at(ms), look) == Beat::Tell(true) {
                told.push(ms);
            }
        }
        assert!(told.windows(2).all(|pair| pair[1] - pair[0] >= 1_500), "{told:?}");
    }
}
