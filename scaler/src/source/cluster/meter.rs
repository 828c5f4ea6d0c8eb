//! What there is to say about the watches: for metrics, `/debug/state` and people.

use super::super::ObjectKind;
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

/// All watches; none where objects come from somewhere else.
#[derive(Debug, Default)]
pub struct Watches {
    meters: RwLock<Vec<Arc<Meter>>>,
}

/// One kind's watch.
#[derive(Debug)]
pub(super) struct Meter {
    kind: ObjectKind,
    state: AtomicU8,
    /// How many objects of the kind are known.
    pub(super) objects: AtomicUsize,
    /// How often they were all listed, to the end.
    pub(super) lists: AtomicU64,
    /// How often something was in the way.
    pub(super) errors: AtomicU64,
}

/// How a watch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// All objects are being read.
    Listing,
    /// Changes come as they happen.
    Watching,
    /// Changes do not come; what was known stays.
    Lost,
    /// The kind is not installed.
    NotInstalled,
}

/// One kind's watch, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchReport {
    /// Which kind.
    pub kind: ObjectKind,
    /// How it stands.
    pub state: WatchState,
    /// How many objects of the kind are known.
    pub objects: usize,
    /// How often they were all listed, to the end: 1 where no list had to be repeated.
    pub lists: u64,
    /// How often something was in the way.
    pub errors: u64,
}

// === impl Watches ===

impl Watches {
    /// How each stands now, in a fixed order.
    pub fn report(&self) -> Vec<WatchReport> {
        let meters = self.meters.read().unwrap_or_else(PoisonError::into_inner);
        meters.iter().map(|meter| meter.report()).collect()
    }

    /// A watch that begins.
    pub(super) fn add(&self, kind: ObjectKind) -> Arc<Meter> {
        let meter = Arc::new(Meter {
            kind,
            state: AtomicU8::new(0),
            objects: AtomicUsize::new(0),
            lists: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        });
        self.meters.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&meter));
        meter
    }
}

// === impl Meter ===

impl Meter {
    /// From now on.
    pub(super) fn set(&self, state: WatchState) {
        let number = match state {
            WatchState::Listing => 0,
            WatchState::Watching => 1,
            WatchState::Lost => 2,
            WatchState::NotInstalled => 3,
        };
        self.state.store(number, Ordering::Relaxed);
    }

    fn report(&self) -> WatchReport {
        let state = match self.state.load(Ordering::Relaxed) {
            0 => WatchState::Listing,
            1 => WatchState::Watching,
            2 => WatchState::Lost,
            _ => WatchState::NotInstalled,
        };
        WatchReport {
            kind: self.kind,
            state,
            objects: self.objects.load(Ordering::Relaxed),
            lists: self.lists.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }
}

// === impl WatchState ===

impl WatchState {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Watching => "watching",
            Self::Lost => "lost",
            Self::NotInstalled => "notInstalled",
        }
    }
}
