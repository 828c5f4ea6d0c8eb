//! What all parts share: the index, the table, the counts, and whether this replica is ready.

use crate::{
    board::Board,
    clock::Clock,
    config::Config,
    eds::Eds,
    index::{Changes, Defaults, Flaw, Index, kind_name},
    keda::{Objects, Streams},
    ledger::Ledger,
    source::{Batch, Event, ObjectRef, Problem, cluster::Watches},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
};
use tokio::sync::watch;

/// What all parts share.
#[derive(Debug)]
pub struct Hub {
    /// The clock.
    pub clock: Clock,
    /// The route table as gateways hear it.
    pub board: Board,
    /// Endpoints for plain Envoys.
    pub eds: Eds,
    /// What gateways have counted.
    pub ledger: Ledger,
    /// KEDA's streams.
    pub streams: Streams,
    /// Who waits for news of which object.
    pub objects: Objects,
    /// The watches of an API server; none in standalone mode.
    pub watches: Arc<Watches>,
    /// This replica's name.
    pub name: String,
    /// Whether responses say if they were held.
    pub cold_start_header: bool,
    /// How long a worker that vanished is still counted.
    pub worker_grace: std::time::Duration,
    index: RwLock<Index>,
    problems: Mutex<Vec<Problem>>,
    phase: watch::Sender<Phase>,
}

/// How far this replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Objects have not been read to the end.
    Starting,
    /// All is well.
    Ready,
    /// The end is near, but everything goes on.
    Leaving,
    /// Streams end, calls are finished.
    Draining,
}

// === impl Hub ===

impl Hub {
    /// Nothing is known yet.
    pub fn new(config: &Config) -> Self {
        let defaults = Defaults {
            cluster_template: config.cluster_template.clone(),
            hold_timeout: config.readiness_timeout,
            max_held: config.max_pending,
        };
        Self {
            clock: Clock::start(),
            board: Board::default(),
            eds: Eds::default(),
            ledger: Ledger::new(config.activity_window),
            streams: Streams::default(),
            objects: Objects::default(),
            watches: Arc::default(),
            name: config.name.clone(),
            cold_start_header: config.cold_start_header,
            worker_grace: config.worker_grace,
            index: RwLock::new(Index::new(defaults)),
            problems: Mutex::default(),
            phase: watch::Sender::new(Phase::Starting),
        }
    }

    /// Takes in what a source says, and tells everybody whom it concerns.
    ///
    /// To be called by one source at a time: what is published follows the order of the calls.
    pub fn take(&self, batch: Batch) {
        if let Some(problems) = batch.problems {
            self.set_problems(problems);
        }
        let mut changes = Changes::new();
        let mut touched = BTreeSet::new();
        if !batch.events.is_empty() {
            let objects: Vec<ObjectRef> = batch.events.iter().filter_map(route).collect();
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            index.take(batch.events, &mut changes);
            touched = index.take_touched();
            drop(index);
            self.objects.changed(&objects);
        }
        self.ledger.publish(self.clock.now(), &changes);
        self.board.publish(&changes, batch.synced);
        // After the board: "not ready" has to be at the gateways before the endpoints go.
        self.eds.publish(self.clock.now(), self.board.version(), &self.index(), &touched);
        if batch.synced {
            self.advance(Phase::Ready);
        }
    }

    /// The index, to be read. Not to be held for long: changes wait.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is wrong: with the source, and with objects.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (kind, name, entry) in self.index().entries() {
            let source = format!("{} {}/{}", kind_name(kind), name.namespace, name.name);
            problems.extend(entry.flaws.iter().map(|flaw: &Flaw| Problem {
                source: source.clone(),
                field: flaw.field().to_owned(),
                message: flaw.to_string(),
            }));
        }
        problems
    }

    /// How far this replica is.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// To be woken when the phase changes.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// On to a later phase; there is no way back.
    pub fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let is_later = to > *phase;
            if is_later {
                *phase = to;
            }
            is_later
        });
    }

    /// Returns once objects have been read to the end.
    pub async fn started(&self) {
        // The sender lives as long as this.
        let _ = self.phase.subscribe().wait_for(|phase| *phase != Phase::Starting).await;
    }

    /// Returns once calls are to come to their end.
    pub async fn draining(&self) {
        // The sender lives as long as this.
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Draining).await;
    }

    fn set_problems(&self, problems: Vec<Problem>) {
        let mut known = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            let Problem { source, field, message } = problem;
            tracing::warn!(%source, %field, "{message}");
        }
        *known = problems;
    }
}

/// The HTTPScaledObject or InterceptorRoute that something has happened to.
fn route(event: &Event) -> Option<ObjectRef> {
    let object = match event {
        Event::Apply(object) => object.reference()?,
        Event::Delete(object) => object.clone(),
    };
    object.kind.is_route().then_some(object)
}
