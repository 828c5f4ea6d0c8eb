//! A worker's routes: a table in which a line costs little more than itself.
//!
//! There is one for each worker, and each may name every route. A map of the standard library keeps up to half of
//! its room empty, at the size of a whole line; here what is empty is four bytes, and what grows is moved by the
//! kernel and not copied.

use super::ids::ByRoute;
use super::{last::Last, route::Route};
use sluice_core::{metric::Share, route::RouteId};
use std::sync::Arc;

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
    lines: Vec<Line>,
    /// Where a line is, plus one; 0: nowhere. Open addressing: the first place is the hash's, and what finds it
    /// taken goes on to the next one. A power of two, and at most three quarters full.
    places: Vec<u32>,
    hash: ByRoute,
}

// === impl Lines ===

impl Lines {
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }

    pub(super) fn find(&mut self, id: RouteId) -> Option<&mut Line> {
        let mask = self.places.len().checked_sub(1)?;
        let mut place = self.hash.hash(id) as usize & mask;
        loop {
            let line = (*self.places.get(place)?).checked_sub(1)? as usize;
            if self.lines.get(line)?.id == id {
                return self.lines.get_mut(line);
            }
            place = (place + 1) & mask;
        }
    }

    /// Adds a line for a route that has none.
    pub(super) fn push(&mut self, line: Line) {
        if self.lines.len() == self.lines.capacity() {
            self.lines.reserve_exact(self.lines.len() / 8 + 4);
        }
        let id = line.id;
        self.lines.push(line);
        if self.lines.len() * 4 > self.places.len() * 3 {
            self.replace();
        } else {
            self.put(id, self.lines.len());
        }
    }

    /// Removes those that are not to stay.
    pub(super) fn retain(&mut self, stays: impl FnMut(&Line) -> bool) {
        let mut stays = stays;
        let before = self.lines.len();
        self.lines.retain(|line| stays(line));
        if self.lines.len() < before {
            self.lines.shrink_to_fit();
            self.replace();
        }
    }

    /// Takes all of them out.
    pub(super) fn take(&mut self) -> Vec<Line> {
        self.places = Vec::new();
        std::mem::take(&mut self.lines)
    }

    /// Finds every line its place anew.
    fn replace(&mut self) {
        let room = (self.lines.len() * 4 / 3 + 4).next_power_of_two();
        self.places = vec![0; room];
        for line in 0..self.lines.len() {
            self.put(self.lines[line].id, line + 1);
        }
    }

    fn put(&mut self, id: RouteId, line: usize) {
        let mask = self.places.len() - 1;
        let mut place = self.hash.hash(id) as usize & mask;
        while self.places[place] != 0 {
            place = (place + 1) & mask;
        }
        // A worker has 131,072 routes at most.
        self.places[place] = line as u32;
    }
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
            assert_eq!(lines.find(RouteId(*id)).unwrap().report, (id % 1_000) as u32);
        }
        lines.retain(|line| line.id.0 % 3 == 0);
        for id in &expected {
            assert_eq!(lines.find(RouteId(*id)).is_some(), id % 3 == 0, "{id}");
        }
        lines.push(line(1));
        assert_eq!(lines.find(RouteId(1)).unwrap().id, RouteId(1));
        let left = lines.len();
        assert_eq!(lines.take().len(), left);
        assert!(lines.find(RouteId(0)).is_none() && lines.iter().next().is_none());
        lines.push(line(0));
        assert!(lines.find(RouteId(0)).is_some());
    }

    #[test]
    fn a_line_is_small() {
        // Twenty million of them are a fleet's: one word more is 160 MB.
        assert!(size_of::<Line>() <= 80, "{}", size_of::<Line>());
    }
}
