//! A table with a short way to ask it things; checks its invariants after every entry.

use std::sync::Arc;

use tenure_lease::{
    Acquire, Applied, Command, Delete, Detach, Entry, Labels, Lease, LeaseKey, LeaseTable, LeaseTime, Limits, NoticeKind, Outcome, Put, RaftLeaderId, Release,
    ReleaseBy, ReleaseOutcome, Renew, RenewItem, RenewResult, SessionId, UnixMillis, WaiterId,
};

pub(crate) const LEADER: RaftLeaderId = RaftLeaderId { term: 1, node: 1 };
pub(crate) const START: u64 = 1000;

pub(crate) struct Fixture {
    pub(crate) table: LeaseTable,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let mut fixture = Self { table: LeaseTable::new() };
        let applied = fixture.at(0, [Command::Bootstrap { counter_start: START, limits }]);
        assert_eq!(applied.outcomes, [Outcome::Done]);
        fixture
    }

    pub(crate) fn at(&mut self, now: u64, commands: impl IntoIterator<Item = Command>) -> Applied {
        let applied = self.table.apply(LEADER, entry(now, commands), true);
        self.table.check_invariants();
        applied
    }

    pub(crate) fn one(&mut self, now: u64, command: Command) -> Outcome {
        self.at(now, [command]).outcomes.remove(0)
    }

    pub(crate) fn tick(&mut self, now: u64) -> Applied {
        self.at(now, [])
    }

    pub(crate) fn acquire(&mut self, now: u64, acquire: Acquire) -> Outcome {
        self.one(now, Command::Acquire(Box::new(acquire)))
    }

    /// Acquires for a holder, who must get it; the token.
    pub(crate) fn grant(&mut self, now: u64, name: &str, holder: &str) -> u64 {
        let request_id = format!("{holder}-{}", self.table.revision());
        granted(&self.acquire(now, acquire(name, holder, &request_id)))
    }

    /// Enqueues for a minute through session 1; the place.
    pub(crate) fn enqueue(&mut self, now: u64, name: &str, holder: &str) -> WaiterId {
        queued(&self.acquire(now, waiting(name, holder, holder, 60_000, 1))).1
    }

    pub(crate) fn renew(&mut self, now: u64, token: u64) -> RenewResult {
        let Outcome::Renewed(mut results) = self.one(now, renew(token)) else { panic!("not an answer to a renewal") };
        results.remove(0)
    }

    pub(crate) fn keep(&mut self, now: u64, session: u64) -> Applied {
        self.at(now, [keep(session)])
    }

    /// Time passes while session 1 is kept alive.
    pub(crate) fn keep_until(&mut self, until: u64) -> Vec<(u64, u64, NoticeKind)> {
        let mut heard = Vec::new();
        while self.table.clock().0 < until {
            let now = (self.table.clock().0 + 1000).min(until);
            heard.extend(notices(&self.keep(now, 1)));
        }
        heard
    }

    pub(crate) fn lease(&self, name: &str) -> Arc<Lease> {
        self.table.get(&key(name)).expect("the lease is there")
    }

    pub(crate) fn holder(&self, name: &str) -> Option<String> {
        self.lease(name).holder.as_ref().map(ToString::to_string)
    }

    pub(crate) fn queue(&self, name: &str) -> Vec<(u64, bool)> {
        self.table.queue(&key(name)).into_iter().map(|(id, attached)| (id.0, attached)).collect()
    }
}

pub(crate) fn entry(now: u64, commands: impl IntoIterator<Item = Command>) -> Entry {
    Entry { proposer: LEADER, stamp: LeaseTime(now), wall: UnixMillis(1_700_000_000_000 + now), commands: commands.into_iter().collect() }
}

pub(crate) fn key(name: &str) -> LeaseKey {
    LeaseKey::trusted("default", name)
}

/// For three seconds, without waiting.
pub(crate) fn acquire(name: &str, holder: &str, request_id: &str) -> Acquire {
    Acquire {
        key: key(name),
        holder: holder.into(),
        duration_ms: 3000,
        request_id: request_id.into(),
        wait_ms: 0,
        reclaim: false,
        holder_data: Arc::default(),
        session: SessionId(0),
        retention_ms: 3_600_000,
        labels: Arc::default(),
        annotations: Arc::default(),
    }
}

pub(crate) fn waiting(name: &str, holder: &str, request_id: &str, wait_ms: u64, session: u64) -> Acquire {
    Acquire { wait_ms, session: SessionId(session), ..acquire(name, holder, request_id) }
}

pub(crate) fn renew(token: u64) -> Command {
    Command::Renew(Renew { items: vec![RenewItem { token, duration_ms: None, key: None }] })
}

pub(crate) fn renew_for(token: u64, duration_ms: u32) -> Command {
    Command::Renew(Renew { items: vec![RenewItem { token, duration_ms: Some(duration_ms), key: None }] })
}

pub(crate) fn release(name: &str, token: u64) -> Command {
    Command::Release(Box::new(Release { key: key(name), by: ReleaseBy::Token(token) }))
}

pub(crate) fn release_request(name: &str, holder: &str, request_id: &str) -> Command {
    Command::Release(Box::new(Release { key: key(name), by: ReleaseBy::Request { holder: holder.into(), request_id: request_id.into() } }))
}

pub(crate) fn keep(session: u64) -> Command {
    Command::KeepSession { session: SessionId(session), close: false }
}

pub(crate) fn close(session: u64) -> Command {
    Command::KeepSession { session: SessionId(session), close: true }
}

pub(crate) fn detach(name: &str, session: u64, waiter: WaiterId) -> Command {
    Command::Detach(Box::new(Detach { key: key(name), session: SessionId(session), waiter }))
}

pub(crate) fn put(name: &str) -> Put {
    Put { key: key(name), labels: None, annotations: None, retention_ms: None, if_revision: None, must_not_exist: false, hold: None }
}

pub(crate) fn delete(name: &str, force: bool) -> Command {
    Command::Delete(Box::new(Delete { key: key(name), if_revision: None, force }))
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Arc<Labels> {
    Arc::new(pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect())
}

#[track_caller]
pub(crate) fn granted(outcome: &Outcome) -> u64 {
    let Outcome::Granted { lease, .. } = outcome else { panic!("not granted: {outcome:?}") };
    lease.token
}

#[track_caller]
pub(crate) fn queued(outcome: &Outcome) -> (u32, WaiterId) {
    let Outcome::Queued { position, waiter, .. } = outcome else { panic!("not queued: {outcome:?}") };
    (*position, *waiter)
}

#[track_caller]
pub(crate) fn released(outcome: &Outcome) -> ReleaseOutcome {
    let Outcome::Released { outcome, .. } = outcome else { panic!("not released: {outcome:?}") };
    *outcome
}

pub(crate) fn notices(applied: &Applied) -> Vec<(u64, u64, NoticeKind)> {
    applied.notices.iter().map(|notice| (notice.session.0, notice.waiter.0, notice.kind.clone())).collect()
}

/// The grants among the notices: (session, waiter, token).
pub(crate) fn grants(applied: &Applied) -> Vec<(u64, u64, u64)> {
    let grant = |(session, waiter, kind)| if let NoticeKind::Granted(lease) = kind { Some((session, waiter, lease.token)) } else { None };
    notices(applied).into_iter().filter_map(grant).collect()
}
