//! Operations by hand, every answer written down: what a second SDK, a script or an old client may do, in any order and more than once.

use std::time::Duration;

use tenure_checker::history::{Call, EndReason, Outcome, Released, What};
use tenure_client::{
    Client, Error,
    v1::{self, acquire_response::Result as Answer, renew_result},
};

use super::{MAY_ARRIVE, NAMESPACE, Task};
use crate::{
    api::to_millis,
    history::{reason, released, state},
};

/// One acquire, as it was sent.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) holder: String,
    pub(super) request_id: String,
    pub(super) duration: Duration,
    pub(super) wait: Option<Duration>,
}

pub(super) fn full(name: &str) -> String {
    format!("{NAMESPACE}/{name}")
}

fn ms(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// What a call that failed tells.
pub(super) fn failed(error: &Error) -> Outcome {
    match error {
        Error::OutcomeUnknown(_) => Outcome::Unknown { error: error.to_string() },
        _ => Outcome::Refused { reason: error.reason().map_or_else(|| error.to_string(), ToOwned::to_owned) },
    }
}

/// Acquires, renews, releases; repeats requests, and releases what is long over.
pub(super) async fn ask(mut task: Task) -> anyhow::Result<()> {
    let mut tokens: Vec<(String, u64)> = Vec::new();
    while !task.is_ending() {
        let pause = task.between(1, 100);
        task.rest(pause).await;
        match task.rng.below(20) {
            0..13 => cycle(&mut task, &mut tokens).await?,
            13..17 if !tokens.is_empty() => {
                let at = usize::try_from(task.rng.below(tokens.len() as u64))?;
                let (name, token) = tokens[at].clone();
                release(&task, &task.client, &name, token).await?;
            }
            17 | 18 => put(&mut task).await?,
            19 => delete(&mut task).await?,
            _ => {}
        }
    }
    Ok(())
}

async fn cycle(task: &mut Task, tokens: &mut Vec<(String, u64)>) -> anyhow::Result<()> {
    let wait = if task.chance(40) { Some(task.between(50, 2_500)) } else { None };
    let asked = Asked { name: task.lease(), holder: task.fresh(), request_id: task.fresh(), duration: task.duration(), wait };
    let token = match acquire(task, &task.client, &asked).await? {
        Outcome::Granted { lease, .. } => lease.token,
        Outcome::Unknown { .. } => return give_up(task, &asked).await,
        _ => return Ok(()),
    };
    tokens.push((asked.name.clone(), token));
    for _ in 0..task.rng.below(6) {
        let pause = task.between(1, ms(asked.duration).max(10) * 6 / 10);
        task.rest(pause).await;
        let lost = if task.chance(12) {
            matches!(acquire(task, &task.client, &asked).await?, Outcome::Ended { .. })
        } else {
            matches!(renew(task, &task.client, &asked.name, token).await?, Outcome::Lost { .. })
        };
        if lost || task.is_ending() {
            break;
        }
    }
    if task.chance(60) {
        release(task, &task.client, &asked.name, token).await?;
    }
    if task.chance(20) {
        acquire(task, &task.client, &asked).await?;
    }
    Ok(())
}

/// One acquire with all its attempts, through this client.
pub(super) async fn acquire(task: &Task, client: &Client, asked: &Asked) -> anyhow::Result<Outcome> {
    let Asked { name, holder, request_id, duration, wait } = asked.clone();
    let call = Call::Acquire {
        lease: full(&name),
        holder: holder.clone(),
        request_id: request_id.clone(),
        duration_ms: ms(duration),
        wait_ms: wait.map(ms),
        reclaim: false,
    };
    let op = task.journal.invoke(&task.name, call)?;
    let request = v1::AcquireRequest {
        namespace: NAMESPACE.into(),
        name,
        holder,
        request_id,
        duration: duration.try_into().ok(),
        wait_for: wait.and_then(|wait| wait.try_into().ok()),
        ..v1::AcquireRequest::default()
    };
    let mut acquiring = client.acquire(request);
    let outcome = loop {
        match acquiring.next().await {
            Err(error) => break failed(&error),
            Ok(None) => break Outcome::Unknown { error: "no decision".into() },
            Ok(Some(answer)) => {
                let revision = answer.header.map_or(0, |header| header.revision);
                match answer.result {
                    Some(Answer::Queued(queued)) => {
                        task.journal.record(What::Queued { op, position: queued.position })?;
                        // Streams break without telling, and the SDK mends them: from here on it may be skipped.
                        task.journal.record(What::Detached { op })?;
                    }
                    Some(Answer::Granted(granted)) => {
                        let lease = state(&granted.lease.unwrap_or_default());
                        break Outcome::Granted { lease, must_renew: granted.must_renew, revision };
                    }
                    Some(Answer::Denied(_)) if acquiring.is_repeated() => {
                        break Outcome::Unknown { error: MAY_ARRIVE.into() };
                    }
                    Some(Answer::Denied(denied)) => break Outcome::Denied { lease: state(&denied.lease.unwrap_or_default()), revision },
                    Some(Answer::Ended(ended)) => {
                        break Outcome::Ended { token: ended.token, reason: reason(ended.reason()).unwrap_or(EndReason::UnknownToken) };
                    }
                    None => break Outcome::Unknown { error: "an empty answer".into() },
                }
            }
        }
    };
    task.journal.returned(op, outcome.clone())?;
    Ok(outcome)
}

pub(super) async fn renew(task: &Task, client: &Client, name: &str, token: u64) -> anyhow::Result<Outcome> {
    let op = task.journal.invoke(&task.name, Call::Renew { lease: full(name), token, duration_ms: None })?;
    let item = v1::RenewItem { token, namespace: NAMESPACE.into(), name: name.into(), duration: None };
    let outcome = match client.renew(vec![item]).await {
        Err(error) => failed(&error),
        Ok(answer) => {
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            match answer.results.into_iter().next().and_then(|result| result.result) {
                Some(renew_result::Result::Renewed(renewed)) => Outcome::Renewed { duration_ms: to_millis(renewed.duration.as_ref()), revision },
                Some(renew_result::Result::Lost(lost)) => Outcome::Lost {
                    reason: reason(lost.reason()).unwrap_or(EndReason::UnknownToken),
                    holder: Some(lost.holder).filter(|holder| !holder.is_empty()),
                },
                None => Outcome::Unknown { error: "an empty answer".into() },
            }
        }
    };
    task.journal.returned(op, outcome.clone())?;
    Ok(outcome)
}

pub(super) async fn release(task: &Task, client: &Client, name: &str, token: u64) -> anyhow::Result<Option<Released>> {
    let op = task.journal.invoke(&task.name, Call::Release { lease: full(name), token, holder: String::new(), request_id: String::new() })?;
    let request = v1::ReleaseRequest { namespace: NAMESPACE.into(), name: name.into(), token, ..v1::ReleaseRequest::default() };
    send_release(task, client, op, request).await
}

pub(super) async fn give_up(task: &Task, asked: &Asked) -> anyhow::Result<()> {
    let Asked { name, holder, request_id, .. } = asked.clone();
    let op = task.journal.invoke(&task.name, Call::Release { lease: full(&name), token: 0, holder: holder.clone(), request_id: request_id.clone() })?;
    let request = v1::ReleaseRequest { namespace: NAMESPACE.into(), name, token: 0, request_id, holder };
    send_release(task, &task.client, op, request).await.map(drop)
}

async fn send_release(task: &Task, client: &Client, op: u64, request: v1::ReleaseRequest) -> anyhow::Result<Option<Released>> {
    let outcome = match client.release(request).await {
        Err(error) => failed(&error),
        Ok(answer) => released(&answer),
    };
    let did = if let Outcome::Released { did, .. } = &outcome { Some(*did) } else { None };
    task.journal.returned(op, outcome)?;
    Ok(did)
}

async fn put(task: &mut Task) -> anyhow::Result<()> {
    let (name, must_not_exist) = (task.lease(), task.chance(30));
    let op = task.journal.invoke(&task.name, Call::Put { lease: full(&name), must_not_exist, edit: String::new() })?;
    let labels = [("weather".to_owned(), format!("w{}", task.rng.below(3)))].into();
    let request = v1::PutRequest { namespace: NAMESPACE.into(), name, labels, must_not_exist, ..v1::PutRequest::default() };
    let outcome = match task.client.put(request).await {
        // The header is not shown by this call.
        Ok(lease) => Outcome::Put { lease: state(&lease), revision: 0 },
        Err(error) => failed(&error),
    };
    Ok(task.journal.returned(op, outcome)?)
}

async fn delete(task: &mut Task) -> anyhow::Result<()> {
    let (name, force) = (task.lease(), task.chance(20));
    let op = task.journal.invoke(&task.name, Call::Delete { lease: full(&name), force })?;
    let request = v1::DeleteRequest { namespace: NAMESPACE.into(), name, force, ..v1::DeleteRequest::default() };
    let outcome = match task.client.delete(request).await {
        Ok(lease) => Outcome::Deleted { lease: state(&lease), revision: 0 },
        Err(error) => failed(&error),
    };
    Ok(task.journal.returned(op, outcome)?)
}

/// Gets and lists, from any replica, most of them linearizable.
pub(super) async fn read(mut task: Task) -> anyhow::Result<()> {
    while !task.is_ending() {
        let pause = task.between(2, 100);
        task.rest(pause).await;
        let stale = task.chance(20);
        if task.chance(80) {
            let name = task.lease();
            let op = task.journal.invoke(&task.name, Call::Get { lease: full(&name), stale })?;
            let request = v1::GetRequest { namespace: NAMESPACE.into(), name, stale, ..v1::GetRequest::default() };
            let outcome = match task.client.get(request).await {
                Ok(lease) => Outcome::Got { lease: Some(state(&lease)), revision: 0 },
                Err(error) if error.reason() == Some("LEASE_NOT_FOUND") => Outcome::Got { lease: None, revision: 0 },
                Err(error) => failed(&error),
            };
            task.journal.returned(op, outcome)?;
        } else {
            let op = task.journal.invoke(&task.name, Call::List { namespace: Some(NAMESPACE.into()), selected: false, stale })?;
            let request = v1::ListRequest { namespace: NAMESPACE.into(), stale, ..v1::ListRequest::default() };
            let outcome = match task.client.list(request).await {
                Ok(answer) => {
                    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
                    Outcome::Listed { leases: answer.leases.iter().map(state).collect(), revision }
                }
                Err(error) => failed(&error),
            };
            task.journal.returned(op, outcome)?;
        }
    }
    Ok(())
}
