//! Random entries: the table says and does what the naive one does, from a snapshot too, and any bytes are read without harm.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*, sample::Index};
use tenure_lease::{
    Acquire, Applied, Command, Delete, Detach, LeaseState, LeaseTable, Limits, NoticeKind, Outcome, Put, RaftLeaderId, Release, ReleaseBy, Renew, RenewItem,
    RenewResult, Scope, Selector, SessionId, WaiterId,
};

use super::{
    fixture::{LEADER, START, close, entry, keep, key},
    model::{Change, Model, Said, Seen, Told},
    snapshots::{bytes, restore},
};

const LIMITS: Limits = Limits { leases_per_namespace: 3, waiters_per_lease: 3 };
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A command whose tokens and waiters are chosen among those that there were.
#[derive(Clone, Debug)]
enum Wish {
    Renew { token: Index, duration: Option<u32>, name: Option<usize> },
    ReleaseToken { name: usize, token: Index },
    ReleaseRequest { name: usize, holder: usize, id: usize },
    Keep { session: u64, close: bool },
    Acquire { name: usize, holder: usize, id: usize, odd: bool, wait: u64, reclaim: bool, session: u64 },
    Detach { waiter: Index, session: u64 },
    Put { name: usize, retention: Option<Option<u64>>, must_not_exist: bool, stale: bool },
    Delete { name: usize, force: bool, stale: bool },
}

#[derive(Clone, Debug)]
struct Round {
    passes: u64,
    wishes: Vec<Wish>,
    restore: bool,
    inert: bool,
}

fn wish() -> impl Strategy<Value = Wish> {
    let name = 0..NAMES.len();
    let duration = prop_oneof![Just(None), Just(Some(300)), Just(Some(4000))];
    let wait = prop_oneof![2 => Just(0_u64), 4 => Just(20_000), 1 => Just(900)];
    let retention = prop_oneof![Just(None), Just(Some(None)), Just(Some(Some(800))), Just(Some(Some(100_000)))];
    prop_oneof![
        5 => (any::<Index>(), duration, proptest::option::weighted(0.2, name.clone())).prop_map(|(token, duration, name)| Wish::Renew { token, duration, name }),
        3 => (name.clone(), any::<Index>()).prop_map(|(name, token)| Wish::ReleaseToken { name, token }),
        1 => (name.clone(), 0..3_usize, 0..4_usize).prop_map(|(name, holder, id)| Wish::ReleaseRequest { name, holder, id }),
        4 => (1..4_u64, prop::bool::weighted(0.1)).prop_map(|(session, close)| Wish::Keep { session, close }),
        10 => (name.clone(), 0..3_usize, 0..6_usize, prop::bool::weighted(0.05), wait, prop::bool::weighted(0.15), 1..4_u64)
            .prop_map(|(name, holder, id, odd, wait, reclaim, session)| Wish::Acquire { name, holder, id, odd, wait, reclaim, session }),
        3 => (any::<Index>(), 1..4_u64).prop_map(|(waiter, session)| Wish::Detach { waiter, session }),
        1 => (name.clone(), retention, prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(name, retention, must_not_exist, stale)| Wish::Put { name, retention, must_not_exist, stale }),
        1 => (name, any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(name, force, stale)| Wish::Delete { name, force, stale }),
    ]
}

fn round() -> impl Strategy<Value = Round> {
    let passes = prop_oneof![4 => 0..3_u64, 4 => 100..900_u64, 3 => 900..2100_u64, 1 => 2001..11_000_u64, 1 => Just(1000_u64), 1 => 299_000..302_000_u64];
    (passes, vec(wish(), 0..5), prop::bool::weighted(0.15), prop::bool::weighted(0.05)).prop_map(|(passes, wishes, restore, inert)| Round {
        passes,
        wishes,
        restore,
        inert,
    })
}

/// Late ones are the likeliest to mean something.
fn recent<T: Clone>(all: &[T], index: Index) -> Option<T> {
    let from = all.len().saturating_sub(6);
    (!all.is_empty()).then(|| all[from..][index.index(all.len() - from)].clone())
}

fn command(wish: &Wish, model: &Model) -> Command {
    match wish.clone() {
        Wish::Renew { token, duration, name } => {
            let token = recent(&model.tokens, token).unwrap_or(7);
            Command::Renew(Renew { items: vec![RenewItem { token, duration_ms: duration, key: name.map(|name| Box::new(key(NAMES[name]))) }] })
        }
        Wish::ReleaseToken { name, token } => {
            Command::Release(Box::new(Release { key: key(NAMES[name]), by: ReleaseBy::Token(recent(&model.tokens, token).unwrap_or(0)) }))
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
            Command::Put(Box::new(Put { key: key(NAMES[name]), labels: None, annotations: None, retention_ms: retention, if_revision, must_not_exist }))
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
        Outcome::Refused(refusal) => Said::Refused(*refusal),
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

fn seen(table: &LeaseTable) -> Vec<Seen> {
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

fn bootstrapped() -> LeaseTable {
    let mut table = LeaseTable::new();
    table.apply(LEADER, entry(0, [Command::Bootstrap { counter_start: START, limits: LIMITS }]), false);
    table
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn table_does_what_the_naive_one_does_from_snapshots_too(rounds in vec(round(), 1..60)) {
        let mut model = Model::new(START, LIMITS);
        // One is restored from snapshots on its way; the other has only ever applied.
        let (mut table, mut twin) = (bootstrapped(), bootstrapped());
        let mut now = 0;
        for round in &rounds {
            now += round.passes;
            let commands: Vec<Command> = round.wishes.iter().map(|wish| command(wish, &model)).collect();
            if round.inert {
                let hash = table.state_hash();
                let applied = table.apply(RaftLeaderId { term: 9, node: 9 }, entry(now + 1_000_000, commands), false);
                prop_assert!(applied.outcomes.iter().all(|outcome| *outcome == Outcome::Refused(tenure_lease::Refusal::Inert)));
                prop_assert_eq!(table.state_hash(), hash);
                continue;
            }
            let timer = twin.next_timer();
            let (expected, news, events) = model.apply(now, &commands);
            let applied = table.apply(LEADER, entry(now, commands.clone()), false);
            let same = twin.apply(LEADER, entry(now, commands.clone()), false);
            table.check_invariants();
            if commands.is_empty() && timer.is_none_or(|timer| now <= timer.0) {
                prop_assert!(applied.events.is_empty() && applied.notices.is_empty(), "nothing was due at {}: {:?}", now, applied);
            }
            prop_assert_eq!(applied.outcomes.iter().map(said).collect::<Vec<_>>(), expected, "at {} to {:?}", now, commands);
            prop_assert_eq!(told(&applied), news, "at {} of {:?}", now, commands);
            prop_assert_eq!(changes(&applied), events, "at {} of {:?}", now, commands);
            prop_assert_eq!(seen(&table), model.seen(), "at {} after {:?}", now, commands);
            prop_assert_eq!((table.revision(), table.totals().ended), (model.counter, model.ended()));
            prop_assert_eq!((&applied.outcomes, &applied.events, &applied.notices), (&same.outcomes, &same.events, &same.notices));
            prop_assert_eq!(table.state_hash(), twin.state_hash(), "at {} after {:?}", now, commands);
            if round.restore {
                let written = bytes(&table);
                table = restore(&written).expect("what was written can be read");
                table.check_invariants();
                prop_assert_eq!(bytes(&table), written);
                prop_assert_eq!(table.state_hash(), twin.state_hash());
            }
        }
        prop_assert_eq!(table.events_after(START), twin.events_after(START));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_harm(bytes in vec(any::<u8>(), 0..400), good_version in any::<bool>()) {
        let mut bytes = bytes;
        if good_version && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&1_u32.to_le_bytes());
        }
        prop_assert!(restore(&bytes).is_err() || bytes.len() > 60);
    }

    #[test]
    fn damaged_snapshots_are_read_without_harm(rounds in vec(round(), 1..20), damage in vec((any::<Index>(), any::<u8>()), 1..4)) {
        let mut table = bootstrapped();
        let model = Model::new(START, LIMITS);
        let mut now = 0;
        for round in &rounds {
            now += round.passes;
            table.apply(LEADER, entry(now, round.wishes.iter().map(|wish| command(wish, &model))), false);
        }
        let mut written = bytes(&table);
        for (at, byte) in damage {
            let at = at.index(written.len());
            written[at] = byte;
        }
        if let Ok(table) = restore(&written) {
            std::hint::black_box((table.state_hash(), table.next_timer(), seen(&table)));
        }
    }
}
