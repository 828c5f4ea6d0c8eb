//! When `true` and `false` are told on a stream.

use crate::ledger::Look;
use sluice_core::time::Instant;
use std::time::Duration;

/// After how long `true` is told again while requests wait and nothing is ready; then after twice as long, and so on up to
/// [`REFRESH`]. An activation can be lost: KEDA drops those that come before the HPA exists, and one that races a scale to
/// zero finds replicas that are going. But most are not, and apps that start slowly, or a hundred that start at once,
/// would have KEDA spend its requests on what it knows.
pub(super) const REPEAT: Duration = Duration::from_millis(1_500);
/// How often it is told while the app is merely active, and there are few such apps: see [`refresh`].
pub(super) const REFRESH: Duration = Duration::from_secs(10);
/// How many times a second it is told to all apps together that are merely active. Each `true` on a running app is a PATCH of
/// its ScaledObject's status, and KEDA's client has 20 requests a second for everything, the wakes of others included. It is a
/// tenth of them. KEDA's own polls keep an app awake as well; what this adds is that the cooldown counts from the last request
/// rather than from the last poll.
const REFRESHES: u32 = 2;
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

    /// What to do, as things are now. `active`: how many apps were told `true` last.
    pub(super) fn beat(&mut self, now: Instant, look: Look, active: usize) -> Beat {
        if !look.is_active {
            return if self.told == Some(false) { Beat::Wait(None) } else { self.tell(now, look, 0) };
        }
        let (due, again) = match (self.told, self.last) {
            (Some(true), Some((last, downs))) => match look.is_waiting {
                true if look.downs != downs => (last.after(FLOOR), 0),
                true => (last.after(self.pause()), self.again.saturating_add(1)),
                false => (last.after(refresh(active)), 0),
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

/// From one `true` to the next for each of so many apps that are merely active.
fn refresh(active: usize) -> Duration {
    let active = u32::try_from(active).unwrap_or(u32::MAX);
    REFRESH.max(Duration::from_secs(1).saturating_mul(active) / REFRESHES)
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
        assert_eq!(Pulse::default().beat(at(0), IDLE, 1), Beat::Tell(false));
        assert_eq!(Pulse::default().beat(at(0), BUSY, 1), Beat::Tell(true));
    }

    #[test]
    fn both_edges_are_told_at_once_however_close() {
        let mut pulse = Pulse::default();
        for ms in 0..5 {
            assert_eq!(pulse.beat(at(ms), IDLE, 1), Beat::Tell(false));
            assert_eq!(pulse.beat(at(ms), IDLE, 1), Beat::Wait(None));
            assert_eq!(pulse.beat(at(ms), WAITING, 1), Beat::Tell(true));
        }
    }

    #[test]
    fn while_requests_wait_it_is_told_again_less_and_less_often() {
        let mut pulse = Pulse::default();
        let told: Vec<u64> =
            (0..60_000).filter(|ms| pulse.beat(at(*ms), WAITING, 1) == Beat::Tell(true)).collect();
        assert_eq!(told, [0, 1_500, 4_500, 10_500, 20_500, 30_500, 40_500, 50_500]);
        assert_eq!(pulse.beat(at(60_000), IDLE, 1), Beat::Tell(false));
        assert_eq!(pulse.beat(at(61_000), WAITING, 1), Beat::Tell(true));
        assert_eq!(pulse.beat(at(61_001), WAITING, 1), Beat::Wait(Some(at(62_500))), "from the beginning");
    }

    #[test]
    fn it_is_told_again_while_requests_wait_and_seldom_while_they_do_not() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.beat(at(0), WAITING, 1), Beat::Tell(true));
        assert_eq!(pulse.beat(at(1), WAITING, 1), Beat::Wait(Some(at(1_500))));
        assert_eq!(pulse.beat(at(1_500), WAITING, 1), Beat::Tell(true));
        assert_eq!(pulse.beat(at(1_600), BUSY, 1), Beat::Wait(Some(at(11_500))));
        assert_eq!(pulse.beat(at(2_000), WAITING, 1), Beat::Wait(Some(at(4_500))), "waiting anew is no edge");
        assert_eq!(pulse.beat(at(2_500), BUSY, 1), Beat::Wait(Some(at(11_500))));
        assert_eq!(pulse.beat(at(11_500), BUSY, 1), Beat::Tell(true));
    }

    #[test]
    fn with_many_apps_that_are_merely_active_each_is_told_less_often_and_a_wake_is_not() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.beat(at(0), BUSY, 1_000), Beat::Tell(true));
        assert_eq!(pulse.beat(at(1), BUSY, 20), Beat::Wait(Some(at(10_000))));
        assert_eq!(pulse.beat(at(10_000), BUSY, 1_000), Beat::Wait(Some(at(500_000))));
        assert_eq!(pulse.beat(at(10_001), WAITING, 1_000), Beat::Tell(true));
        assert_eq!(pulse.beat(at(10_002), WAITING, 1_000), Beat::Wait(Some(at(13_001))));
    }

    #[test]
    fn a_target_that_went_down_since_the_last_true_needs_another_at_once() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.beat(at(0), WAITING, 1), Beat::Tell(true));
        let down = Look { downs: 1, ..WAITING };
        assert_eq!(pulse.beat(at(10), down, 1), Beat::Wait(Some(at(50))));
        assert_eq!(pulse.beat(at(100), down, 1), Beat::Tell(true));
        assert_eq!(pulse.beat(at(200), down, 1), Beat::Wait(Some(at(1_600))));
    }

    #[test]
    fn the_end_of_activity_is_looked_at_when_it_comes() {
        let mut pulse = Pulse::default();
        let ending = Look { until: Some(at(30)), ..BUSY };
        assert_eq!(pulse.beat(at(0), ending, 1), Beat::Tell(true));
        assert_eq!(pulse.beat(at(1), ending, 1), Beat::Wait(Some(at(30))));
        assert_eq!(pulse.beat(at(30), IDLE, 1), Beat::Tell(false));
    }

    #[test]
    fn true_never_comes_faster_than_it_may_without_an_edge() {
        let mut pulse = Pulse::default();
        let mut told = Vec::new();
        for ms in 0..60_000 {
            let look = if ms % 7 < 3 { WAITING } else { BUSY };
            if pulse.beat(at(ms), look, 1) == Beat::Tell(true) {
                told.push(ms);
            }
        }
        assert!(told.windows(2).all(|pair| pair[1] - pair[0] >= 1_500), "{told:?}");
    }
}
