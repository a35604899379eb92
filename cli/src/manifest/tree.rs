//! The parsed form of a document, YAML or JSON alike: values that know their lines. It knows nothing of leases.

use super::{json, yaml};

/// A value and the line that it begins in, counted from 1.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys are unique; the order is that of the file.
    Map(Vec<(Key, Node)>),
}

/// A key and its line.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) line: usize,
    pub(super) text: String,
}

impl PartialEq for Key {
    /// Where a key stands does not matter to what it is.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl PartialEq for Node {
    /// Where a value stands does not matter to what it is.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    /// Names the kind of value for a message.
    pub(super) fn described(&self) -> String {
        match &self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Int(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Text(text) => format!("the text {text:?}"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// An error in a text, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: usize,
    /// `spec.duration`, `items[2].metadata.name`; empty when the document as a whole is meant.
    pub(super) field: String,
    pub(super) message: String,
}

impl Wrong {
    pub(super) fn at(line: usize, message: impl Into<String>) -> Self {
        Self { line, field: String::new(), message: message.into() }
    }
}

/// Deeper documents are refused: no lease needs it, and each level costs stack.
pub(super) const DEEPEST: usize = 64;

/// Parses all documents of a text, in order; stops at the first that cannot be parsed and gives its number, counted from 1.
///
/// As kubectl, it takes a text that begins with `{` as JSON: one object after the other, with or without `---` between them. What turns out not to
/// be JSON is read as YAML from there on.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, (usize, Wrong)> {
    let lines = Lines::of(text);
    let mut found = Vec::new();
    let mut rest = skip_separators(text);
    while rest.starts_with('{') {
        let offset = text.len() - rest.len();
        match json::one(text, offset, &lines) {
            Ok((node, after)) => {
                found.push(node);
                rest = skip_separators(&text[after..]);
            }
            Err(json::Failed::Content(wrong)) => return Err((found.len() + 1, wrong)),
            Err(json::Failed::Syntax(wrong)) => {
                let (others, failed) = yaml::documents(rest, lines.line(offset));
                // Text that has quoted keys was meant to be JSON.
                let meant = rest[1..].trim_start().starts_with('"');
                return match failed {
                    Some(_) if meant => Err((found.len() + 1, wrong)),
                    Some(wrong) => Err((found.len() + others.len() + 1, wrong)),
                    None => {
                        found.extend(others);
                        Ok(found)
                    }
                };
            }
        }
    }
    if rest.is_empty() {
        return Ok(found);
    }
    let offset = if found.is_empty() { 0 } else { text.len() - rest.len() };
    let (others, failed) = yaml::documents(&text[offset..], lines.line(offset));
    found.extend(others);
    match failed {
        Some(wrong) => Err((found.len() + 1, wrong)),
        None => Ok(found),
    }
}

/// Skips white space and lines that only separate documents.
fn skip_separators(text: &str) -> &str {
    let mut rest = text.trim_start();
    while let Some(after) = rest.strip_prefix("---").filter(|after| after.is_empty() || after.starts_with(char::is_whitespace)) {
        rest = after.trim_start();
    }
    rest
}

/// Finds the line of an offset.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    /// The line, counted from 1, that the byte at this offset is in.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<Value> {
        documents(text).expect("it is right").into_iter().map(|node| node.value).collect()
    }

    #[test]
    fn json_documents_follow_one_another_in_every_form() {
        for text in ["{\"a\":1}{\"a\":1}", "{\"a\":1}\n{\"a\":1}", "{\"a\":1}\n---\n{\"a\":1}\n", "---\n{\"a\": 1}\n---\na: 1\n", "{a: 1}\n---\n{\"a\":1}"] {
            let all = texts(text);
            assert_eq!(all.len(), 2, "{text}");
            assert_eq!(all[0], all[1], "{text}");
        }
    }

    #[test]
    fn json_is_read_as_json() {
        let text = "{\n\t\"slash\": \"a\\/b\",\n\t\"pair\": \"\\ud83d\\ude00\", \"yes\": \"yes\", \"no\": null}";
        let Value::Map(pairs) = &texts(text)[0] else { panic!("a mapping") };
        let values: Vec<&Value> = pairs.iter().map(|(_, node)| &node.value).collect();
        assert_eq!(values, [&Value::Text("a/b".into()), &Value::Text("😀".into()), &Value::Text("yes".into()), &Value::Null]);
        assert_eq!(pairs[1].1.line, 3);
    }

    #[test]
    fn what_cannot_be_parsed_is_named_with_its_document_and_line() {
        assert_eq!(documents("a: 1\n---\nb: [\n").unwrap_err().0, 2);
        let (document, wrong) = documents("{\"a\": 1}\n{\"a\": 1,\n \"a\": 2}").unwrap_err();
        assert_eq!((document, wrong.line), (2, 3), "{wrong:?}");
        let (document, wrong) = documents("{\"a\": 1}\n{\"a\": 1,,\n}").unwrap_err();
        assert_eq!((document, wrong.line), (2, 2), "{wrong:?}");
    }
}
