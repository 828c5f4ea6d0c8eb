//! A request as the route table asks for it.

use crate::{
    headers::pairs,
    host::{Headers, Host},
    recall::{Recall, Shape, number},
};
use sluice_core::{count::Method, route::HeaderRule, table::Request, time::Instant};

/// Where a request's parts are put; kept from one request to the next, so that reading one allocates nothing.
#[derive(Debug)]
pub(crate) struct Parts {
    authority: Part,
    path: Part,
    cluster: Part,
    map: Part,
    method: Part,
    /// The methods read last; `None`: each is read.
    methods: Option<Recall<Method>>,
}

/// Bytes that the host has been asked for, or not yet.
#[derive(Debug, Default)]
struct Part {
    bytes: Vec<u8>,
    is_read: bool,
}

/// The effective request of a host. Each part is a host call that gives bytes, and none is asked for before it is
/// wanted: one header is a third of what all of them cost, or less where there are many.
pub(crate) struct Effective<'a, H> {
    host: &'a mut H,
    parts: &'a mut Parts,
    arrived: Instant,
    shape: Option<Shape>,
}

// === impl Effective ===

impl<'a, H: Host> Effective<'a, H> {
    pub(crate) fn of(host: &'a mut H, parts: &'a mut Parts, now: Instant, shape: Option<Shape>) -> Self {
        parts.forget();
        Self { host, parts, arrived: now, shape }
    }

    pub(crate) fn host(&mut self) -> &mut H {
        self.host
    }
}

impl<H: Host> Request for Effective<'_, H> {
    fn authority(&mut self) -> &[u8] {
        let host = &mut *self.host;
        self.parts.authority.get(|bytes| host.header(Headers::Request, b":authority", bytes))
    }

    fn path(&mut self) -> &[u8] {
        let host = &mut *self.host;
        self.parts.path.get(|bytes| host.header(Headers::Request, b":path", bytes))
    }

    fn header_matches(&mut self, rule: &HeaderRule) -> bool {
        let host = &mut *self.host;
        // All headers: asked for one, the host gives several of a name as one, joined by commas.
        let map = self.parts.map.get(|bytes| host.header_map(Headers::Request, bytes));
        pairs(map).any(|(name, value)| {
            *name == *rule.name && rule.value.as_ref().is_none_or(|wanted| **wanted == *value)
        })
    }

    fn cluster(&mut self) -> &[u8] {
        let host = &mut *self.host;
        self.parts.cluster.get(|bytes| host.property(b"xds\0cluster_name", bytes))
    }

    fn method(&mut self) -> Method {
        let shape = self.shape.filter(|_| self.parts.methods.is_some());
        let key = shape.map(|shape| shape.key(number(self.cluster())));
        let Parts { method, methods, .. } = &mut *self.parts;
        let mut row = methods.as_mut().zip(key);
        if let Some((methods, key)) = &mut row
            && let Some(method) = methods.get(self.arrived, *key)
        {
            return method;
        }
        let host = &mut *self.host;
        let method = Method::parse(method.get(|bytes| host.header(Headers::Request, b":method", bytes)));
        if let Some((methods, key)) = row {
            methods.put(self.arrived, key, method);
        }
        method
    }
}

// === impl Parts ===

impl Parts {
    pub(crate) fn new(samples_labels: bool) -> Self {
        let [authority, path, cluster, map, method] = Default::default();
        Self { authority, path, cluster, map, method, methods: samples_labels.then(Recall::new) }
    }

    fn forget(&mut self) {
        for part in [&mut self.authority, &mut self.path, &mut self.cluster, &mut self.map, &mut self.method]
        {
            part.forget();
        }
    }
}

// === impl Part ===

impl Part {
    fn get(&mut self, read: impl FnOnce(&mut Vec<u8>) -> bool) -> &[u8] {
        if !std::mem::replace(&mut self.is_read, true) {
            read(&mut self.bytes);
        }
        &self.bytes
    }

    fn forget(&mut self) {
        self.bytes.clear();
        // Headers of 60 KiB are possible; the next request's are not that long.
        self.bytes.shrink_to(16 * 1024);
        self.is_read = false;
    }
}
