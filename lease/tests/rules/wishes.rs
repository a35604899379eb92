//! What is asked of a table at random, and what came of it, in the words of the naive one. Shared with the fuzz target of tests/fuzz, which makes its
//! wishes of bytes where `proptests.rs` makes them of strategies.

use std::sync::Arc;

use tenure_lease::{
    Acquire, Applied, Command, Delete, Detach, LeaseState, LeaseTable, Limits, NoticeKind, Outcome, Put, RaftLeaderId, Refusal, Release, ReleaseBy, Renew,
    RenewItem, RenewResult, RestoreError, Scope, Selector, SessionId, WaiterId,
};

use super::{
    fixture::{LEADER, START, close, entry, keep, key},
    model::{Change, Model, Said, Seen, Told},
};

pub(crate) const LIMITS: Limits = Limits { leases_per_namespace: 3, waiters_per_lease: 3 };
pub(crate) const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A command whose tokens and waiters are chosen among those that there were.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Renew { token: u16, duration: Option<u32>, name: Option<usize> },
    ReleaseToken { name: usize, token: u16, undelivered: bool },
    ReleaseRequest { name: usize, holder: usize, id: usize },
    Keep { session: u64, close: bool },
    Acquire { name: usize, holder: usize, id: usize, odd: bool, wait: u64, reclaim: bool, session: u64 },
    Detach { waiter: u16, session: u64 },
    Put { name: usize, retention: Option<Option<u64>>, must_not_exist: bool, stale: bool },
    Delete { name: usize, force: bool, stale: bool },
}

#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) passes: u64,
    pub(crate) wishes: Vec<Wish>,
    pub(crate) restore: bool,
    pub(crate) inert: bool,
}

/// Late ones are the likeliest to mean something.
fn recent<T: Clone>(all: &[T], index: u16) -> Option<T> {
    let from = all.len().saturating_sub(6);
    (!all.is_empty()).then(|| all[from..][usize::from(index) % (all.len() - from)].clone())
}

pub(crate) fn command(wish: &Wish, model: &Model) -> Command {
    match wish.clone() {
        Wish::Renew { token, duration, name } => {
            let token = recent(&model.tokens, token).unwrap_or(7);
            Command::Renew(Renew { items: vec![RenewItem { token, duration_ms: duration, key: name.map(|name| Box::new(key(NAMES[name]))) }] })
        }
        Wish::ReleaseToken { name, token, undelivered } => {
            let token = recent(&model.tokens, token).unwrap_or(0);
            let by = if undelivered { ReleaseBy::Undelivered(token) } else { ReleaseBy::Token(token) };
            Command::Release(Box::new(Release { key: key(NAMES[name]), by }))
        }
        Wish::ReleaseRequest { name, holder, id } => {
            let by = ReleaseBy::Request { holder: format!("h{holder}").into(), request_id: format!("r{id}").into() };
            Command::Release(Box::new(Release { key: key(NAMES[name]), by }))
        }
        Wish::Keep { session, close: false } => keep(session),
        Wish::Keep { session, close: true } => close(session),
        Wish::Acquire { name, holder, id, odd, wait, reclaim, session } => Command::Acquire(Box::new(Acquire {
            key: key(NAMES[name]),
            holder: format!("h{holder}").into(),
            // The id decides, so that repeats mostly match.
            duration_ms: [1000, 2500, 6000][id % 3] + u32::from(odd),
            request_id: format!("r{id}").into(),
            wait_ms: wait,
            reclaim,
            holder_data: Arc::default(),
            session: SessionId(if wait == 0 { 0 } else { session }),
            retention_ms: [500, 50_000][id % 2],
            labels: Arc::default(),
            annotations: Arc::default(),
        })),
        Wish::Detach { waiter, session } => {
            let (name, waiter) = recent(&model.waiters, waiter).unwrap_or(("a".into(), 3));
            Command::Detach(Box::new(Detach { key: key(&name), session: SessionId(session), waiter: WaiterId(waiter) }))
        }
        Wish::Put { name, retention, must_not_exist, stale } => {
            let if_revision = stale.then_some(model.counter);
            Command::Put(Box::new(Put {
                key: key(NAMES[name]),
                labels: None,
                annotations: None,
                retention_ms: retention,
                if_revision,
                must_not_exist,
                hold: None,
            }))
        }
        Wish::Delete { name, force, stale } => Command::Delete(Box::new(Delete { key: key(NAMES[name]), if_revision: stale.then_some(model.counter), force })),
    }
}

fn said(outcome: &Outcome) -> Said {
    match outcome {
        Outcome::Renewed(results) => {
            let one = |result: &RenewResult| match result {
                RenewResult::Renewed { duration_ms } => Ok(*duration_ms),
                RenewResult::Lost(lost) => Err((lost.reason, lost.holder.as_ref().map(ToString::to_string))),
            };
            Said::Renewed(results.iter().map(one).collect())
        }
        Outcome::Granted { lease, must_renew } => Said::Granted { token: lease.token, must_renew: *must_renew },
        Outcome::Queued { position, waiter, lease } => Said::Queued { position: *position, waiter: waiter.0, token: lease.token },
        Outcome::Denied { lease } => Said::Denied { token: lease.token, waiters: lease.waiters },
        Outcome::Ended { token, reason } => Said::Ended { token: *token, reason: *reason },
        Outcome::Released { outcome, lease } => Said::Released { outcome: *outcome, token: lease.as_ref().map(|lease| lease.token) },
        Outcome::Put { lease } => Said::Put { revision: lease.revision },
        Outcome::Deleted { lease } => Said::Deleted { token: lease.token, waiters: lease.waiters },
        Outcome::Done => Said::Done,
        Outcome::Refused(refusal) => Said::Refused(refusal.clone()),
    }
}

fn told(applied: &Applied) -> Vec<Told> {
    let one = |notice: &tenure_lease::Notice| {
        let (session, waiter) = (notice.session.0, notice.waiter.0);
        match &notice.kind {
            NoticeKind::Granted(lease) => Told::Granted(session, waiter, lease.token),
            NoticeKind::Denied(_) => Told::Denied(session, waiter),
            NoticeKind::Ended(reason) => Told::Ended(session, waiter, *reason),
            NoticeKind::Moved => Told::Moved(session, waiter),
        }
    };
    applied.notices.iter().map(one).collect()
}

fn changes(applied: &Applied) -> Vec<Change> {
    let one = |event: &Arc<tenure_lease::Event>| {
        let ended = event.ended.as_ref().map(|hold| (hold.token, hold.end_reason.expect("it ended")));
        (event.revision, event.kind as u8, event.lease.name.to_string(), ended)
    };
    applied.events.iter().map(one).collect()
}

pub(crate) fn seen(table: &LeaseTable) -> Vec<Seen> {
    let leases = table.list(&Scope::All, &Selector::default());
    let one = |lease: Arc<tenure_lease::Lease>| Seen {
        name: lease.name.to_string(),
        holder: lease.holder.as_ref().map(ToString::to_string),
        last_holder: lease.last_holder.as_ref().map(ToString::to_string),
        token: lease.token,
        deadline: lease.deadline.map(|deadline| deadline.0),
        duration: lease.duration_ms,
        unclaimed: lease.unclaimed,
        expired: lease.state == LeaseState::Expired,
        transitions: lease.transitions,
        retention: lease.retention_ms,
        queue: table.queue(&key(&lease.name)).into_iter().map(|(id, attached)| (id.0, attached)).collect(),
        revision: lease.revision,
        renew_revision: lease.renew_revision,
        create_revision: lease.create_revision,
    };
    leases.into_iter().map(one).collect()
}

pub(crate) fn bootstrapped() -> LeaseTable {
    let mut table = LeaseTable::new();
    table.apply(LEADER, entry(0, [Command::Bootstrap { counter_start: START, limits: LIMITS }]), false);
    table
}

pub(crate) fn bytes(table: &LeaseTable) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.freeze().write_to(&mut bytes).expect("a Vec takes it all");
    bytes
}

pub(crate) fn restore(mut bytes: &[u8]) -> Result<LeaseTable, RestoreError> {
    LeaseTable::restore(&mut bytes)
}

/// A whole life, in which the table must say and do what the naive one does, and a twin that is never restored from a snapshot must do the same.
pub(crate) fn live(rounds: &[Round]) {
    let mut model = Model::new(START, LIMITS);
    let (mut table, mut twin) = (bootstrapped(), bootstrapped());
    let mut now = 0;
    for round in rounds {
        now += round.passes;
        let commands: Vec<Command> = round.wishes.iter().map(|wish| command(wish, &model)).collect();
        if round.inert {
            let hash = table.state_hash();
            let applied = table.apply(RaftLeaderId { term: 9, node: 9 }, entry(now + 1_000_000, commands), false);
            assert!(applied.outcomes.iter().all(|outcome| *outcome == Outcome::Refused(Refusal::Inert)));
            assert_eq!(table.state_hash(), hash);
            continue;
        }
        let timer = twin.next_timer();
        let (expected, news, events) = model.apply(now, &commands);
        let applied = table.apply(LEADER, entry(now, commands.clone()), false);
        let same = twin.apply(LEADER, entry(now, commands.clone()), false);
        table.check_invariants();
        if commands.is_empty() && timer.is_none_or(|timer| now <= timer.0) {
            assert!(applied.events.is_empty() && applied.notices.is_empty(), "nothing was due at {now}: {applied:?}");
        }
        assert_eq!(applied.outcomes.iter().map(said).collect::<Vec<_>>(), expected, "at {now} to {commands:?}");
        assert_eq!(told(&applied), news, "at {now} of {commands:?}");
        assert_eq!(changes(&applied), events, "at {now} of {commands:?}");
        assert_eq!(seen(&table), model.seen(), "at {now} after {commands:?}");
        assert_eq!((table.revision(), table.totals().ended), (model.counter, model.ended()));
        assert_eq!((&applied.outcomes, &applied.events, &applied.notices), (&same.outcomes, &same.events, &same.notices));
        assert_eq!(table.state_hash(), twin.state_hash(), "at {now} after {commands:?}");
        if round.restore {
            let written = bytes(&table);
            table = restore(&written).expect("what was written can be read");
            table.check_invariants();
            assert_eq!(bytes(&table), written);
            assert_eq!(table.state_hash(), twin.state_hash());
        }
    }
    assert_eq!(table.events_after(START), twin.events_after(START));
}
