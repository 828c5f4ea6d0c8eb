//! Where a route's id leads in a table.

use sluice_core::route::RouteId;
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::LazyLock,
};

/// A 64-bit number that is odd and whose bits are mixed: 2^64 over the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Another number in each process: nobody who names routes can know where they lead.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(MIX));

/// Hashes route ids, which are pieces of SHA-256 and need little of it: a report names hundreds of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByRoute(u64);

/// One hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteHasher(u64);

// === impl ByRoute ===

impl Default for ByRoute {
    fn default() -> Self {
        Self(*SEED)
    }
}

impl ByRoute {
    pub(super) fn hash(self, id: RouteId) -> u64 {
        let wide = u128::from(id.0 ^ self.0) * u128::from(MIX);
        // Both halves: the lower one depends on the lower bits alone.
        (wide >> 64) as u64 ^ wide as u64
    }
}

impl BuildHasher for ByRoute {
    type Hasher = RouteHasher;

    fn build_hasher(&self) -> RouteHasher {
        RouteHasher(self.0)
    }
}

// === impl RouteHasher ===

impl Hasher for RouteHasher {
    fn write_u64(&mut self, id: u64) {
        self.0 = ByRoute(self.0).hash(RouteId(id));
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
