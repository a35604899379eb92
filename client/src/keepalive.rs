//! One task that keeps all the leases of a client, over one stream: many leases in one message, many messages on their way.
//!
//! It must never renew what it has given up, nor wait for one lease while another is due.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, PoisonError},
    time::Duration,
};

use tenure_proto::v1::{Lost, RenewItem, RenewResponse, Renewed, renew_result::Result as Answer};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tonic::Code;

use crate::{
    client::Client,
    clock::Readings,
    error::{Error, Failure},
    hold::{Hold, LostReason, length},
    renew::RenewStream,
};

/// What falls due within this time goes along with what is due: early is harmless, and a message for each lease is not.
const TOGETHER: Duration = Duration::from_millis(100);
/// Timers stand still while a machine sleeps, so that none may be long.
const LONGEST_SLEEP: Duration = Duration::from_millis(250);
/// Below the server's limit of 10,000, and a message of some 50 KB.
const LARGEST_MESSAGE: usize = 5_000;

/// Handle to the task, which ends with the last handle.
#[derive(Debug)]
pub(crate) struct Keepalive {
    commands: mpsc::UnboundedSender<Command>,
    pub(crate) stream: RenewStream,
}

#[derive(Debug)]
enum Command {
    Keep(Arc<Hold>, Readings),
    Forget(u64),
}

impl Client {
    /// The running one, or a new one. Must be called on a tokio runtime.
    pub(crate) fn keepalive(&self) -> Arc<Keepalive> {
        let mut running = self.inner().keepalive.lock().unwrap_or_else(PoisonError::into_inner);
        // The runtime that it ran on may be gone.
        if let Some(keepalive) = running.upgrade().filter(|keepalive| !keepalive.commands.is_closed()) {
            return keepalive;
        }
        let (commands, asked) = mpsc::unbounded_channel();
        let stream = self.renew_stream();
        let base = self.inner().clock.readings();
        let task = Task { client: self.clone(), stream: stream.clone(), asked, kept: HashMap::new(), agenda: BinaryHeap::new(), answers: JoinSet::new(), base };
        tokio::spawn(task.run());
        let keepalive = Arc::new(Keepalive { commands, stream });
        *running = Arc::downgrade(&keepalive);
        keepalive
    }
}

impl Keepalive {
    /// From now on it is renewed, and given up when that fails. `sent` is from before the last successful request.
    pub(crate) fn keep(&self, hold: &Arc<Hold>, sent: Readings) {
        if self.commands.send(Command::Keep(Arc::clone(hold), sent)).is_err() {
            hold.not_renewed();
        }
    }

    /// From now on it is not. Does not block.
    pub(crate) fn forget(&self, token: u64) {
        let _ = self.commands.send(Command::Forget(token));
    }
}

struct Kept {
    hold: Arc<Hold>,
    /// When to renew; `None` while a renewal is on its way.
    due: Option<Duration>,
    /// Its place on the agenda; others are left over.
    next: Duration,
}

struct Answered {
    tokens: Vec<u64>,
    sent: Readings,
    answer: Result<RenewResponse, Error>,
}

/// Times are since `base`.
struct Task {
    client: Client,
    stream: RenewStream,
    asked: mpsc::UnboundedReceiver<Command>,
    kept: HashMap<u64, Kept>,
    agenda: BinaryHeap<Reverse<(Duration, u64)>>,
    answers: JoinSet<Answered>,
    base: Readings,
}

impl Task {
    async fn run(mut self) {
        loop {
            let pause = self.agenda.peek().map(|Reverse((at, _))| at.saturating_sub(self.now()).min(LONGEST_SLEEP));
            tokio::select! {
                // Answers must not find what was to be forgotten.
                biased;
                command = self.asked.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(answered) = self.answers.join_next(), if !self.answers.is_empty() => self.answered(answered),
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
            while let Ok(command) = self.asked.try_recv() {
                self.obey(command);
            }
            self.turn();
        }
    }

    fn now(&self) -> Duration {
        self.client.inner().clock.readings().possibly_since(self.base)
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Keep(hold, sent) => {
                let due = sent.possibly_since(self.base) + self.interval(&hold);
                let token = hold.token;
                self.kept.insert(token, Kept { hold, due: Some(due), next: Duration::ZERO });
                self.put_on_agenda(token);
            }
            Command::Forget(token) => {
                self.kept.remove(&token);
            }
        }
    }

    fn interval(&self, hold: &Hold) -> Duration {
        self.client.inner().random.around(hold.terms.renew_every, hold.terms.jitter)
    }

    fn put_on_agenda(&mut self, token: u64) {
        let now = self.now();
        if let Some(kept) = self.kept.get_mut(&token) {
            let stop = now + kept.hold.left();
            kept.next = kept.due.map_or(stop, |due| due.min(stop));
            self.agenda.push(Reverse((kept.next, token)));
        }
    }

    /// Gives up what has run out and renews what is due.
    fn turn(&mut self) {
        let now = self.now();
        if self.agenda.peek().is_none_or(|Reverse((at, _))| *at > now) {
            return;
        }
        let (mut due, mut again) = (Vec::new(), Vec::new());
        // How long the answer is of use to all.
        let mut limit = Duration::MAX;
        while let Some(Reverse((at, token))) = self.agenda.peek().copied().filter(|Reverse((at, _))| *at <= now + TOGETHER) {
            self.agenda.pop();
            let Some(kept) = self.kept.get_mut(&token).filter(|kept| kept.next == at) else { continue };
            let left = kept.hold.left();
            if left.is_zero() {
                // For whoever wants to know why.
                if kept.due.is_none() {
                    kept.hold.failed(&self.stream.trouble());
                }
                kept.hold.not_renewed();
                self.kept.remove(&token);
                continue;
            }
            again.push(token);
            let early = TOGETHER.min(kept.hold.terms.renew_every / 10);
            if kept.due.is_some_and(|due| due <= now + early) {
                kept.due = None;
                limit = limit.min(left);
                due.push(token);
            }
        }
        again.into_iter().for_each(|token| self.put_on_agenda(token));
        for tokens in due.chunks(LARGEST_MESSAGE) {
            self.renew(tokens.to_vec(), limit);
        }
    }

    fn renew(&mut self, tokens: Vec<u64>, limit: Duration) {
        let stream = self.stream.clone();
        let items = tokens.iter().map(|&token| RenewItem { token, ..RenewItem::default() }).collect();
        let fallback = self.client.inner().clock.readings();
        self.answers.spawn(async move {
            match stream.send_within(items, limit).await {
                Ok(renewal) => Answered { tokens, sent: renewal.sent(), answer: renewal.await },
                Err(error) => Answered { tokens, sent: fallback, answer: Err(error) },
            }
        });
    }

    fn answered(&mut self, answered: Result<Answered, JoinError>) {
        // It neither panics nor is it aborted while this task runs.
        let Ok(Answered { tokens, sent, answer }) = answered else { return };
        let results = answer.map(|answer| answer.results);
        for (at, token) in tokens.into_iter().enumerate() {
            let Some(kept) = self.kept.get_mut(&token) else { continue };
            match results.as_ref().map(|results| results.get(at).and_then(|result| result.result.as_ref())) {
                Ok(Some(Answer::Renewed(Renewed { duration }))) => {
                    let duration = duration.and_then(|duration| length(duration.seconds, duration.nanos)).unwrap_or_default();
                    kept.hold.renewed(sent, duration);
                    // The answer's renew_within is the same, but of the shortest lease in the message.
                    let every = kept.hold.terms.renew_every.min(duration / 3);
                    let every = self.client.inner().random.around(every, kept.hold.terms.jitter);
                    kept.due = Some(sent.possibly_since(self.base) + every);
                }
                Ok(Some(Answer::Lost(Lost { reason, holder, token: by }))) => {
                    let reason = (*reason).try_into().unwrap_or_default();
                    kept.hold.lose(LostReason::Ended { reason, holder: holder.clone(), token: *by });
                }
                Ok(None) => self.failed(token, &short_answer()),
                Err(error) => self.failed(token, error),
            }
            if self.kept.get(&token).is_some_and(|kept| kept.hold.lost().is_some()) {
                self.kept.remove(&token);
            } else {
                self.put_on_agenda(token);
            }
        }
    }

    /// Tries again until it is given up.
    fn failed(&mut self, token: u64, error: &Error) {
        let now = self.now();
        if let Some(kept) = self.kept.get_mut(&token) {
            kept.hold.failed(error);
            kept.due = Some(now + self.client.inner().random.jitter((kept.hold.terms.renew_every / 10).min(LONGEST_SLEEP)));
        }
    }
}

fn short_answer() -> Error {
    Error::OutcomeUnknown(Box::new(Failure::new("renew".into(), String::new(), Code::Internal, "the answer has too few results".into())))
}

impl Drop for Task {
    /// A runtime that is shut down renews nothing any more; whoever waits elsewhere for the loss is told.
    fn drop(&mut self) {
        self.kept.values().for_each(|kept| kept.hold.not_renewed());
        // What has not arrived here yet is not renewed either. Closed first, so that whoever comes later is told by the sender.
        self.asked.close();
        while let Ok(command) = self.asked.try_recv() {
            if let Command::Keep(hold, _) = command {
                hold.not_renewed();
            }
        }
    }
}
