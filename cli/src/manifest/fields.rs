//! What a document may say: the fields of a lease, each with its type. A field that is null is not mentioned, as kubectl has it.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Hold, KUBERNETES, Pairs, Source, TENURE, Wanted,
    tree::{Key, Node, Value, Wrong},
};
use crate::text::parse_duration;

/// The fields of one mapping that are still to be looked at.
pub(super) struct Fields {
    /// Of the mapping: `metadata.`, `items[2].spec.`, or nothing.
    path: String,
    line: usize,
    pairs: Vec<(Key, Node)>,
    known: Vec<&'static str>,
    lines: BTreeMap<String, usize>,
}

impl Fields {
    pub(super) fn of(node: Node, path: &str) -> Result<Self, Wrong> {
        match node.value {
            Value::Map(pairs) => Ok(Self { path: path.to_owned(), line: node.line, pairs, known: Vec::new(), lines: BTreeMap::new() }),
            _ => {
                Err(Wrong { line: node.line, field: path.trim_end_matches('.').to_owned(), message: format!("it must be a mapping, not {}", node.described()) })
            }
        }
    }

    /// Says what is wrong with a field; empty: with the mapping.
    pub(super) fn wrong(&self, field: &str, message: String) -> Wrong {
        let line = self.lines.get(field).copied().unwrap_or(self.line);
        Wrong { line, field: format!("{}{field}", self.path).trim_end_matches('.').to_owned(), message }
    }

    /// Whether the field is there and was not looked at yet.
    pub(super) fn has(&self, field: &str) -> bool {
        self.pairs.iter().any(|(key, _)| key.text == field)
    }

    fn take(&mut self, field: &'static str) -> Option<Node> {
        self.known.push(field);
        let at = self.pairs.iter().position(|(key, _)| key.text == field)?;
        let (key, node) = self.pairs.remove(at);
        self.lines.insert(field.to_owned(), key.line);
        (node.value != Value::Null).then_some(node)
    }

    /// Takes a field of any type that means nothing here.
    pub(super) fn ignore(&mut self, field: &'static str) -> bool {
        self.take(field).is_some()
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<Option<String>, Wrong> {
        match self.take(field) {
            None => Ok(None),
            Some(Node { value: Value::Text(text), .. }) => Ok(Some(text)),
            Some(node) => Err(self.wrong(field, format!("it must be text, not {}: put it in quotes", node.described()))),
        }
    }

    fn whole_number(&mut self, field: &'static str) -> Result<Option<i64>, Wrong> {
        match self.take(field) {
            None => Ok(None),
            Some(Node { value: Value::Int(number), .. }) => Ok(Some(number)),
            Some(node) => Err(self.wrong(field, format!("it must be a whole number, not {}", node.described()))),
        }
    }

    pub(super) fn list(&mut self, field: &'static str) -> Result<Vec<Node>, Wrong> {
        match self.take(field) {
            None => Ok(Vec::new()),
            Some(Node { value: Value::List(items), .. }) => Ok(items),
            Some(node) => Err(self.wrong(field, format!("it must be a list, not {}", node.described()))),
        }
    }

    fn pairs(&mut self, field: &'static str) -> Result<Option<Pairs>, Wrong> {
        let Some(node) = self.take(field) else { return Ok(None) };
        let Value::Map(pairs) = node.value else {
            return Err(self.wrong(field, format!("it must be a mapping of text to text, not {}", node.described())));
        };
        let mut all = Pairs::new();
        for (key, value) in pairs {
            let text = match value.value {
                Value::Text(text) => text,
                // As kubectl has it.
                Value::Null => String::new(),
                _ => {
                    let message = format!("it must be text, not {}: put it in quotes", value.described());
                    return Err(Wrong { line: key.line, field: format!("{}{field}.{}", self.path, key.text), message });
                }
            };
            all.insert(key.text, text);
        }
        Ok(Some(all))
    }

    fn mapping(&mut self, field: &'static str) -> Result<Option<Self>, Wrong> {
        let path = format!("{}{field}.", self.path);
        self.take(field).map(|node| Self::of(node, &path)).transpose()
    }

    /// Refuses what is left: nobody has asked for it. Comes before what is wrong with the rest, because a misspelt field is often why another is missing.
    pub(super) fn end(&self) -> Result<(), Wrong> {
        self.pairs.first().map_or(Ok(()), |(key, _)| {
            let message = format!("unknown field; known here are {}", self.known.join(", "));
            Err(Wrong { line: key.line, field: format!("{}{}", self.path, key.text), message })
        })
    }
}

/// What Kubernetes' server writes into a dump, of no meaning here.
const ITS_OWN: [&str; 10] = [
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Reads what leases of both kinds have, and gives the fields of spec.
fn base(kind: &'static str, mut document: Fields, line: usize) -> Result<(Wanted, Option<Fields>), Wrong> {
    let metadata = document.mapping("metadata")?;
    let spec = document.mapping("spec")?;
    document.end()?;
    let Some(mut metadata) = metadata else {
        return Err(document.wrong("", "metadata.name is missing".to_owned()));
    };
    let name = metadata.text("name")?;
    let mut wanted = Wanted {
        kind,
        namespace: metadata.text("namespace")?.filter(|namespace| !namespace.is_empty()),
        labels: metadata.pairs("labels")?,
        annotations: metadata.pairs("annotations")?,
        source: Source { prefix: document.path, line, lines: document.lines, ..Source::default() },
        ..Wanted::default()
    };
    for field in ITS_OWN {
        metadata.ignore(field);
    }
    if metadata.ignore("generateName") {
        return Err(metadata.wrong("generateName", "it cannot be applied: give metadata.name".to_owned()));
    }
    metadata.end()?;
    wanted.name = name.filter(|name| !name.is_empty()).ok_or_else(|| metadata.wrong("", "metadata.name is missing".to_owned()))?;
    wanted.source.lines.extend(metadata.lines.iter().map(|(field, line)| (format!("metadata.{field}"), *line)));
    Ok((wanted, spec))
}

/// Ends the fields of spec and remembers where they stand.
fn end_spec(wanted: &mut Wanted, spec: &Fields) -> Result<(), Wrong> {
    spec.end()?;
    wanted.source.lines.extend(spec.lines.iter().map(|(field, line)| (format!("spec.{field}"), *line)));
    Ok(())
}

fn length(fields: &mut Fields, field: &'static str) -> Result<Option<Duration>, Wrong> {
    match fields.take(field) {
        None => Ok(None),
        Some(Node { value: Value::Text(text), .. }) => parse_duration(&text).map(Some).map_err(|error| fields.wrong(field, error)),
        Some(node) => Err(fields.wrong(field, format!("it must be a duration such as 15s, not {}", node.described()))),
    }
}

fn kept(fields: &mut Fields, field: &'static str) -> Result<Option<Option<Duration>>, Wrong> {
    let forever = fields.pairs.iter().any(|(key, node)| key.text == field && node.value == Value::Text("forever".to_owned()));
    if forever {
        fields.take(field);
        return Ok(Some(None));
    }
    let kept = length(fields, field).map_err(|wrong| Wrong { message: format!("{}, or forever", wrong.message), ..wrong })?;
    Ok(kept.map(Some))
}

/// A manifest of Tenure's own.
pub(super) fn tenure(document: Fields, line: usize) -> Result<Wanted, Wrong> {
    let (mut wanted, spec) = base(TENURE, document, line)?;
    let Some(mut spec) = spec else { return Ok(wanted) };
    wanted.retention = kept(&mut spec, "retention")?;
    let holder = spec.text("holder")?.filter(|holder| !holder.is_empty());
    let duration = length(&mut spec, "duration")?;
    let data = spec.text("holderData")?;
    end_spec(&mut wanted, &spec)?;
    wanted.hold = match (holder, duration, data) {
        (Some(holder), Some(duration), data) => Some(Hold { holder, duration, data }),
        (Some(_), None, _) => return Err(spec.wrong("holder", "spec.holder needs spec.duration beside it: a hold always ends".to_owned())),
        (None, None, None) => None,
        (None, _, _) => return Err(spec.wrong("", "spec.duration and spec.holderData need spec.holder beside them".to_owned())),
    };
    Ok(wanted)
}

/// A Lease of Kubernetes.
pub(super) fn kubernetes(document: Fields, line: usize) -> Result<Wanted, Wrong> {
    let (mut wanted, spec) = base(KUBERNETES, document, line)?;
    let Some(mut spec) = spec else { return Ok(wanted) };
    for field in ["strategy", "preferredHolder"] {
        if spec.text(field)?.is_some() {
            return Err(spec.wrong(field, "coordinated leader election is not supported".to_owned()));
        }
    }
    for field in ["acquireTime", "renewTime"] {
        if spec.text(field)?.is_some() {
            wanted.ignored.push(field);
        }
    }
    if spec.whole_number("leaseTransitions")?.is_some() {
        wanted.ignored.push("leaseTransitions");
    }
    let holder = spec.text("holderIdentity")?.filter(|holder| !holder.is_empty());
    let seconds = spec.whole_number("leaseDurationSeconds")?;
    end_spec(&mut wanted, &spec)?;
    wanted.hold = match (holder, seconds) {
        // Without a holder the duration is a left-over of one that released it.
        (None, _) => None,
        (Some(_), None) => {
            return Err(spec.wrong("holderIdentity", "spec.holderIdentity needs spec.leaseDurationSeconds beside it: a hold always ends".to_owned()));
        }
        (Some(holder), Some(seconds)) => {
            let duration = u64::try_from(seconds).ok().filter(|&seconds| seconds > 0).map(Duration::from_secs);
            let duration = duration.ok_or_else(|| spec.wrong("leaseDurationSeconds", format!("it is {seconds}, and must be greater than 0")))?;
            Some(Hold { holder, duration, data: None })
        }
    };
    Ok(wanted)
}
