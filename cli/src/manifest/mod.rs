//! What can be applied: Tenure's own manifests and Kubernetes' Leases as they stand. Reads text, talks to nobody.
//!
//! Files are read as kubectl reads them: see `bytes.rs` for encodings, `json.rs` and `yaml.rs` for syntax, `fields.rs` for what a document may say.
//! Every error names the document, the line and the field. Unknown fields are errors: a typo must not pass in silence.

mod bytes;
mod fields;
mod json;
mod tree;
mod yaml;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use tree::{Node, Value, Wrong};

type Pairs = BTreeMap<String, String>;

/// One lease as somebody wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// `lease.tenure.dev` or `lease.coordination.k8s.io`, for messages.
    pub(crate) kind: &'static str,
    /// `None`: the command line's.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// `None`: not mentioned, so left as they are.
    pub(crate) labels: Option<Pairs>,
    pub(crate) annotations: Option<Pairs>,
    /// Outer `None`: not mentioned. Inner: kept for ever.
    pub(crate) retention: Option<Option<Duration>>,
    pub(crate) hold: Option<Hold>,
    /// Mentioned, understood, and of no effect.
    pub(crate) ignored: Vec<&'static str>,
    /// Tells messages where the parts of this lease stand.
    pub(crate) source: Source,
}

/// The hold that a manifest declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) holder: String,
    pub(crate) duration: Duration,
    pub(crate) data: Option<String>,
}

/// The place of a lease in its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Source {
    /// Counted from 1.
    document: usize,
    /// `items[2].` for an item of a list.
    prefix: String,
    line: usize,
    /// The lines of the fields that are mentioned.
    lines: BTreeMap<String, usize>,
}

impl Source {
    /// Names a place, `document 2, line 7, spec.duration`, by a field of the manifest; empty: the lease as a whole.
    pub(crate) fn at(&self, field: &str) -> String {
        // A field that is not there is missing in what encloses it.
        let line = self.lines.get(field).or_else(|| self.lines.get(field.split('.').next().unwrap_or_default()));
        place(self.document, *line.unwrap_or(&self.line), format!("{}{field}", self.prefix).trim_end_matches('.'))
    }
}

fn place(document: usize, line: usize, field: &str) -> String {
    let mut place = format!("document {document}, line {line}");
    if !field.is_empty() {
        let _ = write!(place, ", {field}");
    }
    place
}

const TENURE: &str = "lease.tenure.dev";
pub(crate) const KUBERNETES: &str = "lease.coordination.k8s.io";

/// Reads all documents of a file, or says the first thing that is wrong with it.
pub(crate) fn read(file: &[u8]) -> Result<Vec<Wanted>, String> {
    let text = bytes::text(file)?;
    let said = |document: usize, wrong: &Wrong| format!("{}: {}", place(document, wrong.line, &wrong.field), wrong.message);
    let documents = tree::documents(&text).map_err(|(document, wrong)| said(document, &wrong))?;
    let mut all = Vec::new();
    for (i, node) in documents.into_iter().enumerate() {
        let leases = leases(node).map_err(|wrong| said(i + 1, &wrong))?;
        all.extend(leases.into_iter().map(|mut wanted| {
            wanted.source.document = i + 1;
            wanted
        }));
    }
    if all.is_empty() { Err("the file has no lease in it".to_owned()) } else { Ok(all) }
}

/// The leases of one document; none when it is empty.
fn leases(node: Node) -> Result<Vec<Wanted>, Wrong> {
    match node.value {
        Value::Null => Ok(Vec::new()),
        _ => of_any_kind(node, "", None),
    }
}

/// A lease, or those of a list. `expected` is what a typed list lets its items leave out: their apiVersion, with the kind Lease.
fn of_any_kind(node: Node, path: &str, expected: Option<&str>) -> Result<Vec<Wanted>, Wrong> {
    let line = node.line;
    let mut document = fields::Fields::of(node, path)?;
    let version = document.text("apiVersion")?.filter(|version| !version.is_empty());
    let kind = document.text("kind")?.filter(|kind| !kind.is_empty());
    let (version, kind) = match (version, kind, expected) {
        (Some(version), Some(kind), _) => (version, kind),
        (version, kind, Some(expected)) => (version.unwrap_or_else(|| expected.to_owned()), kind.unwrap_or_else(|| "Lease".to_owned())),
        (version, kind, None) => {
            let missing = if version.is_none() { "apiVersion" } else { "kind" };
            let shown = if document.has("renewRevision") { "; `-o yaml` and `-o json` show leases, they write no manifests" } else { "" };
            let _ = kind;
            return Err(document.wrong("", format!("{missing} is missing: a lease begins with apiVersion and kind{shown}")));
        }
    };
    let is_list = kind == "List" || kind == "LeaseList";
    match (version.as_str(), kind.as_str()) {
        ("tenure.dev/v1", "Lease") => Ok(vec![fields::tenure(document, line)?]),
        ("coordination.k8s.io/v1" | "coordination.k8s.io/v1beta1", "Lease") => Ok(vec![fields::kubernetes(document, line)?]),
        ("v1", "List") | ("tenure.dev/v1" | "coordination.k8s.io/v1" | "coordination.k8s.io/v1beta1", "LeaseList") => {
            let typed = (kind == "LeaseList").then_some(version.as_str());
            let items = document.list("items")?;
            document.ignore("metadata");
            document.end()?;
            let mut all = Vec::new();
            for (i, item) in items.into_iter().enumerate() {
                all.extend(of_any_kind(item, &format!("{path}items[{i}]."), typed)?);
            }
            Ok(all)
        }
        _ => {
            let what = if is_list { "a list of leases is v1 List or LeaseList" } else { "it must be Lease of tenure.dev/v1 or of coordination.k8s.io/v1" };
            Err(document.wrong("", format!("{version} {kind} cannot be applied here: {what}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOO: &str = r#"apiVersion: coordination.k8s.io/v1
kind: Lease
metadata:
  name: example-foo
  namespace: default
spec:
  holderIdentity: my-leader-instance
  leaseDurationSeconds: 30
  renewTime: "2023-12-02T10:00:00Z"
"#;

    fn foo() -> Wanted {
        Wanted {
            kind: KUBERNETES,
            namespace: Some("default".into()),
            name: "example-foo".into(),
            hold: Some(Hold { holder: "my-leader-instance".into(), duration: Duration::from_secs(30), data: None }),
            ignored: vec!["renewTime"],
            ..Default::default()
        }
    }

    #[test]
    fn a_kubernetes_lease_is_taken_as_it_stands() {
        assert_eq!(parsed(FOO), [foo()]);
    }

    #[test]
    fn a_dump_of_a_kubernetes_cluster_is_taken_too() {
        let dump = r#"{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":""},"items":[{"apiVersion":"coordination.k8s.io/v1","kind":"Lease",
            "metadata":{"name":"a","namespace":"kube-system","uid":"x","resourceVersion":"5","creationTimestamp":"2023-12-02T10:00:00Z","labels":{"k":"v"}},
            "spec":{"holderIdentity":"","leaseDurationSeconds":1,"leaseTransitions":3,"acquireTime":null}}]}"#;
        let wanted = Wanted {
            kind: KUBERNETES,
            namespace: Some("kube-system".into()),
            name: "a".into(),
            labels: Some([("k".into(), "v".into())].into()),
            ignored: vec!["leaseTransitions"],
            ..Default::default()
        };
        assert_eq!(parsed(dump), [wanted]);
    }

    #[test]
    fn many_documents_and_both_kinds_in_one_text() {
        let text = format!(
            "---\n{FOO}---\n# nothing here\n---\napiVersion: tenure.dev/v1\nkind: Lease\nmetadata:\n  name: b\n  annotations: {{a: b}}\n\
             spec:\n  retention: 1h\n  holder: me\n  duration: 1m30s\n  holderData: 10.0.0.1:80\n---\n"
        );
        let tenure = Wanted {
            kind: TENURE,
            name: "b".into(),
            annotations: Some([("a".into(), "b".into())].into()),
            retention: Some(Some(Duration::from_secs(3_600))),
            hold: Some(Hold { holder: "me".into(), duration: Duration::from_secs(90), data: Some("10.0.0.1:80".into()) }),
            ..Default::default()
        };
        assert_eq!(parsed(&text), [foo(), tenure]);
    }

    #[test]
    fn retention_may_be_for_ever_or_unmentioned() {
        let read = |spec: &str| parsed(&format!("apiVersion: tenure.dev/v1\nkind: Lease\nmetadata: {{name: a}}\n{spec}")).remove(0).retention;
        assert_eq!(read(""), None);
        assert_eq!(read("spec: {}"), None);
        assert_eq!(read("spec: {retention: forever}"), Some(None));
        assert_eq!(read("spec: {retention: null}"), None);
        assert_eq!(read("spec: {retention: 5m}"), Some(Some(Duration::from_secs(300))));
    }

    /// Without where it stands.
    fn parsed(text: &str) -> Vec<Wanted> {
        let all = read(text.as_bytes()).expect("it is right");
        all.into_iter().map(|wanted| Wanted { source: Source::default(), ..wanted }).collect()
    }

    #[test]
    fn what_is_wrong_is_named_with_document_line_and_field() {
        let wrong = |text: &str| read(text.as_bytes()).unwrap_err();
        let error = wrong(&format!("{FOO}---\n{}", FOO.replace("leaseDurationSeconds", "leaseDurationSecond")));
        assert!(error.starts_with("document 2, line 18, spec.leaseDurationSecond: unknown field; known here are"), "{error}");
        let error = wrong(&FOO.replace("metadata", "metdata"));
        assert!(error.starts_with("document 1, line 3, metdata: unknown field; known here are"), "{error}");
        let error = wrong(&FOO.replace("30", "half a minute"));
        assert_eq!(error, "document 1, line 8, spec.leaseDurationSeconds: it must be a whole number, not the text \"half a minute\"");
        let error = wrong(&FOO.replace("30", "0"));
        assert_eq!(error, "document 1, line 8, spec.leaseDurationSeconds: it is 0, and must be greater than 0");
        let error = wrong(&FOO.replace("  leaseDurationSeconds: 30\n", ""));
        assert!(error.starts_with("document 1, line 7, spec.holderIdentity: spec.holderIdentity needs spec.leaseDurationSeconds"), "{error}");
        let error = wrong("apiVersion: apps/v1\nkind: Deployment\n");
        assert!(error.starts_with("document 1, line 1: apps/v1 Deployment cannot be applied here"), "{error}");
        assert_eq!(wrong("# nothing\n"), "the file has no lease in it");
        assert!(wrong("a: [").contains("line"), "{}", wrong("a: ["));
        let error = wrong("apiVersion: tenure.dev/v1\nkind: Lease\nmetadata: {name: a}\nspec:\n  holder: me\n  duration: 15\n");
        assert_eq!(error, "document 1, line 6, spec.duration: it must be a duration such as 15s, not the number 15");
        let error = wrong("apiVersion: tenure.dev/v1\nkind: Lease\nmetadata:\n  name: a\n  labels:\n    on: x\n    app: yes\n");
        assert_eq!(error, "document 1, line 7, metadata.labels.app: it must be text, not the boolean true: put it in quotes");
        assert!(wrong("namespace: default\nname: a\nrenewRevision: 5\n").contains("they write no manifests"));
    }

    #[test]
    fn lists_take_leases_of_either_kind_and_nothing_else() {
        let of = |kind: &str, item: &str| format!("apiVersion: {kind}\nitems:\n- {item}\n");
        let ours = "{apiVersion: tenure.dev/v1, kind: Lease, metadata: {name: a}, spec: {retention: 1h}}";
        assert_eq!(parsed(&of("v1\nkind: List", ours))[0].retention, Some(Some(Duration::from_secs(3_600))));
        let bare = "{metadata: {name: a}, spec: {holderIdentity: x, leaseDurationSeconds: 5}}";
        assert!(parsed(&of("coordination.k8s.io/v1\nkind: LeaseList", bare))[0].hold.is_some());
        assert_eq!(parsed(&of("coordination.k8s.io/v1beta1\nkind: LeaseList", "{metadata: {name: a}}"))[0].kind, KUBERNETES);
        for other in ["{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", "{apiVersion: other.example/v1, kind: Lease, metadata: {name: a}}", bare] {
            let error = read(of("v1\nkind: List", other).as_bytes()).unwrap_err();
            assert!(error.starts_with("document 1, line 4, items[0]: "), "{error}");
        }
    }

    #[test]
    fn a_place_in_a_file_is_named_by_line_and_field() {
        let all = read(format!("apiVersion: v1\nkind: List\nitems:\n- {}", FOO.replace('\n', "\n  ")).as_bytes()).unwrap();
        assert_eq!(all[0].source.at("spec.leaseDurationSeconds"), "document 1, line 11, items[0].spec.leaseDurationSeconds");
        assert_eq!(all[0].source.at(""), "document 1, line 4, items[0]");
        assert_eq!(all[0].source.at("metadata.labels"), "document 1, line 6, items[0].metadata.labels");
    }
}
