//! An Envoy that keeps to the ABI's rules and fails on what breaks them: a call about a request while no request
//! is the effective one, a message on a stream that has ended, a request resumed or answered twice.

use prost::Message;
use sluice_core::time::Instant;
use sluice_filter::{
    headers,
    host::{Headers, Host, Level, MetricKind, Reply, StreamToken},
    recall::Shape,
    vm::{Action, Vm},
};
use sluice_proto::link;
use std::collections::{BTreeMap, BTreeSet};

pub const ROOT: u32 = 1;

#[derive(Debug, Default)]
pub struct Request {
    pub request: Vec<(Vec<u8>, Vec<u8>)>,
    pub response: Vec<(Vec<u8>, Vec<u8>)>,
    pub cluster: Vec<u8>,
    pub paused: bool,
    pub reply: Option<Reply>,
    pub flags: u64,
    /// What access logs can say of it.
    pub told: Option<String>,
}

#[derive(Default)]
pub struct Envoy {
    now: u64,
    effective: u32,
    next_context: u32,
    next_token: u32,
    random: u64,
    pub requests: BTreeMap<u32, Request>,
    pub usable: BTreeSet<Vec<u8>>,
    /// The clusters that were looked at, and the hosts that they were looked at for.
    pub looks: Vec<(Vec<u8>, Vec<u8>)>,
    pub unreachable: bool,
    pub links: BTreeMap<u32, Vec<link::FromWorker>>,
    pub metrics: Vec<(String, i64)>,
    pub logs: Vec<String>,
    pub tick: u32,
    tick_at: u64,
    pub calls: u64,
}

fn shape(headers: &[(Vec<u8>, Vec<u8>)]) -> Shape {
    Shape { headers: headers.len().try_into().unwrap(), ends: true }
}

/// An Envoy and the VM in it.
pub struct Bed {
    pub envoy: Envoy,
    pub vm: Vm,
}

impl Envoy {
    fn request(&mut self, what: &str) -> &mut Request {
        self.calls += 1;
        let effective = self.effective;
        self.requests
            .get_mut(&effective)
            .unwrap_or_else(|| panic!("{what} while context {effective} is effective"))
    }

    fn headers_of(&mut self, headers: Headers) -> &mut Vec<(Vec<u8>, Vec<u8>)> {
        let request = self.request("headers");
        match headers {
            Headers::Request => &mut request.request,
            Headers::Response => &mut request.response,
        }
    }

    pub fn metric(&self, name: &str) -> i64 {
        self.metrics.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no metric {name}")).1
    }

    /// The tokens of the streams that are open.
    pub fn open_links(&self) -> Vec<u32> {
        self.links.keys().copied().collect()
    }
}

impl Host for Envoy {
    fn now(&mut self) -> Instant {
        Instant::from_nanos(self.now)
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.random
    }

    fn header(&mut self, headers: Headers, name: &[u8], value: &mut Vec<u8>) -> bool {
        let found =
            self.headers_of(headers).iter().find(|(known, _)| known == name).map(|(_, it)| it.clone());
        found.inspect(|found| value.extend_from_slice(found)).is_some()
    }

    fn header_map(&mut self, headers: Headers, map: &mut Vec<u8>) -> bool {
        let pairs = self.headers_of(headers).clone();
        headers::write(map, pairs.iter().map(|(name, value)| (&**name, &**value)));
        true
    }

    fn set_header(&mut self, headers: Headers, name: &[u8], value: &[u8]) {
        let map = self.headers_of(headers);
        map.retain(|(known, _)| known != name);
        map.push((name.to_vec(), value.to_vec()));
    }

    fn property(&mut self, path: &[u8], value: &mut Vec<u8>) -> bool {
        match path {
            b"xds\0node\0id" => value.extend_from_slice(b"gateway-1"),
            b"xds\0cluster_name" => {
                let cluster = self.request("cluster").cluster.clone();
                value.extend_from_slice(&cluster);
            }
            b"response\0flags" => {
                let flags = self.request("flags").flags;
                value.extend_from_slice(&flags.to_le_bytes());
            }
            _ => panic!("property {}", path.escape_ascii()),
        }
        true
    }

    fn set_property(&mut self, name: &[u8], value: &[u8]) {
        assert_eq!(name, b"sluice", "a property that nobody has heard of");
        assert!(value.len() <= 512, "{} bytes in an access log", value.len());
        let request = self.request("set a property");
        assert!(request.reply.is_none(), "told after the answer: the request may be gone");
        request.told = Some(String::from_utf8(value.to_vec()).unwrap());
    }

    fn focus(&mut self, context: u32) -> bool {
        self.calls += 1;
        let known = context == ROOT || self.requests.contains_key(&context);
        if known {
            self.effective = context;
        }
        known
    }

    fn resume(&mut self) {
        let request = self.request("resume");
        assert!(std::mem::take(&mut request.paused), "resumed although it was not paused");
    }

    fn reply(&mut self, reply: &Reply) {
        let request = self.request("reply");
        assert_eq!(request.reply.replace(*reply), None, "answered twice");
    }

    fn look(&mut self, cluster: &[u8], host: &[u8]) -> bool {
        self.calls += 1;
        self.looks.push((cluster.to_vec(), host.to_vec()));
        self.usable.contains(cluster)
    }

    fn open_link(&mut self, cluster: &[u8]) -> Option<StreamToken> {
        assert_eq!(self.effective, ROOT, "a stream belongs to the plugin");
        assert!(cluster.starts_with(b"scaler"));
        if self.unreachable {
            return None;
        }
        self.next_token += 1;
        self.links.insert(self.next_token, Vec::new());
        Some(StreamToken(self.next_token))
    }

    fn send(&mut self, stream: StreamToken, message: &[u8]) -> bool {
        assert_eq!(self.effective, ROOT, "a stream is found in its own context only");
        let sent =
            self.links.get_mut(&stream.0).unwrap_or_else(|| panic!("sent on {stream:?}, which is no more"));
        sent.push(link::FromWorker::decode(message).unwrap());
        true
    }

    fn cancel(&mut self, stream: StreamToken) {
        assert_eq!(self.effective, ROOT, "a stream is found in its own context only");
        self.links.remove(&stream.0);
    }

    fn set_tick(&mut self, millis: u32) {
        assert_eq!(self.effective, ROOT, "the tick is the plugin's");
        self.tick = millis;
        self.tick_at = self.now + u64::from(millis) * 1_000_000;
    }

    fn define_metric(&mut self, _: MetricKind, name: &str) -> Option<u32> {
        self.metrics.push((name.to_owned(), 0));
        u32::try_from(self.metrics.len() - 1).ok()
    }

    fn add_metric(&mut self, metric: u32, by: i64) {
        let (name, value) = &mut self.metrics[metric as usize];
        *value += by;
        assert!(*value >= 0, "{name} below zero");
    }

    fn record_metric(&mut self, metric: u32, value: u64) {
        self.metrics[metric as usize].1 = i64::try_from(value).unwrap();
    }

    fn log(&mut self, _: Level, message: &str) {
        self.logs.push(message.to_owned());
    }
}

impl Bed {
    /// A VM with one plugin of that configuration.
    pub fn new(config: &str) -> Self {
        let envoy = Envoy { effective: ROOT, next_context: 10, now: 1_000_000_000, ..Envoy::default() };
        let mut bed = Self { envoy, vm: Vm::default() };
        bed.vm.create(ROOT, 0);
        assert!(bed.vm.configure(ROOT, config.as_bytes(), &mut bed.envoy), "{:?}", bed.envoy.logs);
        bed
    }

    /// Calls back into the plugin's own context.
    pub fn root<T>(&mut self, call: impl FnOnce(&mut Vm, &mut Envoy) -> T) -> T {
        self.envoy.effective = ROOT;
        let result = call(&mut self.vm, &mut self.envoy);
        assert_eq!(self.envoy.effective, ROOT, "the effective context has to be given back");
        result
    }

    /// A request's headers come.
    pub fn request(&mut self, host: &[u8], cluster: &str) -> u32 {
        let pseudo = [(&b":authority"[..], host), (b":path", b"/x"), (b":method", b"GET")];
        self.request_with(pseudo.map(|(name, value)| (name.to_vec(), value.to_vec())).to_vec(), cluster)
    }

    pub fn request_with(&mut self, headers: Vec<(Vec<u8>, Vec<u8>)>, cluster: &str) -> u32 {
        self.envoy.next_context += 1;
        let context = self.envoy.next_context;
        let shape = shape(&headers);
        let request = Request { request: headers, cluster: cluster.into(), ..Request::default() };
        self.envoy.requests.insert(context, request);
        self.envoy.effective = context;
        self.vm.create(context, ROOT);
        let action = self.vm.request_headers(context, shape, &mut self.envoy);
        let request = self.envoy.requests.get_mut(&context).unwrap();
        request.paused = action == Action::Pause;
        context
    }

    /// A response's headers pass by.
    pub fn respond(&mut self, context: u32, status: &str) {
        self.envoy.effective = context;
        let request = self.envoy.requests.get_mut(&context).unwrap();
        request.response = vec![(b":status".to_vec(), status.into())];
        let shape = shape(&request.response);
        self.vm.response_headers(context, shape, &mut self.envoy);
    }

    /// A request ends.
    pub fn end(&mut self, context: u32) {
        self.envoy.effective = context;
        self.vm.delete(context, &mut self.envoy);
        self.envoy.requests.remove(&context);
    }

    /// Lets time pass, with the ticks that the plugin has asked for.
    pub fn pass(&mut self, millis: u64) {
        let until = self.envoy.now + millis * 1_000_000;
        while self.envoy.tick > 0 && self.envoy.tick_at <= until {
            self.envoy.now = self.envoy.tick_at;
            // The host's timer goes on with the same period unless the tick sets another.
            self.envoy.tick_at += u64::from(self.envoy.tick) * 1_000_000;
            self.root(|vm, envoy| vm.tick(ROOT, envoy));
        }
        self.envoy.now = until;
    }

    /// A scaler sends a message.
    pub fn hear(&mut self, token: u32, message: link::to_worker::Message) {
        let message = link::ToWorker { message: Some(message) }.encode_to_vec();
        self.root(|vm, envoy| vm.link_message(ROOT, StreamToken(token), Some(&message), envoy));
    }

    /// A scaler says welcome and sends its whole table.
    pub fn welcome(&mut self, token: u32, routes: Vec<link::Route>) {
        let settings = Some(link::Settings { cold_start_header: true });
        let welcome = link::Welcome { protocol: 1, scaler: "scaler".into(), settings };
        self.hear(token, link::to_worker::Message::Welcome(welcome));
        let table = link::Table { reset: true, upserts: routes, removals: vec![], complete: true };
        self.hear(token, link::to_worker::Message::Table(table));
    }

    pub fn ready(&mut self, token: u32, route: u64) {
        let readiness = link::Readiness { ready: vec![route], ..Default::default() };
        self.hear(token, link::to_worker::Message::Readiness(readiness));
    }

    /// Acknowledges reports until the plugin has nothing more to say, and gives them.
    pub fn settle(&mut self, token: u32) -> Vec<link::Report> {
        let mut all = Vec::new();
        loop {
            let sent = reports(self.acknowledge(token));
            if sent.is_empty() && !all.is_empty() || self.envoy.tick == 0 {
                return all;
            }
            all.extend(sent);
            self.pass(300);
        }
    }

    /// Acknowledges all reports of a stream, and takes what was sent.
    pub fn acknowledge(&mut self, token: u32) -> Vec<link::FromWorker> {
        let sent = std::mem::take(self.envoy.links.get_mut(&token).unwrap());
        for message in &sent {
            if let Some(link::from_worker::Message::Report(report)) = &message.message {
                self.hear(token, link::to_worker::Message::Ack(link::Ack { sequence: report.sequence }));
            }
        }
        sent
    }
}

/// A route for a host, whose target is the cluster of that name.
pub fn route(id: u64, host: &str, hint: link::Hint) -> link::Route {
    link::Route {
        id,
        kind: link::Kind::HttpScaledObject.into(),
        namespace: "ns".into(),
        name: host.into(),
        rules: vec![link::Rule { hosts: vec![host.into()], paths: vec![], headers: vec![] }],
        cluster: Some(link::Cluster { prefix: host.into(), suffix: None }),
        hint: hint.into(),
        ..Default::default()
    }
}

/// The reports among what was sent.
pub fn reports(sent: Vec<link::FromWorker>) -> Vec<link::Report> {
    let report = |message: link::FromWorker| match message.message {
        Some(link::from_worker::Message::Report(report)) => Some(report),
        _ => None,
    };
    sent.into_iter().filter_map(report).collect()
}
