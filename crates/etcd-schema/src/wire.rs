//! The protobuf wire format, as far as a borrowed [`KeyValue`](crate::KeyValue) needs it.
//!
//! A generated decoder would copy each value; on a database of gigabytes that is the whole cost of
//! reading it.

/// Why bytes are not a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    Truncated,
    VarintTooLong,
    BadTag(u64),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated => f.write_str("it ends in the middle of a field"),
            Self::VarintTooLong => f.write_str("a number is longer than ten bytes"),
            Self::BadTag(tag) => write!(f, "field tag {tag:#x} is not valid here"),
        }
    }
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A fixed-width field; etcd has none, a newer one might.
    Other,
}

/// Takes the next field off `input`: its number and content, or `None` at the end.
#[inline]
pub(crate) fn next_field<'a>(input: &mut &'a [u8]) -> Result<Option<(u64, Field<'a>)>, WireError> {
    if input.is_empty() {
        return Ok(None);
    }
    let tag = varint(input)?;
    let field = match tag & 7 {
        0 => Field::Varint(varint(input)?),
        1 => take(input, 8).map(|_| Field::Other)?,
        2 => {
            let len = varint(input)?;
            Field::Bytes(take(input, usize::try_from(len).map_err(|_| WireError::Truncated)?)?)
        }
        5 => take(input, 4).map(|_| Field::Other)?,
        _ => return Err(WireError::BadTag(tag)),
    };
    match tag >> 3 {
        0 => Err(WireError::BadTag(tag)),
        number => Ok(Some((number, field))),
    }
}

#[inline]
fn take<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], WireError> {
    let (head, tail) = input.split_at_checked(len).ok_or(WireError::Truncated)?;
    *input = tail;
    Ok(head)
}

#[inline]
fn varint(input: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, tail) = input.split_first().ok_or(WireError::Truncated)?;
        *input = tail;
        value |= u64::from(byte & 0x7f).wrapping_shl(shift);
        if byte & 0x80 == 0 {
            return if shift == 63 && *byte > 1 {
                Err(WireError::VarintTooLong)
            } else {
                Ok(value)
            };
        }
    }
    Err(WireError::VarintTooLong)
}

/// Appends `value` as a varint field, unless it is zero, as proto3 does.
pub(crate) fn put_varint(out: &mut Vec<u8>, number: u8, value: u64) {
    if value != 0 {
        out.push(number << 3);
        push_varint(out, value);
    }
}

/// Appends `bytes` as a length-delimited field, unless they are empty, as proto3 does.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(number << 3 | 2);
        push_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits are taken at a time")]
fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
