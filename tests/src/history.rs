//! Records what a test's clients do, in the format of tenure-checker, and has it judged. What is wrong is saved with its page under
//! `target/histories/`, for `check` and for people.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, ensure};
use tenure_checker::{
    Recorder, Report,
    history::{self as format, Call, EndReason, Kind, LeaseState, Meta, Outcome, Released, Replica, State, What, WitnessScope},
    judge, save,
};

use crate::{
    api::{self, Api, to_millis},
    binaries, clock,
    v1::{self, event, lease, release_response},
    watcher::replay,
};

/// Everything recorded in a test.
#[derive(Debug, Default)]
pub struct History {
    recorder: Recorder,
    refusals: Mutex<Vec<String>>,
    meta: Mutex<Meta>,
    forgotten: Mutex<Vec<(u64, u64)>>,
}

impl History {
    /// With the name under which it is saved.
    #[must_use]
    pub fn of(test: &str) -> Self {
        Self::about(Meta { name: test.to_owned(), ..Meta::default() })
    }

    /// With a name, and with what may be demanded of it.
    #[must_use]
    pub fn about(meta: Meta) -> Self {
        Self { meta: Mutex::new(meta), ..Self::default() }
    }

    /// Takes down what happened now.
    pub fn record(&self, what: What) {
        self.recorder.record(clock::now(), what);
    }

    /// Takes down what another process saw happen.
    pub fn record_at(&self, at: u64, what: What) {
        self.recorder.record(at, what);
    }

    /// A number for an operation, belief, watch or fault.
    pub fn number(&self) -> u64 {
        self.recorder.number()
    }

    /// An operation is about to be sent; its number.
    pub fn begin(&self, client: &str, call: Call) -> u64 {
        self.recorder.invoke(clock::now(), client, call)
    }

    /// Its answer is there. An error that says that nothing happened is [`Outcome::Refused`]; any other, [`Outcome::Unknown`].
    pub fn end(&self, op: u64, outcome: Outcome) {
        self.recorder.returned(clock::now(), op, outcome);
    }

    /// A fault on a replica begins; its number.
    pub fn fault(&self, kind: &str, replica: u64) -> u64 {
        self.fault_on(kind, &[replica.to_string()])
    }

    /// A fault on these begins, or on all if there are none; its number.
    pub fn fault_on(&self, kind: &str, nodes: &[String]) -> u64 {
        let fault = self.number();
        self.record(What::Fault { fault, kind: kind.to_owned(), nodes: nodes.to_vec() });
        fault
    }

    /// It is over.
    pub fn healed(&self, fault: u64) {
        self.record(What::Healed { fault });
    }

    /// Records an error that a client must not retry.
    pub fn refusal(&self, text: String) {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// Nothing failed in a way that a client may not retry.
    pub fn no_refusals(&self) -> anyhow::Result<()> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(refusals.is_empty(), "{} calls failed for good, the first: {}", refusals.len(), refusals[0]);
        Ok(())
    }

    /// Records what a list shows as a read of each lease that this history knows of in that namespace: those that are not listed are not there.
    pub async fn read_all(&self, api: &Api, namespace: &str) -> anyhow::Result<Vec<v1::Lease>> {
        let known = self.leases(namespace);
        let ops: Vec<u64> = known.iter().map(|lease| self.begin(&api.addr, Call::Get { lease: lease.clone(), stale: false })).collect();
        let listed = api.list(namespace, "").await?;
        for (lease, op) in known.iter().zip(ops) {
            let state = listed.iter().map(state).find(|state| state.lease == *lease);
            self.end(op, Outcome::Got { lease: state, revision: 0 });
        }
        Ok(listed)
    }

    fn leases(&self, namespace: &str) -> Vec<String> {
        let history = self.recorder.history();
        let called = history.records.iter().filter_map(|record| match &record.what {
            What::Invoke(format::Invoke { call: Call::Acquire { lease, .. }, .. }) => Some(lease),
            _ => None,
        });
        let mut leases: Vec<String> = called.filter(|lease| lease.starts_with(&format!("{namespace}/"))).cloned().collect();
        leases.sort_unstable();
        leases.dedup();
        leases
    }

    /// How many writes a resource has refused for their tokens.
    #[must_use]
    pub fn refused_writes(&self) -> usize {
        let refused = |record: &&format::Record| matches!(&record.what, What::FencedWrite(write) if !write.accepted);
        self.recorder.history().records.iter().filter(refused).count()
    }

    /// Adds the witness: every change of a namespace after a revision, as one replica replays it.
    pub async fn witness(&self, api: &Api, namespace: &str, after: u64) -> anyhow::Result<u64> {
        let until = clock::now();
        let end = api.grant(api::acquire(namespace, &format!("witness-{until}"), "witness", 1000)).await?.revision;
        for event in replay(api, namespace, after, end).await? {
            let change = change(&event).context("an event has a lease")?;
            self.record(What::Committed(format::Committed { change, ..format::Committed::default() }));
        }
        self.recorder.record(until, What::Witness(WitnessScope { after, upto: end, renewals: false, namespace: Some(namespace.to_owned()) }));
        Ok(end)
    }

    /// Adds what replicas said that they have applied.
    pub fn replicas(&self, statuses: &[v1::StatusResponse]) {
        for status in statuses {
            let header = status.header.clone().unwrap_or_default();
            let replica =
                Replica { node: header.served_by.to_string(), applied_index: status.applied_index, revision: header.revision, state_hash: status.state_hash };
            self.record(What::Replica(replica));
        }
    }

    /// What was answered since then, until now, may never have been made durable: nobody knows what came of it.
    pub fn forget(&self, since: u64) {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner).push((since, clock::now()));
    }

    /// Has everything judged, and says how much that was. What is violated is saved, and an error.
    pub fn check(&self) -> anyhow::Result<Report> {
        let report = self.judged()?;
        println!("{}", report.to_string().lines().last().unwrap_or_default());
        Ok(report)
    }

    /// The same without a word, for who asks again and again.
    pub fn judged(&self) -> anyhow::Result<Report> {
        let report = self.verdict(false)?;
        let (id, first) = report.told().next().map_or(("", String::new()), |(id, violation)| (id, violation.text.clone()));
        ensure!(report.violations() == 0, "{} violations, the first of {id}: {first}", report.violations());
        Ok(report)
    }

    /// The verdict, whatever it is. What is violated is saved, and what shall be kept.
    pub fn verdict(&self, keep: bool) -> anyhow::Result<Report> {
        self.no_refusals()?;
        let mut history = self.recorder.history();
        let forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for record in &mut history.records {
            if let What::Return(answer) = &mut record.what
                && forgotten.iter().any(|(from, to)| *from < record.at && record.at <= *to)
            {
                answer.outcome = Outcome::Unknown { error: "answered after the power was gone".into() };
            }
        }
        let meta = self.meta.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // At the beginning of the recorded time.
        let at = history.records.first().map_or(0, |record| record.at);
        history.records.insert(0, format::Record { at, what: What::Meta(meta) });
        let report = judge(&history);
        let keep = keep || std::env::var_os("TENURE_TEST_KEEP_HISTORIES").is_some();
        if report.violations() > 0 || keep {
            let file = save::all(&history, &report, &dir())?;
            println!("{report}\nsaved: {} and .html beside it", file.display());
        }
        Ok(report)
    }
}

/// `target/histories`.
fn dir() -> PathBuf {
    let profile = binaries::profile_dir();
    profile.parent().unwrap_or(&profile).join("histories")
}

/// A lease as the checker has it.
#[must_use]
pub fn state(lease: &v1::Lease) -> State {
    State {
        lease: format!("{}/{}", lease.namespace, lease.name),
        state: match lease.state() {
            lease::State::Held => LeaseState::Held,
            lease::State::Expired => LeaseState::Expired,
            lease::State::Free | lease::State::Unspecified => LeaseState::Free,
        },
        holder: lease.holder.clone(),
        token: lease.token,
        duration_ms: to_millis(lease.duration.as_ref()),
        revision: lease.revision,
        renew_revision: lease.renew_revision,
        create_revision: lease.create_revision,
        waiters: lease.waiters,
    }
}

/// An event as the checker has it; `None` if it is none.
#[must_use]
pub fn change(event: &v1::Event) -> Option<format::Change> {
    let lease = event.lease.as_ref()?;
    let kind = match event.r#type() {
        event::Type::Created => Kind::Created,
        event::Type::Acquired => Kind::Acquired,
        event::Type::Renewed => Kind::Renewed,
        event::Type::Released => Kind::Released,
        event::Type::Expired => Kind::Expired,
        event::Type::Updated => Kind::Updated,
        event::Type::Deleted => Kind::Deleted,
        event::Type::Unspecified => return None,
    };
    Some(format::Change {
        revision: event.revision,
        kind,
        lease: format!("{}/{}", lease.namespace, lease.name),
        token: lease.token,
        // One that is gone is shown as it was.
        holder: if kind == Kind::Deleted { String::new() } else { lease.holder.clone() },
        duration_ms: to_millis(lease.duration.as_ref()),
        create_revision: lease.create_revision,
        previous_holder: event.previous_holder.clone(),
        reason: reason(event.reason()),
    })
}

/// Why a hold ended, as the checker has it; `None`: it was not said.
#[must_use]
pub const fn reason(reason: v1::EndReason) -> Option<EndReason> {
    Some(match reason {
        v1::EndReason::Unspecified => return None,
        v1::EndReason::Released => EndReason::Released,
        v1::EndReason::Expired => EndReason::Expired,
        v1::EndReason::Reclaimed => EndReason::Reclaimed,
        v1::EndReason::Revoked => EndReason::Revoked,
        v1::EndReason::Unclaimed => EndReason::Unclaimed,
        v1::EndReason::Barred => EndReason::Barred,
        v1::EndReason::Detached => EndReason::Detached,
        v1::EndReason::UnknownToken => EndReason::UnknownToken,
        v1::EndReason::WrongLease => EndReason::WrongLease,
    })
}

/// The answer to a release.
#[must_use]
pub fn released(answer: &v1::ReleaseResponse) -> Outcome {
    let did = match answer.outcome() {
        release_response::Outcome::Released => Released::Released,
        release_response::Outcome::AlreadyReleased => Released::AlreadyReleased,
        release_response::Outcome::Barred => Released::Barred,
        release_response::Outcome::NotHolder | release_response::Outcome::Unspecified => Released::NotHolder,
    };
    Outcome::Released { did, lease: answer.lease.as_ref().map(state), revision: answer.header.as_ref().map_or(0, |header| header.revision) }
}

/// No answer.
#[must_use]
pub fn unknown(error: impl ToString) -> Outcome {
    Outcome::Unknown { error: error.to_string() }
}
