//! What can be applied: Tenure's own manifests and Kubernetes' Leases as they stand. Reads text, talks to nobody.
//!
//! Every error names the document, and the line where there is one. Unknown fields are errors: a typo must not pass in silence.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, IgnoredAny, Visitor},
};

use crate::text::parse_duration;

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
}

/// Who is to hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) holder: String,
    pub(crate) duration: Duration,
    pub(crate) data: Option<String>,
}

const TENURE: &str = "lease.tenure.dev";
const KUBERNETES: &str = "lease.coordination.k8s.io";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: Option<S>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListOf<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    items: Vec<Manifest<S>>,
}

/// Of Kubernetes. What its server writes into a dump is read over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    labels: Option<Pairs>,
    annotations: Option<Pairs>,
    #[serde(rename = "creationTimestamp")]
    _creation_timestamp: Option<IgnoredAny>,
    #[serde(rename = "deletionTimestamp")]
    _deletion_timestamp: Option<IgnoredAny>,
    #[serde(rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: Option<IgnoredAny>,
    #[serde(rename = "finalizers")]
    _finalizers: Option<IgnoredAny>,
    #[serde(rename = "generation")]
    _generation: Option<IgnoredAny>,
    #[serde(rename = "managedFields")]
    _managed_fields: Option<IgnoredAny>,
    #[serde(rename = "ownerReferences")]
    _owner_references: Option<IgnoredAny>,
    #[serde(rename = "resourceVersion")]
    _resource_version: Option<IgnoredAny>,
    #[serde(rename = "selfLink")]
    _self_link: Option<IgnoredAny>,
    #[serde(rename = "uid")]
    _uid: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TenureSpec {
    retention: Option<Kept>,
    holder: Option<String>,
    duration: Option<Length>,
    holder_data: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KubernetesSpec {
    holder_identity: Option<String>,
    lease_duration_seconds: Option<i64>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    lease_transitions: Option<i64>,
    strategy: Option<String>,
    preferred_holder: Option<String>,
}

/// A duration as text. Read by a visitor, because only what a visitor complains of is given its line.
struct Length(Duration);

/// `None`: for ever.
struct Kept(Option<Duration>);

struct Parse<T>(&'static str, fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for Parse<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Parse("a duration as 15s", |text| parse_duration(text).map(Self)))
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Parse("a duration as 1h, or forever", |text| match text {
            "forever" => Ok(Self(None)),
            _ => parse_duration(text).map(|kept| Self(Some(kept))).map_err(|error| format!("{error}, or forever")),
        }))
    }
}

/// All documents of a text, or the first thing that is wrong with it.
pub(crate) fn read(text: &str) -> Result<Vec<Wanted>, String> {
    let mut all = Vec::new();
    // Twice over the text: what a document must look like is known only once its kind is, and only typed reading knows lines.
    let heads = serde_yaml_ng::Deserializer::from_str(text);
    let bodies = serde_yaml_ng::Deserializer::from_str(text);
    for (i, (head, body)) in heads.zip(bodies).enumerate() {
        let at = |error: String| format!("document {}: {error}", i + 1);
        let Some(head) = Option::<Head>::deserialize(head).map_err(|error| at(error.to_string()))? else { continue };
        let (version, kind) = (head.api_version.unwrap_or_default(), head.kind.unwrap_or_default());
        match (version.as_str(), kind.as_str()) {
            ("tenure.dev/v1", "Lease") => all.push(tenure(typed(body).map_err(at)?).map_err(at)?),
            ("coordination.k8s.io/v1" | "coordination.k8s.io/v1beta1", "Lease") => all.push(kubernetes(typed(body).map_err(at)?).map_err(at)?),
            ("v1", "List") | ("coordination.k8s.io/v1", "LeaseList") => {
                let list: ListOf<KubernetesSpec> = typed(body).map_err(at)?;
                for item in list.items {
                    all.push(kubernetes(item).map_err(at)?);
                }
            }
            _ => {
                return Err(at(format!(
                    "apiVersion {version:?} with kind {kind:?} is not known here: it must be tenure.dev/v1 or coordination.k8s.io/v1, and Lease"
                )));
            }
        }
    }
    if all.is_empty() { Err("no lease in it".into()) } else { Ok(all) }
}

fn typed<'de, T: DeserializeOwned>(from: serde_yaml_ng::Deserializer<'de>) -> Result<T, String> {
    T::deserialize(from).map_err(|error| error.to_string())
}

fn base(kind: &'static str, metadata: Metadata) -> Wanted {
    let Metadata { name, namespace, labels, annotations, .. } = metadata;
    Wanted { kind, name, namespace: namespace.filter(|namespace| !namespace.is_empty()), labels, annotations, ..Default::default() }
}

fn tenure(manifest: Manifest<TenureSpec>) -> Result<Wanted, String> {
    let mut wanted = base(TENURE, manifest.metadata);
    let Some(spec) = manifest.spec else { return Ok(wanted) };
    wanted.retention = spec.retention.map(|kept| kept.0);
    wanted.hold = match (spec.holder.filter(|holder| !holder.is_empty()), spec.duration, spec.holder_data) {
        (Some(holder), Some(Length(duration)), data) => Some(Hold { holder, duration, data }),
        (Some(_), None, _) => return Err(format!("{}: spec.holder needs spec.duration beside it", wanted.name)),
        (None, None, None) => None,
        (None, _, _) => return Err(format!("{}: spec.duration and spec.holderData need spec.holder beside them", wanted.name)),
    };
    Ok(wanted)
}

fn kubernetes(manifest: Manifest<KubernetesSpec>) -> Result<Wanted, String> {
    let mut wanted = base(KUBERNETES, manifest.metadata);
    let Some(spec) = manifest.spec else { return Ok(wanted) };
    if spec.strategy.is_some() || spec.preferred_holder.is_some() {
        return Err(format!("{}: spec.strategy and spec.preferredHolder (coordinated election) are not supported", wanted.name));
    }
    let mentioned =
        [("acquireTime", spec.acquire_time.is_some()), ("renewTime", spec.renew_time.is_some()), ("leaseTransitions", spec.lease_transitions.is_some())];
    wanted.ignored = mentioned.into_iter().filter_map(|(field, there)| there.then_some(field)).collect();
    wanted.hold = match (spec.holder_identity.filter(|holder| !holder.is_empty()), spec.lease_duration_seconds) {
        // Without a holder the duration is a left-over of one that released it.
        (None, _) => None,
        (Some(_), None) => return Err(format!("{}: spec.holderIdentity needs spec.leaseDurationSeconds beside it: a hold always ends", wanted.name)),
        (Some(holder), Some(seconds)) => {
            let duration = u64::try_from(seconds).ok().filter(|&seconds| seconds > 0).map(Duration::from_secs);
            let duration = duration.ok_or_else(|| format!("{}: spec.leaseDurationSeconds is {seconds}, it must be greater than 0", wanted.name))?;
            Some(Hold { holder, duration, data: None })
        }
    };
    Ok(wanted)
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
        assert_eq!(read(FOO).unwrap(), [foo()]);
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
        assert_eq!(read(dump).unwrap(), [wanted]);
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
        assert_eq!(read(&text).unwrap(), [foo(), tenure]);
    }

    #[test]
    fn retention_may_be_for_ever_or_unmentioned() {
        let read = |spec: &str| read(&format!("apiVersion: tenure.dev/v1\nkind: Lease\nmetadata: {{name: a}}\n{spec}")).unwrap().remove(0).retention;
        assert_eq!(read(""), None);
        assert_eq!(read("spec: {}"), None);
        assert_eq!(read("spec: {retention: forever}"), Some(None));
        assert_eq!(read("spec: {retention: null}"), None);
        assert_eq!(read("spec: {retention: 5m}"), Some(Some(Duration::from_secs(300))));
    }

    #[test]
    fn what_is_wrong_is_named_with_document_and_line() {
        let wrong = |text: &str| read(text).unwrap_err();
        let error = wrong(&format!("{FOO}---\n{}", FOO.replace("leaseDurationSeconds", "leaseDurationSecond")));
        assert!(error.starts_with("document 2: spec: unknown field `leaseDurationSecond`") && error.contains("line 18"), "{error}");
        let error = wrong(&FOO.replace("metadata", "metdata"));
        assert!(error.contains("unknown field `metdata`") && error.contains("line 3"), "{error}");
        let error = wrong(&FOO.replace("30", "half a minute"));
        assert!(error.contains("spec.leaseDurationSeconds") && error.contains("line 8"), "{error}");
        assert_eq!(wrong(&FOO.replace("30", "0")), "document 1: example-foo: spec.leaseDurationSeconds is 0, it must be greater than 0");
        let error = wrong(&FOO.replace("  leaseDurationSeconds: 30\n", ""));
        assert_eq!(error, "document 1: example-foo: spec.holderIdentity needs spec.leaseDurationSeconds beside it: a hold always ends");
        let error = wrong("apiVersion: apps/v1\nkind: Deployment\n");
        assert!(error.starts_with("document 1: apiVersion \"apps/v1\" with kind \"Deployment\" is not known here"), "{error}");
        assert_eq!(wrong("# nothing\n"), "no lease in it");
        assert!(wrong("a: [").contains("line"), "{}", wrong("a: ["));
        let error = wrong("apiVersion: tenure.dev/v1\nkind: Lease\nmetadata: {name: a}\nspec:\n  holder: me\n  duration: 15\n");
        assert!(error.contains("spec.duration") && error.contains("line 6"), "{error}");
    }
}
