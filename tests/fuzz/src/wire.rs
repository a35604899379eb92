//! Protobuf as a tree, so that a mutation inside does not only break the lengths around it.
//!
//! It knows no schema: what can be read as a message is taken for one. Reading and writing again gives other bytes for odd varints, which is fine.

const DEEPEST: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

/// `None`: it is no message.
pub(crate) fn read(bytes: &[u8]) -> Option<Vec<Field>> {
    read_at(bytes, 0)
}

fn read_at(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Fixed64(*take_array(&mut bytes)?),
            5 => Value::Fixed32(*take_array(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (content, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                let message = if content.is_empty() || depth == DEEPEST { None } else { read_at(content, depth + 1) };
                message.map_or_else(|| Value::Bytes(content.to_vec()), Value::Message)
            }
            _ => return None,
        };
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn take_array<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (array, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(array)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

pub(crate) fn write(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for Field { number, value } in fields {
        let tag = u64::from(*number) << 3;
        match value {
            Value::Varint(n) => {
                put(&mut out, tag);
                put(&mut out, *n);
            }
            Value::Fixed64(bytes) => {
                put(&mut out, tag | 1);
                out.extend(bytes);
            }
            Value::Fixed32(bytes) => {
                put(&mut out, tag | 5);
                out.extend(bytes);
            }
            Value::Bytes(bytes) => put_bytes(&mut out, tag, bytes),
            Value::Message(fields) => put_bytes(&mut out, tag, &write(fields)),
        }
    }
    out
}

fn put_bytes(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    put(out, tag | 2);
    put(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tenure_proto::v1::{RenewItem, RenewRequest};

    use super::*;

    #[test]
    fn what_prost_writes_is_read_and_written_back() {
        let item = RenewItem { token: u64::MAX, duration: Some(prost_types::Duration { seconds: -1, nanos: 5 }), namespace: "n".into(), name: "é".into() };
        let bytes = RenewRequest { items: vec![item.clone(), RenewItem::default(), item] }.encode_to_vec();
        let fields = read(&bytes).expect("a message");
        assert_eq!(fields.len(), 3);
        assert!(matches!(&fields[0].value, Value::Message(item) if item.len() == 4));
        assert_eq!(write(&fields), bytes);
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        let bytes = RenewRequest { items: vec![RenewItem { token: 300, ..RenewItem::default() }] }.encode_to_vec();
        for end in 1..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "{end}");
        }
    }
}
