//! A request as the route table asks for it: each part is read from the host at most once, and only if the
//! table wants it, because every reading is a host call.

use crate::host::{Headers, Host};
use sluice_core::{route::HeaderRule, table::Request};

/// Where a request's parts are put; kept from one request to the next, so that reading one allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    authority: Part,
    path: Part,
    cluster: Part,
}

#[derive(Debug, Default)]
struct Part {
    bytes: Vec<u8>,
    is_read: bool,
}

/// The effective request of a host.
pub(crate) struct Effective<'a, H> {
    host: &'a mut H,
    parts: &'a mut Parts,
}

// === impl Part ===

impl Part {
    fn get(&mut self, read: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        if !self.is_read {
            self.is_read = true;
            read(&mut self.bytes);
        }
        &self.bytes
    }

    fn forget(&mut self) {
        self.is_read = false;
        self.bytes.clear();
        // Headers of 60 KiB are possible; the next request's are not that long.
        self.bytes.shrink_to(4096);
    }
}

// === impl Effective ===

impl<'a, H: Host> Effective<'a, H> {
    pub(crate) fn new(host: &'a mut H, parts: &'a mut Parts) -> Self {
        for part in [&mut parts.authority, &mut parts.path, &mut parts.cluster] {
            part.forget();
        }
        Self { host, parts }
    }

    pub(crate) fn host(&mut self) -> &mut H {
        self.host
    }
}

impl<H: Host> Request for Effective<'_, H> {
    fn authority(&mut self) -> &[u8] {
        self.parts.authority.get(|bytes| _ = self.host.header(Headers::Request, b":authority", bytes))
    }

    fn path(&mut self) -> &[u8] {
        self.parts.path.get(|bytes| _ = self.host.header(Headers::Request, b":path", bytes))
    }

    fn header_matches(&mut self, rule: &HeaderRule) -> bool {
        let mut first = Vec::new();
        if !self.host.header(Headers::Request, &rule.name, &mut first) {
            return false;
        }
        match &rule.value {
            None => true,
            Some(value) => {
                first == **value || self.host.header_has(Headers::Request, &rule.name, value)
            }
        }
    }

    fn cluster(&mut self) -> &[u8] {
        self.parts.cluster.get(|bytes| _ = self.host.property(b"xds\0cluster_name", bytes))
    }
}
