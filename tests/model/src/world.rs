//! Everything at one moment: clocks, messages on their way, the raft leader's proposer, the replicated table, the holders. And every step from there.

use std::sync::Arc;

use tenure_lease::{
    Acquire, Applied, Command, EndReason, Entry, EventKind, LeaseTime, NoticeKind, Outcome, Release, ReleaseBy, Renew, RenewItem, RenewResult, SessionId,
    UnixMillis,
};

use crate::{
    Bug, Protocol,
    holder::{DURATION, Holder, State},
    replicated::{Replicated, key, leader},
};

const HOLDERS: usize = 2;
/// No stamp runs further ahead of the clock last applied.
const AHEAD: u64 = 3;
/// Replicas have been up for different times.
const EPOCHS: [u64; 2] = [20, 0];

/// What a holder asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Ask {
    Acquire { request: u8 },
    Renew { token: u64 },
    Release { token: u64 },
}

/// A message on its way, or waiting at the raft leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Message {
    from: usize,
    /// Its clock before it was sent first.
    sent: u64,
    ask: Ask,
}

/// What a holder hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Heard {
    Granted { token: u64, must_renew: bool },
    Renewed { token: u64 },
    Lost { token: u64 },
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Answer {
    to: usize,
    sent: u64,
    heard: Heard,
}

/// The entry on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OnItsWay {
    term: u64,
    stamp: u64,
    messages: Vec<Message>,
}

/// Of the raft leader; see `write/lease_clock.rs` of the server, which this follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LeaseClock {
    /// What to add to the raft leader's own clock.
    ahead: i64,
    last: u64,
}

/// What must never happen, and has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct Faults {
    pub(crate) granted_early: bool,
    pub(crate) token_went_back: bool,
    pub(crate) lost_early: bool,
    pub(crate) inert_entry_worked: bool,
    pub(crate) granted_twice: bool,
}

/// What must happen somewhere, for the walk to mean anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct Seen {
    pub(crate) expired_by_another: bool,
    pub(crate) renewed_late: bool,
    pub(crate) handed_over: bool,
    pub(crate) repeated: bool,
    pub(crate) both_held: bool,
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// True time.
    time: u64,
    /// How far ahead of true time the raft leaders' clocks and each holder's are. Only the dangerous way is walked: a raft leader's clock makes up
    /// a step, a holder's loses one.
    leaders_ahead: u64,
    holders_ahead: [u64; HOLDERS],
    term: u64,
    lease_clock: LeaseClock,
    table: Replicated,
    on_its_way: Option<OnItsWay>,
    /// Sorted, as are the answers: they overtake each other.
    messages: Vec<Message>,
    answers: Vec<Answer>,
    holders: [Holder; HOLDERS],
    /// The newest token, who got it for which request, in which term.
    newest: (u64, usize, u8, u64),
    pub(crate) faults: Faults,
    pub(crate) seen: Seen,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// True time goes on; one clock may make up a step, or lose the one that it is ahead.
    Tick(Option<usize>),
    /// A holder asks for the lease, and waits.
    Acquire(usize),
    /// A holder renews.
    Renew(usize),
    /// A holder releases.
    Release(usize),
    /// The raft leader puts these messages (a bit each) into an entry; none: a tick of its clock.
    Propose(u8),
    /// The entry is committed, and everybody will hear.
    Commit,
    /// The entry is committed, and its raft leader gone before it could say so: whoever forwarded a message sends it again.
    CommitUnheard,
    /// The entry is lost with its raft leader; what was in it is sent again.
    Elect,
    /// The entry comes out under another raft leader.
    CommitInert,
    /// A holder hears this answer.
    Hear(usize),
}

impl World {
    /// Somebody has to be the first to ask.
    pub(crate) fn new() -> Self {
        let mut world = Self {
            time: 0,
            leaders_ahead: 0,
            holders_ahead: [1; HOLDERS],
            term: 1,
            lease_clock: LeaseClock { ahead: -signed(EPOCHS[1]), last: 0 },
            table: Replicated::new(),
            on_its_way: None,
            messages: Vec::new(),
            answers: Vec::new(),
            holders: [Holder::new(), Holder::new()],
            newest: (0, 0, 0, 0),
            faults: Faults::default(),
            seen: Seen::default(),
        };
        world.ask(0);
        world
    }

    fn ask(&mut self, holder: usize) {
        self.holders[holder].attempts += 1;
        self.holders[holder].state = State::Asking;
        let request = self.holders[holder].attempts;
        self.send(holder, Ask::Acquire { request });
    }

    fn holder_clock(&self, holder: usize) -> u64 {
        self.time + self.holders_ahead[holder]
    }

    fn leader_clock(&self) -> u64 {
        self.time + self.leaders_ahead + EPOCHS[usize::from(self.term % 2 == 1)]
    }

    pub(crate) fn believing(&self) -> usize {
        (0..HOLDERS).filter(|holder| self.holders[*holder].believes(self.holder_clock(*holder))).count()
    }

    pub(crate) fn actions(&self, protocol: &Protocol, actions: &mut Vec<Action>) {
        let bounds = protocol.bounds;
        if self.time < bounds.horizon {
            actions.push(Action::Tick(None));
            if bounds.drift {
                actions.extend((0..HOLDERS).filter(|clock| self.holders_ahead[*clock] > 0).map(|clock| Action::Tick(Some(clock))));
            }
            if bounds.drift && self.leaders_ahead == 0 {
                actions.push(Action::Tick(Some(HOLDERS)));
            }
        }
        for (at, holder) in self.holders.iter().enumerate() {
            match holder.state {
                State::Holding { renewing, .. } if holder.believes(self.holder_clock(at)) => {
                    if !renewing && holder.renewals < bounds.renewals {
                        actions.push(Action::Renew(at));
                    }
                    if bounds.releases {
                        actions.push(Action::Release(at));
                    }
                }
                State::Idle | State::Holding { .. } if holder.attempts < bounds.attempts => actions.push(Action::Acquire(at)),
                _ => {}
            }
        }
        if self.on_its_way.is_none() {
            // With nothing in it, an entry is worth its while only if the time is news.
            let first = u8::from(self.stamp().0 <= self.table.clock.0);
            actions.extend((first..1 << self.messages.len()).map(Action::Propose));
        } else {
            actions.push(Action::Commit);
            if self.term < bounds.terms {
                actions.extend([Action::CommitUnheard, Action::Elect, Action::CommitInert]);
            }
        }
        if self.on_its_way.is_none() && self.term < bounds.terms {
            actions.push(Action::Elect);
        }
        actions.extend((0..self.answers.len()).map(Action::Hear));
    }

    pub(crate) fn after(&self, protocol: &Protocol, action: Action) -> Self {
        let mut world = self.clone();
        world.seen = Seen::default();
        match action {
            Action::Tick(deviates) => world.tick(protocol.bug, deviates),
            Action::Acquire(holder) => world.ask(holder),
            Action::Renew(holder) => {
                world.holders[holder].renewals += 1;
                if let State::Holding { token, renewing, .. } = &mut world.holders[holder].state {
                    *renewing = true;
                    let token = *token;
                    world.send(holder, Ask::Renew { token });
                }
            }
            Action::Release(holder) => {
                if let Some(token) = world.holders[holder].believed_token(world.holder_clock(holder)) {
                    world.holders[holder].state = State::Idle;
                    world.send(holder, Ask::Release { token });
                }
            }
            Action::Propose(which) => world.propose(which),
            Action::Commit => world.commit(true),
            Action::CommitUnheard => {
                world.commit(false);
                world.elect(protocol.bug);
            }
            Action::Elect => {
                let lost = world.on_its_way.take();
                world.send_again(lost.map(|entry| entry.messages).unwrap_or_default());
                world.elect(protocol.bug);
            }
            Action::CommitInert => world.commit_inert(protocol.bug),
            Action::Hear(at) => {
                let answer = world.answers.remove(at);
                world.hear(protocol.bug, answer);
            }
        }
        world.forget();
        world
    }

    fn tick(&mut self, bug: Option<Bug>, deviates: Option<usize>) {
        self.time += 1;
        if bug == Some(Bug::UnboundedDrift) {
            self.leaders_ahead += 2;
        }
        match deviates {
            Some(HOLDERS) => self.leaders_ahead += 1,
            Some(holder) => self.holders_ahead[holder] -= 1,
            None => {}
        }
    }

    /// Two states that differ only in what nobody will ever look at are one.
    fn forget(&mut self) {
        for holder in 0..HOLDERS {
            let now = self.holder_clock(holder);
            if matches!(self.holders[holder].state, State::Holding { deadline, .. } if now >= deadline) {
                self.holders[holder].state = State::Idle;
            }
        }
        let holders = &self.holders;
        self.answers.retain(|answer| match (answer.heard, &holders[answer.to].state) {
            (Heard::Granted { .. } | Heard::Over, state) => *state == State::Asking,
            (Heard::Renewed { token } | Heard::Lost { token }, State::Holding { token: held, .. } | State::Claiming { token: held }) => token == *held,
            _ => false,
        });
        self.messages.sort_unstable();
        self.answers.sort_unstable();
    }

    fn send(&mut self, from: usize, ask: Ask) {
        self.messages.push(Message { from, sent: self.holder_clock(from), ask });
    }

    fn send_again(&mut self, messages: Vec<Message>) {
        self.messages.extend(messages);
    }

    /// A stamp now, and the lease clock after it.
    fn stamp(&self) -> (u64, LeaseClock) {
        let (now, applied) = (self.leader_clock(), self.table.clock.0);
        let mut clock = self.lease_clock.clone();
        let mut time = now.saturating_add_signed(clock.ahead);
        if time > applied + AHEAD {
            time = applied + AHEAD;
            clock.ahead = signed(time) - signed(now);
        }
        clock.last = time.max(applied).max(clock.last);
        (clock.last, clock)
    }

    fn propose(&mut self, which: u8) {
        let (stamp, clock) = self.stamp();
        self.lease_clock = clock;
        let all = std::mem::take(&mut self.messages);
        let mut messages = Vec::new();
        for (at, message) in all.into_iter().enumerate() {
            if which >> at & 1 == 1 { messages.push(message) } else { self.messages.push(message) }
        }
        self.on_its_way = Some(OnItsWay { term: self.term, stamp, messages });
    }

    fn entry(entry: &OnItsWay) -> Entry {
        let commands = entry.messages.iter().map(command).collect();
        Entry { proposer: leader(entry.term), stamp: LeaseTime(entry.stamp), wall: UnixMillis(0), commands }
    }

    fn commit(&mut self, heard: bool) {
        let Some(entry) = self.on_its_way.take() else { return };
        let before = self.table.table().get(&key());
        let (table, applied) = self.table.apply(leader(entry.term), Self::entry(&entry));
        self.table = table;
        self.look(&applied, entry.term, before.is_some_and(|lease| lease.deadline.is_some_and(|deadline| deadline.0 < entry.stamp)));
        if heard {
            for (message, outcome) in entry.messages.iter().zip(&applied.outcomes) {
                self.answer(message, outcome);
            }
        } else {
            self.send_again(entry.messages.clone());
        }
        // Notices reach the stream of the waiter, at whatever replica.
        for notice in &applied.notices {
            let to = holder_of(notice.session);
            let heard = match &notice.kind {
                NoticeKind::Granted(lease) => Heard::Granted { token: lease.token, must_renew: true },
                _ => Heard::Over,
            };
            self.answers.push(Answer { to, sent: 0, heard });
        }
    }

    fn commit_inert(&mut self, bug: Option<Bug>) {
        let Some(entry) = self.on_its_way.take() else { return };
        let (table, _) = self.table.apply(leader(self.term + 1), Self::entry(&entry));
        self.faults.inert_entry_worked |= table != self.table;
        self.send_again(entry.messages);
        self.elect(bug);
    }

    fn elect(&mut self, bug: Option<Bug>) {
        self.term += 1;
        let (applied, at) = (self.table.clock.0, self.leader_clock());
        let anchor = if bug == Some(Bug::NewLeaderRunsAhead) { applied.max(at) } else { applied };
        self.lease_clock = LeaseClock { ahead: signed(anchor) - signed(at), last: applied };
    }

    /// At what has happened: is it allowed?
    fn look(&mut self, applied: &Applied, term: u64, was_late: bool) {
        for event in &applied.events {
            if event.kind == EventKind::Expired || event.ended.as_ref().is_some_and(|hold| hold.end_reason == Some(EndReason::Expired)) {
                self.seen.expired_by_another |= self.newest.3 != term;
            }
            if let Some(ended) = &event.ended {
                let loser = number(&ended.holder);
                let wanted = ended.end_reason == Some(EndReason::Released);
                self.faults.lost_early |= !wanted && self.holders[loser].believed_token(self.holder_clock(loser)) == Some(ended.token);
            }
            if event.kind == EventKind::Acquired
                && let Some(holder) = &event.lease.holder
            {
                let (token, winner) = (event.lease.token, number(holder));
                self.seen.both_held |= self.newest.0 != 0 && self.newest.1 != winner;
                self.seen.handed_over |= event.ended.as_ref().is_some_and(|hold| hold.end_reason == Some(EndReason::Released));
                self.faults.token_went_back |= token <= self.newest.0;
                self.faults.granted_early |= (0..HOLDERS).any(|other| other != winner && self.holders[other].believes(self.holder_clock(other)));
                let request = self.holders[winner].attempts;
                self.faults.granted_twice |= (self.newest.1, self.newest.2) == (winner, request) && self.newest.0 != 0;
                self.newest = (token, winner, request, term);
            }
        }
        for outcome in &applied.outcomes {
            match outcome {
                Outcome::Renewed(results) => self.seen.renewed_late |= was_late && matches!(results[..], [RenewResult::Renewed { .. }]),
                Outcome::Granted { must_renew, .. } => self.seen.repeated |= *must_renew,
                _ => {}
            }
        }
    }

    fn answer(&mut self, message: &Message, outcome: &Outcome) {
        let heard = match (outcome, message.ask) {
            (Outcome::Granted { lease, must_renew }, _) => Heard::Granted { token: lease.token, must_renew: *must_renew },
            (Outcome::Renewed(results), Ask::Renew { token }) => match results[..] {
                [RenewResult::Renewed { .. }] => Heard::Renewed { token },
                _ => Heard::Lost { token },
            },
            (Outcome::Ended { .. } | Outcome::Denied { .. }, _) => Heard::Over,
            _ => return,
        };
        self.answers.push(Answer { to: message.from, sent: message.sent, heard });
    }

    fn hear(&mut self, bug: Option<Bug>, Answer { to, sent, heard }: Answer) {
        let now = self.holder_clock(to);
        let holder = &mut self.holders[to];
        match (heard, &holder.state) {
            (Heard::Granted { token, must_renew: false }, State::Asking) => holder.kept(bug, token, sent, now),
            (Heard::Granted { token, must_renew: true }, State::Asking) => {
                if bug == Some(Bug::BelievesUnclaimed) {
                    holder.kept(bug, token, now, now);
                } else {
                    holder.state = State::Claiming { token };
                    self.send(to, Ask::Renew { token });
                }
            }
            (Heard::Renewed { token }, State::Holding { token: held, .. } | State::Claiming { token: held }) if token == *held => {
                holder.kept(bug, token, sent, now);
            }
            (Heard::Lost { token }, State::Holding { token: held, .. } | State::Claiming { token: held }) if token == *held => holder.state = State::Idle,
            (Heard::Over, State::Asking) => holder.state = State::Idle,
            // Of a request, or a hold, that is over for this holder.
            _ => {}
        }
    }
}

fn signed(time: u64) -> i64 {
    i64::try_from(time).expect("is small")
}

fn number(holder: &str) -> usize {
    usize::from(holder == "b")
}

fn holder_of(session: SessionId) -> usize {
    usize::from(session.0 == 2)
}

fn command(message: &Message) -> Command {
    let holder: Arc<str> = if message.from == 0 { "a" } else { "b" }.into();
    match message.ask {
        Ask::Acquire { request } => Command::Acquire(Box::new(Acquire {
            key: key(),
            holder,
            duration_ms: u32::try_from(DURATION).expect("is small"),
            request_id: request.to_string().into(),
            wait_ms: 1_000,
            reclaim: false,
            holder_data: Arc::default(),
            session: SessionId(message.from as u64 + 1),
            retention_ms: 1_000_000,
            labels: Arc::default(),
            annotations: Arc::default(),
        })),
        Ask::Renew { token } => Command::Renew(Renew { items: vec![RenewItem { token, duration_ms: None, key: None }] }),
        Ask::Release { token } => Command::Release(Box::new(Release { key: key(), by: ReleaseBy::Token(token) })),
    }
}
