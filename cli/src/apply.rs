//! `apply -f`: makes leases be as manifests say. Every document is read before the first one is applied.
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
    v1::{self, AcquireRequest, GetRequest, PutRequest, acquire_response::Result as Answer, lease::State},
};

use crate::{
    args::{self, Output},
    fail::{Failed, Tally},
    manifest::{self, Hold, Wanted},
    print::{Printer, note},
    text::{duration, short, wire},
    view,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Created,
    Configured,
    Unchanged,
}

pub(crate) async fn apply(client: &Client, printer: Printer, namespace: &str, args: args::Apply) -> Result<(), Failed> {
    let mut all = Vec::new();
    for file in &args.file {
        let text = text_of(file).map_err(|error| Failed::Usage(format!("cannot read {}: {error}\n  change -f", file.display())))?;
        all.extend(manifest::read(&text).map_err(|error| Failed::Usage(format!("{}: {error}; nothing was applied", file.display())))?);
    }
    let mut tally = Tally::default();
    for wanted in &all {
        let namespace = wanted.namespace.as_deref().unwrap_or(namespace);
        let result = one(client, namespace, wanted).await;
        tally.add(result.and_then(|(lease, done)| tell(printer, wanted, &lease, done)))?;
    }
    tally.end()
}

fn text_of(file: &Path) -> std::io::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
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

async fn one(client: &Client, namespace: &str, wanted: &Wanted) -> Result<(v1::Lease, Done), Failed> {
    let found = match client.get(GetRequest { namespace: namespace.into(), name: wanted.name.clone(), ..Default::default() }).await {
        Ok(lease) => Some(lease),
        Err(Error::Refused(failure)) if failure.code == Code::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let Some(found) = found else {
        // Put first: what is declared stays, where an acquire's own creation would be gone an hour after the hold.
        let created = client.put(PutRequest { must_not_exist: true, ..put(namespace, wanted, &[]) }).await?;
        let lease = match &wanted.hold {
            Some(hold) => take(client, namespace, wanted, hold).await?,
            None => created,
        };
        return Ok((lease, Done::Created));
    };
    let mask = differences(&found, wanted);
    let mut lease = found;
    let mut done = Done::Unchanged;
    if let Some(hold) = &wanted.hold {
        // First the part that can be refused, so that a refusal leaves all as it was.
        if lease.state() == State::Held && lease.holder != hold.holder {
            return Err(in_the_way(namespace, wanted, &lease));
        }
        lease = take(client, namespace, wanted, hold).await?;
        done = Done::Configured;
    }
    if !mask.is_empty() {
        lease = client.put(put(namespace, wanted, &mask)).await?;
        done = Done::Configured;
    }
    Ok((lease, done))
}

fn put(namespace: &str, wanted: &Wanted, mask: &[&str]) -> PutRequest {
    let pairs = |pairs: &Option<BTreeMap<String, String>>| pairs.clone().unwrap_or_default().into_iter().collect::<HashMap<_, _>>();
    PutRequest {
        namespace: namespace.into(),
        name: wanted.name.clone(),
        labels: pairs(&wanted.labels),
        annotations: pairs(&wanted.annotations),
        retention: wanted.retention.flatten().map(wire),
        update_mask: (!mask.is_empty()).then(|| FieldMask { paths: mask.iter().map(ToString::to_string).collect() }),
        ..Default::default()
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

async fn take(client: &Client, namespace: &str, wanted: &Wanted, hold: &Hold) -> Result<v1::Lease, Failed> {
    let request = AcquireRequest {
        namespace: namespace.into(),
        name: wanted.name.clone(),
        holder: hold.holder.clone(),
        duration: Some(wire(hold.duration)),
        // Applying the same manifest again starts its duration anew.
        reclaim: true,
        holder_data: hold.data.clone().unwrap_or_default().into_bytes().into(),
        ..Default::default()
    };
    match client.acquire(request).decision().await?.result {
        Some(Answer::Granted(granted)) => Ok(granted.lease.unwrap_or_default()),
        Some(Answer::Denied(denied)) => Err(in_the_way(namespace, wanted, &denied.lease.unwrap_or_default())),
        _ => Err(Failed::Refused(format!("{namespace}/{}: the grant ended before it arrived; apply again", wanted.name))),
    }
}

fn in_the_way(namespace: &str, wanted: &Wanted, lease: &v1::Lease) -> Failed {
    let left = duration(lease.expires_in.as_ref()).map_or_else(String::new, |left| format!(" for another {} unless renewed", short(left)));
    Failed::Refused(format!("{namespace}/{} is held by {} (token {}){left}; it was not changed", wanted.name, lease.holder, lease.token))
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
