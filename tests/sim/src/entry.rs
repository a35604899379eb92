//! What must hold of a single entry, seen from outside the table: how far its stamp goes, who is granted from a queue, and that no renewal is
//! overtaken by the expiry that it prevents. Whatever cannot be told for certain without the commands of the entry is let pass.

use std::collections::BTreeMap;

use tenure_lease::{Applied, EndReason, LeaseKey, LeaseTable, LeaseTime, NoticeKind, Outcome, RenewResult, Scope, Selector, WaiterId};

/// No stamp is further ahead of the clock last applied (docs of the server's lease clock).
pub(crate) const AHEAD_MS: u64 = 1_000;

/// What is remembered from one entry to the next.
#[derive(Default)]
pub(crate) struct Before {
    clock: LeaseTime,
    /// Who waits, in order, and whether each is attached.
    queues: BTreeMap<LeaseKey, Vec<(WaiterId, bool)>>,
}

impl Before {
    /// Looks at the next entry, in the order of the log, and tells what is wrong with it: which rule, and how.
    pub(crate) fn next(&mut self, table: &LeaseTable, applied: &Applied) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let (from, to) = (self.clock, table.clock());
        if to < from || to.since(from) > AHEAD_MS {
            wrong.push(("clock", format!("the lease clock went from {} to {} in one entry", from.0, to.0)));
        }
        renewals_come_first(applied, &mut wrong);
        let queues = queues(table);
        self.grants_are_fair(&queues, applied, &mut wrong);
        *self = Self { clock: to, queues };
        wrong
    }

    /// Of an entry in which nobody can have come back to the queue.
    fn grants_are_fair(&self, after: &BTreeMap<LeaseKey, Vec<(WaiterId, bool)>>, applied: &Applied, wrong: &mut Vec<(&'static str, String)>) {
        let may_come_back = |outcome: &Outcome| matches!(outcome, Outcome::Done | Outcome::Queued { .. } | Outcome::Granted { must_renew: true, .. });
        if applied.outcomes.iter().any(may_come_back) {
            return;
        }
        for notice in &applied.notices {
            let NoticeKind::Granted(lease) = &notice.kind else { continue };
            let key = LeaseKey::trusted(lease.namespace.clone(), lease.name.clone());
            let Some(before) = self.queues.get(&key) else { continue };
            if before.contains(&(notice.waiter, false)) {
                wrong.push(("queue", format!("{} was granted to {:?}, who was detached", lease.name, notice.waiter)));
            }
            let stays = |waiter: &&(WaiterId, bool)| waiter.1 && after.get(&key).is_some_and(|after| after.contains(waiter));
            if let Some(first) = before.iter().take_while(|(waiter, _)| *waiter < notice.waiter).find(stays) {
                wrong.push(("queue", format!("{} was granted to {:?}, and {:?} was before it", lease.name, notice.waiter, first.0)));
            }
        }
    }
}

fn queues(table: &LeaseTable) -> BTreeMap<LeaseKey, Vec<(WaiterId, bool)>> {
    let waited_for = table.list(&Scope::All, &Selector::default()).into_iter().filter(|lease| lease.waiters > 0);
    let keys = waited_for.map(|lease| LeaseKey::trusted(lease.namespace.clone(), lease.name.clone()));
    keys.map(|key| (key.clone(), table.queue(&key))).collect()
}

/// What was renewed in an entry does not run out in it.
fn renewals_come_first(applied: &Applied, wrong: &mut Vec<(&'static str, String)>) {
    let ran_out = |token: u64| {
        let ended = applied.events.iter().filter_map(|event| event.ended.as_ref());
        ended.into_iter().any(|hold| hold.token == token && hold.end_reason == Some(EndReason::Expired))
    };
    for result in applied.outcomes.iter().filter_map(|outcome| if let Outcome::Renewed(results) = outcome { Some(results) } else { None }).flatten() {
        if let RenewResult::Lost(lost) = result
            && ran_out(lost.token)
        {
            wrong.push(("order", format!("token {} ran out in the entry that brought its renewal", lost.token)));
        }
    }
}
