//! What was read of messages like this one a moment ago.
//!
//! Only with `sampleLabels` in the plugin's configuration: every label is exact without it.
//!
//! A request's method and a response's status are labels of the scaler's metrics and nothing else, and reading
//! either costs 1 to 2 µs (`bench/README.md`): the host calls back into the VM for a place to put it. Where requests
//! follow each other closely, those of one cluster with as many headers mostly have the same: of such a row the first
//! is read, about every [`ROW`]th, and whatever comes [`FRESH`] after the last one that was. The others take what that
//! one had. Sums stay exact, and below about a hundred requests a second and worker every label is.
//!
//! The cluster is not recalled, though it costs more: which lane a request waits on hangs on it.

use sluice_core::time::Instant;
use std::time::Duration;

/// For how long what was read stands for others.
const FRESH: Duration = Duration::from_millis(10);

/// One of so many is read, on average. Which one is left to chance: every 16th of two kinds that take turns would
/// always be of the same kind.
const ROW: u64 = 16;

/// How many rows are kept. Two that fall on one place push each other out, and are read more often.
const PLACES: u64 = 128;

/// What the host tells of a message's headers without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// How many headers there are, pseudo-headers included.
    pub headers: u32,
    /// Whether nothing follows them.
    pub ends: bool,
}

/// What was read, by what it was read of.
#[derive(Debug)]
pub(crate) struct Recall<T> {
    places: Vec<Place<T>>,
    reads: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place<T> {
    key: u64,
    read_at: Instant,
    /// How many may still take the value.
    left: u64,
    value: T,
}

// === impl Shape ===

impl Shape {
    /// The key of messages of this shape that have `what` in common.
    pub(crate) fn key(self, what: u64) -> u64 {
        let shape = u64::from(self.headers) << 1 | u64::from(self.ends);
        mix(what ^ shape.rotate_right(16))
    }
}

// === impl Recall ===

impl<T: Copy + Default> Recall<T> {
    pub(crate) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| Place::default()).collect(), reads: 0 }
    }

    /// What `key`'s last message had, if a request that arrived `at` may be taken to have the same.
    pub(crate) fn get(&mut self, at: Instant, key: u64) -> Option<T> {
        let place = self.place(key)?;
        if place.key != key || place.left == 0 || at.since(place.read_at) >= FRESH {
            return None;
        }
        place.left = place.left.saturating_sub(1);
        Some(place.value)
    }

    /// A message was read, of a request that arrived `at`.
    pub(crate) fn put(&mut self, at: Instant, key: u64, value: T) {
        self.reads = self.reads.wrapping_add(1);
        // 0 to 30, each as likely.
        let left = mix(self.reads).checked_rem(ROW.saturating_mul(2).saturating_sub(1)).unwrap_or(0);
        if let Some(place) = self.place(key) {
            *place = Place { key, read_at: at, left, value };
        }
    }

    fn place(&mut self, key: u64) -> Option<&mut Place<T>> {
        let at = usize::try_from(key.checked_rem(PLACES)?).ok()?;
        self.places.get_mut(at)
    }
}

/// A number for some bytes. Whoever makes two names collide gains a wrong label in his own metrics.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let number = words.iter().fold(u64::try_from(bytes.len()).unwrap_or(0), |number, word| {
        mix(number ^ u64::from_le_bytes(*word))
    });
    rest.iter().fold(number, |number, byte| mix(number ^ u64::from(*byte)))
}

/// Spreads a number's bits (the finaliser of MurmurHash3, in the public domain).
fn mix(mut number: u64) -> u64 {
    number ^= number >> 33;
    number = number.wrapping_mul(0xff51_afd7_ed55_8ccd);
    number ^= number >> 33;
    number = number.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ number >> 33
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test that panics has failed; what may not panic is the filter"
)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    #[test]
    fn one_of_a_row_is_read() {
        let mut recall = Recall::new();
        assert_eq!(recall.get(at(0), 7), None);
        let rows = (0..1_000).map(|_| {
            recall.put(at(0), 7, 200);
            std::iter::from_fn(|| recall.get(at(1), 7)).inspect(|code| assert_eq!(*code, 200)).count()
        });
        let rows: Vec<_> = rows.collect();
        assert!(rows.iter().all(|row| *row <= 30));
        assert!((14_000..16_000).contains(&rows.iter().sum::<usize>()), "{}", rows.iter().sum::<usize>());
    }

    #[test]
    fn nothing_stands_for_long() {
        let mut recall = Recall::new();
        recall.put(at(0), 7, 200);
        recall.put(at(0), 8, 200);
        assert_eq!(recall.get(at(9), 7), Some(200));
        assert_eq!(recall.get(at(10), 8), None);
    }

    #[test]
    fn another_shape_is_another_row() {
        let one = Shape { headers: 5, ends: false };
        let keys = [
            one.key(1),
            one.key(2),
            Shape { headers: 6, ends: false }.key(1),
            Shape { headers: 5, ends: true }.key(1),
        ];
        assert!(keys.iter().enumerate().all(|(index, key)| !keys.iter().skip(index + 1).any(|it| it == key)));
    }

    #[test]
    fn rows_on_one_place_push_each_other_out() {
        let mut recall = Recall::new();
        recall.put(at(0), 7, 200);
        recall.put(at(0), 7 + 128, 404);
        assert_eq!(recall.get(at(0), 7), None);
        assert_eq!(recall.get(at(0), 7 + 128), Some(404));
    }

    #[test]
    fn names_that_differ_have_other_numbers() {
        let names: [&[u8]; 6] = [b"", b"a", b"b", b"outbound|80||a", b"outbound|80||b", b"12345678"];
        let numbers: std::collections::BTreeSet<_> = names.iter().map(|name| number(name)).collect();
        assert_eq!(numbers.len(), names.len());
    }
}
