//! Two bounded queues of commands, and the promise that each command in them gets exactly one answer.
//!
//! Renewals, releases of what is held and sessions go first: they keep what is held, or make room. Each lane has limits of its own, so that however
//! many other writes wait, no renewal is refused for them. Nothing waits here for more to come (no linger timer): whoever drains takes what there is.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use prost::Message;
use tenure_proto::peer::v1::{Command, Outcome, command::Kind};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot},
};

use super::rules::Violation;

/// Why a command has no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// Not applied and never will be: for the raft leader that is now.
    NotLeader,
    /// Not applied: no room.
    Overloaded,
    /// May or may not have been applied.
    Unknown,
    /// Not applied: this replica is going down.
    Stopped,
    /// Not applied and never will be: it breaks rules.
    Invalid(Vec<Violation>),
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

/// The answers of one entry, or of one message. Each of them wakes a task, and waking a task on another thread takes a system call: those for calls that
/// are served on another thread go there together, and wake their tasks from there.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    /// Where calls are served; `None`: on this thread.
    clients: Option<&'a Handle>,
    elsewhere: Vec<(Answer, Done)>,
}

impl<'a> Answers<'a> {
    pub(super) const fn new(clients: Option<&'a Handle>) -> Self {
        Self { clients, elsewhere: Vec::new() }
    }

    pub(super) fn send(&mut self, answer: Answer, done: Done) {
        if self.clients.is_some() && matches!(answer.0, Some(To::One(_))) {
            self.elsewhere.push((answer, done));
        } else {
            answer.send(done);
        }
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        let send = |answers: Vec<(Answer, Done)>| answers.into_iter().for_each(|(answer, done)| answer.send(done));
        let answers = std::mem::take(&mut self.elsewhere);
        match self.clients {
            Some(clients) if answers.len() > 1 => drop(clients.spawn(async move { send(answers) })),
            _ => send(answers),
        }
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

impl Job {
    pub(super) fn lane(&self) -> Lane {
        Lane::of(&self.command)
    }
}

/// Which of the two queues a command waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// What keeps something held, or gives it up.
    First,
    /// Everything else. Releases by request id too: they are for requests that may never have been, which a client can make without number.
    Rest,
}

impl Lane {
    fn of(command: &Command) -> Self {
        match &command.kind {
            Some(Kind::Renew(_) | Kind::KeepSession(_)) => Self::First,
            Some(Kind::Release(release)) if release.token != 0 => Self::First,
            _ => Self::Rest,
        }
    }
}

/// Commands that a lane may hold, encoded, in bytes; one is always let in, however long.
const LANE_BYTES: usize = 32 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Lanes {
    queues: Mutex<Queues>,
    work: Notify,
    limit: usize,
}

#[derive(Debug)]
struct Queues {
    first: Queue,
    rest: Queue,
    /// What who comes is told while the lanes are closed.
    closed: Option<Undone>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    weight: usize,
    bytes: usize,
}

impl Queue {
    fn has_room(&self, weight: usize, bytes: usize, limit: usize) -> bool {
        // One is always let in, however heavy.
        self.weight == 0 || (self.weight + weight <= limit && self.bytes + bytes <= LANE_BYTES)
    }

    fn push(&mut self, job: Job) {
        self.weight += job.weight;
        self.bytes += job.size;
        self.jobs.push_back(job);
    }

    fn pop_if(&mut self, wanted: impl Fn(&Job) -> bool) -> Option<Job> {
        let job = self.jobs.pop_front_if(|job| wanted(job))?;
        self.weight -= job.weight;
        self.bytes -= job.size;
        Some(job)
    }
}

impl Lanes {
    /// Closed at first. `limit` is the weight that may wait in each lane; a renewal message weighs by its items.
    pub(super) fn new(limit: usize) -> Self {
        let queues = Queues { first: Queue::default(), rest: Queue::default(), closed: Some(Undone::NotLeader) };
        Self { queues: Mutex::new(queues), work: Notify::new(), limit }
    }

    /// The weight that waits in a lane.
    pub(super) fn waiting(&self, lane: Lane) -> usize {
        let queues = self.queues.lock();
        match lane {
            Lane::First => queues.first.weight,
            Lane::Rest => queues.rest.weight,
        }
    }

    /// Queues a command, or answers at once why not.
    pub(super) fn push(&self, command: Arc<Command>, answer: Answer) {
        let weight = weight(&command);
        let size = command.encoded_len();
        let mut queues = self.queues.lock();
        let closed = queues.closed.clone();
        let lane = match Lane::of(&command) {
            Lane::First => &mut queues.first,
            Lane::Rest => &mut queues.rest,
        };
        let full = !lane.has_room(weight, size, self.limit);
        if let Some(undone) = closed.or(full.then_some(Undone::Overloaded)) {
            drop(queues);
            return answer.send(Err(undone));
        }
        lane.push(Job { command, size, answer, weight });
        drop(queues);
        self.work.notify_one();
    }

    /// Takes up to so many commands and (but for the first) bytes. While others wait, an eighth is kept for those that do not go first.
    pub(super) fn drain(&self, commands: usize, bytes: usize) -> Vec<Job> {
        let mut queues = self.queues.lock();
        let queues = &mut *queues;
        let waiting = queues.first.jobs.len() + queues.rest.jobs.len();
        let mut batch = Batch { jobs: Vec::with_capacity(waiting.min(commands)), bytes: 0 };
        let kept = if queues.rest.jobs.is_empty() { 0 } else { 8 };
        batch.take(&mut queues.first, commands - commands.checked_div(kept).unwrap_or(0), bytes - bytes.checked_div(kept).unwrap_or(0));
        batch.take(&mut queues.rest, commands, bytes);
        batch.take(&mut queues.first, commands, bytes);
        batch.jobs
    }

    /// As [`Lanes::drain`], but leaves the lane that does not go first as it is.
    pub(super) fn drain_first(&self, commands: usize, bytes: usize) -> Vec<Job> {
        let mut batch = Batch { jobs: Vec::new(), bytes: 0 };
        batch.take(&mut self.queues.lock().first, commands, bytes);
        batch.jobs
    }

    /// Resolves when there is something to drain. For one waiter at a time.
    pub(super) async fn wait(&self) {
        while self.waiting(Lane::First) + self.waiting(Lane::Rest) == 0 {
            self.work.notified().await;
        }
    }

    /// As [`Lanes::wait`], for the lane that goes first.
    pub(super) async fn wait_first(&self) {
        while self.waiting(Lane::First) == 0 {
            self.work.notified().await;
        }
    }

    pub(super) fn open(&self) {
        self.queues.lock().closed = None;
    }

    /// Tells everybody who waits, and everybody who comes, `why`.
    pub(super) fn close(&self, why: Undone) {
        let (first, rest) = {
            let mut queues = self.queues.lock();
            queues.closed = Some(why.clone());
            (std::mem::take(&mut queues.first), std::mem::take(&mut queues.rest))
        };
        for job in first.jobs.into_iter().chain(rest.jobs) {
            job.answer.send(Err(why.clone()));
        }
    }
}

struct Batch {
    jobs: Vec<Job>,
    bytes: usize,
}

impl Batch {
    fn take(&mut self, lane: &mut Queue, commands: usize, bytes: usize) {
        while self.jobs.len() < commands {
            let Some(job) = lane.pop_if(|job| self.jobs.is_empty() || self.bytes + job.size <= bytes) else { return };
            // Given up on before anything was done: less work for a raft leader that is behind.
            if !job.answer.is_unwanted() {
                self.bytes += job.size;
                self.jobs.push(job);
            }
        }
    }
}

fn weight(command: &Command) -> usize {
    match &command.kind {
        Some(Kind::Renew(renew)) => renew.tokens.len() / 100 + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use tenure_proto::peer::v1::{Acquire, Delete, KeepSession, Release, Renew};

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
        let lanes = open(2);
        let mut waiting = [push(&lanes, &delete()), push(&lanes, &delete()), push(&lanes, &delete())];
        assert_eq!(waiting[2].try_recv(), Ok(Err(Undone::Overloaded)));
        assert_eq!(waiting[1].try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(lanes.drain(100, 10_000).len(), 2);
        let mut again = push(&lanes, &delete());
        assert_eq!(again.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn full_lane_refuses_nothing_of_the_other() {
        let lanes = open(2);
        let _writes: Vec<_> = (0..3).map(|_| push(&lanes, &delete())).collect();
        let mut renewals = [push(&lanes, &renew(1)), push(&lanes, &renew(1)), push(&lanes, &renew(1))];
        let answers = renewals.each_mut().map(|renewal| renewal.try_recv());
        let waits = Err(oneshot::error::TryRecvError::Empty);
        assert_eq!(answers, [waits.clone(), waits, Ok(Err(Undone::Overloaded))]);
        assert_eq!((lanes.waiting(Lane::First), lanes.waiting(Lane::Rest)), (2, 2));
        assert_eq!(lanes.drain_first(100, 10_000).len(), 2);
        assert_eq!((lanes.waiting(Lane::First), lanes.waiting(Lane::Rest)), (0, 2));
    }

    #[test]
    fn lane_is_bounded_in_bytes_too() {
        let lanes = open(1_000);
        let large = Acquire { holder_data: vec![0; LANE_BYTES / 2].into(), ..Acquire::default() };
        let large = Arc::new(Command { kind: Some(Kind::Acquire(large)) });
        let mut waiting = [push(&lanes, &large), push(&lanes, &large), push(&lanes, &delete())];
        assert_eq!(waiting[1].try_recv(), Ok(Err(Undone::Overloaded)));
        assert_eq!(waiting[2].try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(lanes.drain(1, 1).len(), 1);
        let mut again = push(&lanes, &large);
        assert_eq!(again.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn release_of_a_request_that_may_never_have_been_does_not_go_first() {
        let release = |token, request_id: &str| Command { kind: Some(Kind::Release(Release { token, request_id: request_id.into(), ..Release::default() })) };
        assert_eq!(Lane::of(&release(7, "")), Lane::First);
        assert_eq!(Lane::of(&release(0, "r")), Lane::Rest);
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
