//! Protobuf's fields, read where they lie, as far as reports have them.

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number, a boolean or an enum.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes, which reports have none of.
    Fixed32,
    /// A message, or a packed list.
    Bytes(&'a [u8]),
}

/// Takes the next field off `rest`: its number and what it holds. `None`: there is none, or it is broken, or a
/// group, which is not read here.
pub(crate) fn take<'a>(rest: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    let key = u32::try_from(varint(rest)?).ok()?;
    let number = key >> 3;
    let value = match key & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => {
            let (value, after) = rest.split_first_chunk()?;
            *rest = after;
            Value::Fixed64(u64::from_le_bytes(*value))
        }
        2 => {
            let len = usize::try_from(varint(rest)?).ok()?;
            let (value, after) = rest.split_at_checked(len)?;
            *rest = after;
            Value::Bytes(value)
        }
        5 => {
            let (_, after) = rest.split_first_chunk::<4>()?;
            *rest = after;
            Value::Fixed32
        }
        _ => return None,
    };
    (number > 0).then_some((number, value))
}

/// Takes a number off `rest`, in groups of seven bits, the lowest one first. `None`: it is cut off, or does not fit.
#[inline]
pub(crate) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let (first, after) = rest.split_first()?;
    if *first < 0x80 {
        *rest = after;
        return Some(u64::from(*first));
    }
    let mut number = u64::from(*first & 0x7f);
    for (byte, shift) in after.iter().zip((7..64).step_by(7)) {
        number |= u64::from(*byte & 0x7f) << shift;
        if *byte < 0x80 {
            let len = shift / 7;
            *rest = after.get(len..)?;
            // Of the tenth byte only one bit has a place.
            return (shift < 63 || *byte < 2).then_some(number);
        }
    }
    None
}

/// Appends a number as [`varint`] reads it.
pub(crate) fn put(mut number: u64, bytes: &mut Vec<u8>) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::encoding;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let ends = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, !(1 << bit)]);
        for number in ends.chain([u64::MAX]) {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            put(number, &mut ours);
            encoding::encode_varint(number, &mut theirs);
            assert_eq!(ours, theirs);
            ours.push(7);
            let mut rest = ours.as_slice();
            assert_eq!(varint(&mut rest), Some(number));
            assert_eq!(rest, [7]);
            assert_eq!(varint(&mut &theirs[..theirs.len() - 1]), None, "{number} is cut off");
        }
    }

    #[test]
    fn a_number_has_64_bits() {
        let nine = [0xff; 9];
        for last in 0..=u8::MAX {
            let bytes: Vec<u8> = nine.into_iter().chain([last]).collect();
            assert_eq!(
                varint(&mut bytes.as_slice()),
                encoding::decode_varint(&mut bytes.as_slice()).ok(),
                "{last}"
            );
        }
        assert_eq!(varint(&mut [0xff; 11].as_slice()), None);
    }
}
