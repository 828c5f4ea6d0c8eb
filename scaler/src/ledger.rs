//! What gateway workers have counted, per worker and added up per route.
//!
//! A worker's counts are its state, not deltas, so a session keeps what each worker said last, and only the
//! difference goes into the [`Route`]. A worker that reconnects goes on where it was; one that vanished is kept for
//! a grace and then taken out of the gauges. Nothing is counted twice, and nothing has to arrive for it.
//!
//! The map of a session's routes is the session's own: a report takes a route's lock only for that route's few
//! additions, and no lock that all sessions share.

mod endings;
pub(crate) mod fields;
mod histogram;
mod ids;
mod last;
mod lines;
mod report;
mod route;
mod session;
#[cfg(test)]
mod tests;
mod wakes;

pub use histogram::Buckets;
pub use report::Report;
pub use route::{Look, Route, Tally, Totals};
pub use session::{Seat, Superseded, WorkerId, WorkerState};
pub use wakes::Lag;

use crate::index::{Changes, Metrics};
use ids::ByRoute;
use session::{Join, Session};
use sluice_core::{gate::Hint, metric::RateSpec, route::RouteId, time::Instant};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// How many workers are known at once; further ones are refused. Each costs little until it names routes.
pub const MAX_WORKERS: usize = 16_384;

/// All that has been counted.
#[derive(Debug)]
pub struct Ledger {
    activity_window: Duration,
    routes: RwLock<HashMap<RouteId, Arc<Route>, ByRoute>>,
    sessions: Mutex<HashMap<WorkerId, Arc<Session>>>,
    /// Routes were removed since the sessions were last tidied up.
    removed: AtomicBool,
    /// What was said that could not be counted.
    pub ignored: Ignored,
}

/// How often something was said that could not be counted.
#[derive(Debug, Default)]
pub struct Ignored {
    /// Routes past the most that one worker may name.
    pub routes: AtomicU64,
    /// Histograms with another number of buckets.
    pub histograms: AtomicU64,
    /// Workers past [`MAX_WORKERS`].
    pub workers: AtomicU64,
}

/// Too many workers are known.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_WORKERS} workers are known, which is as many as this scaler takes")]
pub struct TooManyWorkers(());

// === impl Ledger ===

impl Ledger {
    /// Nothing is counted. `activity_window`: how long a request keeps its app active.
    pub fn new(activity_window: Duration) -> Self {
        Self {
            activity_window,
            routes: RwLock::default(),
            sessions: Mutex::default(),
            removed: AtomicBool::new(false),
            ignored: Ignored::default(),
        }
    }

    /// Routes have come, changed or gone.
    pub fn publish(&self, now: Instant, changes: &Changes) {
        for (id, published) in changes {
            match published {
                Some(published) => {
                    let route = self.route(now, *id);
                    route.publish(now, published.hint, rate_spec(&published.metrics));
                }
                None => {
                    let route = self.routes.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
                    if let Some(route) = route {
                        route.withdraw(now);
                        self.removed.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// The route of that id. One that no object stands for (yet) is there for whoever asks, too: a worker may
    /// have heard of it from another replica before this one did, and KEDA may ask before the object is made.
    pub fn route(&self, now: Instant, id: RouteId) -> Arc<Route> {
        if let Some(route) = self.routes.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Arc::clone(route);
        }
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(routes.entry(id).or_insert_with(|| Arc::new(Route::new(now, self.activity_window))))
    }

    /// The route of that id, if anybody has spoken of it.
    pub fn find(&self, id: RouteId) -> Option<Arc<Route>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// A worker has opened a stream. If an older one of the same worker is still there, it is over.
    ///
    /// What a worker counted before this replica first hears of it may be a month's, and would look like a burst:
    /// it is where counting begins. With `is_young` it is news. That must be said only of a worker younger than
    /// the grace: an older one may have been known and expired, and would be counted twice.
    ///
    /// # Errors
    /// If too many workers are known.
    pub fn join(&self, id: WorkerId, filter_version: String, is_young: bool) -> Result<Seat, TooManyWorkers> {
        let mut sessions = self.sessions();
        if sessions.len() >= MAX_WORKERS && !sessions.contains_key(&id) {
            self.ignored.workers.fetch_add(1, Ordering::Relaxed);
            return Err(TooManyWorkers(()));
        }
        let session = sessions.entry(id.clone()).or_insert_with(|| Arc::new(Session::new(id, is_young)));
        let Join { stream, over } = session.join(filter_version);
        Ok(Seat::new(Arc::clone(session), stream, over))
    }

    /// The worker's stream is over. Gives whether somebody has to call [`Ledger::expire`] after the grace: not if
    /// a newer stream is there.
    pub fn leave(&self, seat: &Seat) -> bool {
        seat.session().leave(seat.stream())
    }

    /// The grace is over: unless the worker has come back, it is counted no more.
    pub fn expire(&self, now: Instant, seat: &Seat) {
        let mut sessions = self.sessions();
        if seat.session().is_vacant(seat.stream()) {
            let session = sessions.remove(seat.session().id());
            drop(sessions);
            if let Some(session) = session {
                session.clear(now);
            }
        }
    }

    /// Frees what nobody needs any more: routes without an object that no worker and no stream speaks of.
    pub fn tidy(&self) {
        if self.removed.swap(false, Ordering::Relaxed) {
            let sessions: Vec<Arc<Session>> = self.sessions().values().cloned().collect();
            for session in sessions {
                session.tidy();
            }
        }
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|_, route| Arc::strong_count(route) > 1 || route.is_known());
    }

    /// How many workers are connected, and how many are counted.
    pub fn count_workers(&self) -> (usize, usize) {
        let sessions = self.sessions();
        let connected = sessions.values().filter(|session| session.is_connected()).count();
        (connected, sessions.len())
    }

    /// All workers, by gateway and instance.
    pub fn workers(&self, now: Instant) -> Vec<WorkerState> {
        let sessions: Vec<Arc<Session>> = self.sessions().values().cloned().collect();
        let mut workers: Vec<WorkerState> = sessions.iter().map(|session| session.state(now)).collect();
        workers.sort_by(|a, b| a.id.cmp(&b.id));
        workers
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<WorkerId, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rate_spec(metrics: &Metrics) -> RateSpec {
    metrics.rate.map_or_else(RateSpec::default, |rate| rate.spec)
}

/// Whether a target in that state has nothing that could serve a request.
fn is_down(hint: Hint) -> bool {
    hint != Hint::Ready
}
