//! Gets and lists, from whichever replica the SDK takes and from one that was picked, most of them linearizable.

use std::time::Duration;

use rand::Rng as _;
use tenure_checker::history::{Call, Outcome};
use tenure_client::v1::{self, lease_service_client::LeaseServiceClient};
use tokio::time::{sleep, timeout};
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    asking::full,
    client::{NAMESPACE, Task},
    convert, direct,
};

/// For an answer of one replica.
const PATIENCE: Duration = Duration::from_secs(2);

/// Until the run winds down.
pub(crate) async fn read(mut task: Task) {
    let replicas = direct::replicas(&task);
    while !task.world.is_winding_down() {
        let pause = task.between(5, 250);
        sleep(pause).await;
        let stale = task.rng.random_bool(0.2);
        let name = task.rng.random_bool(0.7).then(|| task.lease());
        if task.rng.random_bool(0.4) {
            through_the_sdk(&task, name, stale).await;
        } else {
            let (node, channel) = replicas[task.rng.random_range(0..replicas.len())].clone();
            from_one(&task, name, stale, node, channel).await;
        }
    }
}

fn call(name: Option<&str>, stale: bool) -> Call {
    match name {
        Some(name) => Call::Get { lease: full(name), stale },
        None => Call::List { namespace: Some(NAMESPACE.into()), selected: false, stale },
    }
}

fn get(name: String, stale: bool) -> v1::GetRequest {
    v1::GetRequest { namespace: NAMESPACE.into(), name, stale, ..v1::GetRequest::default() }
}

fn list(stale: bool) -> v1::ListRequest {
    v1::ListRequest { namespace: NAMESPACE.into(), stale, ..v1::ListRequest::default() }
}

fn listed(answer: &v1::ListResponse) -> Outcome {
    Outcome::Listed { leases: answer.leases.iter().map(convert::state).collect(), revision: answer.header.as_ref().map_or(0, |header| header.revision) }
}

async fn through_the_sdk(task: &Task, name: Option<String>, stale: bool) {
    let op = task.world.invoke(&task.name, call(name.as_deref(), stale));
    let outcome = match name {
        Some(name) => match task.client.get(get(name, stale)).await {
            // The header is not shown by this call.
            Ok(lease) => Outcome::Got { lease: Some(convert::state(&lease)), revision: 0 },
            Err(error) if error.reason() == Some("LEASE_NOT_FOUND") => Outcome::Got { lease: None, revision: 0 },
            Err(error) => convert::failed(&error),
        },
        None => match task.client.list(list(stale)).await {
            Ok(answer) => listed(&answer),
            Err(error) => convert::failed(&error),
        },
    };
    task.world.returned(op, outcome);
}

/// A replica that is cut off, deposed or behind must know it.
async fn from_one(task: &Task, name: Option<String>, stale: bool, node: String, channel: Channel) {
    let op = task.world.invoke_at(&task.name, node, call(name.as_deref(), stale));
    let mut client = LeaseServiceClient::new(channel);
    let asked = async {
        Ok(match name {
            Some(name) => {
                let answer = client.get(in_time(get(name, stale))).await?.into_inner();
                Outcome::Got { lease: answer.lease.as_ref().map(convert::state), revision: answer.header.map_or(0, |header| header.revision) }
            }
            None => listed(&client.list(in_time(list(stale))).await?.into_inner()),
        })
    };
    let outcome = match timeout(PATIENCE, asked).await {
        Ok(Ok(outcome)) => outcome,
        // Nothing is known of when it was not there.
        Ok(Err(error)) => refused(&error),
        Err(_) => Outcome::Refused { reason: "no answer".into() },
    };
    task.world.returned(op, outcome);
}

fn in_time<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(PATIENCE);
    request
}

fn refused(error: &Status) -> Outcome {
    if error.code() == Code::NotFound { Outcome::Got { lease: None, revision: 0 } } else { Outcome::Refused { reason: error.to_string() } }
}
