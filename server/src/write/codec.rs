//! Entries between the log's bytes and the core's types, outcomes between the core's and the wire's.
//!
//! Decoding never skips what it does not know: a replica that skipped a command would silently differ from the others. Whatever changes the
//! meaning of an entry takes a new format version, because protobuf drops fields that it does not know. Encoding never invents time.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use prost::Message;
use tenure_lease::{
    Acquire, COUNTER_END, Command, Delete, Detach, EndReason, Entry, Labels, Lease, LeaseKey, LeaseState, LeaseTime, Limits, Outcome, Put, PutHold,
    RaftLeaderId, Refusal, Release, ReleaseBy, ReleaseOutcome, Renew, RenewItem, RenewResult, SessionId, UnixMillis, WaiterId,
};
use tenure_proto::{peer::v1 as peer, v1};

/// The format of [`peer::Entry`] that this build writes, and the newest that it reads.
const VERSION: u32 = 2;
/// The oldest that it reads. Entries of format 1 have no put with a hold.
const OLDEST_VERSION: u32 = 1;

/// Field number of `commands` in [`peer::Entry`].
const COMMANDS_TAG: u32 = 6;

/// Why the bytes of an entry cannot be applied. Replicas that cannot read what was committed must stop, not skip.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the log entry is damaged: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("log entry format {0} is not known to this build (it knows {VERSION}): use a newer tenured")]
    Version(u32),
    #[error("command {0} of the log entry is of a kind that this build does not know: use a newer tenured")]
    UnknownCommand(usize),
    #[error("the log entry is damaged: {0}")]
    Damaged(&'static str),
}

/// The bytes of one entry. `capacity` is a hint: the encoded size of the commands.
pub(crate) fn encode_entry<'a>(
    proposer: RaftLeaderId,
    stamp: LeaseTime,
    wall: UnixMillis,
    commands: impl Iterator<Item = &'a peer::Command>,
    capacity: usize,
) -> Bytes {
    let head = peer::Entry {
        version: VERSION,
        proposer_term: proposer.term,
        proposer_node: proposer.node,
        stamp_ms: stamp.0,
        wall_unix_ms: wall.0,
        commands: Vec::new(),
    };
    let mut bytes = BytesMut::with_capacity(capacity + 64);
    head.encode_raw(&mut bytes);
    // Field by field, so that the commands may stay where they are: whoever submitted one keeps it for another attempt.
    for command in commands {
        prost::encoding::message::encode(COMMANDS_TAG, command, &mut bytes);
    }
    bytes.freeze()
}

/// The entry that the bytes are.
pub(crate) fn decode_entry(bytes: &[u8]) -> Result<Entry, DecodeError> {
    let entry = peer::Entry::decode(bytes)?;
    if !(OLDEST_VERSION..=VERSION).contains(&entry.version) {
        return Err(DecodeError::Version(entry.version));
    }
    let commands = entry.commands.into_iter().enumerate().map(|(n, command)| command_from_wire(n, command)).collect::<Result<_, _>>()?;
    Ok(Entry {
        proposer: RaftLeaderId { term: entry.proposer_term, node: entry.proposer_node },
        stamp: LeaseTime(entry.stamp_ms),
        wall: UnixMillis(entry.wall_unix_ms),
        commands,
    })
}

fn command_from_wire(n: usize, command: peer::Command) -> Result<Command, DecodeError> {
    use peer::command::Kind;
    Ok(match command.kind.ok_or(DecodeError::UnknownCommand(n))? {
        Kind::Renew(renew) => Command::Renew(renew_from_wire(renew)?),
        Kind::Release(release) => {
            let by = match release.token {
                0 => ReleaseBy::Request { holder: release.holder.into(), request_id: release.request_id.into() },
                token if release.undelivered => ReleaseBy::Undelivered(token),
                token => ReleaseBy::Token(token),
            };
            Command::Release(Box::new(Release { key: key(release.key)?, by }))
        }
        Kind::KeepSession(keep) => Command::KeepSession { session: SessionId(keep.session), close: keep.close },
        Kind::Acquire(acquire) => Command::Acquire(Box::new(Acquire {
            key: key(acquire.key)?,
            holder: acquire.holder.into(),
            duration_ms: acquire.duration_ms,
            request_id: acquire.request_id.into(),
            wait_ms: acquire.wait_ms,
            reclaim: acquire.reclaim,
            holder_data: Arc::from(&acquire.holder_data[..]),
            session: SessionId(acquire.session),
            retention_ms: acquire.retention_ms,
            labels: labels(acquire.labels),
            annotations: labels(acquire.annotations),
        })),
        Kind::Detach(detach) => {
            Command::Detach(Box::new(Detach { key: key(detach.key)?, session: SessionId(detach.session), waiter: WaiterId(detach.waiter) }))
        }
        Kind::Put(put) => Command::Put(Box::new(Put {
            key: key(put.key)?,
            labels: put.set_labels.then(|| labels(put.labels)),
            annotations: put.set_annotations.then(|| labels(put.annotations)),
            retention_ms: put.set_retention.then_some(put.retention_ms),
            if_revision: nonzero(put.if_revision),
            must_not_exist: put.must_not_exist,
            hold: put.hold.map(|hold| PutHold {
                holder: hold.holder.into(),
                duration_ms: hold.duration_ms,
                request_id: hold.request_id.into(),
                holder_data: Arc::from(&hold.holder_data[..]),
            }),
        })),
        Kind::Delete(delete) => Command::Delete(Box::new(Delete { key: key(delete.key)?, if_revision: nonzero(delete.if_revision), force: delete.force })),
        Kind::Bootstrap(bootstrap) if bootstrap.counter_start >= COUNTER_END => return Err(DecodeError::Damaged("a cluster begins beyond 2^53")),
        Kind::Bootstrap(bootstrap) => Command::Bootstrap {
            counter_start: bootstrap.counter_start,
            limits: Limits { leases_per_namespace: bootstrap.leases_per_namespace, waiters_per_lease: bootstrap.waiters_per_lease },
        },
    })
}

/// Whether [`decode_entry`] takes the command: to be asked of what another replica sends, before it gets into the log. There it would stop every
/// replica, again at every start.
pub(crate) fn can_be_logged(command: &peer::Command) -> bool {
    use peer::command::Kind;
    match &command.kind {
        // Of a kind that this build does not know.
        None => false,
        Some(Kind::Renew(renew)) => has_even_columns(renew),
        Some(Kind::Release(release)) => release.key.is_some(),
        Some(Kind::KeepSession(_)) => true,
        Some(Kind::Acquire(acquire)) => acquire.key.is_some(),
        Some(Kind::Detach(detach)) => detach.key.is_some(),
        Some(Kind::Put(put)) => put.key.is_some(),
        Some(Kind::Delete(delete)) => delete.key.is_some(),
        Some(Kind::Bootstrap(bootstrap)) => bootstrap.counter_start < COUNTER_END,
    }
}

fn has_even_columns(renew: &peer::Renew) -> bool {
    let fits = |column: usize| column == 0 || column == renew.tokens.len();
    fits(renew.durations_ms.len()) && fits(renew.keys.len())
}

fn renew_from_wire(renew: peer::Renew) -> Result<Renew, DecodeError> {
    if !has_even_columns(&renew) {
        return Err(DecodeError::Damaged("the columns of a renewal differ in length"));
    }
    let peer::Renew { tokens, durations_ms, keys } = renew;
    let mut keys = keys.into_iter();
    let mut durations_ms = durations_ms.into_iter();
    let item = |token| RenewItem {
        token,
        duration_ms: durations_ms.next().filter(|ms| *ms != 0),
        key: keys.next().filter(|key| !key.name.is_empty()).map(|key| Box::new(LeaseKey::trusted(key.namespace, key.name))),
    };
    Ok(Renew { items: tokens.into_iter().map(item).collect() })
}

fn key(key: Option<peer::Key>) -> Result<LeaseKey, DecodeError> {
    let key = key.ok_or(DecodeError::Damaged("a command names no lease"))?;
    Ok(LeaseKey::trusted(key.namespace, key.name))
}

fn labels(map: HashMap<String, String>) -> Arc<Labels> {
    Arc::new(map.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}

fn nonzero(n: u64) -> Option<u64> {
    (n != 0).then_some(n)
}

/// An outcome as it travels. `now` is the stamp of its entry: who is denied, or queued, is told how long the present holder has left.
pub(crate) fn outcome_to_wire(outcome: Outcome, now: LeaseTime) -> peer::Outcome {
    use peer::outcome::Kind;
    let kind = match outcome {
        Outcome::Renewed(results) => Kind::Renewed(renewed_to_wire(results)),
        Outcome::Granted { lease, must_renew } => Kind::Granted(peer::LeaseOutcome { lease: Some(lease_to_wire(&lease, None)), must_renew }),
        Outcome::Queued { position, waiter, lease } => {
            Kind::Queued(peer::QueuedOutcome { position, waiter: waiter.0, lease: Some(lease_to_wire(&lease, Some(now))) })
        }
        Outcome::Denied { lease } => Kind::Denied(lease_to_wire(&lease, Some(now))),
        Outcome::Ended { token, reason } => Kind::Ended(v1::Ended { token, reason: reason_to_wire(reason) }),
        Outcome::Released { outcome, lease } => {
            let outcome = match outcome {
                ReleaseOutcome::Released => v1::release_response::Outcome::Released,
                ReleaseOutcome::AlreadyReleased => v1::release_response::Outcome::AlreadyReleased,
                ReleaseOutcome::NotHolder => v1::release_response::Outcome::NotHolder,
                ReleaseOutcome::Barred => v1::release_response::Outcome::Barred,
            };
            Kind::Released(peer::ReleasedOutcome { outcome: outcome.into(), lease: lease.map(|lease| lease_to_wire(&lease, None)) })
        }
        Outcome::Put { lease } => Kind::Put(lease_to_wire(&lease, None)),
        Outcome::Deleted { lease } => Kind::Deleted(lease_to_wire(&lease, None)),
        Outcome::Done => Kind::Done(true),
        Outcome::Refused(refusal) => Kind::Refused(refusal_to_wire(refusal)),
    };
    peer::Outcome { kind: Some(kind) }
}

fn renewed_to_wire(results: Vec<RenewResult>) -> peer::RenewOutcome {
    let mut durations_ms = Vec::with_capacity(results.len());
    let mut lost = Vec::new();
    for result in results {
        match result {
            RenewResult::Renewed { duration_ms } => durations_ms.push(duration_ms),
            RenewResult::Lost(it) => {
                durations_ms.push(0);
                let holder = it.holder.as_deref().unwrap_or_default().to_owned();
                lost.push(v1::Lost { reason: reason_to_wire(it.reason), holder, token: it.token });
            }
        }
    }
    peer::RenewOutcome { durations_ms, lost }
}

/// The numbers are the same by contract ([`EndReason`]).
pub(crate) fn reason_to_wire(reason: EndReason) -> i32 {
    reason as i32
}

/// A lease as clients see it, without its recent holds. `now` sets `expires_in`.
pub(crate) fn lease_to_wire(lease: &Lease, now: Option<LeaseTime>) -> v1::Lease {
    let state = match lease.state {
        LeaseState::Free => v1::lease::State::Free,
        LeaseState::Held => v1::lease::State::Held,
        LeaseState::Expired => v1::lease::State::Expired,
    };
    v1::Lease {
        namespace: lease.namespace.as_ref().to_owned(),
        name: lease.name.as_ref().to_owned(),
        uid: uuid::Uuid::from_u128(lease.uid).to_string(),
        labels: labels_to_wire(&lease.labels),
        annotations: labels_to_wire(&lease.annotations),
        state: state.into(),
        holder: lease.holder.as_deref().unwrap_or_default().to_owned(),
        last_holder: lease.last_holder.as_deref().unwrap_or_default().to_owned(),
        holder_data: Bytes::copy_from_slice(&lease.holder_data),
        token: lease.token,
        duration: (lease.duration_ms != 0).then(|| duration_to_wire(lease.duration_ms.into())),
        acquire_time: lease.acquire_time.map(timestamp_to_wire),
        renew_time: lease.renew_time.map(timestamp_to_wire),
        transitions: lease.transitions,
        expires_in: now.zip(lease.deadline).map(|(now, deadline)| duration_to_wire(deadline.since(now))),
        retention: lease.retention_ms.map(duration_to_wire),
        waiters: lease.waiters,
        revision: lease.revision,
        renew_revision: lease.renew_revision,
        create_revision: lease.create_revision,
        create_time: Some(timestamp_to_wire(lease.create_time)),
        recent_holds: Vec::new(),
    }
}

fn labels_to_wire(labels: &Labels) -> HashMap<String, String> {
    labels.iter().map(|(key, value)| (key.as_ref().to_owned(), value.as_ref().to_owned())).collect()
}

/// Milliseconds as protobuf has them.
pub(crate) fn duration_to_wire(ms: u64) -> prost_types::Duration {
    let (seconds, nanos) = split(ms);
    prost_types::Duration { seconds, nanos }
}

/// A wall-clock time as protobuf has it.
pub(crate) fn timestamp_to_wire(time: UnixMillis) -> prost_types::Timestamp {
    let (seconds, nanos) = split(time.0);
    prost_types::Timestamp { seconds, nanos }
}

fn split(ms: u64) -> (i64, i32) {
    let seconds = i64::try_from(ms / 1_000).expect("a thousandth of a u64 fits");
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).expect("less than a second");
    (seconds, nanos)
}

fn refusal_to_wire(refusal: Refusal) -> peer::Refusal {
    let mut present = String::new();
    let (kind, a, b) = match refusal {
        Refusal::Inert => (1, 0, 0),
        Refusal::NotBootstrapped => (2, 0, 0),
        Refusal::NotFound => (3, 0, 0),
        Refusal::AlreadyExists => (4, 0, 0),
        Refusal::RevisionMismatch { current } => (5, current, 0),
        Refusal::InUse { until: None } => (6, 0, 0),
        Refusal::InUse { until: Some(until) } => (6, until.0, 1),
        Refusal::RequestMismatch => (7, 0, 0),
        Refusal::NamespaceFull { limit } => (8, limit, 0),
        Refusal::QueueFull { limit } => (9, limit.into(), 0),
        Refusal::TooManyEnded { retry_ms } => (10, retry_ms, 0),
        Refusal::HeldByAnother { holder, token, left_ms } => {
            present = holder.as_ref().to_owned();
            (11, token, left_ms)
        }
        Refusal::WaitedFor { waiters } => (12, waiters.into(), 0),
    };
    peer::Refusal { kind, a, b, holder: present }
}

/// `None`: of a kind that a newer raft leader knows.
pub(crate) fn refusal_from_wire(refusal: peer::Refusal) -> Option<Refusal> {
    let peer::Refusal { kind, a, b, holder } = refusal;
    Some(match kind {
        1 => Refusal::Inert,
        2 => Refusal::NotBootstrapped,
        3 => Refusal::NotFound,
        4 => Refusal::AlreadyExists,
        5 => Refusal::RevisionMismatch { current: a },
        6 => Refusal::InUse { until: (b != 0).then_some(LeaseTime(a)) },
        7 => Refusal::RequestMismatch,
        8 => Refusal::NamespaceFull { limit: a },
        9 => Refusal::QueueFull { limit: u32::try_from(a).unwrap_or(u32::MAX) },
        10 => Refusal::TooManyEnded { retry_ms: a },
        11 => Refusal::HeldByAnother { holder: holder.into(), token: a, left_ms: b },
        12 => Refusal::WaitedFor { waiters: u32::try_from(a).unwrap_or(u32::MAX) },
        _ => return None,
    })
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
