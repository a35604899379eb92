//! Operations by hand, every answer written down: what a second SDK, a script or an old client may do, in any order and more than once.

use std::time::Duration;

use rand::Rng as _;
use tenure_checker::history::{Call, EndReason, Outcome, Released, What};
use tenure_client::v1::{self, acquire_response::Result as Answer, renew_result};
use tokio::time::sleep;

use crate::{
    client::{NAMESPACE, Task},
    convert,
};

/// What the simulated replicas take for a duration.
const SHORTEST: Duration = Duration::from_millis(100);

/// One acquire, as it was sent.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) holder: String,
    pub(crate) request_id: String,
    pub(crate) duration: Duration,
    pub(crate) wait: Option<Duration>,
}

impl Asked {
    /// For the history.
    pub(crate) fn call(&self) -> Call {
        Call::Acquire {
            lease: full(&self.name),
            holder: self.holder.clone(),
            request_id: self.request_id.clone(),
            duration_ms: ms(self.duration),
            wait_ms: self.wait.map(ms),
            reclaim: false,
        }
    }

    /// For a replica.
    pub(crate) fn request(&self) -> v1::AcquireRequest {
        v1::AcquireRequest {
            namespace: NAMESPACE.into(),
            name: self.name.clone(),
            holder: self.holder.clone(),
            request_id: self.request_id.clone(),
            duration: self.duration.try_into().ok(),
            wait_for: self.wait.and_then(|wait| wait.try_into().ok()),
            ..v1::AcquireRequest::default()
        }
    }
}

pub(crate) fn full(name: &str) -> String {
    format!("{NAMESPACE}/{name}")
}

fn ms(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Acquires, renews, releases; repeats requests, and releases what is long over.
pub(crate) async fn ask(mut task: Task) {
    let mut tokens: Vec<(String, u64)> = Vec::new();
    while !task.world.is_winding_down() {
        let pause = task.between(1, 300);
        sleep(pause).await;
        match task.rng.random_range(0..20) {
            0..12 => cycle(&mut task, &mut tokens).await,
            12..17 if !tokens.is_empty() => {
                let (name, token) = tokens[task.rng.random_range(0..tokens.len())].clone();
                if matches!(release(&task, &name, token).await, Some(Released::NotHolder | Released::AlreadyReleased)) {
                    task.world.covered("stale release refused");
                }
            }
            17 => put(&mut task).await,
            18 => delete(&mut task).await,
            _ => {}
        }
    }
}

async fn cycle(task: &mut Task, tokens: &mut Vec<(String, u64)>) {
    let wait = if task.rng.random_bool(0.4) { Some(task.between(50, 2_500)) } else { None };
    let asked = Asked { name: task.lease(), holder: task.fresh(), request_id: task.fresh(), duration: task.duration(), wait };
    let token = match acquire(task, &asked).await {
        Outcome::Granted { lease, .. } => lease.token,
        Outcome::Unknown { .. } => return give_up(task, &asked).await,
        _ => return,
    };
    tokens.push((asked.name.clone(), token));
    for _ in 0..task.rng.random_range(0..6) {
        let pause = asked.duration.mul_f64(task.rng.random_range(0.05..0.6));
        sleep(pause).await;
        let lost = match task.rng.random_range(0..8) {
            0 => {
                task.world.covered("request id repeated");
                let again = acquire(task, &asked).await;
                if matches!(again, Outcome::Ended { .. }) {
                    task.world.covered("repeated request answered as ended");
                }
                matches!(again, Outcome::Ended { .. })
            }
            _ => {
                // Most say nothing of how long, some ask for less or for more.
                let factor = [None, None, None, Some(0.3), Some(1.4)][task.rng.random_range(0..5)];
                let duration = factor.map(|factor| asked.duration.mul_f64(factor).max(SHORTEST));
                matches!(renew(task, &asked.name, token, duration).await, Outcome::Lost { .. })
            }
        };
        if lost {
            break;
        }
    }
    if task.rng.random_bool(0.6) {
        release(task, &asked.name, token).await;
    }
    if task.rng.random_bool(0.2) {
        task.world.covered("request id repeated");
        if matches!(acquire(task, &asked).await, Outcome::Ended { .. }) {
            task.world.covered("repeated request answered as ended");
        }
    }
}

async fn acquire(task: &Task, asked: &Asked) -> Outcome {
    let op = task.world.invoke(&task.name, asked.call());
    let mut acquiring = task.client.acquire(asked.request());
    let outcome = loop {
        match acquiring.next().await {
            Err(error) => break convert::failed(&error),
            Ok(None) => break Outcome::Unknown { error: "no decision".into() },
            Ok(Some(answer)) => {
                let revision = answer.header.map_or(0, |header| header.revision);
                match answer.result {
                    Some(Answer::Queued(queued)) => {
                        task.world.record(What::Queued { op, position: queued.position });
                        // Streams break without telling, and the SDK mends them: from here on it may be skipped.
                        if task.world.plan.faults {
                            task.world.record(What::Detached { op });
                        }
                    }
                    Some(Answer::Granted(granted)) => {
                        let lease = convert::state(&granted.lease.unwrap_or_default());
                        break Outcome::Granted { lease, must_renew: granted.must_renew, revision };
                    }
                    Some(Answer::Denied(_)) if acquiring.is_repeated() => {
                        break Outcome::Unknown { error: "denied, but an earlier attempt may still arrive".into() };
                    }
                    Some(Answer::Denied(denied)) => break Outcome::Denied { lease: convert::state(&denied.lease.unwrap_or_default()), revision },
                    Some(Answer::Ended(ended)) => {
                        break Outcome::Ended { token: ended.token, reason: convert::wire_reason(ended.reason()).unwrap_or(EndReason::UnknownToken) };
                    }
                    None => break Outcome::Unknown { error: "an empty answer".into() },
                }
            }
        }
    };
    task.world.returned(op, outcome.clone());
    outcome
}

pub(crate) async fn renew(task: &Task, name: &str, token: u64, duration: Option<Duration>) -> Outcome {
    let op = task.world.invoke(&task.name, Call::Renew { lease: full(name), token, duration_ms: duration.map(ms) });
    let duration = duration.and_then(|duration| duration.try_into().ok());
    let item = v1::RenewItem { token, namespace: NAMESPACE.into(), name: name.into(), duration };
    let outcome = match task.client.renew(vec![item]).await {
        Err(error) => convert::failed(&error),
        Ok(answer) => {
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            match answer.results.into_iter().next().and_then(|result| result.result) {
                Some(renew_result::Result::Renewed(renewed)) => Outcome::Renewed { duration_ms: convert::milliseconds(renewed.duration), revision },
                Some(renew_result::Result::Lost(lost)) => Outcome::Lost {
                    reason: convert::wire_reason(lost.reason()).unwrap_or(EndReason::UnknownToken),
                    holder: if lost.holder.is_empty() { None } else { Some(lost.holder) },
                },
                None => Outcome::Unknown { error: "an empty answer".into() },
            }
        }
    };
    task.world.returned(op, outcome.clone());
    outcome
}

pub(crate) async fn release(task: &Task, name: &str, token: u64) -> Option<Released> {
    let op = task.world.invoke(&task.name, Call::Release { lease: full(name), token, holder: String::new(), request_id: String::new() });
    let request = v1::ReleaseRequest { namespace: NAMESPACE.into(), name: name.into(), token, ..v1::ReleaseRequest::default() };
    send_release(task, op, request).await
}

pub(crate) async fn give_up(task: &Task, asked: &Asked) {
    let Asked { name, holder, request_id, .. } = asked.clone();
    let op = task.world.invoke(&task.name, Call::Release { lease: full(&name), token: 0, holder: holder.clone(), request_id: request_id.clone() });
    let request = v1::ReleaseRequest { namespace: NAMESPACE.into(), name, token: 0, request_id, holder };
    send_release(task, op, request).await;
}

async fn send_release(task: &Task, op: u64, request: v1::ReleaseRequest) -> Option<Released> {
    match task.client.release(request).await {
        Err(error) => {
            task.world.returned(op, convert::failed(&error));
            None
        }
        Ok(answer) => {
            let did = convert::released(answer.outcome());
            let lease = answer.lease.as_ref().map(convert::state);
            task.world.returned(op, Outcome::Released { did, lease, revision: answer.header.map_or(0, |header| header.revision) });
            Some(did)
        }
    }
}

async fn put(task: &mut Task) {
    let (name, must_not_exist) = (task.lease(), task.rng.random_bool(0.3));
    let op = task.world.invoke(&task.name, Call::Put { lease: full(&name), must_not_exist, edit: String::new() });
    let labels = [("weather".to_owned(), format!("w{}", task.rng.random_range(0..3)))].into();
    let request = v1::PutRequest { namespace: NAMESPACE.into(), name, labels, must_not_exist, ..v1::PutRequest::default() };
    let outcome = match task.client.put(request).await {
        // The header is not shown by this call.
        Ok(lease) => Outcome::Put { lease: convert::state(&lease), revision: 0 },
        Err(error) => convert::failed(&error),
    };
    task.world.returned(op, outcome);
}

async fn delete(task: &mut Task) {
    let (name, force) = (task.lease(), task.rng.random_bool(0.2));
    let op = task.world.invoke(&task.name, Call::Delete { lease: full(&name), force });
    let request = v1::DeleteRequest { namespace: NAMESPACE.into(), name, force, ..v1::DeleteRequest::default() };
    let outcome = match task.client.delete(request).await {
        Ok(lease) => Outcome::Deleted { lease: convert::state(&lease), revision: 0 },
        Err(error) => convert::failed(&error),
    };
    task.world.returned(op, outcome);
}
