//! The clock, read here and nowhere else: what decides takes `now` as an argument.

use sluice_core::time::Instant;

/// A monotonic clock that gives core's points in time.
///
/// Tokio's, so that a test can stop it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Instant {
        Instant::default().after(self.origin.elapsed())
    }

    /// That point in time as tokio's timers take it.
    pub fn timer(&self, at: Instant) -> tokio::time::Instant {
        self.origin + at.since(Instant::default())
    }
}
