//! What is known of each hold: what its holder was promised, and the first moment by which it was certainly over.

use std::collections::{BTreeMap, HashMap};

use super::{Facts, Op, Said};
use crate::history::{Call, Change, EndReason, Kind, LeaseState, Outcome, Released, State};

/// One token of one lease. Times are true time.
#[derive(Clone, Debug, Default)]
pub struct Hold<'h> {
    /// Empty if nobody said.
    pub holder: &'h str,
    /// Sends of acknowledged grants and renewals, with the duration that each was promised, in milliseconds. None for a grant that must be renewed.
    pub promised: Vec<(u64, u64)>,
    /// Sends of acknowledged renewals.
    pub renewals: Vec<(u64, u64)>,
    /// Sends of renewals of which nobody knows what came: they may have moved the deadline.
    pub unknown_renewals: Vec<(u64, u64)>,
    /// Had every clock run true, its deadline is not later: from when each promise was certainly committed.
    pub latest: u64,
    /// By then it was certainly granted.
    pub seen: Option<u64>,
    /// By then it was certainly over.
    pub over: Option<u64>,
    /// Why, if anybody said.
    pub reason: Option<EndReason>,
    /// The first send of something that may end it: a release, a reclaim by its holder, a forced delete.
    pub asked_to_end: Option<u64>,
    /// It must have been renewed to be believed, or nobody saw its grant.
    pub must_renew: bool,
}

impl Hold<'_> {
    fn seen_by(&mut self, at: u64) {
        self.seen = Some(self.seen.map_or(at, |seen| seen.min(at)));
    }

    fn over_by(&mut self, at: u64, reason: Option<EndReason>) {
        self.over = Some(self.over.map_or(at, |over| over.min(at)));
        self.reason = self.reason.or(reason);
    }

    /// The first moment at which it may end by itself: what its holder may rely on. 0: nothing was promised.
    #[must_use]
    pub fn may_end(&self, early_ppm: u64, early_ms: u64) -> u64 {
        let ends = self.promised.iter().map(|(sent, ms)| {
            let lasts = ms.saturating_mul(1_000_000_u64.saturating_sub(early_ppm)).saturating_sub(early_ms.saturating_mul(1_000_000));
            sent.saturating_add(lasts)
        });
        ends.max().unwrap_or(0)
    }
}

type Holds<'h> = HashMap<&'h str, BTreeMap<u64, Hold<'h>>>;

fn hold<'a, 'h>(holds: &'a mut Holds<'h>, lease: &'h str, token: u64) -> &'a mut Hold<'h> {
    holds.entry(lease).or_default().entry(token).or_default()
}

pub(super) fn of<'h>(facts: &Facts<'h>) -> Holds<'h> {
    let mut holds = Holds::new();
    for (at, committed) in &facts.witness.changes {
        change(&mut holds, *at, &committed.change);
        if matches!(committed.change.kind, Kind::Acquired | Kind::Renewed) {
            let this = hold(&mut holds, &committed.change.lease, committed.change.token);
            this.latest = this.latest.max(at.saturating_add(committed.change.duration_ms.saturating_mul(1_000_000)));
        }
    }
    for watch in &facts.watches {
        for (at, said) in &watch.said {
            if let Said::Change(event) = said {
                change(&mut holds, *at, event);
            }
        }
    }
    let mut granted: HashMap<(&str, &str, &str), u64> = HashMap::new();
    for op in &facts.ops {
        promised(&mut holds, &mut granted, op);
    }
    for op in &facts.ops {
        asked_to_end(&mut holds, &granted, op);
        for state in shown(op) {
            show(&mut holds, op.to, state);
        }
    }
    // A later token of the same lease means that every earlier one is over.
    for of_lease in holds.values_mut() {
        let mut later: Option<u64> = None;
        for hold in of_lease.values_mut().rev() {
            if let Some(at) = later {
                hold.over = Some(hold.over.map_or(at, |over| over.min(at)));
            }
            later = [later, hold.seen].into_iter().flatten().min();
        }
    }
    holds
}

fn change<'h>(holds: &mut Holds<'h>, at: u64, change: &'h Change) {
    if change.token == 0 {
        return;
    }
    let this = hold(holds, &change.lease, change.token);
    match change.kind {
        Kind::Acquired | Kind::Renewed | Kind::Created | Kind::Updated if !change.holder.is_empty() => {
            this.holder = &change.holder;
            this.seen_by(at);
        }
        Kind::Released | Kind::Expired | Kind::Deleted => {
            if !change.previous_holder.is_empty() {
                this.holder = &change.previous_holder;
            }
            this.over_by(at, change.reason);
        }
        Kind::Created | Kind::Updated => this.over_by(at, None),
        Kind::Acquired | Kind::Renewed => {}
    }
    if change.kind == Kind::Acquired && change.reason.is_some() {
        // It ended the one before, whichever that was.
        let token = change.token;
        if let Some((_, previous)) = holds.get_mut(change.lease.as_str()).and_then(|of_lease| of_lease.range_mut(..token).next_back())
            && (previous.holder.is_empty() || previous.holder == change.previous_holder)
        {
            previous.over_by(at, change.reason);
        }
    }
}

fn promised<'h>(holds: &mut Holds<'h>, granted: &mut HashMap<(&'h str, &'h str, &'h str), u64>, op: &Op<'h>) {
    match (&op.invoke.call, op.outcome) {
        (Call::Acquire { lease, holder, request_id, duration_ms, .. }, Some(Outcome::Granted { lease: state, must_renew, .. })) => {
            let this = hold(holds, lease, state.token);
            this.holder = holder;
            this.seen_by(op.to);
            this.latest = this.latest.max(op.to.saturating_add(duration_ms.saturating_mul(1_000_000)));
            if *must_renew {
                this.must_renew = true;
            } else {
                this.promised.push((op.from, *duration_ms));
            }
            granted.insert((lease, holder, request_id), state.token);
        }
        (Call::Acquire { lease, holder, request_id, .. }, Some(Outcome::Ended { token, reason })) if *token != 0 => {
            hold(holds, lease, *token).over_by(op.to, Some(*reason));
            granted.insert((lease, holder, request_id), *token);
        }
        (Call::Renew { lease, token, .. }, Some(Outcome::Renewed { duration_ms, .. })) => {
            let this = hold(holds, lease, *token);
            this.seen_by(op.to);
            this.latest = this.latest.max(op.to.saturating_add(duration_ms.saturating_mul(1_000_000)));
            this.promised.push((op.from, *duration_ms));
            this.renewals.push((op.from, *duration_ms));
        }
        (Call::Renew { lease, token, .. }, Some(Outcome::Lost { reason, .. })) => {
            let said = Some(*reason).filter(|reason| !matches!(reason, EndReason::UnknownToken | EndReason::WrongLease));
            if *reason != EndReason::WrongLease {
                hold(holds, lease, *token).over_by(op.to, said);
            }
        }
        (Call::Renew { lease, token, duration_ms }, None | Some(Outcome::Unknown { .. })) => {
            let this = hold(holds, lease, *token);
            let ms = duration_ms.unwrap_or_else(|| this.promised.iter().map(|(_, ms)| *ms).max().unwrap_or(0));
            this.unknown_renewals.push((op.from, ms));
        }
        _ => {}
    }
}

fn asked_to_end<'h>(holds: &mut Holds<'h>, granted: &HashMap<(&'h str, &'h str, &'h str), u64>, op: &Op<'h>) {
    let mut ask = |lease: &'h str, token: u64| {
        let this = hold(holds, lease, token);
        this.asked_to_end = Some(this.asked_to_end.map_or(op.from, |at| at.min(op.from)));
    };
    match &op.invoke.call {
        Call::Release { lease, token, .. } if *token != 0 => {
            ask(lease, *token);
            match op.outcome {
                Some(Outcome::Released { did: Released::Released, .. }) => hold(holds, lease, *token).over_by(op.to, Some(EndReason::Released)),
                Some(Outcome::Released { did: Released::AlreadyReleased | Released::NotHolder, .. }) => hold(holds, lease, *token).over_by(op.to, None),
                _ => {}
            }
        }
        Call::Release { lease, holder, request_id, .. } => {
            if let Some(token) = granted.get(&(lease.as_str(), holder.as_str(), request_id.as_str())) {
                ask(lease, *token);
            } else {
                asked_by(holds, lease, op.from, |hold| hold.holder == holder);
            }
        }
        Call::Acquire { lease, holder, reclaim: true, .. } => {
            asked_by(holds, lease, op.from, |hold| hold.holder == holder);
        }
        Call::Delete { lease, force: true } => asked_by(holds, lease, op.from, |_| true),
        _ => {}
    }
}

/// Answers that show a lease as it was between send and answer.
fn shown<'h>(op: &Op<'h>) -> impl Iterator<Item = &'h State> + use<'h> {
    let (one, many): (Option<&State>, &[State]) = match op.outcome {
        Some(Outcome::Denied { lease, .. } | Outcome::Put { lease, .. } | Outcome::Granted { lease, .. }) => (Some(lease), &[]),
        Some(Outcome::Released { lease, .. } | Outcome::Got { lease, .. }) => (lease.as_ref(), &[]),
        Some(Outcome::Listed { leases, .. }) => (None, leases),
        _ => (None, &[]),
    };
    one.into_iter().chain(many)
}

fn show<'h>(holds: &mut Holds<'h>, at: u64, state: &'h State) {
    if state.token == 0 || state.lease.is_empty() {
        return;
    }
    let this = hold(holds, &state.lease, state.token);
    if state.state == LeaseState::Held {
        this.holder = &state.holder;
        this.seen_by(at);
    } else {
        this.over_by(at, None);
    }
}

/// Somebody asked for the end of all holds of a lease that are like this.
fn asked_by(holds: &mut Holds<'_>, lease: &str, from: u64, like: impl Fn(&Hold<'_>) -> bool) {
    for hold in holds.get_mut(lease).into_iter().flat_map(BTreeMap::values_mut).filter(|hold| like(hold)) {
        hold.asked_to_end = Some(hold.asked_to_end.map_or(from, |at| at.min(from)));
    }
}
