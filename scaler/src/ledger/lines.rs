//! A worker's routes: a table in which a line costs little more than itself.
//!
//! There is one for each worker, and each may name every route. A map of the standard library keeps up to half of
//! its room empty, at the size of a whole line; here what is empty is four bytes, and lines are never moved because
//! there are more of them.

use super::ids::ByRoute;
use super::{last::Last, route::Route};
use sluice_core::{metric::Share, route::RouteId};
use std::{hint::black_box, sync::Arc};

/// How many bits of a place say where the line is: a worker has 131,072 of them at most.
pub(super) const LINE_BITS: u32 = 18;

/// How many lines lie together.
const CHUNK: usize = 256;

/// A route, as one worker sees it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) id: RouteId,
    pub(super) route: Arc<Route>,
    pub(super) last: Last,
    pub(super) share: Share,
    /// The last report that named it.
    pub(super) report: u32,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// All but the last one are full.
    chunks: Vec<Vec<Line>>,
    len: usize,
    /// Where a line is, plus one; 0: nowhere. Above that the highest bits of its hash, so that another one's line
    /// need not be looked at. Open addressing: the first place is the hash's, and what finds it taken goes on to the
    /// next one. A power of two, and at most three quarters full.
    places: Vec<u32>,
    hash: ByRoute,
}

// === impl Lines ===

impl Lines {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Line> {
        self.chunks.iter().flatten()
    }

    /// Where the line of that route is, until one is removed.
    pub(super) fn find(&self, id: RouteId) -> Option<usize> {
        let hash = self.hash.hash(id);
        let mut place = hash as usize;
        loop {
            let line = self.candidate(hash, &mut place)?;
            if self.line(line)?.id == id {
                return Some(line);
            }
        }
    }

    /// The same for many routes.
    ///
    /// Lines are far apart in memory, and those of thousands of workers are in no cache. So each step is taken for
    /// all of them before the next one, and begins with loads that nothing waits for: the processor fetches many at
    /// once.
    pub(super) fn find_all<const N: usize>(&self, ids: &[RouteId; N]) -> [Option<usize>; N] {
        let Some(mask) = self.places.len().checked_sub(1) else { return [None; N] };
        let hashes = ids.map(|id| self.hash.hash(id));
        let first = |hash: &u64| self.places.get(*hash as usize & mask).copied().unwrap_or(0);
        black_box(hashes.iter().map(first).fold(0, u32::wrapping_add));
        let candidates = hashes.map(|hash| self.candidate(hash, &mut (hash as usize)));
        let line = |line: &Option<usize>| self.line((*line)?);
        // A line is longer than what is fetched at once.
        let ends =
            |line: &Line| line.report.wrapping_add(line.id.0 as u32).wrapping_add(line.share.in_flight());
        black_box(candidates.iter().filter_map(line).map(ends).fold(0, u32::wrapping_add));
        let route = |line: &Line| Arc::strong_count(&line.route);
        black_box(candidates.iter().filter_map(line).map(route).fold(0, usize::wrapping_add));
        let mut found = candidates;
        for (found, id) in found.iter_mut().zip(ids) {
            if line(found).is_some_and(|line| line.id != *id) {
                *found = self.find(*id);
            }
        }
        found
    }

    /// The next line from `place` on that may be the one with this hash.
    fn candidate(&self, hash: u64, place: &mut usize) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        loop {
            let entry = *self.places.get(*place & mask)?;
            if entry == 0 {
                return None;
            }
            *place = place.wrapping_add(1);
            if entry >> LINE_BITS == tag(hash) {
                return ((entry & ((1 << LINE_BITS) - 1)) as usize).checked_sub(1);
            }
        }
    }

    pub(super) fn get(&mut self, line: usize) -> Option<&mut Line> {
        self.chunks.get_mut(line / CHUNK)?.get_mut(line % CHUNK)
    }

    fn line(&self, line: usize) -> Option<&Line> {
        self.chunks.get(line / CHUNK)?.get(line % CHUNK)
    }

    /// Adds a line for a route that has none.
    pub(super) fn push(&mut self, line: Line) {
        let hash = self.hash.hash(line.id);
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => {
                // Most workers have few routes, and the first chunk is small for them.
                if chunk.len() == chunk.capacity() {
                    chunk.reserve_exact(chunk.len().max(4).min(CHUNK - chunk.len()));
                }
                chunk.push(line);
            }
            None => {
                let mut chunk = Vec::with_capacity(if self.chunks.is_empty() { 4 } else { CHUNK });
                chunk.push(line);
                self.chunks.push(chunk);
            }
        }
        self.len += 1;
        if self.len * 4 > self.places.len() * 3 {
            self.replace();
        } else {
            put(&mut self.places, hash, self.len);
        }
    }

    /// Removes those that are not to stay.
    pub(super) fn retain(&mut self, stays: impl FnMut(&Line) -> bool) {
        let mut stays = stays;
        for chunk in &mut self.chunks {
            chunk.retain(|line| stays(line));
        }
        let left = self.iter().count();
        if left < self.len {
            let mut lines = std::mem::take(&mut self.chunks).into_iter().flatten();
            loop {
                let mut chunk: Vec<Line> = lines.by_ref().take(CHUNK).collect();
                if chunk.is_empty() {
                    break;
                }
                chunk.shrink_to_fit();
                self.chunks.push(chunk);
            }
            self.len = left;
            self.replace();
        }
    }

    /// Takes all of them out.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Line> + use<> {
        self.places = Vec::new();
        self.len = 0;
        std::mem::take(&mut self.chunks).into_iter().flatten()
    }

    /// Finds every line its place anew.
    fn replace(&mut self) {
        let mut places = vec![0; (self.len * 4 / 3 + 4).next_power_of_two()];
        for (line, number) in self.iter().zip(1..) {
            put(&mut places, self.hash.hash(line.id), number);
        }
        self.places = places;
    }
}

/// Finds the line of that number, counted from 1, a place.
fn put(places: &mut [u32], hash: u64, line: usize) {
    let mask = places.len() - 1;
    let mut place = hash as usize & mask;
    while places[place] != 0 {
        place = (place + 1) & mask;
    }
    places[place] = tag(hash) << LINE_BITS | line as u32;
}

/// The bits of a hash that a place has.
fn tag(hash: u64) -> u32 {
    (hash >> (32 + LINE_BITS)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_core::time::Instant;
    use std::{collections::BTreeSet, time::Duration};

    fn line(id: u64) -> Line {
        let now = Instant::default();
        Line {
            id: RouteId(id),
            route: Arc::new(Route::new(now, Duration::from_secs(1))),
            last: Last::default(),
            share: Share::new(now),
            report: 0,
        }
    }

    #[test]
    fn what_was_put_in_is_found_and_what_was_taken_out_is_not() {
        let mut lines = Lines::default();
        let mut expected = BTreeSet::new();
        assert!(lines.find(RouteId(0)).is_none());
        assert_eq!(lines.find_all(&[RouteId(0)]), [None]);
        // Neighbours, multiples, and the ends of the range.
        let ids = (0..2_000).chain((1..500).map(|n| n << 40)).chain([u64::MAX, u64::MAX - 1]);
        for id in ids {
            if lines.find(RouteId(id)).is_none() {
                lines.push(Line { report: (id % 1_000) as u32, ..line(id) });
                expected.insert(id);
            }
        }
        assert_eq!(lines.len(), expected.len());
        for id in &expected {
            let found = lines.find(RouteId(*id)).unwrap();
            assert_eq!(lines.get(found).unwrap().report, (id % 1_000) as u32);
        }
        lines.retain(|line| line.id.0 % 3 == 0);
        for id in &expected {
            assert_eq!(lines.find(RouteId(*id)).is_some(), id % 3 == 0, "{id}");
        }
        lines.push(line(1));
        let found = lines.find(RouteId(1)).unwrap();
        assert_eq!(lines.get(found).unwrap().id, RouteId(1));
        for some in expected.iter().copied().collect::<Vec<_>>().chunks(32) {
            let ids: [RouteId; 32] =
                std::array::from_fn(|at| RouteId(some.get(at).copied().unwrap_or(u64::MAX - 7)));
            assert_eq!(lines.find_all(&ids), ids.map(|id| lines.find(id)));
        }
        let left = lines.len();
        assert_eq!(lines.take().count(), left);
        assert!(lines.find(RouteId(0)).is_none() && lines.iter().next().is_none());
        lines.push(line(0));
        assert!(lines.find(RouteId(0)).is_some());
    }

    #[test]
    fn a_line_is_small() {
        // Twenty million of them are a fleet's: one word more is 160 MB.
        assert!(size_of::<Line>() <= 88, "{}", size_of::<Line>());
    }
}
