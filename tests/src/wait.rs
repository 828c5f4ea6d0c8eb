//! Waiting for a condition, never for a time.

use anyhow::bail;
use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// How long anything may take. Far above what it takes, so that a slow machine does not fail a test; a test that
/// runs into it says what it waited for and what it saw last.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls `probe` until it gives `Ok`. Its `Err` says what is there instead.
///
/// # Errors
/// After [`PATIENCE`], naming `what` and the last thing seen.
pub async fn until<T>(
    what: impl Display,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let mut patience = Patience::new();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(seen) => patience.pause(&what, &seen).await?,
        }
    }
}

/// As [`until`] with a probe that does not wait itself. Other than that one's, its future can be spawned (an async
/// closure that borrows cannot be proved `Send`).
///
/// # Errors
/// As [`until`].
pub async fn until_now<T>(what: String, mut probe: impl FnMut() -> Result<T, String>) -> anyhow::Result<T> {
    let mut patience = Patience::new();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(seen) => patience.pause(&what, &seen).await?,
        }
    }
}

struct Patience {
    started: Instant,
    pause: Duration,
}

// === impl Patience ===

impl Patience {
    fn new() -> Self {
        // Close looks at first, because most things are there within a few ms.
        Self { started: Instant::now(), pause: Duration::from_millis(1) }
    }

    async fn pause(&mut self, what: &impl Display, seen: &str) -> anyhow::Result<()> {
        if self.started.elapsed() > PATIENCE {
            bail!("waited {} s for {what}; last seen: {seen}", PATIENCE.as_secs());
        }
        tokio::time::sleep(self.pause).await;
        // Then fewer, to leave the two cores to what is waited for.
        self.pause = (self.pause * 2).min(Duration::from_millis(50));
        Ok(())
    }
}
