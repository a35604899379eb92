//! What a lease may do: a small sequential specification, written from the promises and not from the server.
//!
//! One [`Lease`] takes the committed changes of its name in the order of their numbers, and says of each whether it may follow.

use crate::history::{Change, Committed, EndReason, Kind};

/// How long a grant from the queue lasts without a renewal, in milliseconds of lease clock.
const CLAIM_MS: u64 = 2000;

/// A lease between two changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// What is there. `None`: not known, as the witness begins later.
    pub there: Option<There>,
    /// The largest token that was ever granted under this name, deletes notwithstanding.
    pub largest_token: u64,
}

/// Whether a name is a lease now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum There {
    /// It is none.
    No,
    /// It is one.
    Yes {
        /// The change that created it.
        create_revision: u64,
        /// Who holds it with which token.
        hold: Option<Hold>,
    },
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Name.
    pub holder: String,
    /// Token.
    pub token: u64,
    /// On the lease clock; as late as can be told from what is recorded, `None` if nothing can.
    pub deadline_ms: Option<u64>,
    /// From the queue, and not renewed yet.
    pub unclaimed: bool,
}

impl Lease {
    /// Before the first change of a witness that begins at the beginning.
    #[must_use]
    pub const fn not_there() -> Self {
        Self { there: Some(There::No), largest_token: 0 }
    }

    /// The present hold, if it is known that there is one.
    #[must_use]
    pub const fn hold(&self) -> Option<&Hold> {
        match &self.there {
            Some(There::Yes { hold, .. }) => hold.as_ref(),
            _ => None,
        }
    }

    /// Takes the next change.
    ///
    /// # Errors
    /// Why it may not follow. The state is as after the change all the same, so that one wrong change is one violation.
    pub fn apply(&mut self, committed: &Committed) -> Result<(), String> {
        let verdict = self.may_follow(&committed.change);
        self.follow(committed);
        verdict
    }

    fn may_follow(&self, change: &Change) -> Result<(), String> {
        if change.kind == Kind::Acquired {
            if change.token != change.revision {
                return Err(format!("token {} is not the number of the change that granted it", change.token));
            }
            if change.holder.is_empty() {
                return Err("granted to nobody".into());
            }
            if change.token <= self.largest_token {
                return Err(format!("token {} after {}", change.token, self.largest_token));
            }
        }
        let Some(there) = &self.there else { return Ok(()) };
        match there {
            There::No => Self::may_begin(change),
            There::Yes { create_revision, hold } => {
                if change.kind == Kind::Created {
                    return Err("created, but it is there".into());
                }
                if change.create_revision != *create_revision {
                    return Err(format!("created by {} and not by {create_revision}", change.create_revision));
                }
                match hold {
                    None => Self::may_follow_free(change),
                    Some(hold) => Self::may_follow_held(change, hold),
                }
            }
        }
    }

    fn may_begin(change: &Change) -> Result<(), String> {
        match change.kind {
            Kind::Created | Kind::Acquired if change.create_revision != change.revision => {
                Err(format!("created by {} before it was there", change.create_revision))
            }
            Kind::Created if !change.holder.is_empty() => Err("a put made a holder".into()),
            Kind::Created | Kind::Acquired => Self::nobody_before(change),
            kind => Err(format!("{kind:?}, but it is not there")),
        }
    }

    fn may_follow_free(change: &Change) -> Result<(), String> {
        match change.kind {
            Kind::Acquired | Kind::Deleted => Self::nobody_before(change),
            Kind::Updated if !change.holder.is_empty() => Err("an edit made a holder".into()),
            Kind::Updated => Self::nobody_before(change),
            kind => Err(format!("{kind:?}, but nobody held it")),
        }
    }

    fn may_follow_held(change: &Change, hold: &Hold) -> Result<(), String> {
        let same = change.token == hold.token && change.holder == hold.holder;
        let ended_it = change.previous_holder == hold.holder;
        let reason = change.reason;
        match change.kind {
            Kind::Renewed | Kind::Updated if same && reason.is_none() => Ok(()),
            Kind::Renewed | Kind::Updated => Err(format!("{:?} of token {} while {} has it with {}", change.kind, change.token, hold.holder, hold.token)),
            _ if !ended_it => Err(format!("the holder before is said to be {:?}, and was {}", change.previous_holder, hold.holder)),
            Kind::Acquired => match reason {
                None => Err(format!("granted while {} holds it with token {}", hold.holder, hold.token)),
                Some(EndReason::Reclaimed) if change.holder != hold.holder => Err(format!("reclaimed from {}, another", hold.holder)),
                Some(EndReason::Unclaimed) if !hold.unclaimed => Err("unclaimed, but it was not from the queue, or was renewed".into()),
                Some(EndReason::Released | EndReason::Expired | EndReason::Reclaimed | EndReason::Unclaimed) => Ok(()),
                Some(reason) => Err(format!("handed over because of {reason:?}")),
            },
            Kind::Released if matches!(reason, Some(EndReason::Released | EndReason::Unclaimed)) && change.token == hold.token => Ok(()),
            Kind::Expired if matches!(reason, Some(EndReason::Expired | EndReason::Unclaimed)) && change.token == hold.token => Ok(()),
            Kind::Deleted if reason == Some(EndReason::Revoked) => Ok(()),
            kind => Err(format!("{kind:?} because of {reason:?}, of token {}, while {} has it with {}", change.token, hold.holder, hold.token)),
        }
    }

    fn nobody_before(change: &Change) -> Result<(), String> {
        if change.previous_holder.is_empty() && change.reason.is_none() {
            Ok(())
        } else {
            Err(format!("ended a hold of {:?} ({:?}), but nobody held it", change.previous_holder, change.reason))
        }
    }

    fn follow(&mut self, committed: &Committed) {
        let change = &committed.change;
        self.largest_token = self.largest_token.max(change.token);
        let before = self.hold().cloned();
        let hold = match change.kind {
            Kind::Deleted => {
                self.there = Some(There::No);
                return;
            }
            Kind::Created | Kind::Released | Kind::Expired => None,
            Kind::Updated | Kind::Renewed if change.holder.is_empty() => None,
            Kind::Acquired => {
                // Without the log's clock it is not known whether it was from the queue.
                let unclaimed = committed.unclaimed || committed.clock_ms.is_none();
                let lasts = if committed.unclaimed { change.duration_ms.min(CLAIM_MS) } else { change.duration_ms };
                let deadline_ms = committed.clock_ms.map(|clock| clock.saturating_add(lasts));
                Some(Hold { holder: change.holder.clone(), token: change.token, deadline_ms, unclaimed })
            }
            Kind::Updated | Kind::Renewed => {
                let mut hold = before.unwrap_or_else(|| Hold { holder: String::new(), token: 0, deadline_ms: None, unclaimed: committed.unclaimed });
                hold.holder.clone_from(&change.holder);
                hold.token = change.token;
                if change.kind == Kind::Renewed {
                    hold.unclaimed = false;
                    let promised = committed.clock_ms.map(|clock| clock.saturating_add(change.duration_ms));
                    hold.deadline_ms = hold.deadline_ms.max(promised);
                }
                Some(hold)
            }
        };
        self.there = Some(There::Yes { create_revision: change.create_revision, hold });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: Kind, revision: u64, holder: &str, token: u64) -> Change {
        Change { kind, revision, token, holder: holder.into(), lease: "n/l".into(), create_revision: 1, duration_ms: 1000, ..Change::default() }
    }

    fn ended(change: Change, previous: &str, reason: EndReason) -> Change {
        Change { previous_holder: previous.into(), reason: Some(reason), ..change }
    }

    fn replay(changes: Vec<Change>) -> Result<Lease, String> {
        let mut lease = Lease::not_there();
        for change in changes {
            lease.apply(&Committed { change, clock_ms: Some(1), ..Committed::default() })?;
        }
        Ok(lease)
    }

    #[test]
    fn life_of_a_lease_is_legal() {
        let life = replay(vec![
            change(Kind::Acquired, 1, "a", 1),
            change(Kind::Renewed, 2, "a", 1),
            ended(change(Kind::Released, 3, "", 1), "a", EndReason::Released),
            change(Kind::Updated, 4, "", 1),
            change(Kind::Acquired, 5, "b", 5),
            ended(change(Kind::Acquired, 6, "b", 6), "b", EndReason::Reclaimed),
            ended(change(Kind::Acquired, 7, "c", 7), "b", EndReason::Expired),
            ended(change(Kind::Expired, 8, "", 7), "c", EndReason::Expired),
            change(Kind::Deleted, 9, "", 7),
            Change { create_revision: 10, ..change(Kind::Acquired, 10, "a", 10) },
        ]);
        assert_eq!(life.unwrap().hold().unwrap().token, 10);
    }

    #[test]
    fn what_a_lease_may_not_do_is_refused() {
        let held = || vec![change(Kind::Acquired, 1, "a", 1)];
        let after_held = |next: Change| replay(held().into_iter().chain([next]).collect()).unwrap_err();
        after_held(change(Kind::Acquired, 2, "b", 2));
        after_held(ended(change(Kind::Acquired, 2, "b", 2), "a", EndReason::Reclaimed));
        after_held(ended(change(Kind::Acquired, 2, "b", 2), "c", EndReason::Released));
        after_held(ended(change(Kind::Acquired, 2, "b", 2), "a", EndReason::Unclaimed));
        after_held(ended(change(Kind::Acquired, 3, "b", 2), "a", EndReason::Released));
        after_held(change(Kind::Renewed, 2, "b", 1));
        after_held(change(Kind::Created, 2, "", 1));
        after_held(change(Kind::Deleted, 2, "", 1));
        after_held(ended(change(Kind::Released, 2, "", 1), "a", EndReason::Expired));
        replay(vec![change(Kind::Renewed, 1, "a", 1)]).unwrap_err();
        replay(vec![Change { create_revision: 5, ..change(Kind::Created, 5, "", 0) }, change(Kind::Expired, 6, "", 0)]).unwrap_err();
        let reused = Change { create_revision: 3, token: 1, ..change(Kind::Acquired, 3, "a", 1) };
        replay(vec![ended(change(Kind::Acquired, 1, "a", 1), "", EndReason::Released)]).unwrap_err();
        replay(held().into_iter().chain([ended(change(Kind::Deleted, 2, "", 1), "a", EndReason::Revoked), reused]).collect()).unwrap_err();
    }
}
