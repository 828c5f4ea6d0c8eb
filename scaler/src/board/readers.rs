//! How far each session is that follows the table.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Readers {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The versions that they have told.
    told: HashMap<u64, Arc<AtomicU64>>,
}

/// A session's place among those who follow the table. Leaves it when dropped.
#[derive(Debug)]
pub struct Reader<'a> {
    readers: &'a Readers,
    id: u64,
    told: Arc<AtomicU64>,
}

// === impl Readers ===

impl Readers {
    pub(super) fn join(&self) -> Reader<'_> {
        let told = Arc::<AtomicU64>::default();
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.told.insert(id, Arc::clone(&told));
        Reader { readers: self, id, told }
    }

    /// The version of the one that is furthest behind; `None` where there is none.
    pub(super) fn slowest(&self) -> Option<u64> {
        self.lock().told.values().map(|told| told.load(Ordering::Relaxed)).min()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Reader ===

impl Reader<'_> {
    /// It has told everything up to this version.
    pub fn told(&self, version: u64) {
        // Nothing else is read because of it.
        self.told.store(version, Ordering::Relaxed);
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.readers.lock().told.remove(&self.id);
    }
}
