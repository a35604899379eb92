//! What clients saw, and the few laws it must obey. Small on purpose: each check is a sort and a pass.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use anyhow::{bail, ensure};

use crate::{api::to_millis, v1};

/// One acknowledged operation. Times are [`crate::clock::now`].
#[derive(Clone, Debug)]
pub struct Op {
    /// Lease.
    pub lease: String,
    /// Who.
    pub holder: String,
    /// Fencing token.
    pub token: u64,
    /// Before the request was first sent.
    pub sent: u64,
    /// When the answer was there.
    pub answered: u64,
    /// What was acknowledged.
    pub what: What,
}

/// What was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A grant.
    Granted,
    /// A renewal for so many milliseconds.
    Renewed(u64),
    /// A release.
    Released,
}

/// From when to when a holder believed that it held.
#[derive(Clone, Debug)]
pub struct Belief {
    /// Lease.
    pub lease: String,
    /// Who.
    pub holder: String,
    /// Fencing token.
    pub token: u64,
    /// First moment.
    pub from: u64,
    /// First moment no more.
    pub until: u64,
}

/// Everything recorded in a test.
#[derive(Debug, Default)]
pub struct History {
    ops: Mutex<Vec<Op>>,
    beliefs: Mutex<Vec<Belief>>,
    refusals: Mutex<Vec<String>>,
    pending: Mutex<BTreeMap<String, What>>,
}

impl History {
    /// Records that a lease's one client is about to send something.
    pub fn begin(&self, lease: &str, what: What) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(lease.to_owned(), what);
    }

    /// Records an acknowledgement.
    pub fn op(&self, op: Op) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&op.lease);
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).push(op);
    }

    /// Records a hold that is over.
    pub fn belief(&self, belief: Belief) {
        self.beliefs.lock().unwrap_or_else(PoisonError::into_inner).push(belief);
    }

    /// Records an error that a client must not retry.
    pub fn refusal(&self, text: String) {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// All acknowledgements, in the order of their answers.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        let mut ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ops.sort_by_key(|op| op.answered);
        ops
    }

    /// Every check that needs nothing but the history.
    pub fn check(&self) -> anyhow::Result<()> {
        self.no_two_holders()?;
        self.tokens_grow()?;
        self.no_refusals()
    }

    /// At no moment did two holders believe to hold one lease.
    pub fn no_two_holders(&self) -> anyhow::Result<()> {
        let mut by_lease: BTreeMap<String, Vec<Belief>> = BTreeMap::new();
        for belief in self.beliefs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            by_lease.entry(belief.lease.clone()).or_default().push(belief.clone());
        }
        for beliefs in by_lease.values_mut() {
            beliefs.sort_by_key(|belief| belief.from);
            let mut last: Option<&Belief> = None;
            for belief in beliefs.iter() {
                if let Some(last) = last {
                    ensure!(belief.from >= last.until, "two holders at once: {last:?} and {belief:?}");
                }
                if last.is_none_or(|last| belief.until > last.until) {
                    last = Some(belief);
                }
            }
        }
        Ok(())
    }

    /// A grant that was asked for after another was answered has the larger token; none was given twice.
    pub fn tokens_grow(&self) -> anyhow::Result<()> {
        let mut by_lease: BTreeMap<String, Vec<Op>> = BTreeMap::new();
        for op in self.ops().into_iter().filter(|op| op.what == What::Granted) {
            by_lease.entry(op.lease.clone()).or_default().push(op);
        }
        for grants in by_lease.values_mut() {
            grants.sort_by_key(|grant| grant.token);
            for pair in grants.windows(2) {
                let [earlier, later] = pair else { continue };
                ensure!(earlier.token != later.token || earlier.holder == later.holder, "one token for two: {earlier:?} and {later:?}");
            }
            // By token, each must have been answered after every smaller one was sent.
            let mut latest_sent = 0;
            for grant in grants.iter() {
                ensure!(grant.answered >= latest_sent, "a token is smaller than one granted before: {grant:?}");
                latest_sent = latest_sent.max(grant.sent);
            }
        }
        Ok(())
    }

    /// Nothing failed in a way that a client may not retry.
    pub fn no_refusals(&self) -> anyhow::Result<()> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(refusals.is_empty(), "{} calls failed for good, the first: {}", refusals.len(), refusals[0]);
        Ok(())
    }

    /// What is there now holds everything that was acknowledged until `cutoff`. Each lease had one client, which had at most one operation under
    /// way at the end; what was acknowledged later, or sent and not acknowledged, may be there or not.
    pub fn nothing_lost(&self, now: &[v1::Lease], cutoff: u64) -> anyhow::Result<()> {
        let now: BTreeMap<&str, &v1::Lease> = now.iter().map(|lease| (lease.name.as_str(), lease)).collect();
        let mut by_lease: BTreeMap<String, (Option<Op>, Vec<What>)> = BTreeMap::new();
        for op in self.ops() {
            let (last, maybe) = by_lease.entry(op.lease.clone()).or_default();
            if op.answered <= cutoff {
                *last = Some(op);
            } else {
                maybe.push(op.what);
            }
        }
        ensure!(by_lease.values().any(|(last, _)| last.is_some()), "nothing was acknowledged: the test says nothing");
        for (name, (last, mut maybe)) in by_lease {
            let Some(op) = last else { continue };
            maybe.extend(self.pending.lock().unwrap_or_else(PoisonError::into_inner).get(&name));
            let Some(lease) = now.get(name.as_str()) else { bail!("{name} is gone, after {op:?}") };
            if lease.token > op.token && maybe.contains(&What::Granted) {
                continue;
            }
            ensure!(lease.token == op.token, "{name} has another token: {lease:?} after {op:?}, and perhaps {maybe:?}");
            let held = lease.state() == v1::lease::State::Held;
            match op.what {
                What::Released => ensure!(!held, "{name} is held again: {lease:?} after {op:?}"),
                What::Granted | What::Renewed(_) => {
                    ensure!(held || maybe.contains(&What::Released), "{name} is not held any more: {lease:?} after {op:?}, and perhaps {maybe:?}");
                }
            }
            if let (What::Renewed(ms), true) = (op.what, held) {
                let there = to_millis(lease.duration.as_ref());
                ensure!(there >= ms, "{name}: renewed for {ms} ms, but the newest renewal there is for {there} ms");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn belief(holder: &str, from: u64, until: u64) -> Belief {
        Belief { lease: "l".into(), holder: holder.into(), token: from, from, until }
    }

    fn grant(token: u64, sent: u64, answered: u64) -> Op {
        Op { lease: "l".into(), holder: format!("h{token}"), token, sent, answered, what: What::Granted }
    }

    #[test]
    fn overlapping_beliefs_are_found() {
        let history = History::default();
        history.belief(belief("a", 0, 10));
        history.belief(belief("b", 10, 20));
        history.no_two_holders().expect("touching is not overlapping");
        history.belief(belief("c", 19, 21));
        history.no_two_holders().expect_err("c began before b ended");
    }

    #[test]
    fn an_overlap_with_an_older_longer_belief_is_found() {
        let history = History::default();
        history.belief(belief("a", 0, 100));
        history.belief(belief("b", 100, 101));
        history.belief(belief("c", 50, 60));
        history.no_two_holders().expect_err("c is inside a");
    }

    #[test]
    fn a_token_that_shrinks_is_found() {
        let history = History::default();
        history.op(grant(5, 0, 10));
        history.op(grant(6, 5, 20));
        history.tokens_grow().expect("in order");
        history.op(grant(4, 30, 40));
        history.tokens_grow().expect_err("4 was asked for after 6 was answered");
    }

    #[test]
    fn a_lost_renewal_is_found() {
        let history = History::default();
        history.op(Op { what: What::Renewed(7000), ..grant(5, 0, 10) });
        let lease = |ms| v1::Lease { name: "l".into(), token: 5, state: v1::lease::State::Held as i32, duration: crate::millis(ms), ..Default::default() };
        history.nothing_lost(&[lease(7000)], 10).expect("as acknowledged");
        history.nothing_lost(&[lease(6999)], 10).expect_err("an older renewal");
        history.nothing_lost(&[], 10).expect_err("gone");
    }
}
