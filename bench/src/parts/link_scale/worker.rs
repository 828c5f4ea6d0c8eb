//! A gateway worker, as a scaler sees it.

use super::wire::{self, Down, LinkCodec, Up};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::channel::mpsc as queue;
use sluice_proto::link::{Hello, PROTOCOL, RouteCounts, to_worker};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

/// Envoy's worker counters are old when a scaler is new: what they say is where counting begins.
const AGE_MS: u64 = 3_600_000;
/// Workers of one gateway.
const WORKERS_EACH: usize = 8;
/// How long a worker waits before it tries again.
const AGAIN: Duration = Duration::from_millis(100);
/// How many lost links are worth a word each.
const ERRORS: u64 = 10;
/// Requests of a route that sleeps and that were under way when a worker spoke.
pub(super) type Urgent = (u64, u32);

/// What all workers look at.
#[derive(Debug)]
pub(super) struct Shared {
    /// Where the scaler is.
    pub(super) scaler: watch::Receiver<SocketAddr>,
    /// How many workers have the whole table.
    pub(super) tabled: watch::Sender<usize>,
    /// How many have had their complete report acknowledged.
    pub(super) counted: watch::Sender<usize>,
    /// There is no scaler now.
    pub(super) is_down: AtomicBool,
    /// How many links ended by themselves.
    pub(super) lost: AtomicU64,
    /// How many reports were acknowledged.
    pub(super) acks: AtomicU64,
    /// How many routes the table has.
    pub(super) routes: usize,
}

/// One worker, and what it has to say.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) number: usize,
    pub(super) shared: Arc<Shared>,
    /// The newest report of its group.
    pub(super) ticks: watch::Receiver<Bytes>,
    /// Everything that its group has ever reported.
    pub(super) all: watch::Receiver<Bytes>,
    /// What cannot wait.
    pub(super) urgent: mpsc::UnboundedReceiver<Urgent>,
    /// What it counts of routes that sleep.
    pub(super) sleepers: HashMap<u64, RouteCounts>,
    /// The scaler that it has had the table of, and the one that has heard it.
    pub(super) known: [Option<SocketAddr>; 2],
}

/// A link, once it stands.
struct Session {
    up: queue::UnboundedSender<Up>,
    sequence: u64,
    /// A report is not acknowledged yet.
    is_waiting: bool,
    /// How many routes of the table have come.
    routes: usize,
    scaler: SocketAddr,
    /// What the next report has: of routes that sleep, and of the others.
    next: [Bytes; 2],
}

// === impl Worker ===

impl Worker {
    /// Links to the scaler, again and again, for as long as there is a run.
    pub(super) async fn run(mut self) {
        loop {
            let address = *self.shared.scaler.borrow();
            let mut scaler = self.shared.scaler.clone();
            let linked = self.link(address).await;
            let Err(error) = linked else { continue };
            tokio::select! {
                biased;
                // Another scaler has taken the place of that one.
                _ = scaler.wait_for(|now| *now != address) => {}
                () = tokio::time::sleep(AGAIN) => {
                    if !self.shared.is_down.load(Ordering::Relaxed)
                        && self.shared.lost.fetch_add(1, Ordering::Relaxed) < ERRORS
                    {
                        eprintln!("bench: worker {}: {error:#}", self.number);
                    }
                }
            }
        }
    }

    async fn link(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        let (up, reports) = queue::unbounded();
        let mut session = Session {
            up,
            sequence: 0,
            is_waiting: true,
            routes: 0,
            scaler: address,
            next: Default::default(),
        };
        session.send(wire::hello(Hello {
            protocol: PROTOCOL,
            gateway: format!("gateway-{}.istio-system", self.number / WORKERS_EACH),
            instance: self.number as u64,
            filter_version: env!("CARGO_PKG_VERSION").to_owned(),
            age_ms: AGE_MS,
        }))?;
        let mut grpc = Grpc::<Channel>::new(channel);
        grpc.ready().await?;
        let path = PathAndQuery::from_static("/sluice.link.v1.Link/Connect");
        let mut down = grpc.streaming(Request::new(reports), path, LinkCodec).await?.into_inner();
        loop {
            tokio::select! {
                // What cannot wait goes first.
                biased;
                Some(urgent) = self.urgent.recv() => self.urge(&mut session, urgent),
                message = down.message() => self.take(&mut session, message?.context("the link's end")?)?,
                changed = self.ticks.changed() => {
                    changed?;
                    session.next[1] = self.ticks.borrow_and_update().clone();
                }
            }
            session.report()?;
        }
    }

    fn urge(&mut self, session: &mut Session, (route, held): Urgent) {
        let counts = self.sleepers.entry(route).or_insert(RouteCounts { route, ..RouteCounts::default() });
        counts.arrivals += u64::from(held);
        (counts.in_flight, counts.held) = (held, held);
        // All of them: there are few, and one that waits already must not be lost.
        session.next[0] = self.own();
    }

    fn own(&self) -> Bytes {
        let mut own = Vec::new();
        for counts in self.sleepers.values() {
            wire::append(&mut own, counts);
        }
        own.into()
    }

    fn take(&mut self, session: &mut Session, message: Down) -> anyhow::Result<()> {
        match message {
            Down::Other(to_worker::Message::Welcome(_)) => {
                session.is_waiting = false;
                let all = self.all.borrow().clone();
                session.next = [self.own(), all];
            }
            Down::Table { routes, complete } => {
                session.routes += routes;
                let [known, _] = &mut self.known;
                if complete
                    && session.routes >= self.shared.routes
                    && known.replace(session.scaler) != Some(session.scaler)
                {
                    self.shared.tabled.send_modify(|count| *count += 1);
                }
            }
            Down::Other(to_worker::Message::Ack(ack)) => {
                session.is_waiting = ack.sequence < session.sequence;
                let [_, known] = &mut self.known;
                if ack.sequence == 1 && known.replace(session.scaler) != Some(session.scaler) {
                    self.shared.counted.send_modify(|count| *count += 1);
                }
                self.shared.acks.fetch_add(1, Ordering::Relaxed);
            }
            Down::Other(to_worker::Message::Readiness(_)) => {}
            Down::Other(other) => bail!("{other:?} came, which nobody expects"),
        }
        Ok(())
    }
}

// === impl Session ===

impl Session {
    /// Reports what there is, unless the last report has not been acknowledged. The first one is complete, and is
    /// made even of nothing.
    fn report(&mut self) -> anyhow::Result<()> {
        if self.is_waiting || (self.sequence > 0 && self.next.iter().all(Bytes::is_empty)) {
            return Ok(());
        }
        self.sequence += 1;
        self.is_waiting = true;
        let routes = std::mem::take(&mut self.next);
        self.send(Up::Report { sequence: self.sequence, complete: self.sequence == 1, routes })
    }

    fn send(&mut self, message: Up) -> anyhow::Result<()> {
        self.up.unbounded_send(message).context("the link's end")
    }
}
