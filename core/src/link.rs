//! When a worker speaks to a scaler: connecting, reporting, giving up on a silent peer.
//!
//! The host's gRPC streams show no flow control and have no timeout. So at most one report is under way that
//! the scaler has not acknowledged; what changes meanwhile goes into the next one. That bounds the memory, and
//! an acknowledgement that does not come is how a dead peer is noticed.

use crate::time::Instant;
use std::time::Duration;

/// How long a scaler may take to say its first word, or to acknowledge a report.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first pause before connecting again, and the longest one. Each is cut by up to half at random, so that
/// the workers of many gateways do not come back all at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is to be done on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open the stream and say hello; then [`Link::opened`] or [`Link::closed`].
    Open,
    /// Send a report.
    Report {
        /// Its sequence number.
        sequence: u64,
        /// It has to name every route that is not all zero.
        complete: bool,
    },
    /// The peer is dead: cancel the stream. The link counts as closed already.
    Close,
}

/// One worker's link to one scaler.
#[derive(Debug)]
pub struct Link {
    state: State,
    pause: Duration,
    random: u64,
    interval: Duration,
    last_report: Instant,
    urgent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down {
        retry_at: Instant,
    },
    /// Said hello, heard nothing yet.
    Greeting {
        since: Instant,
    },
    Up {
        /// The last report's number; 0 before the first.
        sequence: u64,
        /// Since when an acknowledgement is awaited.
        unacknowledged: Option<Instant>,
    },
}

// === impl Link ===

impl Link {
    /// A link that wants to be opened at once. `random` makes its pauses differ from other workers'.
    /// `interval` lies between two reports, urgent ones aside.
    pub fn new(now: Instant, random: u64, interval: Duration) -> Self {
        Self {
            state: State::Down { retry_at: now },
            pause: FIRST_PAUSE,
            random: random | 1,
            interval,
            last_report: Instant::default(),
            urgent: false,
        }
    }

    /// Whether the scaler has been heard on this stream.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// The stream is open and hello is said.
    pub fn opened(&mut self, now: Instant) {
        self.state = State::Greeting { since: now };
    }

    /// The stream could not be opened, or has ended.
    pub fn closed(&mut self, now: Instant) {
        // xorshift64: spread, not secrecy.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let half = self.pause.checked_div(2).unwrap_or(self.pause);
        let share = u32::try_from(self.random >> 40).unwrap_or(0) & 0xFFFF;
        let cut = half.saturating_mul(share).checked_div(0x1_0000).unwrap_or(half);
        self.state = State::Down { retry_at: now.after(self.pause.saturating_sub(cut)) };
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
    }

    /// The scaler has said welcome.
    pub fn welcomed(&mut self) {
        if !self.is_up() {
            self.state = State::Up { sequence: 0, unacknowledged: None };
        }
    }

    /// The scaler has counted the report of that number.
    pub fn acknowledged(&mut self, acknowledged: u64) {
        if let State::Up { sequence, unacknowledged } = &mut self.state
            && acknowledged >= *sequence
        {
            *unacknowledged = None;
            // Only a peer that answers proves that connecting was worth it.
            self.pause = FIRST_PAUSE;
        }
    }

    /// Something has happened that the scaler has to hear before the next tick.
    pub fn hurry(&mut self) {
        self.urgent = true;
    }

    /// What is to be done now, if anything. `unsaid`: there are counts that the scaler has not been told.
    /// To be called until it gives `None`.
    pub fn step(&mut self, now: Instant, unsaid: bool) -> Option<Step> {
        if self.next_due(unsaid).is_none_or(|due| due > now) {
            return None;
        }
        match &mut self.state {
            State::Down { .. } => Some(Step::Open),
            State::Greeting { .. } | State::Up { unacknowledged: Some(_), .. } => {
                self.closed(now);
                Some(Step::Close)
            }
            State::Up { sequence, unacknowledged } => {
                let complete = *sequence == 0;
                *sequence = sequence.saturating_add(1);
                *unacknowledged = Some(now);
                self.last_report = now;
                self.urgent = false;
                Some(Step::Report { sequence: *sequence, complete })
            }
        }
    }

    /// When [`Link::step`] has something to do.
    pub fn next_due(&self, unsaid: bool) -> Option<Instant> {
        match self.state {
            State::Down { retry_at } => Some(retry_at),
            State::Greeting { since } => Some(since.after(PATIENCE)),
            State::Up { unacknowledged: Some(since), .. } => Some(since.after(PATIENCE)),
            // The first report says who is there, were it empty.
            State::Up { sequence: 0, .. } => Some(Instant::default()),
            State::Up { .. } if unsaid && self.urgent => Some(Instant::default()),
            State::Up { .. } if unsaid => Some(self.last_report.after(self.interval)),
            State::Up { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(250);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn up(now: Instant) -> Link {
        let mut link = Link::new(now, 7, TICK);
        assert_eq!(link.step(now, false), Some(Step::Open));
        link.opened(now);
        link.welcomed();
        assert_eq!(link.step(now, false), Some(Step::Report { sequence: 1, complete: true }));
        link
    }

    #[test]
    fn one_report_is_under_way_and_what_is_urgent_follows_its_acknowledgement() {
        let mut link = up(at(0));
        link.hurry();
        assert_eq!(link.step(at(1), true), None);
        link.acknowledged(1);
        assert_eq!(link.step(at(1), true), Some(Step::Report { sequence: 2, complete: false }));
        link.acknowledged(2);
        assert_eq!(link.step(at(2), true), None);
        assert_eq!(link.next_due(true), Some(at(251)));
        assert_eq!(link.step(at(251), true), Some(Step::Report { sequence: 3, complete: false }));
    }

    #[test]
    fn with_nothing_to_say_nothing_is_due() {
        let mut link = up(at(0));
        link.acknowledged(1);
        assert_eq!(link.next_due(false), None);
        assert_eq!(link.step(at(1_000_000), false), None);
    }

    #[test]
    fn a_peer_that_does_not_answer_is_given_up() {
        let mut link = up(at(0));
        assert_eq!(link.step(at(4_999), true), None);
        assert_eq!(link.step(at(5_000), true), Some(Step::Close));
        assert!(!link.is_up());

        let mut link = Link::new(at(0), 7, TICK);
        link.opened(at(0));
        assert_eq!(link.step(at(4_999), true), None);
        assert_eq!(link.step(at(5_000), true), Some(Step::Close));
    }

    #[test]
    fn pauses_grow_to_the_longest_and_an_acknowledgement_makes_them_short_again() {
        let mut link = Link::new(at(0), 7, TICK);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            link.closed(at(0));
            pauses.push(link.next_due(false).unwrap().since(at(0)));
        }
        for (pause, full) in pauses.iter().zip([100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]) {
            assert!(*pause <= Duration::from_millis(full) && *pause >= Duration::from_millis(full / 2));
        }
        link.opened(at(0));
        link.welcomed();
        assert_eq!(link.step(at(0), false), Some(Step::Report { sequence: 1, complete: true }));
        link.acknowledged(1);
        link.closed(at(0));
        assert!(link.next_due(false).unwrap() <= at(100));
    }

    #[test]
    fn workers_do_not_pause_alike() {
        let pause = |random| {
            let mut link = Link::new(at(0), random, TICK);
            link.closed(at(0));
            link.next_due(false)
        };
        let distinct: std::collections::BTreeSet<_> = (0..64).map(|seed| pause(seed * 7919)).collect();
        assert!(distinct.len() > 16, "{distinct:?}");
    }

    #[test]
    fn an_old_acknowledgement_is_not_taken_for_the_last_reports() {
        let mut link = up(at(0));
        link.acknowledged(1);
        assert!(matches!(link.step(at(250), true), Some(Step::Report { sequence: 2, .. })));
        link.acknowledged(1);
        assert_eq!(link.step(at(500), true), None);
    }
}
