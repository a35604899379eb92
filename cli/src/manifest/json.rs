//! JSON documents as trees. Numbers, escapes and duplicate keys are JSON's, not YAML's.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::tree::{DEEPEST, Key, Lines, Node, Value, Wrong};

/// Why a text is no JSON document that can be used.
pub(super) enum Failed {
    /// It is not JSON at all.
    Syntax(Wrong),
    /// It is JSON, and says something that no document may say.
    Content(Wrong),
}

/// Reads the one document that begins at `offset`, and says where it ends.
pub(super) fn one(text: &str, offset: usize, lines: &Lines) -> Result<(Node, usize), Failed> {
    let mut stream = serde_json::Deserializer::from_str(&text[offset..]).into_iter::<&RawValue>();
    let first_line = lines.line(offset);
    match stream.next() {
        Some(Ok(raw)) => Ok((node(text, raw, lines, 0)?, offset + stream.byte_offset())),
        Some(Err(error)) => {
            let message = error.to_string();
            // The position is told apart from the message.
            let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message).to_owned();
            Err(Failed::Syntax(Wrong::at(first_line + error.line().saturating_sub(1), message)))
        }
        None => Err(Failed::Syntax(Wrong::at(first_line, "a JSON document ends before it has begun"))),
    }
}

fn node(text: &str, raw: &RawValue, lines: &Lines, depth: usize) -> Result<Node, Failed> {
    let source = raw.get();
    // The raw value borrows from the text, so its position is that of its bytes.
    let line = lines.line((source.as_ptr() as usize).saturating_sub(text.as_ptr() as usize));
    if depth > DEEPEST {
        return Err(Failed::Content(Wrong::at(line, format!("the document is nested more than {DEEPEST} levels deep"))));
    }
    let bad = |error: serde_json::Error| Failed::Syntax(Wrong::at(line, error.to_string()));
    let value = match source.as_bytes().first() {
        Some(b'{') => {
            let Pairs(pairs) = serde_json::from_str(source).map_err(bad)?;
            let mut map: Vec<(Key, Node)> = Vec::with_capacity(pairs.len());
            for (key, raw) in pairs {
                let value = node(text, raw, lines, depth + 1)?;
                if let Some((first, _)) = map.iter().find(|(other, _)| other.text == key) {
                    return Err(Failed::Content(Wrong::at(value.line, format!("the key {key:?} stands twice, first in line {}", first.line))));
                }
                map.push((Key { line: value.line, text: key }, value));
            }
            Value::Map(map)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(source).map_err(bad)?;
            Value::List(items.into_iter().map(|raw| node(text, raw, lines, depth + 1)).collect::<Result<_, _>>()?)
        }
        _ => match serde_json::from_str(source).map_err(bad)? {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int),
            serde_json::Value::String(text) => Value::Text(text),
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => return Err(Failed::Syntax(Wrong::at(line, "a value was expected"))),
        },
    };
    Ok(Node { line, value })
}

/// The pairs of an object, duplicates included.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        from.deserialize_map(All).map(Pairs)
    }
}
