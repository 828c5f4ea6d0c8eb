//! How a worker's requests of a route ended, packed: most routes end in one way and in a few buckets, and there is
//! one of these per worker and route.

use super::{fields, histogram::Buckets, last::DURATION_BUCKETS};
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
#[derive(Debug)]
pub(super) enum Packed {
    /// Bytes that have room here, so that nothing further away has to be looked at.
    Here { len: u8, bytes: [u8; HERE] },
    /// Bytes that have none.
    Apart(Box<[u8]>),
}

/// How many bytes have room: as many as make it three words.
const HERE: usize = 22;

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

    /// The way they ended.
    pub(super) fn completion(&self) -> Completion {
        self.completion
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

impl Default for Packed {
    fn default() -> Self {
        Self::Here { len: 0, bytes: [0; HERE] }
    }
}

impl Packed {
    /// The bytes: [`Ending::take`] reads them.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Here { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Apart(bytes) => bytes,
        }
    }

    /// These bytes in place of those that were here.
    pub(super) fn set(&mut self, new: &[u8]) {
        match self {
            Self::Here { len, bytes } if new.len() <= HERE => {
                for (byte, new) in bytes.iter_mut().zip(new) {
                    *byte = *new;
                }
                *len = new.len() as u8;
            }
            // Mostly of the same length as before.
            Self::Apart(bytes) if bytes.len() == new.len() => bytes.copy_from_slice(new),
            Self::Apart(_) if new.len() <= HERE => {
                *self = Self::default();
                self.set(new);
            }
            _ => *self = Self::Apart(new.into()),
        }
    }
}

impl Ending {
    /// Takes the next one off packed ones.
    pub(super) fn take(bytes: &mut &[u8]) -> Option<Self> {
        let ([method, code @ .., mask_low, mask_high], rest) = bytes.split_first_chunk::<5>()?;
        let mut ending = Self::new(Completion {
            method: *METHODS.get(usize::from(*method))?,
            code: u16::from_le_bytes(*code),
        });
        *bytes = rest;
        ending.sum_us = fields::varint(bytes)?;
        // Few of them are not empty.
        let mut mask = u16::from_le_bytes([*mask_low, *mask_high]);
        while mask > 0 {
            *ending.counts.get_mut(mask.trailing_zeros() as usize)? = fields::varint(bytes)? as u32;
            mask &= mask - 1;
        }
        Some(ending)
    }

    /// Appends it to packed ones.
    pub(super) fn put(&self, bytes: &mut Vec<u8>) {
        let method = METHODS.iter().position(|method| *method == self.completion.method).unwrap_or(0);
        let mask =
            (0..).zip(self.counts).fold(0_u16, |mask, (bucket, count)| mask | u16::from(count > 0) << bucket);
        let [code, mask] = [self.completion.code, mask].map(u16::to_le_bytes);
        bytes.extend_from_slice(&[method as u8, code[0], code[1], mask[0], mask[1]]);
        fields::put(self.sum_us, bytes);
        for count in self.counts.iter().filter(|count| **count > 0) {
            fields::put(u64::from(*count), bytes);
        }
    }
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
        let mut packed = Packed::default();
        assert!(packed.bytes().is_empty());
        for endings in [&few[..1], &few, &all, &few, &few[1..], &[], &all, &[]] {
            let mut bytes = Vec::new();
            endings.iter().for_each(|ending| ending.put(&mut bytes));
            packed.set(&bytes);
            let mut rest = packed.bytes();
            let out: Vec<Ending> = std::iter::from_fn(|| Ending::take(&mut rest)).collect();
            assert_eq!(out, endings);
        }
    }

    #[test]
    fn one_way_to_end_takes_a_few_bytes() {
        let (mut packed, mut bytes) = (Packed::default(), Vec::new());
        ending(Method::Get, 200, &[(1, 300), (2, 100), (3, 90)], 10_000_000).put(&mut bytes);
        packed.set(&bytes);
        assert!(matches!(packed, Packed::Here { .. }), "{} bytes", bytes.len());
        assert_eq!(size_of::<Packed>(), 24);
    }
}
