//! `acquire`, `renew`, `release`, `delete`: changing who holds what, one step at a time.
//!
//! Nothing here keeps a lease alive by itself, and none of it may leave one behind that the caller does not know of.

use std::time::Duration;

use crate::{
    args::{self, Output},
    clock,
    fail::{Failed, Tally},
    leave,
    print::{Printer, goes_nowhere, note},
    read::names,
    rows,
    signals::{ENDING, Signals},
    text::{duration, json_duration, short, wire},
    view,
};
use serde::Serialize;
use tenure_client::{
    Acquiring, Client, Error,
    v1::{
        self, AcquireRequest, AcquireResponse, DeleteRequest, EndReason, GetRequest, ReleaseRequest, RenewItem, acquire_response::Result as Answer,
        lease::State, release_response::Outcome, renew_result::Result as Renewal,
    },
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Acquired {
    token: u64,
    request_id: String,
    lease: view::Lease,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Renewed {
    token: u64,
    duration: Option<String>,
    renew_within: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Released {
    outcome: &'static str,
    lease: Option<view::Lease>,
}

pub(crate) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".into() } else { name }
}

pub(crate) async fn acquire(client: &Client, printer: Printer, namespace: &str, args: args::Acquire) -> Result<(), Failed> {
    let place = format!("{namespace}/{}", args.name);
    let holder = args.holder.unwrap_or_else(host_name);
    let request = AcquireRequest {
        namespace: namespace.into(),
        name: args.name.clone(),
        holder: holder.clone(),
        duration: Some(wire(args.duration)),
        request_id: args.request_id.unwrap_or_default(),
        wait_for: args.wait.filter(|_| !args.no_wait).map(wire),
        reclaim: args.reclaim,
        holder_data: args.data.unwrap_or_default().into_bytes().into(),
        retention: args.retention.map(wire),
        labels: args.labels.into_iter().collect(),
        annotations: Default::default(),
    };
    let mut signals = Signals::listen(ENDING)?;
    let mut acquiring = client.acquire(request);
    let asked = Asked { place: &place, holder: &holder, wait: args.wait };
    let decision = tokio::select! {
        decision = decide(client, &mut acquiring, &asked) => decision,
        _ = signals.next() => Err(Failed::Interrupted),
    };
    let request_id = acquiring.request_id().to_owned();
    let lease = match decision {
        Ok(lease) => lease,
        Err(Failed::Interrupted) => {
            // Whatever this attempt got must not outlive it.
            let left = format!("whatever it got runs out within {}", short(args.duration));
            leave::give_up(&place, &left, acquiring.give_up(), &mut signals).await;
            return Err(Failed::Interrupted);
        }
        Err(failed) => {
            if let Failed::Client(Error::OutcomeUnknown(_)) = failed {
                note(&format!("to be sure that it is not held: tenure release {} -n {namespace} --holder {holder} --request-id {request_id}", args.name));
            }
            return Err(failed);
        }
    };
    let printed = match printer.output {
        None => printer.line(&lease.token.to_string()),
        Some(Output::Name) => printer.line(&format!("lease/{}", lease.name)),
        Some(Output::Json | Output::Yaml) => printer.document(&Acquired { token: lease.token, request_id, lease: view::Lease::from(&lease) }),
        Some(Output::Table | Output::Wide) => {
            let headers = if printer.is_wide() { rows::LEASE_WIDE } else { rows::LEASE };
            printer.text(&printer.table(headers).print(&[rows::lease(&lease, printer.is_wide(), clock::now(), false)]))
        }
    };
    match printed {
        Err(Failed::Output(error)) => return Err(take_back(client, namespace, &place, &lease, args.duration, &error).await),
        printed => printed?,
    }
    let with_token = if goes_nowhere() { format!(" with token {}", lease.token) } else { String::new() };
    if printer.output.is_none() || !with_token.is_empty() {
        note(&format!("{place} is held by {holder}{with_token} for {}, unless renewed", short(args.duration)));
    }
    Ok(())
}

/// Nobody has read the token, so that nobody could renew or release.
async fn take_back(client: &Client, namespace: &str, place: &str, lease: &v1::Lease, duration: Duration, error: &std::io::Error) -> Failed {
    let request = ReleaseRequest { namespace: namespace.into(), name: lease.name.clone(), token: lease.token, ..Default::default() };
    match client.release(request).await {
        Ok(_) => Failed::NotDone(format!("the token could not be printed: {error}\n  {place} was granted and is released again: nothing is held")),
        Err(failed) => Failed::Unknown(format!(
            "the token could not be printed: {error}\n  {place} is held by {} with token {} for {} more at most, as it could not be released: {failed}",
            lease.holder,
            lease.token,
            short(duration)
        )),
    }
}

/// What messages need of the request.
pub(crate) struct Asked<'a> {
    pub(crate) place: &'a str,
    pub(crate) holder: &'a str,
    pub(crate) wait: Option<Duration>,
}

/// Waits for the decision, tells positions, and claims what was granted from the queue.
async fn decide(client: &Client, acquiring: &mut Acquiring, asked: &Asked<'_>) -> Result<v1::Lease, Failed> {
    let place = asked.place;
    let mut told = 0;
    loop {
        let answer: AcquireResponse = acquiring.next().await?.expect("a decision returns before the stream can say that it is over");
        match answer.result {
            Some(Answer::Queued(queued)) => {
                let lease = queued.lease.unwrap_or_default();
                if queued.position != told {
                    told = queued.position;
                    note(&format!("waiting for {place}: position {told}, held by {}", rows::or_dash(&lease.holder)));
                }
            }
            Some(Answer::Granted(granted)) => {
                let lease = granted.lease.unwrap_or_default();
                if granted.must_renew {
                    renewed(client, place, RenewItem { token: lease.token, ..Default::default() }).await?;
                }
                return Ok(lease);
            }
            Some(Answer::Denied(denied)) => return Err(Failed::Refused(self::denied(client, asked, denied.lease.unwrap_or_default()).await)),
            Some(Answer::Ended(ended)) => {
                let reason = view::reason(ended.reason()).unwrap_or("UNKNOWN");
                return Err(Failed::Refused(format!(
                    "{place}: this request is over ({reason}, token {}) and is never granted again\n  take another --request-id",
                    ended.token
                )));
            }
            None => {}
        }
    }
}

/// Who is in the way, for how long, and what would help.
pub(crate) async fn denied(client: &Client, asked: &Asked<'_>, mut lease: v1::Lease) -> String {
    let place = asked.place;
    if lease.expires_in.is_none() && lease.state() == State::Held {
        let request = GetRequest { namespace: lease.namespace.clone(), name: lease.name.clone(), stale: true, ..Default::default() };
        // Only for the message; by then somebody else may hold it, and then that is what helps.
        lease = client.get(request).await.unwrap_or(lease);
    }
    let waited = asked.wait.map_or_else(String::new, |wait| format!("after a wait of {} ", short(wait)));
    if lease.state() != State::Held {
        return format!("{waited}{place} was not granted: somebody else was first\n  make --wait longer");
    }
    let left = duration(lease.expires_in.as_ref()).map_or_else(String::new, |left| format!(" for another {} unless renewed", short(left)));
    let mut text = format!("{waited}{place} is held by {} (token {}){left}", lease.holder, lease.token);
    text.push_str(if asked.wait.is_some() { "\n  make --wait longer" } else { "\n  --wait 30s queues for it" });
    if lease.holder == asked.holder {
        text.push_str("; --reclaim takes it over, as the holder has this very name");
    }
    text
}

/// One renewal of one token.
async fn renewed(client: &Client, place: &str, item: RenewItem) -> Result<Renewed, Failed> {
    let token = item.token;
    let answer = client.renew(vec![item]).await?;
    let renew_within = duration(answer.renew_within.as_ref()).map(json_duration);
    match answer.results.into_iter().next().and_then(|result| result.result) {
        Some(Renewal::Renewed(renewed)) => Ok(Renewed { token, duration: duration(renewed.duration.as_ref()).map(json_duration), renew_within }),
        Some(Renewal::Lost(lost)) => {
            let now = if lost.holder.is_empty() { String::new() } else { format!("; {} holds it now", lost.holder) };
            Err(Failed::Refused(match lost.reason() {
                EndReason::UnknownToken => format!("token {token} is not known: never granted here, or over for more than 5 minutes\n  change --token"),
                EndReason::WrongLease => format!("token {token} is not of {place}\n  change NAME or --token"),
                reason => {
                    // Without a NAME the place is the token.
                    let what = if place.ends_with(&token.to_string()) { String::new() } else { format!("{place} is lost: ") };
                    format!("{what}token {token} is over ({}){now}", view::reason(reason).unwrap_or("UNKNOWN"))
                }
            }))
        }
        None => Err(Failed::Refused(format!("{place}: the answer to the renewal was empty"))),
    }
}

pub(crate) async fn renew(client: &Client, printer: Printer, namespace: &str, args: args::Renew) -> Result<(), Failed> {
    let place = args.name.as_ref().map_or_else(|| format!("token {}", args.token), |name| format!("{namespace}/{name}"));
    // Without a name the namespace is only the flag's default, and must not be checked.
    let (namespace, name) = args.name.map_or_else(Default::default, |name| (namespace.to_owned(), name));
    let item = RenewItem { token: args.token, duration: args.duration.map(wire), namespace, name };
    let renewed = renewed(client, &place, item).await?;
    match printer.output {
        Some(Output::Json | Output::Yaml) => printer.document(&renewed),
        _ => {
            let long = renewed.duration.as_deref().unwrap_or("as long as before");
            let again = renewed.renew_within.as_deref().map_or_else(String::new, |within| format!("; renew again within {within}"));
            printer.line(&format!("{place} renewed for {long}{again}"))
        }
    }
}

pub(crate) async fn release(client: &Client, printer: Printer, namespace: &str, args: args::Release) -> Result<(), Failed> {
    let place = format!("{namespace}/{}", args.name);
    let holder = if args.request_id.is_some() { args.holder.unwrap_or_else(host_name) } else { String::new() };
    let request = ReleaseRequest {
        namespace: namespace.into(),
        name: args.name,
        token: args.token.unwrap_or_default(),
        request_id: args.request_id.unwrap_or_default(),
        holder,
    };
    let answer = client.release(request).await?;
    let lease = answer.lease.as_ref();
    if printer.is_document() {
        printer.document(&Released { outcome: answer.outcome().as_str_name(), lease: lease.map(view::Lease::from) })?;
    }
    let text = match answer.outcome() {
        Outcome::Released => format!("{place} released"),
        Outcome::AlreadyReleased => format!("{place} was released before"),
        Outcome::Barred => format!("{place}: that request was not known; should it still arrive, it will not be granted"),
        Outcome::NotHolder | Outcome::Unspecified => {
            let now = match lease {
                Some(lease) if !lease.holder.is_empty() => format!("{} holds it with token {}", lease.holder, lease.token),
                Some(lease) => format!("its newest token is {}", lease.token),
                None => "there is no such lease".into(),
            };
            return Err(Failed::Refused(format!("{place} is not held by that --token: {now}")));
        }
    };
    if printer.is_document() { Ok(()) } else { printer.line(&text) }
}

pub(crate) async fn delete(client: &Client, printer: Printer, namespace: &str, args: args::Delete) -> Result<(), Failed> {
    let names = names(&args.names);
    if names.is_empty() {
        return Err(Failed::Usage("delete needs the NAME of at least one lease".into()));
    }
    let mut tally = Tally::default();
    for name in names {
        let request = DeleteRequest { namespace: namespace.into(), name: name.clone(), force: args.force, ..Default::default() };
        let deleted = client.delete(request).await.map_err(Failed::from);
        tally.add(deleted.and_then(|lease| match printer.output {
            Some(Output::Json | Output::Yaml) => printer.one_of_many(&view::Lease::from(&lease)),
            Some(Output::Name) => printer.line(&format!("lease/{name}")),
            _ => printer.line(&format!("lease/{name} deleted")),
        }))?;
    }
    tally.end()
}
