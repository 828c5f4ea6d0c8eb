//! How long to wait before an object is looked at again. No clock, no I/O: `now` is an argument.
//!
//! Errors back off. Writes are paced too: whoever keeps undoing what the operator writes, another operator perhaps,
//! is not answered faster and faster. And what the operator has just written over need not be looked at: the API server
//! would refuse what comes of it.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// The first wait after an error; each further one in a row doubles it.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// The longest wait after an error.
const LAST_BACKOFF: Duration = Duration::from_secs(120);
/// How many writes for one object go unpaced: those of its creation, changes by the user, a repair.
const FREE_WRITES: u32 = 8;
/// The first wait after a write beyond those; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest wait after a write.
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// After this long without a write an object's writes are forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(120);

/// What is remembered of objects that had errors or writes lately.
#[derive(Debug)]
pub struct Pace<K> {
    entries: HashMap<K, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    failures: u32,
    writes: u32,
    last_write: Option<Instant>,
    /// Not before, because of writes.
    paused_until: Option<Instant>,
    /// The version of the object that a write of its status was the end of.
    superseded: Option<String>,
}

// === impl Pace ===

impl<K> Default for Pace<K> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<K: Eq + Hash> Pace<K> {
    /// How long it has to wait because of its writes.
    pub fn pause(&self, key: &K, now: Instant) -> Option<Duration> {
        let until = self.entries.get(key)?.paused_until?;
        until.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// Something was written for it.
    pub fn wrote(&mut self, key: K, now: Instant) {
        let entry = self.entries.entry(key).or_default();
        let is_recent = |at: Instant| now.saturating_duration_since(at) < FORGIVEN_AFTER;
        let before = if entry.last_write.is_some_and(is_recent) { entry.writes } else { 0 };
        entry.writes = before.saturating_add(1);
        entry.last_write = Some(now);
        let beyond = entry.writes.checked_sub(FREE_WRITES).filter(|beyond| *beyond > 0);
        entry.paused_until = beyond.map(|beyond| now + doubled(FIRST_PAUSE, beyond - 1, LAST_PAUSE));
    }

    /// Its status was written over this version of it.
    pub fn superseded(&mut self, key: K, version: String) {
        self.entries.entry(key).or_default().superseded = Some(version);
    }

    /// Whether this is the version that its status was written over: what was written is still on its way back.
    pub fn is_superseded(&self, key: &K, version: &str) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.superseded.as_deref() == Some(version))
    }

    /// It failed; how long to wait before the next try.
    pub fn failed(&mut self, key: K) -> Duration {
        let entry = self.entries.entry(key).or_default();
        let backoff = doubled(FIRST_BACKOFF, entry.failures, LAST_BACKOFF);
        entry.failures = entry.failures.saturating_add(1);
        backoff
    }

    /// It went well: the next error is a first one.
    pub fn succeeded(&mut self, key: &K) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failures = 0;
        }
    }

    /// It is gone.
    pub fn forget(&mut self, key: &K) {
        self.entries.remove(key);
    }
}

fn doubled(first: Duration, times: u32, last: Duration) -> Duration {
    first.saturating_mul(2u32.saturating_pow(times)).min(last)
}
