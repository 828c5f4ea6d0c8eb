//! One plugin configuration in one worker.

use crate::{
    config::Config,
    host::{Headers, Host, Level, Reply, StreamToken},
    recall::{Recall, Shape},
    request::{Effective, Parts},
    stats::Stats,
    verdict::Verdict,
    vm::Action,
    wire,
};
use prost::Message;
use sluice_core::{
    count::Method,
    gate::{Arrival, Looks, Outcome},
    link::Step,
    route::{HeaderRule, RouteId},
    table::Request,
    time::Instant,
    worker::Worker,
};
use sluice_proto::link;

const COLD_START: &[u8] = b"x-keda-http-cold-start";
const RETRY_ON: &[u8] = b"x-envoy-retry-on";
const MAX_RETRIES: &[u8] = b"x-envoy-max-retries";
/// Failures before anything was sent: trying again cannot make a request count twice.
const SAFE_RETRIES: &[u8] = b"connect-failure,refused-stream";
/// Envoy waits 25 to 250 ms between tries: these are about a second of an app that is up and not yet listening.
const RETRIES: &[u8] = b"5";
/// `no healthy upstream` among Envoy's response flags (`%RESPONSE_FLAGS%` UH).
const NO_HEALTHY_UPSTREAM: u64 = 0x2;

const FULL: Reply = Reply {
    status: 503,
    details: "sluice_hold_limit",
    body: "too many requests are waiting for this service to start",
    retry_after: Some("5"),
    grpc_status: 14,
};
const EXPIRED: Reply = Reply {
    status: 504,
    details: "sluice_hold_timeout",
    body: "the service did not become ready in time",
    retry_after: None,
    grpc_status: 4,
};

/// A plugin's state.
#[derive(Debug)]
pub struct Plugin {
    root: u32,
    worker: Worker,
    stats: Stats,
    parts: Parts,
    /// The statuses read last; `None`: each is read.
    codes: Option<Recall<u16>>,
    outcomes: Vec<Outcome>,
    scalers: Vec<Scaler>,
    gateway: String,
    instance: u64,
    started: Instant,
    cold_start_header: bool,
    /// When the tick that the host was asked for comes.
    tick_at: Option<Instant>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Scaler {
    cluster: String,
    stream: Option<StreamToken>,
    is_up: bool,
}

/// The host as core's gate and table ask it.
struct Asked<'a, H> {
    request: Effective<'a, H>,
    stats: &'a Stats,
}

/// The host as the gate asks it outside a request.
struct Looking<'a, H> {
    host: &'a mut H,
    stats: &'a Stats,
}

// === impl Asked, Looking ===

impl<H: Host> Request for Asked<'_, H> {
    fn authority(&mut self) -> &[u8] {
        self.request.authority()
    }

    fn path(&mut self) -> &[u8] {
        self.request.path()
    }

    fn header_matches(&mut self, rule: &HeaderRule) -> bool {
        self.request.header_matches(rule)
    }

    fn cluster(&mut self) -> &[u8] {
        self.request.cluster()
    }

    fn method(&mut self) -> Method {
        self.request.method()
    }
}

impl<H: Host> Looks for Asked<'_, H> {
    fn usable(&mut self, cluster: &[u8], host: &[u8]) -> bool {
        self.stats.looked(self.request.host());
        self.request.host().look(cluster, host)
    }

    fn host(&mut self) -> &[u8] {
        wire::host(self.request.authority())
    }
}

impl<H: Host> Looks for Looking<'_, H> {
    fn usable(&mut self, cluster: &[u8], host: &[u8]) -> bool {
        self.stats.looked(self.host);
        self.host.look(cluster, host)
    }
}

// === impl Plugin ===

impl Plugin {
    /// A plugin that has just got its configuration; opens its links.
    pub fn start(root: u32, config: Config, host: &mut impl Host) -> Self {
        let now = host.now();
        let mut gateway = Vec::new();
        host.property(b"xds\0node\0id", &mut gateway);
        if config.scalers.is_empty() {
            host.log(
                Level::Warn,
                "sluice: no scalers are configured: nobody will be told of waiting requests",
            );
        }
        let worker =
            Worker::new(now, config.limits, config.scalers.len(), config.report_interval, || host.random());
        let scaler = |cluster| Scaler { cluster, stream: None, is_up: false };
        let mut plugin = Self {
            root,
            worker,
            stats: Stats::define(host),
            parts: Parts::new(config.sample_labels),
            codes: config.sample_labels.then(Recall::new),
            outcomes: Vec::new(),
            scalers: config.scalers.into_iter().map(scaler).collect(),
            gateway: String::from_utf8_lossy(&gateway).into_owned(),
            instance: host.random(),
            started: now,
            cold_start_header: true,
            tick_at: None,
            scratch: Vec::new(),
        };
        plugin.work(now, host);
        plugin
    }

    // --- a request's callbacks ---

    /// A request's headers have come.
    pub fn request_headers(&mut self, stream: u32, shape: Shape, host: &mut impl Host) -> Action {
        let now = host.now();
        let arrival = self.place(now, stream, Some(shape), host);
        let action = match arrival {
            Arrival::Pass | Arrival::Forward => Action::Continue,
            Arrival::Mismatch(slot) => {
                self.mismatch(now, slot, host);
                Action::Continue
            }
            Arrival::Hold => {
                self.stats.held(host);
                self.tell(now, stream, Verdict::Held, host);
                Action::Pause
            }
            Arrival::Refuse => {
                self.refuse(now, stream, host);
                Action::Pause
            }
        };
        if !matches!(arrival, Arrival::Pass) {
            self.speak_if_due(now, host);
        }
        action
    }

    /// A response's headers have come.
    pub fn response_headers(&mut self, stream: u32, shape: Shape, host: &mut impl Host) {
        if !self.worker.knows(stream) {
            return;
        }
        let code = self.code(stream, shape, host);
        let Some(cold) = self.worker.respond(stream, code) else { return };
        if code == 503 {
            self.scratch.clear();
            let flags = host.property(b"response\0flags", &mut self.scratch);
            let flags =
                self.scratch.first_chunk().filter(|_| flags).map_or(0, |bytes| u64::from_le_bytes(*bytes));
            if flags & NO_HEALTHY_UPSTREAM != 0 {
                self.worker.suspect(host.now(), stream);
            }
        }
        if self.cold_start_header {
            // In place of what the app may have sent by that name: it says what the gateway did.
            host.set_header(Headers::Response, COLD_START, if cold { b"true" } else { b"false" });
        }
    }

    /// A request is gone, in whatever way; or a context that never was one.
    pub fn ended(&mut self, stream: u32, host: &mut impl Host) {
        if !self.worker.knows(stream) {
            return;
        }
        let now = host.now();
        let held = self.worker.held();
        self.worker.depart(now, stream);
        if self.worker.held() < held {
            self.stats.unheld(host);
        }
        self.speak_if_due(now, host);
    }

    /// Finds out whose the effective request is, and whether it goes on. `shape` is `None` where the host did not
    /// tell it.
    fn place<H: Host>(&mut self, now: Instant, stream: u32, shape: Option<Shape>, host: &mut H) -> Arrival {
        let request = Effective::of(host, &mut self.parts, now, shape);
        let mut asked = Asked { request, stats: &self.stats };
        self.worker.request(now, stream, &mut asked)
    }

    /// The status of the effective response: its own, or that of one like it.
    fn code(&mut self, stream: u32, shape: Shape, host: &mut impl Host) -> u16 {
        // Our own answers are not in a row with the app's.
        let mut row = self.codes.as_mut().and_then(|codes| {
            let (lane, arrived) = self.worker.forwarded(stream)?;
            Some((codes, arrived, shape.key(lane.number())))
        });
        if let Some((codes, arrived, key)) = &mut row
            && let Some(code) = codes.get(*arrived, *key)
        {
            return code;
        }
        self.scratch.clear();
        host.header(Headers::Response, b":status", &mut self.scratch);
        let code = std::str::from_utf8(&self.scratch).ok().and_then(|code| code.parse().ok()).unwrap_or(0);
        if let Some((codes, arrived, key)) = row {
            codes.put(arrived, key, code);
        }
        code
    }

    // --- the plugin's own callbacks ---

    /// The tick.
    pub fn tick(&mut self, host: &mut impl Host) {
        self.tick_at = None;
        let now = host.now();
        self.work(now, host);
    }

    /// A scaler has sent a message; `None` if it was too large to be read.
    pub fn link_message(&mut self, stream: StreamToken, message: Option<&[u8]>, host: &mut impl Host) {
        let Some(index) = self.scalers.iter().position(|scaler| scaler.stream == Some(stream)) else {
            return;
        };
        let now = host.now();
        match message.map(link::ToWorker::decode) {
            Some(Ok(link::ToWorker { message: Some(message) })) => self.heard(now, index, message, host),
            // A message of a kind that came after this version: the protocol allows to pass over it.
            Some(Ok(link::ToWorker { message: None })) => {}
            Some(Err(_)) | None => {
                host.log(
                    Level::Error,
                    "sluice: a scaler sent a message that is no link message or too large",
                );
                self.give_up(now, index, host);
            }
        }
        self.work(now, host);
    }

    /// A link has ended.
    pub fn link_closed(&mut self, stream: StreamToken, status: u32, host: &mut impl Host) {
        let Some(index) = self.scalers.iter().position(|scaler| scaler.stream == Some(stream)) else {
            return;
        };
        let now = host.now();
        if let Some(scaler) = self.scalers.get(index) {
            // A scaler that shuts down ends its streams with OK.
            // One that was not up is on its way of growing pauses: the first failure has been told.
            let level = if status == 0 || !scaler.is_up { Level::Debug } else { Level::Warn };
            host.log(
                level,
                &format!("sluice: the link to {} ended with gRPC status {status}", scaler.cluster),
            );
        }
        self.give_up(now, index, host);
        self.work(now, host);
    }

    fn give_up(&mut self, now: Instant, index: usize, host: &mut impl Host) {
        self.disconnect(index, host);
        self.worker.link_closed(now, index);
    }

    fn disconnect(&mut self, index: usize, host: &mut impl Host) {
        let Some(scaler) = self.scalers.get_mut(index) else { return };
        self.stats.link_failed(host);
        if std::mem::take(&mut scaler.is_up) {
            self.stats.link_down(host);
        }
        if let Some(stream) = scaler.stream.take() {
            host.cancel(stream);
        }
    }

    fn heard(&mut self, now: Instant, index: usize, message: link::to_worker::Message, host: &mut impl Host) {
        use link::to_worker::Message;
        match message {
            Message::Welcome(welcome) => {
                self.worker.welcomed(index);
                if let Some(settings) = welcome.settings {
                    self.cold_start_header = settings.cold_start_header;
                }
                if let Some(scaler) = self.scalers.get_mut(index)
                    && !std::mem::replace(&mut scaler.is_up, true)
                {
                    self.stats.link_up(host);
                }
            }
            Message::Table(table) => {
                if table.reset {
                    self.worker.table_reset(index);
                }
                for route in table.upserts {
                    let name = format!("{}/{}", route.namespace, route.name);
                    match wire::route(route) {
                        Ok((spec, hint)) => self.worker.upsert(now, index, spec, hint),
                        Err(error) => {
                            host.log(Level::Error, &format!("sluice: route {name} is left out: {error}"))
                        }
                    }
                }
                for id in table.removals {
                    self.worker.remove(now, index, RouteId(id));
                }
                if table.complete {
                    self.worker.table_complete(now, index);
                }
            }
            Message::Readiness(readiness) => {
                use sluice_core::gate::Hint;
                for (ids, hint) in [
                    (readiness.ready, Hint::Ready),
                    (readiness.not_ready, Hint::NotReady),
                    (readiness.unknown, Hint::Unknown),
                ] {
                    for id in ids {
                        self.worker.hint(now, index, RouteId(id), hint);
                    }
                }
            }
            Message::Ack(ack) => self.worker.acknowledged(index, ack.sequence),
        }
    }

    // --- work that is no request's ---

    /// Does what is due. The effective context is the plugin's own, before and after.
    fn work(&mut self, now: Instant, host: &mut impl Host) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.worker.poll(now, &mut Looking { host, stats: &self.stats }, &mut outcomes);
        let any = !outcomes.is_empty();
        for outcome in outcomes.drain(..) {
            self.perform(now, outcome, host);
        }
        self.outcomes = outcomes;
        if any {
            host.focus(self.root);
        }
        self.speak(now, host);
        self.schedule(now, host);
    }

    fn perform(&mut self, now: Instant, outcome: Outcome, host: &mut impl Host) {
        self.stats.unheld(host);
        match outcome {
            Outcome::Release { stream, held } => {
                self.stats.released(host, held);
                if host.focus(stream) {
                    self.release(now, stream, host);
                }
            }
            Outcome::Expire { stream, .. } => {
                self.stats.expired(host);
                if host.focus(stream) {
                    self.tell(now, stream, Verdict::Expired, host);
                    host.reply(&EXPIRED);
                }
            }
            Outcome::Pass { stream } => {
                if host.focus(stream) {
                    self.pass(now, stream, host);
                }
            }
            Outcome::Rematch { stream } => {
                if host.focus(stream) {
                    match self.place(now, stream, None, host) {
                        Arrival::Forward => self.release(now, stream, host),
                        Arrival::Pass => self.pass(now, stream, host),
                        Arrival::Mismatch(slot) => {
                            self.mismatch(now, slot, host);
                            host.resume();
                        }
                        Arrival::Hold => {
                            self.stats.held(host);
                            // Its route may be another one now.
                            self.tell(now, stream, Verdict::Held, host);
                        }
                        Arrival::Refuse => self.refuse(now, stream, host),
                    }
                }
            }
        }
    }

    /// Lets the effective request go on, with retries where nothing was sent: between the look and the
    /// connection lies a moment in which a pod can still go, and one that is "ready" may not listen yet.
    fn release(&mut self, now: Instant, stream: u32, host: &mut impl Host) {
        self.tell(now, stream, Verdict::Released, host);
        self.scratch.clear();
        if host.header(Headers::Request, RETRY_ON, &mut self.scratch) && !self.scratch.is_empty() {
            self.scratch.push(b',');
        }
        self.scratch.extend_from_slice(SAFE_RETRIES);
        host.set_header(Headers::Request, RETRY_ON, &self.scratch);
        self.scratch.clear();
        if !host.header(Headers::Request, MAX_RETRIES, &mut self.scratch) {
            host.set_header(Headers::Request, MAX_RETRIES, RETRIES);
        }
        host.resume();
    }

    /// Lets the effective request, which has waited, go on as one that is none of ours.
    fn pass(&self, now: Instant, stream: u32, host: &mut impl Host) {
        self.tell(now, stream, Verdict::Passed, host);
        host.resume();
    }

    /// Says of the effective request, which goes on, that the gateway sends it elsewhere than to its route's target.
    fn mismatch(&self, now: Instant, slot: u32, host: &mut impl Host) {
        self.stats.mismatched(host);
        Verdict::Mismatch.tell(now, self.worker.route(slot).map(|route| (route, now)), host);
    }

    /// Answers the effective request: a limit is full.
    fn refuse(&self, now: Instant, stream: u32, host: &mut impl Host) {
        self.stats.rejected(host);
        self.tell(now, stream, Verdict::Refused, host);
        host.reply(&FULL);
    }

    /// Tells access logs. Before the effective request goes on or is answered: that may end it.
    fn tell(&self, now: Instant, stream: u32, verdict: Verdict, host: &mut impl Host) {
        verdict.tell(now, self.worker.route_of(stream), host);
    }

    /// Does what is due on the links.
    fn speak(&mut self, now: Instant, host: &mut impl Host) {
        for index in 0..self.scalers.len() {
            while let Some(step) = self.worker.step(now, index) {
                self.link_step(now, index, step, host);
            }
        }
    }

    fn link_step(&mut self, now: Instant, index: usize, step: Step, host: &mut impl Host) {
        let Some(scaler) = self.scalers.get_mut(index) else { return };
        match step {
            Step::Open => {
                let hello = wire::hello(&self.gateway, self.instance, now.since(self.started));
                scaler.stream = host.open_link(scaler.cluster.as_bytes());
                match scaler.stream {
                    Some(stream) if host.send(stream, &hello) => self.worker.link_opened(now, index),
                    _ => self.give_up(now, index, host),
                }
            }
            Step::Report { sequence, complete } => {
                let slots = self.worker.report(index, complete);
                let counts = slots.iter().filter_map(|slot| self.worker.counts(*slot));
                let report = wire::report(now, sequence, complete, counts);
                if !scaler.stream.is_some_and(|stream| host.send(stream, &report)) {
                    self.give_up(now, index, host);
                }
            }
            Step::Close => self.disconnect(index, host),
        }
    }

    /// After a request's event: does on the links what cannot wait for the tick, and has the tick come in time.
    /// Most requests change neither, and cost no host call here.
    fn speak_if_due(&mut self, now: Instant, host: &mut impl Host) {
        if self.is_due_before_tick(now) {
            // A stream and the tick are the plugin's own; the effective context is the request's.
            host.focus(self.root);
            self.speak(now, host);
            self.schedule(now, host);
        }
    }

    fn is_due_before_tick(&self, now: Instant) -> bool {
        let Some(due) = self.worker.next_due() else { return false };
        self.tick_at.is_none_or(|tick| tick > due.max(now))
    }

    /// Has the host tick when something is due, and not otherwise.
    fn schedule(&mut self, now: Instant, host: &mut impl Host) {
        let due = self.worker.next_due();
        match due {
            // The host's tick repeats: left alone it would go on for nothing.
            None if self.tick_at.is_none() => host.set_tick(0),
            None => {}
            Some(due) if self.tick_at.is_some_and(|tick| tick <= due.max(now)) => {}
            Some(due) => {
                // Rounded up: a tick that is early does nothing and is followed by another one.
                let nanos = due.since(now).as_nanos();
                let millis = u32::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1);
                self.tick_at = Some(now.after(std::time::Duration::from_millis(millis.into())));
                host.set_tick(millis);
            }
        }
    }
}
