//! A request as the route table asks for it.

use crate::{
    headers::pairs,
    host::{Headers, Host},
};
use sluice_core::{count::Method, route::HeaderRule, table::Request};
use std::ops::Range;

/// Where a request's parts are put; kept from one request to the next, so that reading one allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    map: Vec<u8>,
    authority: Range<usize>,
    path: Range<usize>,
    method: Method,
    cluster: Vec<u8>,
    is_cluster_read: bool,
}

/// The effective request of a host.
pub(crate) struct Effective<'a, H> {
    host: &'a mut H,
    parts: &'a mut Parts,
}

// === impl Effective ===

impl<'a, H: Host> Effective<'a, H> {
    /// Reads the headers at once, since method and authority are always wanted and path or others often, and the
    /// cluster only when it is asked for: each is a host call that gives bytes.
    pub(crate) fn read(host: &'a mut H, parts: &'a mut Parts) -> Self {
        parts.forget();
        host.header_map(Headers::Request, &mut parts.map);
        parts.find();
        Self { host, parts }
    }

    pub(crate) fn host(&mut self) -> &mut H {
        self.host
    }

    pub(crate) fn method(&self) -> Method {
        self.parts.method
    }
}

impl<H: Host> Request for Effective<'_, H> {
    fn authority(&mut self) -> &[u8] {
        self.parts.map.get(self.parts.authority.clone()).unwrap_or_default()
    }

    fn path(&mut self) -> &[u8] {
        self.parts.map.get(self.parts.path.clone()).unwrap_or_default()
    }

    fn header_matches(&mut self, rule: &HeaderRule) -> bool {
        pairs(&self.parts.map).any(|(name, value)| {
            *name == *rule.name && rule.value.as_ref().is_none_or(|wanted| **wanted == *value)
        })
    }

    fn cluster(&mut self) -> &[u8] {
        if !std::mem::replace(&mut self.parts.is_cluster_read, true) {
            self.host.property(b"xds\0cluster_name", &mut self.parts.cluster);
        }
        &self.parts.cluster
    }
}

// === impl Parts ===

impl Parts {
    fn forget(&mut self) {
        self.map.clear();
        self.cluster.clear();
        // Headers of 60 KiB are possible; the next request's are not that long.
        self.map.shrink_to(16 * 1024);
        (self.authority, self.path) = (0..0, 0..0);
        self.method = Method::default();
        self.is_cluster_read = false;
    }

    /// Finds the pseudo-headers. Envoy has them in every request, and first, whatever protocol it came by.
    fn find(&mut self) {
        let begin = self.map.as_ptr() as usize;
        // Where a value lies in the map: a range and no slice, since the map is kept beside it.
        let range = |value: &[u8]| {
            let start = (value.as_ptr() as usize).saturating_sub(begin);
            start..start.saturating_add(value.len())
        };
        for (name, value) in pairs(&self.map).take_while(|(name, _)| name.starts_with(b":")) {
            match name {
                b":authority" => self.authority = range(value),
                b":path" => self.path = range(value),
                b":method" => self.method = Method::parse(value),
                _ => {}
            }
        }
    }
}
