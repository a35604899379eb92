//! A bounded queue of commands with two lanes, and the promise that each command in it gets exactly one answer.
//!
//! Renewals, releases and sessions go first: they keep what is held. Nothing waits here for more to come (no linger timer): whoever drains
//! takes what there is.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use prost::Message;
use tenure_proto::peer::v1::{Command, Outcome, command::Kind};
use tokio::sync::{Notify, mpsc, oneshot};

/// Why a command has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// Not applied and never will be: for the raft leader that is now.
    NotLeader,
    /// Not applied: no room.
    Overloaded,
    /// May or may not have been applied.
    Unknown,
    /// Not applied: this replica is going down.
    Stopped,
}

pub(super) type Done = Result<Outcome, Undone>;

/// Where an answer goes. Dropped without one, it says that the outcome is not known.
#[derive(Debug)]
pub(super) struct Answer(Option<To>);

#[derive(Debug)]
enum To {
    One(oneshot::Sender<Done>),
    Stream { id: u64, to: mpsc::UnboundedSender<(u64, Done)> },
}

impl Answer {
    pub(super) fn one() -> (Self, oneshot::Receiver<Done>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(To::One(sender))), receiver)
    }

    /// For a stream of many, told apart by their ids. The channel needs no bound of its own: it holds no more than the lanes let in.
    pub(super) fn on_stream(id: u64, to: mpsc::UnboundedSender<(u64, Done)>) -> Self {
        Self(Some(To::Stream { id, to }))
    }

    pub(super) fn send(mut self, done: Done) {
        self.deliver(done);
    }

    /// Whether nobody waits for it any more.
    fn is_unwanted(&self) -> bool {
        match &self.0 {
            Some(To::One(sender)) => sender.is_closed(),
            Some(To::Stream { to, .. }) => to.is_closed(),
            None => true,
        }
    }

    fn deliver(&mut self, done: Done) {
        // Who asked may be gone: nobody to tell, then.
        match self.0.take() {
            Some(To::One(sender)) => drop(sender.send(done)),
            Some(To::Stream { id, to }) => drop(to.send((id, done))),
            None => {}
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.deliver(Err(Undone::Unknown));
    }
}

/// One command on its way.
#[derive(Debug)]
pub(super) struct Job {
    /// Shared with whoever may have to send it again.
    pub(super) command: Arc<Command>,
    /// Encoded.
    pub(super) size: usize,
    pub(super) answer: Answer,
    weight: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lanes {
    queues: Mutex<Queues>,
    work: Notify,
    limit: usize,
}

#[derive(Debug)]
struct Queues {
    first: VecDeque<Job>,
    rest: VecDeque<Job>,
    weight: usize,
    /// What who comes is told while the lanes are closed.
    closed: Option<Undone>,
}

impl Lanes {
    /// Closed at first. `limit` is the weight that may wait; a renewal message weighs by its items.
    pub(super) fn new(limit: usize) -> Self {
        let queues = Queues { first: VecDeque::new(), rest: VecDeque::new(), weight: 0, closed: Some(Undone::NotLeader) };
        Self { queues: Mutex::new(queues), work: Notify::new(), limit }
    }

    /// The weight that waits.
    pub(super) fn waiting(&self) -> usize {
        self.queues.lock().weight
    }

    /// Queues a command, or answers at once why not.
    pub(super) fn push(&self, command: Arc<Command>, answer: Answer) {
        let weight = weight(&command);
        let size = command.encoded_len();
        let mut queues = self.queues.lock();
        // One is always let in, however heavy.
        let full = queues.weight > 0 && queues.weight + weight > self.limit;
        let refused = queues.closed.or(full.then_some(Undone::Overloaded));
        if let Some(undone) = refused {
            drop(queues);
            return answer.send(Err(undone));
        }
        queues.weight += weight;
        let lane = if goes_first(&command) { &mut queues.first } else { &mut queues.rest };
        lane.push_back(Job { command, size, answer, weight });
        drop(queues);
        self.work.notify_one();
    }

    /// Takes up to so many commands and (but for the first) bytes. While others wait, an eighth is kept for those that do not go first.
    pub(super) fn drain(&self, commands: usize, bytes: usize) -> Vec<Job> {
        let mut queues = self.queues.lock();
        let queues = &mut *queues;
        let waiting = queues.first.len() + queues.rest.len();
        let mut batch = Batch { jobs: Vec::with_capacity(waiting.min(commands)), bytes: 0, weight: 0 };
        let kept = if queues.rest.is_empty() { 0 } else { 8 };
        batch.take(&mut queues.first, commands - commands.checked_div(kept).unwrap_or(0), bytes - bytes.checked_div(kept).unwrap_or(0));
        batch.take(&mut queues.rest, commands, bytes);
        batch.take(&mut queues.first, commands, bytes);
        queues.weight -= batch.weight;
        batch.jobs
    }

    /// Resolves when there is something to drain. For one waiter at a time.
    pub(super) async fn wait(&self) {
        while self.is_empty() {
            self.work.notified().await;
        }
    }

    fn is_empty(&self) -> bool {
        let queues = self.queues.lock();
        queues.first.is_empty() && queues.rest.is_empty()
    }

    pub(super) fn open(&self) {
        self.queues.lock().closed = None;
    }

    /// Tells everybody who waits, and everybody who comes, `why`.
    pub(super) fn close(&self, why: Undone) {
        let (first, rest) = {
            let mut queues = self.queues.lock();
            queues.closed = Some(why);
            queues.weight = 0;
            (std::mem::take(&mut queues.first), std::mem::take(&mut queues.rest))
        };
        for job in first.into_iter().chain(rest) {
            job.answer.send(Err(why));
        }
    }
}

struct Batch {
    jobs: Vec<Job>,
    bytes: usize,
    weight: usize,
}

impl Batch {
    fn take(&mut self, lane: &mut VecDeque<Job>, commands: usize, bytes: usize) {
        while self.jobs.len() < commands {
            let fits = |job: &mut Job| self.jobs.is_empty() || self.bytes + job.size <= bytes;
            let Some(job) = lane.pop_front_if(fits) else { return };
            self.weight += job.weight;
            // Given up on before anything was done: less work for a raft leader that is behind.
            if !job.answer.is_unwanted() {
                self.bytes += job.size;
                self.jobs.push(job);
            }
        }
    }
}

fn goes_first(command: &Command) -> bool {
    matches!(command.kind, Some(Kind::Renew(_) | Kind::Release(_) | Kind::KeepSession(_)))
}

fn weight(command: &Command) -> usize {
    match &command.kind {
        Some(Kind::Renew(renew)) => renew.tokens.len() / 100 + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use tenure_proto::peer::v1::{Delete, KeepSession, Renew};

    use super::*;

    fn renew(items: usize) -> Arc<Command> {
        Arc::new(Command { kind: Some(Kind::Renew(Renew { tokens: vec![1; items], ..Renew::default() })) })
    }

    fn delete() -> Arc<Command> {
        Arc::new(Command { kind: Some(Kind::Delete(Delete::default())) })
    }

    fn open(limit: usize) -> Lanes {
        let lanes = Lanes::new(limit);
        lanes.open();
        lanes
    }

    fn push(lanes: &Lanes, command: &Arc<Command>) -> oneshot::Receiver<Done> {
        let (answer, receiver) = Answer::one();
        lanes.push(Arc::clone(command), answer);
        receiver
    }

    fn is_delete(job: &Job) -> bool {
        matches!(job.command.kind, Some(Kind::Delete(_)))
    }

    #[test]
    fn renewals_overtake_the_rest() {
        let lanes = open(100);
        let keep = Arc::new(Command { kind: Some(Kind::KeepSession(KeepSession::default())) });
        let _waiting = [push(&lanes, &delete()), push(&lanes, &renew(1)), push(&lanes, &delete()), push(&lanes, &keep)];
        let order: Vec<_> = lanes.drain(100, 10_000).iter().map(is_delete).collect();
        assert_eq!(order, [false, false, true, true]);
    }

    #[test]
    fn rest_is_not_starved_by_renewals() {
        let lanes = open(100);
        let _renewals: Vec<_> = (0..50).map(|_| push(&lanes, &renew(1))).collect();
        let _deletes: Vec<_> = (0..50).map(|_| push(&lanes, &delete())).collect();
        let batch = lanes.drain(16, 10_000);
        assert_eq!(batch.len(), 16);
        assert_eq!(batch.iter().filter(|job| is_delete(job)).count(), 2);
    }

    #[test]
    fn full_lanes_refuse_and_drained_ones_take_again() {
        let lanes = open(3);
        let mut waiting = [push(&lanes, &renew(150)), push(&lanes, &delete()), push(&lanes, &delete())];
        assert_eq!(waiting[2].try_recv(), Ok(Err(Undone::Overloaded)));
        assert_eq!(waiting[1].try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(lanes.drain(100, 10_000).len(), 2);
        let mut again = push(&lanes, &delete());
        assert_eq!(again.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn message_heavier_than_the_limit_passes_alone() {
        let lanes = open(3);
        let mut heavy = push(&lanes, &renew(10_000));
        assert_eq!(heavy.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(lanes.drain(100, 10).len(), 1);
    }

    #[test]
    fn drain_keeps_to_its_bounds() {
        let lanes = open(1_000);
        let _waiting: Vec<_> = (0..10).map(|_| push(&lanes, &renew(100))).collect();
        assert_eq!(lanes.drain(4, 1 << 20).len(), 4);
        assert_eq!(lanes.drain(100, 1_700).len(), 2);
        assert_eq!(lanes.drain(100, 1 << 20).len(), 4);
    }

    #[test]
    fn closing_answers_everybody_who_waits_and_who_comes() {
        let lanes = open(100);
        let mut before = push(&lanes, &delete());
        lanes.close(Undone::NotLeader);
        let mut after = push(&lanes, &delete());
        assert_eq!(before.try_recv(), Ok(Err(Undone::NotLeader)));
        assert_eq!(after.try_recv(), Ok(Err(Undone::NotLeader)));
        lanes.open();
        let _later = push(&lanes, &delete());
        assert_eq!(lanes.drain(100, 100).len(), 1);
    }

    #[test]
    fn command_that_nobody_waits_for_is_not_proposed() {
        let lanes = open(100);
        drop(push(&lanes, &delete()));
        let _kept = push(&lanes, &delete());
        assert_eq!(lanes.drain(100, 10_000).len(), 1);
    }

    #[test]
    fn dropped_job_says_that_its_outcome_is_not_known() {
        let lanes = open(100);
        let mut one = push(&lanes, &delete());
        let (to, mut answers) = mpsc::unbounded_channel();
        lanes.push(delete(), Answer::on_stream(9, to));
        drop(lanes.drain(100, 10_000));
        assert_eq!(one.try_recv(), Ok(Err(Undone::Unknown)));
        assert_eq!(answers.try_recv(), Ok((9, Err(Undone::Unknown))));
    }
}
