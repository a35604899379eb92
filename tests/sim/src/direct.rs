//! Calls to one replica, as those make them who have no SDK: edits that are sent once, whatever becomes of them; and askers who lose patience with
//! one replica and take up their grant at another.

use std::time::Duration;

use futures::StreamExt as _;
use rand::Rng as _;
use tenure_checker::history::{Call, Outcome};
use tenure_client::v1::{self, acquire_response::Result as Answer, lease_service_client::LeaseServiceClient, renew_result};
use tokio::time::{sleep, timeout};
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    asking::{self, Asked, full},
    client::{NAMESPACE, Task},
    convert,
    net::{CLIENT_PORT, address},
};

/// The label by which an edit is known again.
pub(crate) const EDIT: &str = "edit";

/// All edit the same one, so that what is done twice has something of another's in between.
const EDITED: &str = "notes";

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections of one task's, one to each replica.
pub(crate) fn replicas(task: &Task) -> Vec<(String, Channel)> {
    let each = (1..=task.world.plan.replicas).map(|id| {
        let node = format!("n{id}");
        let endpoint = Endpoint::from_shared(format!("http://{}", address(&node, CLIENT_PORT))).expect("a host and a port");
        let channel = task.dialer.channel(&endpoint.connect_timeout(Duration::from_secs(1)));
        (node, channel)
    });
    each.collect()
}

fn with_patience<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(PATIENCE);
    request
}

/// What the lease table says is certain; of anything else nobody knows what became.
fn failed(status: &Status) -> Outcome {
    match status.code() {
        Code::AlreadyExists | Code::NotFound | Code::FailedPrecondition => Outcome::Refused { reason: status.to_string() },
        _ => Outcome::Unknown { error: status.to_string() },
    }
}

/// Puts, each of something of its own, and deletes; one after the other. Until the run winds down.
pub(crate) async fn edit(mut task: Task) {
    let replicas = replicas(&task);
    let mut count = 0;
    while !task.world.is_winding_down() {
        let pause = task.between(10, 300);
        sleep(pause).await;
        let (node, channel) = replicas[task.rng.random_range(0..replicas.len())].clone();
        let client = LeaseServiceClient::new(channel);
        count += 1;
        let outcome = if task.rng.random_bool(0.15) { delete(&task, node, client).await } else { put(&task, node, client, count).await };
        if matches!(outcome, Outcome::Unknown { .. }) {
            task.world.covered("edit without an answer");
        }
    }
}

async fn put(task: &Task, node: String, mut client: LeaseServiceClient<Channel>, count: u64) -> Outcome {
    let edit = format!("{}-{count}", task.name);
    let op = task.world.invoke_at(&task.name, node, Call::Put { lease: full(EDITED), must_not_exist: false, edit: edit.clone() });
    let labels = [(EDIT.to_owned(), edit)].into();
    let request = v1::PutRequest { namespace: NAMESPACE.into(), name: EDITED.into(), labels, ..v1::PutRequest::default() };
    let outcome = match timeout(PATIENCE, client.put(with_patience(request))).await {
        Ok(Ok(answer)) => {
            let answer = answer.into_inner();
            Outcome::Put { lease: convert::state(&answer.lease.unwrap_or_default()), revision: answer.header.map_or(0, |header| header.revision) }
        }
        Ok(Err(status)) => failed(&status),
        Err(_) => Outcome::Unknown { error: "no answer".into() },
    };
    task.world.returned(op, outcome.clone());
    outcome
}

async fn delete(task: &Task, node: String, mut client: LeaseServiceClient<Channel>) -> Outcome {
    let op = task.world.invoke_at(&task.name, node, Call::Delete { lease: full(EDITED), force: false });
    let request = v1::DeleteRequest { namespace: NAMESPACE.into(), name: EDITED.into(), ..v1::DeleteRequest::default() };
    let outcome = match timeout(PATIENCE, client.delete(with_patience(request))).await {
        Ok(Ok(answer)) => {
            let answer = answer.into_inner();
            Outcome::Deleted { lease: convert::state(&answer.lease.unwrap_or_default()), revision: answer.header.map_or(0, |header| header.revision) }
        }
        Ok(Err(status)) => failed(&status),
        Err(_) => Outcome::Unknown { error: "no answer".into() },
    };
    task.world.returned(op, outcome.clone());
    outcome
}

/// Asks one replica with little patience, then another with the same request id, and renews there at once. Leases of its own, so that each is free.
/// Until the run winds down.
pub(crate) async fn turn(mut task: Task) {
    let replicas = replicas(&task);
    let mut count = 0;
    while !task.world.is_winding_down() {
        let pause = task.between(10, 400);
        sleep(pause).await;
        count += 1;
        let duration = Duration::from_millis([400, 1_000, 2_500][task.rng.random_range(0..3)]);
        let name = format!("{}-{}", task.machine, count % 5);
        let asked = Asked { name, holder: task.fresh(), request_id: task.fresh(), duration, wait: None };
        let first = task.rng.random_range(0..replicas.len());
        let patience = task.between(3, 60);
        let mut outcome = acquire(&task, &asked, &replicas[first], patience).await;
        let mut at = first;
        if matches!(outcome, Outcome::Unknown { .. }) {
            at = (first + task.rng.random_range(1..replicas.len())) % replicas.len();
            outcome = match acquire(&task, &asked, &replicas[at], PATIENCE).await {
                granted @ Outcome::Granted { .. } => granted,
                Outcome::Ended { .. } => continue,
                _ => {
                    asking::give_up(&task, &asked).await;
                    continue;
                }
            };
        }
        let Outcome::Granted { lease, .. } = outcome else { continue };
        keep(&mut task, &asked, lease.token, &replicas[at], at != first).await;
    }
}

/// Renews a few times, where it was granted, and releases it or lets it run out.
async fn keep(task: &mut Task, asked: &Asked, token: u64, replica: &(String, Channel), elsewhere: bool) {
    for n in 0..task.rng.random_range(1..4) {
        if n > 0 {
            let pause = asked.duration.mul_f64(task.rng.random_range(0.1..0.5)).min(Duration::from_millis(400));
            sleep(pause).await;
        }
        match renew(task, &asked.name, token, replica).await {
            Outcome::Renewed { .. } if n == 0 && elsewhere => task.world.covered("grant taken up at another replica"),
            Outcome::Lost { .. } => return,
            _ => {}
        }
    }
    if task.rng.random_bool(0.8) {
        asking::release(task, &asked.name, token).await;
    }
}

async fn acquire(task: &Task, asked: &Asked, (node, channel): &(String, Channel), patience: Duration) -> Outcome {
    let op = task.world.invoke_at(&task.name, node.clone(), asked.call());
    let mut client = LeaseServiceClient::new(channel.clone());
    let answered = timeout(patience, async {
        let mut answers = client.acquire(Request::new(asked.request())).await?.into_inner();
        let answer = answers.message().await?;
        // To its end, which tells the replica that the answer was taken.
        answers.message().await?;
        Ok::<_, Status>(answer)
    });
    let outcome = match answered.await {
        Ok(Ok(Some(answer))) => {
            let revision = answer.header.map_or(0, |header| header.revision);
            match answer.result {
                Some(Answer::Granted(granted)) => {
                    Outcome::Granted { lease: convert::state(&granted.lease.unwrap_or_default()), must_renew: granted.must_renew, revision }
                }
                Some(Answer::Ended(ended)) => match convert::wire_reason(ended.reason()) {
                    Some(reason) => Outcome::Ended { token: ended.token, reason },
                    None => Outcome::Unknown { error: "ended for no reason".into() },
                },
                // An attempt before this one may yet arrive.
                _ => Outcome::Unknown { error: "no grant".into() },
            }
        }
        Ok(Ok(None)) => Outcome::Unknown { error: "no decision".into() },
        Ok(Err(status)) => Outcome::Unknown { error: status.to_string() },
        Err(_) => Outcome::Unknown { error: "no answer".into() },
    };
    task.world.returned(op, outcome.clone());
    outcome
}

async fn renew(task: &Task, name: &str, token: u64, (node, channel): &(String, Channel)) -> Outcome {
    let op = task.world.invoke_at(&task.name, node.clone(), Call::Renew { lease: full(name), token, duration_ms: None });
    let item = v1::RenewItem { token, namespace: NAMESPACE.into(), name: name.into(), duration: None };
    let request = futures::stream::iter([v1::RenewRequest { items: vec![item] }]);
    let mut client = LeaseServiceClient::new(channel.clone());
    let answered = timeout(PATIENCE, async { client.renew(request).await?.into_inner().next().await.transpose() });
    let outcome = match answered.await {
        Ok(Ok(Some(answer))) => {
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            match answer.results.into_iter().next().and_then(|result| result.result) {
                Some(renew_result::Result::Renewed(renewed)) => Outcome::Renewed { duration_ms: convert::milliseconds(renewed.duration), revision },
                Some(renew_result::Result::Lost(lost)) => match convert::wire_reason(lost.reason()) {
                    Some(reason) => Outcome::Lost { reason, holder: if lost.holder.is_empty() { None } else { Some(lost.holder) } },
                    None => Outcome::Unknown { error: "lost for no reason".into() },
                },
                None => Outcome::Unknown { error: "an empty answer".into() },
            }
        }
        Ok(Ok(None)) => Outcome::Unknown { error: "no answer".into() },
        Ok(Err(status)) => Outcome::Unknown { error: status.to_string() },
        Err(_) => Outcome::Unknown { error: "no answer in time".into() },
    };
    task.world.returned(op, outcome.clone());
    outcome
}
