//! First come, first out, and out of the middle too: clients leave.

use crate::{count::Method, route::RouteId, time::Instant};
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// What is kept of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) lane: usize,
    /// The route in whose counts it is; `None` before there is a route table.
    pub(super) route: Option<RouteId>,
    pub(super) arrived: Instant,
    pub(super) place: Place,
    pub(super) method: Method,
    pub(super) code: u16,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its lane's queue, between these two.
    Held { before: Option<u32>, after: Option<u32> },
    /// On its way to the app; `cold` if it was held.
    Forwarded { cold: bool },
    /// Answered by the gate, not yet gone.
    Answered,
    /// Out of its queue, to be matched anew.
    Loose,
}

/// All requests, by the host's name for them.
#[derive(Debug, Default)]
pub(super) struct Streams(HashMap<u32, Stream, BuildHasherDefault<ContextId>>);

/// A queue of streams, linked through [`Place::Held`].
#[derive(Debug, Default)]
pub(super) struct Queue {
    front: Option<u32>,
    back: Option<u32>,
    len: u32,
}

/// Spreads context ids. They are handed out by the host, one after the other: no client chooses them, so a
/// keyed hash would protect from nobody, and this is on every request's way.
#[derive(Debug, Default)]
pub(super) struct ContextId(u64);

// === impl ContextId ===

impl Hasher for ContextId {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        // Fibonacci hashing: 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

// === impl Streams ===

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, stream: u32) -> Option<&Stream> {
        self.0.get(&stream)
    }

    pub(super) fn get_mut(&mut self, stream: u32) -> Option<&mut Stream> {
        self.0.get_mut(&stream)
    }

    pub(super) fn insert(&mut self, stream: u32, it: Stream) {
        self.0.insert(stream, it);
    }

    pub(super) fn remove(&mut self, stream: u32) -> Option<Stream> {
        self.0.remove(&stream)
    }

    pub(super) fn set_place(&mut self, stream: u32, place: Place) {
        if let Some(it) = self.0.get_mut(&stream) {
            it.place = place;
        }
    }
}

// === impl Queue ===

impl Queue {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn front(&self) -> Option<u32> {
        self.front
    }

    /// Puts a stream, which is in no queue, at the end.
    pub(super) fn push(&mut self, streams: &mut Streams, stream: u32) {
        streams.set_place(stream, Place::Held { before: self.back, after: None });
        match self.back.and_then(|back| streams.get_mut(back)) {
            Some(back) => {
                if let Place::Held { after, .. } = &mut back.place {
                    *after = Some(stream);
                }
            }
            None => self.front = Some(stream),
        }
        self.back = Some(stream);
        self.len = self.len.saturating_add(1);
    }

    /// Takes a stream, which is in this queue, out. It stays among the streams, with no place in the queue.
    pub(super) fn unlink(&mut self, streams: &mut Streams, stream: u32) {
        let Some(Stream { place: Place::Held { before, after }, .. }) = streams.get(stream).copied() else {
            return;
        };
        match before.and_then(|before| streams.get_mut(before)) {
            Some(Stream { place: Place::Held { after: link, .. }, .. }) => *link = after,
            _ => self.front = after,
        }
        match after.and_then(|after| streams.get_mut(after)) {
            Some(Stream { place: Place::Held { before: link, .. }, .. }) => *link = before,
            _ => self.back = before,
        }
        streams.set_place(stream, Place::Loose);
        self.len = self.len.saturating_sub(1);
    }
}
