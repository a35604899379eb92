//! `apply -f`: makes leases be as manifests say. Every document is read, and checked by the cluster, before the first one is applied; each document is one
//! change of the cluster's, so that it is applied as a whole or not at all.
//!
//! Never takes a lease from another holder, and then changes nothing else of it either.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read as _,
    path::Path,
};

use prost_types::FieldMask;
use tenure_client::{
    Client, Code, Error,
    v1::{self, DeclaredHold, GetRequest, PutRequest},
};

use crate::{
    args::{self, Output},
    fail::{Failed, Tally},
    manifest::{self, Wanted},
    print::{Printer, note},
    text::{duration, short, wire},
    view,
};

/// A lease of a manifest, and the file that it stands in.
struct Document {
    file: String,
    wanted: Wanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Created,
    Configured,
    Unchanged,
}

pub(crate) async fn apply(client: &Client, printer: Printer, namespace: &str, args: args::Apply) -> Result<(), Failed> {
    let mut all = Vec::new();
    for path in &args.file {
        let bytes = bytes_of(path).map_err(|error| Failed::Usage(format!("cannot read {}: {error}\n  change -f", path.display())))?;
        let file = if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
        let leases = manifest::read(&bytes).map_err(|error| Failed::Usage(format!("{file}: {error}; nothing was applied")))?;
        all.extend(leases.into_iter().map(|wanted| Document { file: file.clone(), wanted }));
    }
    let mut checked = Tally::default();
    for document in &all {
        checked.add(document.check(client, namespace).await)?;
    }
    checked.end()?;
    let mut tally = Tally::default();
    for document in &all {
        let result = document.apply(client, namespace).await;
        tally.add(result.and_then(|(lease, done)| tell(printer, &document.wanted, &lease, done)))?;
    }
    tally.end()
}

fn bytes_of(file: &Path) -> std::io::Result<Vec<u8>> {
    if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(file)
}

fn tell(printer: Printer, wanted: &Wanted, lease: &v1::Lease, done: Done) -> Result<(), Failed> {
    if printer.is_document() {
        return printer.one_of_many(&view::Lease::from(lease));
    }
    let id = format!("{}/{}", wanted.kind, wanted.name);
    if printer.output == Some(Output::Name) {
        return printer.line(&id);
    }
    let done = match done {
        Done::Created => "created",
        Done::Configured => "configured",
        Done::Unchanged => "unchanged",
    };
    printer.line(&format!("{id} {done}"))?;
    if printer.is_wide() {
        if let Some(hold) = &wanted.hold {
            note(&format!("  held by {} with token {} for {} unless renewed", hold.holder, lease.token, short(hold.duration)));
        }
        if !wanted.ignored.is_empty() {
            note(&format!("  ignored: {} (the cluster keeps its own)", wanted.ignored.join(", ")));
        }
    }
    Ok(())
}

impl Document {
    fn namespace<'a>(&'a self, namespace: &'a str) -> &'a str {
        self.wanted.namespace.as_deref().unwrap_or(namespace)
    }

    /// Has the cluster check the request without changing anything.
    async fn check(&self, client: &Client, namespace: &str) -> Result<(), Failed> {
        let mut request = self.put(client, namespace, &[]);
        request.validate_only = true;
        client.put(request).await.map(drop).map_err(|error| self.failed(error, "; nothing was applied"))
    }

    async fn apply(&self, client: &Client, namespace: &str) -> Result<(v1::Lease, Done), Failed> {
        let get = GetRequest { namespace: self.namespace(namespace).into(), name: self.wanted.name.clone(), ..Default::default() };
        let found = match client.get(get).await {
            Ok(lease) => Some(lease),
            Err(Error::Refused(failure)) if failure.code == Code::NotFound => None,
            Err(error) => return Err(self.failed(error, "")),
        };
        let mut mask = Vec::new();
        if let Some(found) = &found {
            mask = differences(found, &self.wanted);
            if mask.is_empty() && self.wanted.hold.is_none() {
                return Ok((found.clone(), Done::Unchanged));
            }
        }
        let mut request = self.put(client, namespace, &mask);
        if let Some(found) = found.as_ref().filter(|_| mask.is_empty()) {
            // Only the hold is new. An empty mask would mean every field, so one is set to what it is, if that is still so.
            request.update_mask = Some(FieldMask { paths: vec!["retention".to_owned()] });
            request.retention = found.retention;
            request.if_revision = found.revision;
        }
        // It sets every field, so it must not meet a lease that somebody else has made meanwhile.
        request.must_not_exist = found.is_none();
        let lease = client.put(request).await.map_err(|error| self.failed(error, ""))?;
        Ok((lease, if found.is_some() { Done::Configured } else { Done::Created }))
    }

    fn put(&self, client: &Client, namespace: &str, mask: &[&str]) -> PutRequest {
        let wanted = &self.wanted;
        let pairs = |pairs: &Option<BTreeMap<String, String>>| pairs.clone().unwrap_or_default().into_iter().collect::<HashMap<_, _>>();
        PutRequest {
            namespace: self.namespace(namespace).into(),
            name: wanted.name.clone(),
            labels: pairs(&wanted.labels),
            annotations: pairs(&wanted.annotations),
            retention: wanted.retention.flatten().map(wire),
            update_mask: (!mask.is_empty()).then(|| FieldMask { paths: mask.iter().map(ToString::to_string).collect() }),
            hold: wanted.hold.as_ref().map(|hold| DeclaredHold {
                holder: hold.holder.clone(),
                duration: Some(wire(hold.duration)),
                holder_data: hold.data.clone().unwrap_or_default().into_bytes(),
                // Of this attempt alone: applying the same manifest again starts its duration anew.
                request_id: client.unique_identity().chars().rev().take(36).collect(),
            }),
            ..Default::default()
        }
    }

    /// Says where the manifest is wrong, if that is what it is; `so` ends the sentence.
    fn failed(&self, error: Error, so: &str) -> Failed {
        let violations = &error.failure().violations;
        if !matches!(error, Error::Misuse(_)) || violations.is_empty() {
            let named = format!("{}: {}", self.file, self.wanted.source.at(""));
            return match error {
                Error::Refused(failure) => {
                    let reason = failure.reason.as_deref().map(|reason| format!(" [{reason}]")).unwrap_or_default();
                    Failed::Refused(format!("{named}: {}{reason}", failure.message))
                }
                error => error.into(),
            };
        }
        let lines = violations.iter().map(|(field, text)| {
            let ours = self.field(field);
            format!("{}: {}: {}{so}", self.file, self.wanted.source.at(&ours), text.replace(field.as_str(), &ours))
        });
        Failed::Usage(lines.collect::<Vec<_>>().join("\n"))
    }

    /// The field of the manifest that a field of the request was made of.
    fn field(&self, field: &str) -> String {
        let kubernetes = self.wanted.kind == manifest::KUBERNETES;
        let ours = match field.split('[').next().unwrap_or(field) {
            "namespace" => "metadata.namespace",
            "name" => "metadata.name",
            "labels" => "metadata.labels",
            "annotations" => "metadata.annotations",
            "retention" => "spec.retention",
            "hold.holder" if kubernetes => "spec.holderIdentity",
            "hold.duration" if kubernetes => "spec.leaseDurationSeconds",
            "hold.holder" => "spec.holder",
            "hold.duration" => "spec.duration",
            "hold.holder_data" => "spec.holderData",
            other => other,
        };
        ours.to_owned()
    }
}

/// Which mentioned fields are not yet as wanted.
fn differences(lease: &v1::Lease, wanted: &Wanted) -> Vec<&'static str> {
    let differ = |have: &HashMap<String, String>, want: &Option<BTreeMap<String, String>>| {
        want.as_ref().is_some_and(|want| have.len() != want.len() || want.iter().any(|(key, value)| have.get(key) != Some(value)))
    };
    let mut fields = Vec::new();
    if differ(&lease.labels, &wanted.labels) {
        fields.push("labels");
    }
    if differ(&lease.annotations, &wanted.annotations) {
        fields.push("annotations");
    }
    if wanted.retention.is_some_and(|want| want != duration(lease.retention.as_ref())) {
        fields.push("retention");
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_what_is_mentioned_and_differs_is_changed() {
        let lease =
            v1::Lease { labels: [("a".into(), "1".into())].into(), retention: Some(prost_types::Duration { seconds: 60, nanos: 0 }), ..Default::default() };
        let same = Wanted { labels: Some([("a".into(), "1".into())].into()), retention: Some(Some(Duration::from_secs(60))), ..Default::default() };
        assert!(differences(&lease, &Wanted::default()).is_empty());
        assert!(differences(&lease, &same).is_empty());
        let other = Wanted { labels: Some(BTreeMap::new()), annotations: Some([("k".into(), "v".into())].into()), retention: Some(None), ..same };
        assert_eq!(differences(&lease, &other), ["labels", "annotations", "retention"]);
    }
}
