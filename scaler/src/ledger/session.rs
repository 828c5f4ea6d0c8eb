//! One worker, over all of its streams.

use super::{
    Ledger,
    last::{Last, Room},
    lines::{LINE_BITS, Line, Lines},
    report::{Report, Said},
};
use sluice_core::{metric::Share, route::RouteId, time::Instant};
use std::{
    cell::RefCell,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::sync::watch;

/// How many routes a worker may name: far more than an Envoy takes as clusters.
const MAX_ROUTES: usize = 131_072;
const _: () = assert!(MAX_ROUTES < 1 << LINE_BITS);
/// How many of them may be unknown here. Not none: another replica may have told the worker of a route before this
/// one knows it, and the requests that wait for it must not be missed.
const MAX_UNKNOWN_ROUTES: usize = 4_096;
/// How many routes of a report are looked up before they are counted.
const BATCH: usize = 32;

thread_local! {
    /// One for all sessions: they are counted one after the other.
    static ROOM: RefCell<Room> = RefCell::default();
}

/// A worker's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId {
    /// Its Envoy's node id.
    pub gateway: String,
    /// What it drew when it started.
    pub instance: u64,
}

/// What is known of a worker, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerState {
    /// Its name.
    pub id: WorkerId,
    /// Its filter's version.
    pub filter_version: String,
    /// Whether it has a stream now.
    pub is_connected: bool,
    /// How long ago it reported; `None`: never.
    pub last_report: Option<Duration>,
    /// How many routes the table has that it was sent; 0 before.
    pub routes: usize,
    /// How many requests it has under way.
    pub in_flight: u64,
    /// How many of them wait.
    pub held: u64,
}

/// A worker's place while one of its streams lasts.
#[derive(Clone, Debug)]
pub struct Seat {
    session: Arc<Session>,
    stream: u64,
    over: watch::Receiver<u64>,
}

/// A newer stream of the same worker is there: this one's word counts no more.
#[derive(Debug, thiserror::Error)]
#[error("a newer stream of this worker is open")]
pub struct Superseded(());

#[derive(Debug)]
pub(super) struct Session {
    id: WorkerId,
    state: Mutex<State>,
    /// The number of the newest stream.
    newest: watch::Sender<u64>,
}

pub(super) struct Join {
    pub(super) stream: u64,
    pub(super) over: watch::Receiver<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest stream's number.
    stream: u64,
    is_connected: bool,
    filter_version: String,
    reported: Option<Instant>,
    /// What its counters say is news, and not where counting begins.
    is_news: bool,
    /// How many routes the table has that it was sent.
    told: usize,
    lines: Lines,
    unknown: usize,
    /// Counts the reports, to tell which routes one of them named.
    reports: u32,
}

// === impl Seat ===

impl Seat {
    pub(super) fn new(session: Arc<Session>, stream: u64, over: watch::Receiver<u64>) -> Self {
        Self { session, stream, over }
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn stream(&self) -> u64 {
        self.stream
    }

    /// Returns once a newer stream of the same worker is there.
    pub async fn superseded(&mut self) -> Superseded {
        let stream = self.stream;
        // The sender lives as long as the session that is held here.
        let _ = self.over.wait_for(|newest| *newest != stream).await;
        Superseded(())
    }

    /// The worker was sent a table of that many routes.
    pub fn told(&self, routes: usize) {
        let mut state = self.session.lock();
        if state.stream == self.stream {
            state.told = routes;
        }
    }

    /// The worker reports.
    ///
    /// # Errors
    /// If a newer stream of the same worker is there.
    pub fn report(&self, ledger: &Ledger, now: Instant, report: &Report) -> Result<(), Superseded> {
        let mut state = self.session.lock();
        if state.stream != self.stream {
            return Err(Superseded(()));
        }
        state.report(ledger, now, report);
        Ok(())
    }
}

// === impl Session ===

impl Session {
    pub(super) fn new(id: WorkerId, is_young: bool) -> Self {
        let state = State { is_news: is_young, ..State::default() };
        Self { id, state: Mutex::new(state), newest: watch::Sender::new(0) }
    }

    pub(super) fn id(&self) -> &WorkerId {
        &self.id
    }

    pub(super) fn join(&self, filter_version: String) -> Join {
        let mut state = self.lock();
        state.stream += 1;
        state.is_connected = true;
        state.told = 0;
        state.filter_version = filter_version;
        self.newest.send_replace(state.stream);
        Join { stream: state.stream, over: self.newest.subscribe() }
    }

    pub(super) fn leave(&self, stream: u64) -> bool {
        let mut state = self.lock();
        let is_newest = state.stream == stream;
        if is_newest {
            state.is_connected = false;
        }
        is_newest
    }

    /// Whether nothing has come after that stream.
    pub(super) fn is_vacant(&self, stream: u64) -> bool {
        let state = self.lock();
        state.stream == stream && !state.is_connected
    }

    pub(super) fn is_connected(&self) -> bool {
        self.lock().is_connected
    }

    /// Takes everything that it has under way out of the routes.
    pub(super) fn clear(&self, now: Instant) {
        for line in self.lock().lines.take() {
            line.route.leave(now, line.share);
        }
    }

    /// Forgets routes that no object stands for and that have nothing under way.
    pub(super) fn tidy(&self) {
        let mut state = self.lock();
        state.lines.retain(|line| line.share.in_flight() > 0 || line.route.is_known());
        state.recount();
    }

    pub(super) fn state(&self, now: Instant) -> WorkerState {
        let state = self.lock();
        let sum =
            |gauge: fn(&Share) -> u32| state.lines.iter().map(|line| u64::from(gauge(&line.share))).sum();
        WorkerState {
            id: self.id.clone(),
            filter_version: state.filter_version.clone(),
            is_connected: state.is_connected,
            last_report: state.reported.map(|at| now.since(at)),
            routes: state.told,
            in_flight: sum(Share::in_flight),
            held: sum(Share::held),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn report(&mut self, ledger: &Ledger, now: Instant, report: &Report) {
        let is_baseline = !std::mem::replace(&mut self.is_news, true);
        self.reported = Some(now);
        self.reports = self.reports.wrapping_add(1);
        if self.unknown >= MAX_UNKNOWN_ROUTES {
            // Some of them may have become known since.
            self.recount();
        }
        ROOM.with_borrow_mut(|room| {
            let mut routes = report.routes();
            loop {
                let (mut batch, mut len) = ([Said::default(); BATCH], 0);
                for (place, said) in batch.iter_mut().zip(&mut routes) {
                    *place = said;
                    len += 1;
                }
                let lines = self.lines.find_all(&batch.map(|said| RouteId(said.route)));
                for (said, line) in batch.iter().zip(lines).take(len) {
                    self.count(ledger, now, said, line, is_baseline, room);
                }
                if len < BATCH {
                    break;
                }
            }
        });
        if report.is_complete() {
            // What it does not name is zero there, its counters too: it has forgotten the route.
            let current = self.reports;
            self.lines.retain(|line| {
                let stays = line.report == current;
                if !stays {
                    line.route.leave(now, line.share);
                }
                stays
            });
        }
    }

    /// Counts what is said of a route; `line` is where it was found.
    fn count(
        &mut self,
        ledger: &Ledger,
        now: Instant,
        said: &Said<'_>,
        line: Option<usize>,
        is_baseline: bool,
        room: &mut Room,
    ) {
        let id = RouteId(said.route);
        // It may have been admitted since it was looked up: somebody may name it twice.
        let Some(line) = line.or_else(|| self.lines.find(id)).or_else(|| self.admit(ledger, now, id)) else {
            ledger.ignored.routes.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Some(line) = self.lines.get(line) else { return };
        line.report = self.reports;
        let news = line.last.update(said, is_baseline, &ledger.ignored, room);
        line.route.add(now, &mut line.share, news);
    }

    fn recount(&mut self) {
        self.unknown = self.lines.iter().filter(|line| !line.route.is_known()).count();
    }

    /// A route that this worker has not named before; gives where its line is. `None`: there are too many.
    fn admit(&mut self, ledger: &Ledger, now: Instant, id: RouteId) -> Option<usize> {
        let known = ledger.find(id).filter(|route| route.is_known());
        if self.lines.len() >= MAX_ROUTES || (known.is_none() && self.unknown >= MAX_UNKNOWN_ROUTES) {
            return None;
        }
        if known.is_none() {
            self.unknown += 1;
        }
        let route = known.unwrap_or_else(|| ledger.route(now, id));
        self.lines.push(Line { id, route, last: Last::default(), share: Share::new(now), report: 0 });
        self.lines.len().checked_sub(1)
    }
}
