//! A header map as the ABI writes it: how many pairs, then each pair's two lengths, then the pairs' bytes, each
//! name and value followed by a NUL. All numbers have 32 bits, little endian.

/// The names and values, in the host's order: HTTP/2's pseudo-headers come first.
pub fn pairs(map: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let number = |at: usize| {
        let four = map.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(four.try_into().ok()?)).ok()
    };
    let count = number(0).unwrap_or(0);
    let mut lengths = 4usize;
    let mut data = count.saturating_mul(8).saturating_add(4);
    (0..count).map_while(move |_| {
        let (name_len, value_len) = (number(lengths)?, number(lengths.checked_add(4)?)?);
        lengths = lengths.checked_add(8)?;
        let value_at = data.checked_add(name_len)?.checked_add(1)?;
        let name = map.get(data..data.checked_add(name_len)?)?;
        let value = map.get(value_at..value_at.checked_add(value_len)?)?;
        data = value_at.checked_add(value_len)?.checked_add(1)?;
        Some((name, value))
    })
}

/// Appends pairs to `map`, which has to be empty.
pub fn write<'a>(map: &mut Vec<u8>, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    map.extend_from_slice(&number(pairs.clone().count()));
    for (name, value) in pairs.clone() {
        map.extend_from_slice(&number(name.len()));
        map.extend_from_slice(&number(value.len()));
    }
    for part in pairs.flat_map(|(name, value)| [name, value]) {
        map.extend_from_slice(part);
        map.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_the_abis() {
        let mut map = Vec::new();
        write(&mut map, [(&b"a"[..], &b"xy"[..]), (b"", b"")].into_iter());
        assert_eq!(map, b"\x02\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0a\0xy\0\0\0");
        assert_eq!(pairs(&map).collect::<Vec<_>>(), [(&b"a"[..], &b"xy"[..]), (b"", b"")]);
    }

    #[test]
    fn lengths_that_lie_end_the_map() {
        for map in [&b""[..], b"\xff\xff\xff\xff", b"\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xffa\0b\0"] {
            assert_eq!(pairs(map).count(), 0);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(pairs_in in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..20)), 0..20)) {
            let mut map = Vec::new();
            write(&mut map, pairs_in.iter().map(|(name, value)| (&**name, &**value)));
            let read: Vec<_> = pairs(&map).map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            prop_assert_eq!(read, pairs_in);
        }

        #[test]
        fn no_bytes_make_it_panic(map in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(pairs(&map).count() <= map.len());
        }
    }
}
