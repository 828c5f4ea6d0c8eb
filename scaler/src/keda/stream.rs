//! KEDA's streams.

#[cfg(test)]
mod tests;

use super::{
    Metric, metrics,
    pulse::{Beat, Pulse},
    subject::Subject,
};
use crate::{
    hub::{Hub, Phase},
    ledger::{Look, Route},
};
use futures::{Stream, future, stream};
use sluice_core::{route::Kind, time::Instant};
use sluice_proto::keda::ScaledObjectRef;
use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// The streams that are open, for people and metrics.
#[derive(Debug, Default)]
pub struct Streams {
    open: Arc<Mutex<Open>>,
}

/// A stream of activity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// The ScaledObject, `<namespace>/<name>`.
    pub scaled_object: String,
    /// The kind of object that its trigger names.
    pub kind: Kind,
    /// That object's namespace.
    pub namespace: String,
    /// That object's name.
    pub name: String,
    /// What was told last.
    pub told: Option<bool>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    streams: BTreeMap<u64, StreamState>,
    /// How many were told `true` last.
    active: usize,
}

/// A stream's entry, for as long as the stream is there.
#[derive(Debug)]
struct Listed {
    open: Arc<Mutex<Open>>,
    number: u64,
}

// === impl Streams ===

impl Streams {
    /// All of them, the oldest first.
    pub fn all(&self) -> Vec<StreamState> {
        lock(&self.open).streams.values().cloned().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.open).streams.len()
    }

    /// How many were told `true` last.
    fn active(&self) -> usize {
        lock(&self.open).active
    }

    fn list(&self, state: StreamState) -> Listed {
        let mut open = lock(&self.open);
        let number = open.next;
        open.next += 1;
        open.streams.insert(number, state);
        Listed { open: Arc::clone(&self.open), number }
    }
}

// === impl Listed ===

impl Listed {
    fn told(&self, told: Option<bool>) {
        let mut open = lock(&self.open);
        let Some(state) = open.streams.get_mut(&self.number) else { return };
        let before = std::mem::replace(&mut state.told, told);
        open.recount(before, told);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(state) = open.streams.remove(&self.number) {
            open.recount(state.told, None);
        }
    }
}

// === impl Open ===

impl Open {
    /// A stream was told this before and now that.
    fn recount(&mut self, before: Option<bool>, now: Option<bool>) {
        let active = self.active + usize::from(now == Some(true));
        self.active = active.saturating_sub(usize::from(before == Some(true)));
    }
}

/// Whether the subject is active, told as [`Pulse`] says, until the end of this replica. The subject need not be
/// there: as long as it is not, nobody wants it.
pub(super) fn activity(
    hub: Arc<Hub>,
    reference: &ScaledObjectRef,
    subject: Subject,
) -> impl Stream<Item = bool> + use<> {
    let listed = hub.streams.list(StreamState {
        scaled_object: format!("{}/{}", reference.namespace, reference.name),
        kind: subject.kind,
        namespace: subject.namespace.clone(),
        name: subject.name.clone(),
        told: None,
    });
    let routes = subject.routes(&hub);
    let edges: Vec<_> = routes.iter().map(|route| route.edges()).collect();
    let phases = hub.phases();
    let state = Activity { hub, routes, edges, phases, pulse: Pulse::default(), listed };
    stream::unfold(state, |mut state| async move {
        let told = state.next().await?;
        Some((told, state))
    })
}

/// The subject's metrics, now and whenever they change, until the end of this replica.
pub(super) fn metric_specs(hub: Arc<Hub>, subject: Subject) -> impl Stream<Item = Vec<Metric>> {
    let news = hub.objects.news(&subject);
    let phases = hub.phases();
    stream::unfold((hub, subject, news, phases, None), |(hub, subject, news, mut phases, told)| async move {
        let now = loop {
            let mut changed = pin!(news.notified());
            // Before it is read: what comes after is seen as a change.
            changed.as_mut().enable();
            let now = metrics(&hub, &subject);
            if now.is_some() && now != told {
                break now;
            }
            tokio::select! {
                biased;
                () = draining(&mut phases) => return None,
                () = changed => {}
            }
        };
        Some((now.clone()?, (hub, subject, news, phases, now)))
    })
}

struct Activity {
    hub: Arc<Hub>,
    routes: Vec<Arc<Route>>,
    edges: Vec<watch::Receiver<u64>>,
    phases: watch::Receiver<Phase>,
    pulse: Pulse,
    listed: Listed,
}

// === impl Activity ===

impl Activity {
    /// What to tell next, when it is time; `None` at the end.
    async fn next(&mut self) -> Option<bool> {
        loop {
            for edges in &mut self.edges {
                edges.mark_unchanged();
            }
            let now = self.hub.clock.now();
            let wake = match self.pulse.beat(now, self.look(now), self.hub.streams.active()) {
                Beat::Tell(told) => {
                    self.listed.told(self.pulse.told());
                    return Some(told);
                }
                Beat::Wait(wake) => wake,
            };
            let clock = self.hub.clock;
            let alarm = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(clock.timer(at)).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = draining(&mut self.phases) => return None,
                () = any_edge(&mut self.edges) => {}
                () = alarm => {}
            }
        }
    }

    fn look(&self, now: Instant) -> Look {
        let mut looks = self.routes.iter().map(|route| route.look(now));
        let first = looks.next().unwrap_or_default();
        looks.fold(first, |a, b| Look {
            is_active: a.is_active || b.is_active,
            // One that does not end by itself keeps both going.
            until: match (a.is_active, b.is_active) {
                (true, true) => a.until.zip(b.until).map(|(a, b)| a.max(b)),
                (true, false) => a.until,
                (false, true) => b.until,
                (false, false) => None,
            },
            is_waiting: a.is_waiting || b.is_waiting,
            downs: a.downs + b.downs,
        })
    }
}

async fn any_edge(edges: &mut [watch::Receiver<u64>]) {
    let changes = edges.iter_mut().map(|edges| Box::pin(edges.changed()));
    // The senders live as long as the routes that are held beside these.
    let _ = future::select_all(changes).await;
}

async fn draining(phases: &mut watch::Receiver<Phase>) {
    // The sender lives as long as the hub that is held beside this.
    let _ = phases.wait_for(|phase| *phase == Phase::Draining).await;
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
