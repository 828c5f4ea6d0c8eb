//! What the gate keeps of a route.

use super::Limits;
use crate::{
    count::Counts,
    route::{RouteId, RouteSpec},
    time::Instant,
};
use std::time::Duration;

/// What the scalers know of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hint {
    /// Nothing, or no scaler is there to ask: looks alone decide.
    #[default]
    Unknown,
    /// It has a ready endpoint.
    Ready,
    /// It has none.
    NotReady,
}

/// A hint, and since when it is so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Word {
    pub(super) hint: Hint,
    pub(super) since: Instant,
    /// It was ready at some time: the gateway may know endpoints.
    pub(super) was_ready: bool,
    /// When it was last said that there is none any more.
    pub(super) slept: Option<Instant>,
    /// Looks have said the opposite for so long that the hint counts as unknown.
    pub(super) distrusted: bool,
}

#[derive(Debug)]
pub(super) struct Route {
    pub(super) id: RouteId,
    pub(super) hold_timeout: Option<Duration>,
    max_held: Option<u32>,
    pub(super) word: Word,
    pub(super) lanes: Vec<usize>,
    pub(super) counts: Counts,
}

// === impl Word ===

impl Word {
    /// Whether nothing may be forwarded, whatever a look says.
    pub(super) fn forbids(self) -> bool {
        self.hint == Hint::NotReady && !self.distrusted
    }

    /// Whether it is ready after a sleep, and not for longer than `within`.
    pub(super) fn has_just_woken(self, now: Instant, within: Duration) -> bool {
        self.hint == Hint::Ready && self.slept.is_some() && now.since(self.since) < within
    }
}

// === impl Route ===

impl Route {
    pub(super) fn new(now: Instant, spec: &RouteSpec) -> Self {
        let mut route = Self {
            id: spec.id,
            hold_timeout: None,
            max_held: None,
            word: Word { since: now, ..Word::default() },
            lanes: Vec::new(),
            counts: Counts::default(),
        };
        route.set_limits(spec);
        route
    }

    pub(super) fn set_limits(&mut self, spec: &RouteSpec) {
        self.hold_timeout = spec.hold_timeout;
        self.max_held = spec.max_held;
    }

    /// Says whether that was news.
    pub(super) fn set_hint(&mut self, now: Instant, hint: Hint) -> bool {
        let news = self.word.hint != hint;
        if news {
            let was_ready = self.word.was_ready || hint == Hint::Ready;
            let slept = if was_ready && hint == Hint::NotReady { Some(now) } else { self.word.slept };
            self.word = Word { hint, since: now, was_ready, slept, distrusted: false };
        }
        news
    }

    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.counts.held()
            >= self.max_held.map_or(limits.held_per_route, |own| own.min(limits.held_per_route))
    }

    /// A look was made: one that contradicts the hint for too long ends its credit.
    pub(super) fn contradict(&mut self, now: Instant, usable: bool, after: Duration) {
        if usable && self.word.forbids() && now.since(self.word.since) >= after {
            self.word.distrusted = true;
        }
    }
}
