//! Commands from the replica that took a call to the raft leader, over one long-lived stream: [`Forwarder`] sends, [`serve`] answers.
//!
//! Neither side waits for more to come: a message carries what there is. A command that was put on a stream is never put on another by this
//! module: when its stream breaks, its outcome is not known, and the `Router` decides.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream::BoxStream};
use tenure_proto::peer::v1::{self as peer, ForwardRequest, ForwardResponse, Job as WireJob, JobError, JobResult, job_result};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    Proposer,
    lanes::{Answer, Answers, Done, Job, Lane, Lanes, Undone},
    rules::{self, Violation},
};
use crate::{
    consensus::{Leadership, Node},
    peer::Peers,
};

/// Bounds of one message; its bytes are below every limit on a message between peers.
const MESSAGE_JOBS: usize = 4_096;
const MESSAGE_BYTES: usize = 1 << 20;

/// Messages on their way into a stream. More only hide that the raft leader is behind.
const MESSAGES: usize = 4;

/// For opening a stream; a raft leader that takes longer is as good as gone.
const OPEN_TIMEOUT: Duration = Duration::from_millis(500);

/// Between attempts to open one, doubling.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// This replica's stream to the raft leader, whoever that is.
pub(super) struct Forwarder {
    pub(super) lanes: Lanes,
    peers: Peers,
    unanswered: usize,
    /// Where the calls of this replica are served, if that is another thread.
    clients: Option<Handle>,
}

impl Forwarder {
    /// `limit`: commands that may wait in each lane, and as many again of each that may be unanswered.
    pub(super) fn new(peers: Peers, limit: usize, clients: Option<Handle>) -> Self {
        Self { lanes: Lanes::new(limit), peers, unanswered: limit, clients }
    }

    /// Until `stopping`.
    pub(super) async fn run(&self, me: u64, mut leadership: watch::Receiver<Leadership>, stopping: &CancellationToken) {
        let carry = async {
            let mut pause = PAUSE;
            loop {
                let Some((id, node)) = elsewhere(&leadership.borrow_and_update(), me) else {
                    if leadership.changed().await.is_err() {
                        return;
                    }
                    pause = PAUSE;
                    continue;
                };
                self.lanes.open();
                // Only a change of who leads ends a stream, not every news about the cluster.
                let mut watching = leadership.clone();
                let elected_another = watching.wait_for(|now| elsewhere(now, me).is_none_or(|(now, _)| now != id));
                let result = tokio::select! {
                    result = self.session(id, &node) => result,
                    _ = elected_another => Ok(()),
                };
                // What was not sent yet is for the next raft leader; its senders look for it.
                self.lanes.close(Undone::NotLeader);
                match result {
                    Ok(()) => pause = PAUSE,
                    Err(error) => {
                        tracing::debug!(raft_leader = id, error = %error.message(), "the stream to the raft leader broke");
                        // Whoever comes meanwhile is told at once.
                        tokio::select! {
                            () = tokio::time::sleep(pause) => {}
                            _ = leadership.changed() => {}
                        }
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        };
        tokio::select! {
            () = carry => {}
            () = stopping.cancelled() => {}
        }
        self.lanes.close(Undone::Stopped);
    }

    /// One stream, from opening to its end.
    async fn session(&self, id: u64, node: &Node) -> Result<(), Status> {
        let mut client = self.peers.dial(id, node);
        let (out, messages) = mpsc::channel(MESSAGES);
        let opening = tokio::time::timeout(OPEN_TIMEOUT, client.forward(ReceiverStream::new(messages)));
        let mut results = opening.await.map_err(|_| Status::deadline_exceeded("not opened in time"))??.into_inner();
        let mut unanswered = Unanswered::default();
        loop {
            tokio::select! {
                biased;
                message = results.message() => {
                    let message = message?.ok_or_else(|| Status::unavailable("the raft leader ended the stream"))?;
                    let mut answers = Answers::new(self.clients.as_ref());
                    for result in message.results {
                        unanswered.answer(result, &mut answers)?;
                    }
                }
                room = self.room(&out, &unanswered) => {
                    let (permit, lanes) = room?;
                    let jobs = match lanes {
                        Room::ForAll => self.lanes.drain(MESSAGE_JOBS, MESSAGE_BYTES),
                        Room::ForFirst => self.lanes.drain_first(MESSAGE_JOBS, MESSAGE_BYTES),
                    };
                    if !jobs.is_empty() {
                        let jobs = jobs.into_iter().map(|job| WireJob { command: Some((*job.command).clone()), id: unanswered.ask(job) });
                        permit.send(ForwardRequest { jobs: jobs.collect() });
                    }
                }
            }
        }
    }

    /// Resolves when there is work and room for it. Writes without an answer take no room from renewals.
    async fn room<'a>(&self, out: &'a mpsc::Sender<ForwardRequest>, unanswered: &Unanswered) -> Result<(mpsc::Permit<'a, ForwardRequest>, Room), Status> {
        if unanswered.first >= self.unanswered {
            std::future::pending::<()>().await;
        }
        let permit = out.reserve().await.map_err(|_| Status::unavailable("the stream is closed"))?;
        Ok(if unanswered.rest >= self.unanswered {
            self.lanes.wait_first().await;
            (permit, Room::ForFirst)
        } else {
            self.lanes.wait().await;
            (permit, Room::ForAll)
        })
    }
}

/// Of which lanes more may be sent.
enum Room {
    ForAll,
    ForFirst,
}

/// The raft leader, if it is another replica.
fn elsewhere(leadership: &Leadership, me: u64) -> Option<(u64, Node)> {
    let id = leadership.raft_leader.filter(|id| *id != me)?;
    Some((id, leadership.nodes.get(&id)?.node.clone()))
}

/// Commands put on a stream, by id. Dropped with it, they say that their outcome is not known.
#[derive(Default)]
struct Unanswered {
    /// Id of the oldest.
    base: u64,
    answers: VecDeque<Option<(Lane, Answer)>>,
    /// Of the lane that goes first.
    first: usize,
    /// Of the other.
    rest: usize,
}

impl Unanswered {
    fn of(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::First => &mut self.first,
            Lane::Rest => &mut self.rest,
        }
    }

    fn ask(&mut self, job: Job) -> u64 {
        let lane = job.lane();
        *self.of(lane) += 1;
        self.answers.push_back(Some((lane, job.answer)));
        self.base + self.answers.len() as u64 - 1
    }

    fn answer(&mut self, result: JobResult, answers: &mut Answers<'_>) -> Result<(), Status> {
        let index = result.id.checked_sub(self.base).and_then(|index| usize::try_from(index).ok());
        let answer = index.and_then(|index| self.answers.get_mut(index)?.take());
        let (lane, answer) = answer.ok_or_else(|| Status::internal("the raft leader answered what was not asked"))?;
        *self.of(lane) -= 1;
        answers.send(answer, done_from_wire(result.result));
        while let Some(None) = self.answers.front() {
            self.answers.pop_front();
            self.base += 1;
        }
        Ok(())
    }
}

fn done_from_wire(result: Option<job_result::Result>) -> Done {
    match result {
        Some(job_result::Result::Outcome(outcome)) => Ok(outcome),
        Some(job_result::Result::Error(error)) => Err(match JobError::try_from(error) {
            Ok(JobError::NotLeader) => Undone::NotLeader,
            Ok(JobError::Overloaded) => Undone::Overloaded,
            _ => Undone::Unknown,
        }),
        Some(job_result::Result::Violations(peer::Violations { violations })) => {
            let violation = |peer::Violation { field, description }| Violation { field, description };
            Err(Undone::Invalid(violations.into_iter().map(violation).collect()))
        }
        None => Err(Undone::Unknown),
    }
}

fn done_to_wire(id: u64, done: Done) -> JobResult {
    let error = |error: JobError| job_result::Result::Error(error.into());
    let result = match done {
        Ok(outcome) => job_result::Result::Outcome(outcome),
        Err(Undone::NotLeader | Undone::Stopped) => error(JobError::NotLeader),
        Err(Undone::Overloaded) => error(JobError::Overloaded),
        Err(Undone::Unknown) => error(JobError::OutcomeUnknown),
        Err(Undone::Invalid(violations)) => {
            let violation = |Violation { field, description }| peer::Violation { field, description };
            job_result::Result::Violations(peer::Violations { violations: violations.into_iter().map(violation).collect() })
        }
    };
    JobResult { id, result: Some(result) }
}

/// The raft leader's side of `PeerService.Forward`: answers in any order, batching what is ready. Ends when the peer has ended its side and
/// everything is answered, or at the peer's error.
pub(crate) fn serve<S>(proposer: &Proposer, requests: S) -> BoxStream<'static, Result<ForwardResponse, Status>>
where
    S: Stream<Item = Result<ForwardRequest, Status>> + Send + Unpin + 'static,
{
    let (to, answers) = mpsc::unbounded_channel();
    let served = Served { proposer: proposer.clone(), requests: Some(requests), to, answers, unanswered: 0 };
    futures::stream::unfold(served, Served::next).boxed()
}

struct Served<S> {
    proposer: Proposer,
    /// `None`: the peer has nothing more to ask.
    requests: Option<S>,
    to: mpsc::UnboundedSender<(u64, Done)>,
    answers: mpsc::UnboundedReceiver<(u64, Done)>,
    unanswered: usize,
}

impl<S: Stream<Item = Result<ForwardRequest, Status>> + Send + Unpin> Served<S> {
    async fn next(mut self) -> Option<(Result<ForwardResponse, Status>, Self)> {
        let mut ready = Vec::new();
        loop {
            let open = self.requests.is_some();
            let request = async {
                match &mut self.requests {
                    Some(requests) => requests.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                n = self.answers.recv_many(&mut ready, MESSAGE_JOBS), if self.unanswered > 0 => {
                    self.unanswered -= n;
                    let results = ready.drain(..).map(|(id, done)| done_to_wire(id, done)).collect();
                    return Some((Ok(ForwardResponse { results }), self));
                }
                request = request, if open => match request {
                    Some(Ok(request)) => self.enqueue(request),
                    // The peer is gone; nobody is there to hear an error.
                    Some(Err(_)) => return None,
                    None => self.requests = None,
                },
                else => return None,
            }
        }
    }

    fn enqueue(&mut self, request: ForwardRequest) {
        for job in request.jobs {
            self.unanswered += 1;
            let answer = Answer::on_stream(job.id, self.to.clone());
            let command = job.command.unwrap_or_default();
            // What no client may ask for, and what no replica can apply, must never reach the log.
            match rules::check(&command, self.proposer.limits()) {
                Ok(()) => self.proposer.enqueue(Arc::new(command), answer),
                Err(violations) => answer.send(Err(Undone::Invalid(violations))),
            }
        }
    }
}
