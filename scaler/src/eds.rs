//! Endpoints for a plain Envoy (EDS): what Services can be reached at, by the names that the cluster template gives
//! their clusters. An Istio gateway has its endpoints from istiod and asks for none.
//!
//! - An Envoy asks once it is connected, and is answered once all objects have been read: a scaler that has just
//!   started must not take endpoints away. When no scaler is there, Envoy keeps what it was told last.
//! - A name that stands for no Service is answered with no endpoints. Left out, Envoy would wait for it until its
//!   `initial_fetch_timeout`, and would keep the old endpoints of a Service that is gone.
//! - An endpoint that is not ready, or ending, is left out.
//! - What comes is told at once. That the last endpoint is gone is told [`REMOVAL_DELAY`] after all links were told
//!   "not ready", because an Envoy that learns of it first answers 503 to what arrives in between.
//!
//! Layout: `names` knows what a cluster's name stands for, `state` what every Envoy was told: both plain state.
//! `sotw` and `delta` are the two forms of the protocol, `stream` the thin shell around them.

mod delta;
mod names;
mod resource;
mod sotw;
mod state;
mod stream;
#[cfg(test)]
mod tests;

pub use stream::EdsService;

use crate::{
    board::Board,
    clock::Clock,
    index::{Index, Name},
};
use resource::{Resource, Version};
use sluice_core::time::Instant;
use state::{FollowError, State};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// How long after the link's "not ready" an Envoy is told that a cluster's last endpoint is gone. The link's word
/// is under way then, on another connection and to every worker on its own: a few milliseconds, some
/// tens where the machine is busy. In the meantime held requests wait anyhow, and warm ones are none: as long as
/// istiod's debounce takes by default.
pub const REMOVAL_DELAY: Duration = Duration::from_millis(100);

/// How long a link that has not been told "not ready" yet is waited for. On a machine that is much too busy it is tens of
/// milliseconds; one that takes longer is one whose worker does not read, and whatever it does with its requests, the
/// endpoint is gone.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked whether the last link has been told.
const REMOVAL_LOOK: Duration = Duration::from_millis(20);

/// What Envoys were told, and what they are to be told.
#[derive(Debug, Default)]
pub struct Eds {
    state: Mutex<State>,
    /// Something new is due later.
    due: Notify,
    rejections: AtomicU64,
}

/// Who asks for endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Open streams.
    pub streams: usize,
    /// Clusters that they follow, each once.
    pub clusters: usize,
    /// How often an Envoy did not take over what it was told; the log says why.
    pub rejections: u64,
}

// === impl Eds ===

impl Eds {
    /// Takes in which Services changed in the index. To be called once the link's sessions can see the same change, which is
    /// in that `version` of the board.
    pub fn publish(&self, now: Instant, version: u64, index: &Index, touched: &BTreeSet<Name>) {
        if touched.is_empty() {
            return;
        }
        let mut state = self.state();
        let due = state.next_due();
        state.touch(now, version, index, touched);
        if state.next_due() != due {
            self.due.notify_one();
        }
    }

    /// Tells what is told later, for as long as it runs. `board`: what the link's sessions follow.
    pub async fn run(&self, clock: Clock, board: &Board) {
        loop {
            let due = self.state().next_due();
            let until = async {
                match due {
                    Some(due) => tokio::time::sleep_until(clock.timer(due)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = until => self.state().tell_due(clock.now(), board.told_by_all()),
                () = self.due.notified() => {}
            }
        }
    }

    /// Who asks for endpoints.
    pub fn figures(&self) -> Figures {
        let state = self.state();
        Figures {
            streams: state.streams(),
            clusters: state.clusters(),
            rejections: self.rejections.load(Ordering::Relaxed),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's place among those who are told. Leaves it when dropped.
#[derive(Debug)]
struct Follower<'a> {
    eds: &'a Eds,
    id: u64,
    news: Arc<Notify>,
}

impl<'a> Follower<'a> {
    fn join(eds: &'a Eds) -> Self {
        let news = Arc::new(Notify::new());
        let id = eds.state().join(Arc::clone(&news));
        Self { eds, id, news }
    }

    /// Returns when there may be something new.
    async fn changed(&self) {
        self.news.notified().await;
    }

    /// What is new, of at most so many clusters.
    fn news(&self, most: usize) -> Vec<Arc<Resource>> {
        self.eds.state().news(self.id, most)
    }

    /// What the stream follows.
    fn followed(&self) -> BTreeSet<Arc<str>> {
        self.eds.state().followed(self.id).cloned().collect()
    }

    /// Follows clusters from now on, and others no more.
    fn change(
        &self,
        index: &Index,
        follow: &[(String, Option<Version>)],
        unfollow: &[String],
    ) -> Result<(), FollowError> {
        let mut state = self.eds.state();
        for name in unfollow {
            state.unfollow(self.id, name);
        }
        for (name, known) in follow {
            state.follow(self.id, index, name, *known)?;
        }
        Ok(())
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        self.eds.state().leave(self.id);
    }
}
