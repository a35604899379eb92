//! Inputs made of inputs. By a generator that came with a seed, so that a run can be repeated.

use rand::{Rng, rngs::SmallRng};

use crate::{
    targets::{Shape, Target},
    wire::{self, Field, Value},
};

/// No input gets longer: readers' limits are in the megabytes, and what they do with kilobytes they do with more.
const LONGEST: usize = 16 << 10;
/// Numbers at the edges of things.
const EDGES: [u64; 22] = [
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    1_000,
    65_535,
    65_536,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    (1 << 53) - 1,
    1 << 53,
    1 << 60,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// One input from another, with pieces of a third.
pub(crate) fn mutate(target: &Target, parent: &[u8], other: &[u8], rng: &mut SmallRng) -> Vec<u8> {
    let mut bytes = parent.to_vec();
    // Mostly one thing at a time.
    for _ in 0..1 << rng.random_range(0..8_u32).saturating_sub(4) {
        match target.shape {
            Shape::Messages if rng.random_ratio(5, 6) => message(&mut bytes, other, target.words, rng),
            Shape::Text if rng.random_ratio(1, 2) => text(&mut bytes, target.words, rng),
            Shape::Messages | Shape::Text | Shape::Bytes => raw(&mut bytes, other, target.words, rng),
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// A place in a list that is as long; 0 if it is empty.
fn at(length: usize, rng: &mut SmallRng) -> usize {
    if length == 0 { 0 } else { rng.random_range(0..length) }
}

fn pick<'a, T: ?Sized>(from: &[&'a T], rng: &mut SmallRng) -> Option<&'a T> {
    from.get(at(from.len(), rng)).copied()
}

/// A range within something as long, mostly a short one.
fn range(length: usize, rng: &mut SmallRng) -> std::ops::Range<usize> {
    let from = at(length, rng);
    let most = (length - from).min(1 << rng.random_range(0..10));
    from..from + rng.random_range(0..=most)
}

fn number(rng: &mut SmallRng) -> u64 {
    match rng.random_range(0..4) {
        0 => rng.random(),
        1 => rng.random_range(0..20),
        _ => EDGES[rng.random_range(0..EDGES.len())].wrapping_add(rng.random_range(0..3)).wrapping_sub(1),
    }
}

/// Knows nothing of what the bytes mean.
fn raw(bytes: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut SmallRng) {
    let here = at(bytes.len(), rng);
    match rng.random_range(0..12) {
        0 if !bytes.is_empty() => bytes[here] ^= 1 << rng.random_range(0..8),
        1 if !bytes.is_empty() => bytes[here] = rng.random(),
        2 if !bytes.is_empty() => bytes[here] = bytes[here].wrapping_add(rng.random_range(0..3)).wrapping_sub(1),
        3 => drop(bytes.drain(range(bytes.len(), rng))),
        4 => bytes.truncate(here),
        5 => {
            let fresh: Vec<u8> = (0..rng.random_range(1..9)).map(|_| rng.random()).collect();
            drop(bytes.splice(here..here, fresh));
        }
        6 => {
            let copy = bytes[range(bytes.len(), rng)].to_vec();
            drop(bytes.splice(here..here, copy));
        }
        7 | 8 => {
            let piece = &other[range(other.len(), rng)];
            let replaced = range(bytes.len(), rng);
            drop(bytes.splice(replaced, piece.iter().copied()));
        }
        9 => {
            let number = number(rng);
            let width = [1, 2, 4, 8][rng.random_range(0..4)];
            let number = if rng.random() { number.to_le_bytes()[..width].to_vec() } else { number.to_be_bytes()[8 - width..].to_vec() };
            let end = (here + width).min(bytes.len());
            drop(bytes.splice(here..end, number));
        }
        _ => {
            let Some(word) = pick(words, rng) else { return };
            let end = if rng.random() { (here + word.len()).min(bytes.len()) } else { here };
            drop(bytes.splice(here..end, word.bytes()));
        }
    }
}

/// Words, numbers and lines stay what they are, mostly.
fn text(bytes: &mut Vec<u8>, words: &[&str], rng: &mut SmallRng) {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    let separators = |c: char| !c.is_alphanumeric();
    match rng.random_range(0..6) {
        // A word for another.
        0 | 1 => {
            let all: Vec<&str> = text.split(separators).filter(|word| !word.is_empty()).collect();
            let (Some(old), Some(new)) = (pick(&all, rng), pick(words, rng)) else { return };
            let from = old.as_ptr().addr() - text.as_ptr().addr();
            let end = from + old.len();
            text.replace_range(from..end, new);
        }
        // A number for another.
        2 => {
            let all: Vec<&str> = text.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty()).collect();
            let Some(old) = pick(&all, rng) else { return };
            let from = old.as_ptr().addr() - text.as_ptr().addr();
            let end = from + old.len();
            let minus = if rng.random_ratio(1, 8) { "-" } else { "" };
            text.replace_range(from..end, &format!("{minus}{}", number(rng)));
        }
        // Lines, or what stands between commas, left out, doubled or exchanged.
        n => {
            let separator = if n == 5 { ',' } else { '\n' };
            let mut parts: Vec<&str> = text.split(separator).collect();
            let (one, another) = (at(parts.len(), rng), at(parts.len(), rng));
            match rng.random_range(0..3) {
                0 => drop(parts.remove(one)),
                1 => parts.insert(another, parts[one]),
                _ => parts.swap(one, another),
            }
            text = parts.join(&separator.to_string());
        }
    }
    *bytes = text.into_bytes();
}

/// The first byte chooses the message; the rest is one.
fn message(bytes: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut SmallRng) {
    let Some((first, rest)) = bytes.split_first_mut() else { return raw(bytes, other, words, rng) };
    if rng.random_ratio(1, 40) {
        *first = rng.random_range(0..16);
    }
    let Some(mut fields) = wire::read(rest) else { return raw(bytes, other, words, rng) };
    let others = other.split_first().and_then(|(_, rest)| wire::read(rest)).unwrap_or_default();
    fields_of(&mut fields, &others, words, rng);
    let first = *first;
    *bytes = [first].into_iter().chain(wire::write(&fields)).collect();
}

fn fields_of(fields: &mut Vec<Field>, others: &[Field], words: &[&str], rng: &mut SmallRng) {
    let here = at(fields.len(), rng);
    // Down, mostly.
    if let Some(Field { value: Value::Message(inner), .. }) = fields.get_mut(here)
        && rng.random_ratio(3, 4)
    {
        let below = others.iter().filter_map(|field| if let Value::Message(inner) = &field.value { Some(&**inner) } else { None });
        let below: Vec<&[Field]> = below.collect();
        let others = pick(&below, rng).unwrap_or(others).to_vec();
        return fields_of(inner, &others, words, rng);
    }
    match rng.random_range(0..10) {
        0 if !fields.is_empty() => drop(fields.remove(here)),
        1 if !fields.is_empty() => fields.insert(at(fields.len(), rng), fields[here].clone()),
        2 if !fields.is_empty() => fields[here].number = rng.random_range(1..24),
        3 if !others.is_empty() => fields.insert(here, others[at(others.len(), rng)].clone()),
        4 => {
            let value = match rng.random_range(0..4) {
                0 => Value::Fixed64(number(rng).to_le_bytes()),
                1 => Value::Bytes(pick(words, rng).unwrap_or_default().into()),
                2 => Value::Message(Vec::new()),
                _ => Value::Varint(number(rng)),
            };
            fields.insert(here, Field { number: rng.random_range(1..12), value });
        }
        _ => {
            let Some(field) = fields.get_mut(here) else { return };
            match &mut field.value {
                Value::Varint(n) => *n = number(rng),
                Value::Fixed64(bytes) => *bytes = number(rng).to_le_bytes(),
                Value::Fixed32(bytes) => bytes.copy_from_slice(&number(rng).to_le_bytes()[..4]),
                Value::Message(_) => field.value = Value::Bytes(vec![rng.random(); rng.random_range(0..5)]),
                Value::Bytes(bytes) => match rng.random_range(0..6) {
                    0 => bytes.clear(),
                    1 => *bytes = pick(words, rng).unwrap_or_default().into(),
                    // Over every limit on texts that there is.
                    2 => *bytes = bytes.repeat(1 << rng.random_range(1..10)),
                    _ => raw(bytes, &[], words, rng),
                },
            }
        }
    }
}
