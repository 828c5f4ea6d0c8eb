//! How a worker's requests of a route ended, packed: most routes end in one way and in a few buckets, and there is
//! one of these per worker and route.

use super::{histogram::Buckets, last::DURATION_BUCKETS};
use sluice_core::count::{Completion, Method};

/// How often and how slowly requests ended one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    completion: Completion,
    /// The lower halves of the counts: between two reports nobody ends four billion requests.
    counts: [u32; DURATION_BUCKETS],
    sum_us: u64,
}

/// Several of them, packed: the method, the code, which buckets are not empty, the sum, and those buckets' counts;
/// the latter two in groups of seven bits.
#[derive(Debug, Default)]
pub(super) struct Packed(Box<[u8]>);

const _: () = assert!(DURATION_BUCKETS <= 16, "a mask has sixteen bits");

/// All methods, each at the number that it is packed as.
const METHODS: [Method; 10] = [
    Method::Other,
    Method::Get,
    Method::Head,
    Method::Post,
    Method::Put,
    Method::Delete,
    Method::Connect,
    Method::Options,
    Method::Trace,
    Method::Patch,
];

// === impl Ending ===

impl Ending {
    fn new(completion: Completion) -> Self {
        Self { completion, counts: [0; DURATION_BUCKETS], sum_us: 0 }
    }

    /// The ending of that kind, which may be a new one; `None` if there are too many.
    pub(super) fn of(endings: &mut Vec<Self>, completion: Completion, most: usize) -> Option<&mut Self> {
        let place = match endings.iter().position(|ending| ending.completion == completion) {
            Some(place) => place,
            None if endings.len() >= most => return None,
            None => {
                endings.push(Self::new(completion));
                endings.len() - 1
            }
        };
        endings.get_mut(place)
    }

    /// Takes in what is said now; gives what is new.
    pub(super) fn update(&mut self, now: &Buckets<DURATION_BUCKETS>) -> Buckets<DURATION_BUCKETS> {
        let mut new =
            Buckets { counts: [0; DURATION_BUCKETS], sum_us: now.sum_us.saturating_sub(self.sum_us) };
        for ((new, now), last) in new.counts.iter_mut().zip(now.counts).zip(&mut self.counts) {
            let low = now as u32;
            let more = low.wrapping_sub(*last);
            // Less than before: it began anew.
            *new = u64::from(if more > u32::MAX / 2 { low } else { more });
            *last = low;
        }
        self.sum_us = now.sum_us;
        new
    }
}

// === impl Packed ===

impl Packed {
    /// Unpacks them into `endings`, which is emptied before.
    pub(super) fn unpack(&self, endings: &mut Vec<Ending>) {
        endings.clear();
        let mut bytes = self.0.iter().copied();
        while let Some(ending) = unpack_one(&mut bytes) {
            endings.push(ending);
        }
    }

    /// Packs these in place of what was here. `bytes` is room to work in.
    pub(super) fn pack(&mut self, endings: &[Ending], bytes: &mut Vec<u8>) {
        bytes.clear();
        for ending in endings {
            let method = METHODS.iter().position(|method| *method == ending.completion.method).unwrap_or(0);
            bytes.push(method as u8);
            bytes.extend(ending.completion.code.to_le_bytes());
            let mask = (0..)
                .zip(ending.counts)
                .fold(0_u16, |mask, (bucket, count)| if count > 0 { mask | 1 << bucket } else { mask });
            bytes.extend(mask.to_le_bytes());
            put(ending.sum_us, bytes);
            for count in ending.counts.iter().filter(|count| **count > 0) {
                put(u64::from(*count), bytes);
            }
        }
        // Mostly of the same length as before.
        if self.0.len() == bytes.len() {
            self.0.copy_from_slice(bytes);
        } else {
            self.0 = bytes.as_slice().into();
        }
    }
}

fn unpack_one(bytes: &mut impl Iterator<Item = u8>) -> Option<Ending> {
    let method = *METHODS.get(usize::from(bytes.next()?))?;
    let code = u16::from_le_bytes([bytes.next()?, bytes.next()?]);
    let mask = u16::from_le_bytes([bytes.next()?, bytes.next()?]);
    let mut ending = Ending::new(Completion { method, code });
    ending.sum_us = take(bytes)?;
    for (bucket, count) in ending.counts.iter_mut().enumerate() {
        if mask >> bucket & 1 == 1 {
            *count = take(bytes)? as u32;
        }
    }
    Some(ending)
}

fn put(mut number: u64, bytes: &mut Vec<u8>) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(method: Method, code: u16, counts: &[(usize, u32)], sum_us: u64) -> Ending {
        let mut ending = Ending::new(Completion { method, code });
        for (bucket, count) in counts {
            ending.counts[*bucket] = *count;
        }
        ending.sum_us = sum_us;
        ending
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let all = METHODS.map(|method| {
            ending(method, 999, &[(0, 1), (7, u32::MAX), (DURATION_BUCKETS - 1, 128)], u64::MAX)
        });
        let few = [ending(Method::Get, 200, &[(1, 300)], 5_000_000), ending(Method::Other, 0, &[], 0)];
        let (mut packed, mut out, mut room) = (Packed::default(), Vec::new(), Vec::new());
        packed.unpack(&mut out);
        assert_eq!(out, []);
        for endings in [&few[..1], &few, &all, &few[1..], &[]] {
            packed.pack(endings, &mut room);
            packed.unpack(&mut out);
            assert_eq!(out, endings);
        }
    }

    #[test]
    fn one_way_to_end_takes_a_few_bytes() {
        let mut packed = Packed::default();
        packed.pack(&[ending(Method::Get, 200, &[(1, 300), (2, 100), (3, 90)], 10_000_000)], &mut Vec::new());
        assert!(packed.0.len() <= 16, "{}", packed.0.len());
    }
}
