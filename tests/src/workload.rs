//! Holders as the SDK has them, but with bookkeeping: each computes its own deadline from its own clock (DESIGN section 4) and records what it
//! believed. They use the wire directly: the SDK must not be judged by itself.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use tenure_checker::history::{Belief, Call, Outcome as Answer, What};

use crate::{
    api::{self, Api, may_retry, millis, to_millis},
    clock,
    history::{History, reason, released, state, unknown},
    v1::{self, acquire_response, renew_result},
};

/// Longest wait for one answer before another replica is asked.
const ATTEMPT: Duration = Duration::from_millis(700);

/// Who wants which lease, and how it keeps it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Namespace.
    pub namespace: String,
    /// Lease.
    pub lease: String,
    /// Identity; unique in the test.
    pub holder: String,
    /// Asked for.
    pub duration_ms: u64,
    /// Between renewals.
    pub every: Duration,
    /// How long to queue.
    pub wait_ms: Option<u64>,
    /// Labels of a lease that the acquire creates.
    pub labels: Vec<(String, String)>,
    /// Replicas, tried in turn from the first.
    pub replicas: Vec<Api>,
}

impl Plan {
    /// Renews every third of the duration, starting at replica number `first`.
    #[must_use]
    pub fn new(namespace: &str, lease: &str, holder: &str, duration_ms: u64, replicas: &[Api], first: usize) -> Self {
        let mut replicas = replicas.to_vec();
        let first = first % replicas.len().max(1);
        replicas.rotate_left(first);
        Self {
            namespace: namespace.into(),
            lease: lease.into(),
            holder: holder.into(),
            duration_ms,
            every: Duration::from_millis(duration_ms / 3),
            wait_ms: None,
            labels: Vec::new(),
            replicas,
        }
    }
}

/// How a hold shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By Release.
    Release,
    /// By saying nothing more.
    Silence,
}

/// How a hold came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Never got it: somebody else had it.
    Denied,
    /// The request was ended before a grant was seen.
    Ended,
    /// As it was told.
    Stopped(Ending),
    /// The cluster said so.
    Lost(v1::EndReason),
    /// Its own deadline passed.
    DeadlinePassed,
}

/// One hold, looked at afterwards.
#[derive(Clone, Debug)]
pub struct Hold {
    /// 0 if there was none.
    pub token: u64,
    /// Acknowledged renewals.
    pub renewals: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was silenced, released or lost.
    pub ended_at: u64,
    /// The last deadline it computed.
    pub deadline: u64,
}

/// A holder in a task of its own.
#[derive(Debug)]
pub struct Holder {
    /// Its plan.
    pub plan: Plan,
    stop: watch::Sender<Option<Ending>>,
    holds: watch::Receiver<u64>,
    task: JoinHandle<Hold>,
}

impl Holder {
    /// Acquires and keeps the lease until told to stop.
    #[must_use]
    pub fn spawn(plan: Plan, history: Arc<History>) -> Self {
        let (stop, mut told) = watch::channel(None);
        let (granted, holds) = watch::channel(0);
        let own = plan.clone();
        let task = tokio::spawn(async move {
            let stopped = async move {
                match told.wait_for(Option::is_some).await {
                    Ok(ending) => ending.unwrap_or(Ending::Silence),
                    Err(_) => Ending::Silence,
                }
            };
            hold(&own, &history, stopped, Some(granted)).await
        });
        Self { plan, stop, holds, task }
    }

    /// Waits for the grant; its token.
    pub async fn granted(&mut self) -> anyhow::Result<u64> {
        match tokio::time::timeout(crate::replica::PATIENCE, self.holds.wait_for(|token| *token > 0)).await {
            Ok(Ok(token)) => Ok(*token),
            Ok(Err(_)) => anyhow::bail!("{} ended without a grant", self.plan.holder),
            Err(_) => anyhow::bail!("{} has no grant of {}", self.plan.holder, self.plan.lease),
        }
    }

    /// Ends it and says how it went.
    pub async fn stop(self, ending: Ending) -> anyhow::Result<Hold> {
        self.stop.send_replace(Some(ending));
        Ok(self.task.await?)
    }
}

/// A stream of renewals to one replica.
struct Renewals {
    requests: mpsc::Sender<v1::RenewRequest>,
    answers: Streaming<v1::RenewResponse>,
}

impl Renewals {
    /// The result, and the revision of the answer's header.
    async fn renew(open: &mut Option<Self>, api: &Api, request: v1::RenewRequest) -> Result<(v1::RenewResult, u64), Status> {
        let renewals = if let Some(renewals) = open.as_mut() {
            renewals.requests.send(request).await.map_err(|_| Status::unavailable("the stream of renewals ended"))?;
            renewals
        } else {
            let (requests, receiver) = mpsc::channel(4);
            requests.send(request).await.map_err(|_| Status::unavailable("closed"))?;
            let answers = api.lease.clone().renew(ReceiverStream::new(receiver)).await?.into_inner();
            open.insert(Self { requests, answers })
        };
        let answer = renewals.answers.message().await?.ok_or_else(|| Status::unavailable("the stream of renewals ended"))?;
        let revision = answer.header.map_or(0, |header| header.revision);
        Ok((answer.results.into_iter().next().ok_or_else(|| Status::internal("an answer without a result"))?, revision))
    }
}

/// The deadline that a holder computes: 0.2 % and 1 ms before the cluster's, by its own clock, from before the send.
#[must_use]
pub fn deadline(sent: u64, duration_ms: u64) -> u64 {
    sent + (duration_ms * 998_000).saturating_sub(1_000_000)
}

async fn sleep_until(at: u64) {
    tokio::time::sleep(Duration::from_nanos(at.saturating_sub(clock::now()))).await;
}

enum Got {
    Granted { token: u64, must_renew: bool },
    Not(Outcome),
}

/// Asks until there is an answer; the same request each time: one operation.
async fn ask(plan: &Plan, history: &History, op: u64, request: &v1::AcquireRequest, turn: &mut usize) -> Got {
    let longest = plan.wait_ms.map_or(ATTEMPT, |ms| ATTEMPT + Duration::from_millis(ms));
    loop {
        let api = &plan.replicas[*turn % plan.replicas.len()];
        let mut queued = false;
        let attempt = async {
            let mut answers = api.lease.clone().acquire(request.clone()).await?.into_inner();
            while let Some(answer) = answers.message().await? {
                let revision = answer.header.map_or(0, |header| header.revision);
                match answer.result {
                    Some(acquire_response::Result::Granted(v1::Granted { lease: Some(lease), must_renew })) => {
                        history.end(op, Answer::Granted { lease: state(&lease), must_renew, revision });
                        return Ok(Got::Granted { token: lease.token, must_renew });
                    }
                    Some(acquire_response::Result::Denied(v1::Denied { lease })) => {
                        history.end(op, Answer::Denied { lease: lease.as_ref().map(state).unwrap_or_default(), revision });
                        return Ok(Got::Not(Outcome::Denied));
                    }
                    Some(acquire_response::Result::Ended(ended)) => {
                        let reason = reason(ended.reason()).ok_or_else(|| Status::internal("ended without a reason"))?;
                        history.end(op, Answer::Ended { token: ended.token, reason });
                        return Ok(Got::Not(Outcome::Ended));
                    }
                    Some(acquire_response::Result::Queued(v1::Queued { position, .. })) => {
                        queued = true;
                        history.record(What::Queued { op, position });
                    }
                    Some(acquire_response::Result::Granted(_)) | None => {}
                }
            }
            Err(Status::unavailable("Acquire ended without an answer"))
        };
        match tokio::time::timeout(longest, attempt).await {
            Ok(Ok(got)) => return got,
            Ok(Err(status)) if may_retry(&status) => {}
            Ok(Err(status)) => history.refusal(format!("Acquire of {} at {}: {status}", plan.lease, api.addr)),
            Err(_) => {}
        }
        if queued {
            history.record(What::Detached { op });
        }
        *turn += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Acquires, renews until `stopped`, and records everything.
pub async fn hold(plan: &Plan, history: &History, stopped: impl Future<Output = Ending>, granted: Option<watch::Sender<u64>>) -> Hold {
    let mut turn = 0;
    let sent = clock::now();
    let request = v1::AcquireRequest {
        request_id: format!("{}-{sent}", plan.holder),
        wait_for: plan.wait_ms.and_then(millis),
        labels: plan.labels.iter().cloned().collect(),
        ..api::acquire(&plan.namespace, &plan.lease, &plan.holder, plan.duration_ms)
    };
    let lease = format!("{}/{}", plan.namespace, plan.lease);
    let call = Call::Acquire {
        lease: lease.clone(),
        holder: plan.holder.clone(),
        request_id: request.request_id.clone(),
        duration_ms: plan.duration_ms,
        wait_ms: plan.wait_ms,
        reclaim: false,
    };
    let op = history.begin(&plan.holder, call);
    let (token, must_renew) = match ask(plan, history, op, &request, &mut turn).await {
        Got::Granted { token, must_renew } => (token, must_renew),
        Got::Not(outcome) => return Hold { token: 0, renewals: 0, outcome, ended_at: clock::now(), deadline: 0 },
    };

    // Not "mine" yet when a renewal must come first: then the belief begins with its answer.
    let mut believes = !must_renew;
    let belief = history.number();
    let believe = |deadline| history.record(What::Believe(Belief { belief, lease: lease.clone(), holder: plan.holder.clone(), token, deadline }));
    let mut until = deadline(sent, plan.duration_ms);
    let mut next = if must_renew { clock::now() } else { clock::now() + clock::nanos(plan.every) };
    let mut renewals = 0;
    let mut stream = None;
    let mut stopped = std::pin::pin!(stopped);
    if believes {
        believe(until);
        if let Some(granted) = granted.as_ref() {
            granted.send_replace(token);
        }
    }

    let outcome = loop {
        let last_word = if believes { until } else { until + 5_000_000_000 };
        tokio::select! {
            biased;
            ending = &mut stopped => break Outcome::Stopped(ending),
            () = sleep_until(last_word) => break Outcome::DeadlinePassed,
            () = sleep_until(next) => {}
        }
        let renewal_sent = clock::now();
        let op = history.begin(&plan.holder, Call::Renew { lease: lease.clone(), token, duration_ms: None });
        let request = v1::RenewRequest { items: vec![api::renewal(token)] };
        let api = &plan.replicas[turn % plan.replicas.len()];
        let answer = tokio::select! {
            answer = tokio::time::timeout(ATTEMPT, Renewals::renew(&mut stream, api, request)) => answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))),
            ending = &mut stopped => break Outcome::Stopped(ending),
        };
        match answer {
            Ok((v1::RenewResult { result: Some(renew_result::Result::Renewed(renewed)) }, revision)) => {
                let ms = to_millis(renewed.duration.as_ref());
                history.end(op, Answer::Renewed { duration_ms: ms, revision });
                // A late answer revives nothing.
                if believes && clock::now() >= until {
                    break Outcome::DeadlinePassed;
                }
                renewals += 1;
                until = if believes { until.max(deadline(renewal_sent, ms)) } else { deadline(renewal_sent, ms) };
                believe(until);
                if !believes {
                    believes = true;
                    if let Some(granted) = granted.as_ref() {
                        granted.send_replace(token);
                    }
                }
                next = renewal_sent + clock::nanos(plan.every);
            }
            Ok((v1::RenewResult { result: Some(renew_result::Result::Lost(lost)) }, _)) => {
                if let Some(reason) = reason(lost.reason()) {
                    history.end(op, Answer::Lost { reason, holder: Some(lost.holder.clone()).filter(|holder| !holder.is_empty()) });
                }
                break Outcome::Lost(lost.reason());
            }
            Ok((v1::RenewResult { result: None }, _)) => {
                history.refusal(format!("Renew of {} at {}: an empty result", plan.lease, api.addr));
                next = clock::now() + 5_000_000;
            }
            Err(status) => {
                history.end(op, unknown(&status));
                if !may_retry(&status) {
                    history.refusal(format!("Renew of {} at {}: {status}", plan.lease, api.addr));
                }
                stream = None;
                turn += 1;
                next = clock::now() + 5_000_000;
            }
        }
    };

    let ended_at = clock::now();
    // One who falls silent believes to the end.
    if believes && outcome != Outcome::Stopped(Ending::Silence) && ended_at < until {
        history.record(What::Doubt { belief });
    }
    if outcome == Outcome::Stopped(Ending::Release) {
        release(plan, history, &lease, token, &mut turn).await;
    }
    Hold { token, renewals, outcome, ended_at, deadline: until }
}

async fn release(plan: &Plan, history: &History, lease: &str, token: u64, turn: &mut usize) {
    let sent = clock::now();
    // A release is worth retrying only as long as the lease lives. Each attempt is an operation: the first may have done it.
    while clock::since(sent) < Duration::from_millis(plan.duration_ms) {
        let api = &plan.replicas[*turn % plan.replicas.len()];
        let op = history.begin(&plan.holder, Call::Release { lease: lease.to_owned(), token, holder: String::new(), request_id: String::new() });
        match tokio::time::timeout(ATTEMPT, api.release(&plan.namespace, &plan.lease, token)).await {
            Ok(Ok(answer)) => {
                history.end(op, released(&answer));
                return;
            }
            Ok(Err(status)) if !may_retry(&status) => {
                history.refusal(format!("Release of {} at {}: {status}", plan.lease, api.addr));
                return;
            }
            _ => {}
        }
        *turn += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
