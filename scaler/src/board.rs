//! The route table as gateways hear it: a snapshot when they come, then what changes.
//!
//! Every session follows at its own pace. It remembers the version that it has told, and asks for what is new
//! since: of a route that changed ten times in between, the last state. One that fell too far behind gets a new
//! snapshot. Which version each has told is known here: something has to wait until all of them have (`readers`).

mod readers;
#[cfg(test)]
mod tests;

pub use readers::Reader;

use crate::index::{Changes, Published};
use readers::Readers;
use sluice_core::{
    gate::Hint,
    route::{RouteId, RouteSpec},
};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, PoisonError, RwLock},
};
use tokio::sync::watch;

/// How many changes are remembered. A session that is further behind is better off with a snapshot.
const MAX_CHANGES: usize = 65_536;

/// The route table.
#[derive(Debug)]
pub struct Board {
    state: RwLock<State>,
    version: watch::Sender<u64>,
    readers: Readers,
}

#[derive(Debug, Default)]
struct State {
    /// Everything that there is has been told at least once. Before, a gateway must not be told that the table is
    /// whole: it would take what is missing for gone.
    is_whole: bool,
    version: u64,
    rows: HashMap<RouteId, Row>,
    /// Which routes changed, and with which version.
    changes: VecDeque<(u64, RouteId)>,
    /// The oldest version that `changes` reaches back to.
    oldest: u64,
}

#[derive(Debug)]
struct Row {
    spec: Arc<RouteSpec>,
    hint: Hint,
    /// The version that the spec is of.
    since: u64,
}

/// What is new since a version.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    /// This is the whole table; what it does not name is gone.
    pub is_snapshot: bool,
    /// Routes that came or changed.
    pub upserts: Vec<(Arc<RouteSpec>, Hint)>,
    /// Routes that are gone.
    pub removals: Vec<RouteId>,
    /// Routes of which only the hint changed.
    pub hints: Vec<(RouteId, Hint)>,
    /// How many routes the table has then.
    pub len: usize,
}

// === impl Board ===

impl Default for Board {
    fn default() -> Self {
        Self { state: RwLock::default(), version: watch::Sender::new(0), readers: Readers::default() }
    }
}

impl Board {
    /// Puts up changes. `is_whole`: everything that there is has been told at least once.
    pub fn publish(&self, changes: &Changes, is_whole: bool) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let version = state.version + 1;
        let mut is_new = is_whole && !state.is_whole;
        state.is_whole |= is_whole;
        for (id, published) in changes {
            if state.put(version, *id, published.as_ref()) {
                state.changes.push_back((version, *id));
                is_new = true;
            }
        }
        if !is_new {
            return;
        }
        while state.changes.len() > MAX_CHANGES {
            // All of a version or nothing of it.
            let Some((dropped, _)) = state.changes.pop_front() else { break };
            state.oldest = dropped;
        }
        state.version = version;
        drop(state);
        self.version.send_replace(version);
    }

    /// To be woken when something is new.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The last version.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// A session comes. Until it says otherwise it has told nothing.
    pub fn join(&self) -> Reader<'_> {
        self.readers.join()
    }

    /// The version that every session has told; the last one where there is none.
    pub fn told_by_all(&self) -> u64 {
        self.readers.slowest().unwrap_or_else(|| self.version())
    }

    /// How many changes there were since the version `told`, a route as often as it changed. `None` if nobody knows
    /// any more: only a snapshot leads on from there.
    pub fn changes_since(&self, told: u64) -> Option<usize> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        (told >= state.oldest)
            .then(|| state.changes.len() - state.changes.partition_point(|(version, _)| *version <= told))
    }

    /// What is new since the version `told` (`None`: nothing has been told), and the version that this leads to.
    /// `None` while the table is not whole.
    pub fn news(&self, told: Option<u64>) -> Option<(News, u64)> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if !state.is_whole {
            return None;
        }
        let news = match told {
            Some(told) if told >= state.oldest => state.since(told),
            Some(_) | None => state.snapshot(),
        };
        Some((news, state.version))
    }
}

// === impl State ===

impl State {
    /// Whether that is a change.
    fn put(&mut self, version: u64, id: RouteId, published: Option<&Published>) -> bool {
        match (published, self.rows.get_mut(&id)) {
            (None, _) => self.rows.remove(&id).is_some(),
            (Some(new), Some(row)) if row.spec == new.spec => {
                std::mem::replace(&mut row.hint, new.hint) != new.hint
            }
            (Some(new), _) => {
                self.rows.insert(id, Row { spec: Arc::clone(&new.spec), hint: new.hint, since: version });
                true
            }
        }
    }

    fn since(&self, told: u64) -> News {
        let first = self.changes.partition_point(|(version, _)| *version <= told);
        let changed: BTreeSet<RouteId> = self.changes.range(first..).map(|(_, id)| *id).collect();
        let mut news = News { len: self.rows.len(), ..News::default() };
        for id in changed {
            match self.rows.get(&id) {
                None => news.removals.push(id),
                Some(row) if row.since > told => news.upserts.push((Arc::clone(&row.spec), row.hint)),
                Some(row) => news.hints.push((id, row.hint)),
            }
        }
        news
    }

    fn snapshot(&self) -> News {
        let upserts = self.rows.values().map(|row| (Arc::clone(&row.spec), row.hint));
        News { is_snapshot: true, upserts: upserts.collect(), len: self.rows.len(), ..News::default() }
    }
}

// === impl News ===

impl News {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        !self.is_snapshot && self.upserts.is_empty() && self.removals.is_empty() && self.hints.is_empty()
    }
}
