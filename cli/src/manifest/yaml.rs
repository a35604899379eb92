//! YAML documents as trees, by the rules of kubectl's reader (sigs.k8s.io/yaml on go-yaml 2).
//!
//! From YAML 1.1 it has: `yes`, `no`, `on`, `off`, `y` and `n` as booleans, `0b`, `0o`, `0x` and leading-zero octal numbers, `_` within numbers, and merge
//! keys (`<<`). Keys that are not text become text, as they must in JSON. Two rules differ from kubectl's on purpose: a key that stands twice
//! is refused (kubectl leaves that to the server), and a merge key never overrides a key that is written out, wherever it stands.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::tree::{DEEPEST, Key, Node, Value, Wrong};

/// Aliases can make a small text large; beyond this a document is refused.
const MOST_VALUES: usize = 100_000;

/// Reads documents until the end, or until one cannot be read. `first_line` is the number of the text's first line in its file.
pub(super) fn documents(text: &str, first_line: usize) -> (Vec<Node>, Option<Wrong>) {
    let mut builder = Builder { parser: Parser::new_from_str(text), before: first_line - 1, anchors: HashMap::new(), values: 0 };
    let mut found = Vec::new();
    loop {
        match builder.document() {
            Ok(Some(node)) => found.push(node),
            Ok(None) => return (found, None),
            Err(wrong) => return (found, Some(wrong)),
        }
    }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// How many lines of the file come before the text.
    before: usize,
    anchors: HashMap<usize, Node>,
    values: usize,
}

impl<'a> Builder<'a> {
    fn event(&mut self) -> Result<(Event<'a>, usize), Wrong> {
        match self.parser.next_event() {
            Some(Ok((event, Span { start, .. }))) => Ok((event, start.line() + self.before)),
            Some(Err(error)) => Err(self.wrong(&error)),
            None => Ok((Event::StreamEnd, self.before)),
        }
    }

    fn wrong(&self, error: &ScanError) -> Wrong {
        Wrong::at(error.marker().line() + self.before, format!("the YAML cannot be read: {}", error.info()))
    }

    fn document(&mut self) -> Result<Option<Node>, Wrong> {
        loop {
            match self.event()? {
                (Event::StreamEnd, _) => return Ok(None),
                (Event::DocumentStart(_), _) => {
                    self.anchors.clear();
                    self.values = 0;
                    let (event, line) = self.event()?;
                    return self.node(event, line, 0).map(Some);
                }
                _ => {}
            }
        }
    }

    fn count(&mut self, values: usize, line: usize) -> Result<(), Wrong> {
        self.values += values;
        if self.values > MOST_VALUES {
            return Err(Wrong::at(line, format!("the document has more than {MOST_VALUES} values, aliases counted as often as they stand")));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Node, Wrong> {
        if depth > DEEPEST {
            return Err(Wrong::at(line, format!("the document is nested more than {DEEPEST} levels deep")));
        }
        self.count(1, line)?;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, scalar(&text, style, tag.as_deref(), line)?),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or_else(|| Wrong::at(line, "an alias names an anchor that is not complete yet"))?;
                self.count(size(&node), line)?;
                return Ok(Node { line, value: node.value });
            }
            Event::SequenceStart(anchor, tag) => {
                only(tag.as_deref(), "seq", line)?;
                let mut items = Vec::new();
                loop {
                    match self.event()? {
                        (Event::SequenceEnd, _) => break,
                        (event, line) => items.push(self.node(event, line, depth + 1)?),
                    }
                }
                (anchor, Value::List(items))
            }
            Event::MappingStart(anchor, tag) => {
                only(tag.as_deref(), "map", line)?;
                (anchor, self.mapping(depth)?)
            }
            _ => return Err(Wrong::at(line, "a value is missing")),
        };
        let node = Node { line, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Wrong> {
        let mut pairs: Vec<(Key, Node)> = Vec::new();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (event, line) = self.event()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let merges = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.node(event, line, depth + 1)?;
            let (event, line) = self.event()?;
            let value = self.node(event, line, depth + 1)?;
            if merges {
                merged.push(value);
                continue;
            }
            let key = Key { line: key.line, text: key_text(&key)? };
            if let Some((first, _)) = pairs.iter().find(|(other, _)| other.text == key.text) {
                return Err(Wrong::at(key.line, format!("the key {:?} stands twice, first in line {}", key.text, first.line)));
            }
            pairs.push((key, value));
        }
        for source in merged {
            let line = source.line;
            let sources = match source.value {
                Value::List(items) => items,
                _ => vec![source],
            };
            for source in sources {
                let Value::Map(others) = source.value else {
                    return Err(Wrong::at(line, "a merge key (<<) takes a mapping, an alias of one, or a list of those"));
                };
                for (key, value) in others {
                    if !pairs.iter().any(|(other, _)| other.text == key.text) {
                        pairs.push((key, value));
                    }
                }
            }
        }
        Ok(Value::Map(pairs))
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(pairs) => 1 + pairs.iter().map(|(_, value)| 1 + size(value)).sum::<usize>(),
        _ => 1,
    }
}

fn key_text(key: &Node) -> Result<String, Wrong> {
    Ok(match &key.value {
        Value::Text(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Null => "null".to_owned(),
        Value::List(_) | Value::Map(_) => return Err(Wrong::at(key.line, "a key must be text")),
    })
}

/// Refuses a tag other than the plain one of this kind.
fn only(tag: Option<&Tag>, kind: &str, line: usize) -> Result<(), Wrong> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == kind => Ok(()),
        Some(tag) => Err(Wrong::at(line, format!("the YAML tag {}{} is not known here", tag.handle, tag.suffix))),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Value, Wrong> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { plain(text) } else { Value::Text(text.to_owned()) });
    };
    if !tag.is_yaml_core_schema() {
        // A lone `!` keeps a scalar text.
        return only(Some(tag).filter(|tag| !(tag.handle.is_empty() && tag.suffix == "!")), "", line).map(|()| Value::Text(text.to_owned()));
    }
    let value = plain(text);
    match (tag.suffix.as_str(), &value) {
        ("str", _) => Ok(Value::Text(text.to_owned())),
        ("null", Value::Null) | ("bool", Value::Bool(_)) | ("int", Value::Int(_)) | ("float", Value::Float(_)) => Ok(value),
        #[expect(clippy::cast_precision_loss, reason = "that is what the tag asks for")]
        ("float", Value::Int(number)) => Ok(Value::Float(*number as f64)),
        ("null" | "bool" | "int" | "float", _) => Err(Wrong::at(line, format!("{text:?} is tagged !!{}, and is none", tag.suffix))),
        _ => only(Some(tag), "", line).map(|()| value),
    }
}

/// Gives an unquoted scalar its type, by the rules above.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::Text(text.to_owned());
    }
    let digits = text.replace('_', "");
    if let Some(number) = integer(&digits) {
        return Value::Int(number);
    }
    if is_float(&digits)
        && let Ok(number) = digits.parse()
    {
        return Value::Float(number);
    }
    Value::Text(text.to_owned())
}

fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // A second sign would be taken by the parser.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

/// Digits with at most one point and an exponent; Rust's own parser takes `inf` and `nan` as well.
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(mantissa, exponent)| (mantissa, Some(exponent)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_is_right = (digits(whole) && (fraction.is_empty() || digits(fraction))) || (whole.is_empty() && digits(fraction));
    mantissa_is_right && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Value {
        let (mut all, wrong) = documents(text, 1);
        assert_eq!((all.len(), &wrong), (1, &None), "{text}");
        all.remove(0).value
    }

    fn wrong(text: &str) -> Wrong {
        documents(text, 1).1.expect("it is wrong")
    }

    #[test]
    fn unquoted_scalars_mean_what_kubectl_takes_them_for() {
        for (text, value) in [
            ("yes", Value::Bool(true)),
            ("off", Value::Bool(false)),
            ("~", Value::Null),
            ("30", Value::Int(30)),
            ("010", Value::Int(8)),
            ("0x10", Value::Int(16)),
            ("1_000", Value::Int(1_000)),
            ("-5", Value::Int(-5)),
            ("1.5", Value::Float(1.5)),
            ("1e3", Value::Float(1_000.0)),
            ("'30'", Value::Text("30".into())),
            ("!!str 30", Value::Text("30".into())),
            ("2023-12-02T10:00:00Z", Value::Text("2023-12-02T10:00:00Z".into())),
            ("1:30", Value::Text("1:30".into())),
            ("15s", Value::Text("15s".into())),
            ("1.2.3", Value::Text("1.2.3".into())),
            ("--5", Value::Text("--5".into())),
            ("08", Value::Float(8.0)),
        ] {
            assert_eq!(read(text), value, "{text}");
        }
    }

    #[test]
    fn merge_keys_fill_in_what_is_not_written_out() {
        let merged = read("a: &a {x: 1, y1: 1}\nb: &b {x: 2, z: 2}\nc:\n  <<: [*a, *b]\n  y1: 3\n");
        let Value::Map(pairs) = merged else { panic!("a mapping") };
        let Value::Map(c) = &pairs[2].1.value else { panic!("a mapping") };
        let c: Vec<(&str, &Value)> = c.iter().map(|(key, node)| (key.text.as_str(), &node.value)).collect();
        assert_eq!(c, [("y1", &Value::Int(3)), ("x", &Value::Int(1)), ("z", &Value::Int(2))]);
        assert!(wrong("a: {<<: 5}").message.contains("merge key"));
        assert_eq!(read("{'<<': 1}"), Value::Map(vec![(Key { line: 1, text: "<<".into() }, Node { line: 1, value: Value::Int(1) })]));
    }

    #[test]
    fn a_text_that_aliases_make_huge_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(", ")));
        }
        assert!(wrong(&text).message.contains("more than 100000 values"), "{:?}", wrong(&text));
        assert!(wrong(&"[".repeat(5_000)).message.len() < 200);
        assert!(wrong("a: &a [*a]").message.contains("not complete yet"));
    }

    #[test]
    fn a_key_that_stands_twice_is_named_with_both_lines() {
        assert_eq!(wrong("a: 1\nb: 2\na: 3\n"), Wrong::at(3, "the key \"a\" stands twice, first in line 1"));
    }
}
