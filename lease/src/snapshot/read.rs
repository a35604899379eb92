//! The format, read, from bytes that nobody vouches for: every count and length is bounded by what is really there, and what
//! would break an invariant of the table is damage.

use std::{collections::HashMap, io::Read, sync::Arc};

use super::{END, FORMAT, RestoreError};
use crate::{
    EndReason, Event, EventKind, Hold, Labels, Lease, LeaseState, LeaseTable, LeaseTime, Limits, SessionId, UnixMillis, WaiterId,
    table::{
        COUNTER_END, Presence, Waiter,
        requests::{Ended, RequestKey, uid},
        sessions::Session,
        slots::{Claim, Cold, Hot, RECENT_HOLDS, Retention},
        tail::{KEPT_EVENTS, Tail},
    },
};

/// Of one text or one blob; nothing that a message carries is larger.
const MOST_BYTES: u32 = 4 << 20;

type Result<T> = std::result::Result<T, RestoreError>;

fn check(good: bool, problem: &'static str) -> Result<()> {
    if good { Ok(()) } else { Err(RestoreError::Damaged(problem)) }
}

pub(super) fn table(r: &mut dyn Read) -> Result<LeaseTable> {
    let mut r = Reader { r, scratch: Vec::new(), texts: HashMap::new(), no_labels: Arc::default() };
    let format = r.u32()?;
    if format != FORMAT {
        return Err(RestoreError::Version(format, FORMAT));
    }
    let mut table = LeaseTable::new();
    table.bootstrapped = r.flag()?;
    table.clock = LeaseTime(r.u64()?);
    table.counter = r.u64()?;
    check(table.counter < COUNTER_END, "the counter is beyond 2^53")?;
    table.limits = Limits { leases_per_namespace: r.u64()?, waiters_per_lease: r.u32()? };

    let mut before = None;
    for _ in 0..r.u64()? {
        let id = r.u64()?;
        check(before < Some(id), "sessions are out of order")?;
        before = Some(id);
        let session = Session { last: r.past(table.clock)?, lapsed: r.flag()?, ..Session::default() };
        table.insert_session(SessionId(id), session);
    }
    let mut before: Option<(Arc<str>, Arc<str>)> = None;
    for _ in 0..r.u64()? {
        let (hot, cold) = r.slot(&table)?;
        let key = Some((cold.namespace.clone(), cold.name.clone()));
        check(before < key, "leases are out of order")?;
        before = key;
        r.queue(&mut table, hot, cold)?;
    }
    check(table.sessions.values().all(|session| !session.lapsed || !session.waiters.is_empty()), "a lapsed session has no waiters")?;
    let mut last = LeaseTime(0);
    for _ in 0..r.u64()? {
        let ended = r.ended(&table)?;
        check(last <= ended.ended_at && ended.ended_at <= table.clock, "ended requests are out of order")?;
        last = ended.ended_at;
        check(!table.is_live(&ended), "an ended request is live")?;
        check(table.ended.remember(ended), "an ended request is there twice")?;
    }
    table.tail = r.tail(table.counter)?;
    check(r.u32()? == END, "the end is missing")?;
    contradicts_nothing(&table)?;
    if crate::bug!("bug_tokens_reset") {
        // The counter is taken from what is there, not from what has been (etcd#17780: the revision went back after a crash).
        table.counter = table.slots.iter().map(|(_, hot, cold)| hot.renew_revision.max(cold.revision)).max().unwrap_or(0);
    }
    Ok(table)
}

/// What only the whole table shows. Two of what there can be only one of would be taken for one another later.
fn contradicts_nothing(table: &LeaseTable) -> Result<()> {
    let leases = || table.slots.iter().map(|(_, hot, cold)| (hot, cold));
    check(are_distinct(leases().map(|(_, cold)| cold.create_revision)), "two leases were created by one change")?;
    check(are_distinct(table.queues.values().flat_map(|queue| queue.iter().map(|(id, _)| *id))), "a waiter is there twice")?;
    let held = || leases().filter(|(hot, _)| hot.held).map(|(_, cold)| cold.request);
    check(are_distinct(held()), "a request holds twice")?;
    check(held().all(|request| !table.is_waiting(request) && table.ended.by_request(request).is_none()), "a request that holds waits, or has ended")
}

fn are_distinct<T: Ord>(all: impl Iterator<Item = T>) -> bool {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable();
    all.is_sorted_by(|one, next| one < next)
}

struct Reader<'a> {
    r: &'a mut dyn Read,
    scratch: Vec<u8>,
    /// Namespaces and the like, which many leases share.
    texts: HashMap<Box<str>, Arc<str>>,
    no_labels: Arc<Labels>,
}

impl Reader<'_> {
    fn slot(&mut self, table: &LeaseTable) -> Result<(Hot, Cold)> {
        let counter = table.counter;
        let namespace = self.shared_text()?;
        let name = self.text()?;
        let mut hot = Hot::default();
        let mut cold = Cold {
            namespace,
            name,
            labels: self.labels()?,
            annotations: self.labels()?,
            create_revision: self.revision(counter)?,
            create_time: self.wall()?,
            revision: self.revision(counter)?,
            transitions: self.u64()?,
            retention: Retention::new(self.optional(Self::u64)?),
            idle_since: self.past(table.clock)?,
            holder: self.optional(Self::text)?,
            holder_data: self.bytes()?.into(),
            acquire_time: self.wall()?,
            request: RequestKey::default(),
            fingerprint: 0,
            claim: None,
            past: None,
        };
        check(cold.transitions < COUNTER_END, "a lease has too many transitions")?;
        hot.token = self.revision(counter)?;
        hot.duration_ms = self.u32()?;
        hot.renew_revision = self.revision(counter)?;
        hot.renew_time = self.wall()?;
        hot.held = self.flag()?;
        hot.expired = self.flag()?;
        check(cold.revision <= hot.renew_revision, "a lease's revisions contradict each other")?;
        check(cold.holder.is_some() == (hot.token != 0), "a token without a holder")?;
        if hot.held {
            check(hot.token != 0, "a hold without a token")?;
            hot.deadline = LeaseTime(self.u64()?);
            hot.armed = hot.deadline;
            cold.request = self.request()?;
            cold.fingerprint = self.u64()?;
            let claim = self.optional(|r| Ok(Claim { waiter: WaiterId(r.u64()?), session: SessionId(r.u64()?) }))?;
            hot.unclaimed = claim.is_some();
            cold.claim = claim.map(Box::new);
        }
        let holds = self.u32()? as usize;
        check(holds <= RECENT_HOLDS, "a lease has too many holds")?;
        if holds > 0 {
            let past = (0..holds).map(|_| self.hold()).collect::<Result<Vec<_>>>()?;
            cold.past = Some(Arc::new(past));
        }
        Ok((hot, cold))
    }

    /// The waiters of a lease, which goes into the table with them.
    fn queue(&mut self, table: &mut LeaseTable, hot: Hot, cold: Cold) -> Result<()> {
        let waiters = self.u32()?;
        let Some(slot) = table.insert_lease(hot, cold) else { return Err(RestoreError::Damaged("a token is live twice")) };
        let mut before = None;
        for _ in 0..waiters {
            let id = self.revision(table.counter)?;
            check(before < Some(id), "waiters are out of order")?;
            before = Some(id);
            let waiter = self.waiter(table.clock)?;
            let session = table.sessions.get(&waiter.session);
            check(session.is_some(), "a waiter has no session")?;
            let attached = waiter.presence == Presence::Attached;
            check(!attached || (hot.held && session.is_some_and(|session| !session.lapsed)), "a waiter is attached to nothing")?;
            check(session.is_some_and(|session| !session.waiters.contains_key(&WaiterId(id))), "a waiter is there twice")?;
            check(!table.is_waiting(waiter.request), "a request waits twice")?;
            check(!table.has_timers_of(WaiterId(id), &waiter), "a waiter is there twice")?;
            table.insert_waiter(slot, WaiterId(id), waiter);
        }
        check(table.settle_restored(slot), "a lease is there twice")
    }

    fn waiter(&mut self, clock: LeaseTime) -> Result<Waiter> {
        Ok(Waiter {
            request: self.request()?,
            fingerprint: self.u64()?,
            holder: self.text()?,
            holder_data: self.bytes()?.into(),
            duration_ms: self.u32()?,
            session: SessionId(self.u64()?),
            until: LeaseTime(self.u64()?),
            presence: match (self.u8()?, self.past(clock)?) {
                (0, _) => Presence::Attached,
                (1, since) => Presence::Lapsed(since),
                (2, since) => Presence::Detached(since),
                _ => return Err(RestoreError::Damaged("a waiter is neither attached nor detached")),
            },
        })
    }

    fn ended(&mut self, table: &LeaseTable) -> Result<Ended> {
        Ok(Ended {
            request: self.request()?,
            token: self.revision(table.counter)?,
            reason: self.reason()?.ok_or(RestoreError::Damaged("a request ended for no reason"))?,
            fingerprint: self.u64()?,
            ended_at: LeaseTime(self.u64()?),
        })
    }

    fn tail(&mut self, counter: u64) -> Result<Tail> {
        let floor = self.revision(counter)?;
        let mut tail = Tail::starting_at(floor);
        let events = self.u64()?;
        check(events <= KEPT_EVENTS as u64, "there are too many events")?;
        let mut newest = floor;
        for _ in 0..events {
            let event = self.event(counter)?;
            check(newest < event.revision, "events are out of order")?;
            newest = event.revision;
            tail.push(Arc::new(event));
        }
        Ok(tail)
    }

    fn event(&mut self, counter: u64) -> Result<Event> {
        Ok(Event {
            revision: self.revision(counter)?,
            kind: match self.u8()? {
                1 => EventKind::Created,
                2 => EventKind::Acquired,
                4 => EventKind::Released,
                5 => EventKind::Expired,
                6 => EventKind::Updated,
                7 => EventKind::Deleted,
                _ => return Err(RestoreError::Damaged("an event of no known kind")),
            },
            lease: Arc::new(self.lease()?),
            ended: self.optional(Self::hold)?,
            previous_labels: self.optional(Self::labels)?,
        })
    }

    fn lease(&mut self) -> Result<Lease> {
        let (namespace, name) = (self.shared_text()?, self.text()?);
        let (labels, annotations) = (self.labels()?, self.labels()?);
        let state = match self.u8()? {
            1 => LeaseState::Free,
            2 => LeaseState::Held,
            3 => LeaseState::Expired,
            _ => return Err(RestoreError::Damaged("a lease in no known state")),
        };
        let somebody = self.optional(Self::text)?;
        let (holder, last_holder) = if state == LeaseState::Held { (somebody, None) } else { (None, somebody) };
        let mut lease = Lease {
            namespace,
            name,
            uid: 0,
            labels,
            annotations,
            state,
            holder,
            last_holder,
            holder_data: self.bytes()?.into(),
            token: self.u64()?,
            duration_ms: self.u32()?,
            deadline: self.optional(|r| Ok(LeaseTime(r.u64()?)))?,
            unclaimed: self.flag()?,
            create_time: self.wall()?,
            acquire_time: self.optional(Self::wall)?,
            renew_time: self.optional(Self::wall)?,
            transitions: self.u64()?,
            retention_ms: self.optional(Self::u64)?,
            waiters: self.u32()?,
            revision: self.u64()?,
            renew_revision: self.u64()?,
            create_revision: self.u64()?,
        };
        lease.uid = uid(lease.create_revision, &lease.namespace, &lease.name);
        Ok(lease)
    }

    fn hold(&mut self) -> Result<Hold> {
        Ok(Hold {
            holder: self.text()?,
            token: self.u64()?,
            acquire_time: self.wall()?,
            end_time: self.optional(Self::wall)?,
            end_reason: self.reason()?,
            end_revision: self.u64()?,
        })
    }

    fn reason(&mut self) -> Result<Option<EndReason>> {
        Ok(Some(match self.u8()? {
            0 => return Ok(None),
            1 => EndReason::Released,
            2 => EndReason::Expired,
            3 => EndReason::Reclaimed,
            4 => EndReason::Revoked,
            5 => EndReason::Unclaimed,
            6 => EndReason::Barred,
            7 => EndReason::Detached,
            8 => EndReason::UnknownToken,
            9 => EndReason::WrongLease,
            _ => return Err(RestoreError::Damaged("a hold ended for no known reason")),
        }))
    }

    fn labels(&mut self) -> Result<Arc<Labels>> {
        let count = self.u32()?;
        if count == 0 {
            return Ok(self.no_labels.clone());
        }
        let mut labels = Labels::new();
        for _ in 0..count {
            let key = self.shared_text()?;
            check(labels.last_key_value().is_none_or(|(last, _)| *last < key), "labels are out of order")?;
            labels.insert(key, self.shared_text()?);
        }
        Ok(Arc::new(labels))
    }

    fn request(&mut self) -> Result<RequestKey> {
        Ok(RequestKey([self.u64()?, self.u64()?]))
    }

    /// Of a change that has been.
    fn revision(&mut self, counter: u64) -> Result<u64> {
        let revision = self.u64()?;
        check(revision <= counter, "a revision is beyond the counter")?;
        Ok(revision)
    }

    fn past(&mut self, clock: LeaseTime) -> Result<LeaseTime> {
        let at = LeaseTime(self.u64()?);
        check(at <= clock, "something has been after the clock")?;
        Ok(at)
    }

    fn wall(&mut self) -> Result<UnixMillis> {
        Ok(UnixMillis(self.u64()?))
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// One that is likely to come again.
    fn shared_text(&mut self) -> Result<Arc<str>> {
        const MOST_SHARED: usize = 4096;
        self.fill()?;
        let text = text_of(&self.scratch)?;
        if let Some(shared) = self.texts.get(text) {
            return Ok(shared.clone());
        }
        let shared: Arc<str> = text.into();
        if self.texts.len() < MOST_SHARED {
            self.texts.insert(text.into(), shared.clone());
        }
        Ok(shared)
    }

    fn text(&mut self) -> Result<Arc<str>> {
        self.fill()?;
        Ok(text_of(&self.scratch)?.into())
    }

    fn bytes(&mut self) -> Result<&[u8]> {
        self.fill()?;
        Ok(&self.scratch)
    }

    /// Reads a length and that many bytes; grows with what is really there.
    fn fill(&mut self) -> Result<()> {
        let length = self.u32()?;
        check(length <= MOST_BYTES, "a text is too long")?;
        self.scratch.clear();
        let mut left = length as usize;
        while left > 0 {
            let (read, more) = (self.scratch.len(), left.min(64 * 1024));
            self.scratch.resize(read + more, 0);
            self.r.read_exact(&mut self.scratch[read..])?;
            left -= more;
        }
        Ok(())
    }

    fn flag(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RestoreError::Damaged("a flag is neither set nor not")),
        }
    }

    fn u8(&mut self) -> Result<u8> {
        let mut bytes = [0];
        self.r.read_exact(&mut bytes)?;
        Ok(bytes[0])
    }

    fn u32(&mut self) -> Result<u32> {
        let mut bytes = [0; 4];
        self.r.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.r.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

fn text_of(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| RestoreError::Damaged("a text is not UTF-8"))
}
