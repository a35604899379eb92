//! A linearizability search (Wing and Gong, with Lowe's memory of what was tried) over the operations of one lease.
//!
//! The model knows a lease's present token and nothing of revisions. Expiry is nobody's operation: it may happen whenever an answer needs it, but
//! not before the deadline that the holder was promised. What nobody knows the outcome of may be put anywhere after its send, or be left out.

use std::collections::{HashMap, HashSet};

use crate::{
    facts::{Facts, Op},
    history::{Call, EndReason, LeaseState, Outcome, Released, State},
};

/// What the search found.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a, 'h> {
    /// There is such an order.
    Explained,
    /// There is none.
    Impossible {
        /// The operation that could not be explained in the longest order that was found.
        stuck: Option<&'a Op<'h>>,
        /// How many that order explains.
        after: usize,
    },
    /// Too many steps.
    GivenUp,
}

/// Who holds the lease in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Current {
    Nobody,
    Token(u64),
    /// Granted to the acquire of this number, whose token nobody has seen yet.
    Unseen(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Model {
    current: Current,
    /// The largest token so far.
    largest: u64,
}

/// What an operation does to the model.
#[derive(Clone, Copy, Debug)]
enum Step<'h> {
    Grant {
        token: u64,
        repeat: bool,
        by_force: bool,
    },
    /// It may have been granted: to this holder.
    MaybeGrant {
        holder: &'h str,
        token: Option<u64>,
    },
    Held {
        token: u64,
        holder: &'h str,
    },
    /// The token is not the present one.
    NotHeld {
        token: u64,
    },
    Nobody,
    Release {
        token: u64,
    },
    MaybeRelease {
        token: u64,
    },
    /// Answered that it was over: a replica whose raft leader died sends a release again, and answers with what the second one found. So this one
    /// may have ended the hold itself.
    ReleaseOrOver {
        token: u64,
    },
    /// By request: its hold, or its place in the queue.
    ReleaseRequest {
        holder: &'h str,
        request: &'h str,
    },
    /// A forced delete.
    End,
}

/// The operations of one lease.
#[derive(Debug)]
pub struct Problem<'a, 'h> {
    ops: Vec<(&'a Op<'h>, Step<'h>)>,
    /// First moment at which a token may expire.
    may_end: HashMap<u64, u64>,
    /// Holder and request of the tokens that were seen to be granted.
    requests: HashMap<u64, (&'h str, &'h str)>,
}

impl<'a, 'h> Problem<'a, 'h> {
    /// `None`: nothing to explain, or tokens are about of which no client here knows.
    #[must_use]
    pub fn of(facts: &Facts<'h>, lease: &str, ops: &[&'a Op<'h>]) -> Option<Self> {
        let mut steps = Vec::new();
        for op in ops {
            if let Some(step) = step(op) {
                steps.push((*op, step));
            }
        }
        let granted: HashSet<u64> = steps.iter().filter_map(|(_, step)| if let Step::Grant { token, .. } = step { Some(*token) } else { None }).collect();
        for (_, step) in &mut steps {
            // A repeat of a request whose grant was seen: it granted nothing.
            if let Step::MaybeGrant { token: Some(token), .. } = *step
                && granted.contains(&token)
            {
                *step = Step::NotHeld { token };
            }
        }
        let stranger = steps.iter().any(|(_, step)| matches!(step, Step::Held { token, .. } if !granted.contains(token)));
        if steps.len() < 2 || (stranger && !facts.meta.all_clients_recorded) {
            return None;
        }
        let mut may_end = HashMap::new();
        if let Some(holds) = facts.holds.get(lease).filter(|_| facts.meta.clocks_within_promise) {
            for (token, hold) in holds {
                may_end.insert(*token, hold.may_end(facts.meta.early_ppm, facts.meta.early_ms));
            }
        }
        let requests = ops.iter().filter_map(|op| match (&op.invoke.call, op.outcome) {
            (Call::Acquire { holder, request_id, .. }, Some(Outcome::Granted { lease, .. })) => Some((lease.token, (holder.as_str(), request_id.as_str()))),
            _ => None,
        });
        Some(Self { ops: steps, may_end, requests: requests.collect() })
    }

    /// How many operations must be explained, or may be.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ops.len()
    }

    /// Never: see [`Problem::of`].
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Searches, for so many steps at most; says how many it took.
    #[must_use]
    pub fn solve(&self, most: u64) -> (Verdict<'a, 'h>, u64) {
        let mut list = Moments::of(&self.ops);
        let mut definite = self.ops.iter().filter(|(op, _)| op.to != u64::MAX).count();
        let mut model = Model { current: Current::Nobody, largest: 0 };
        let mut tried: HashSet<(u64, Model)> = HashSet::new();
        let mut chosen: Vec<(usize, Model)> = Vec::new();
        let mut set = 0_u64;
        let mut steps = 0;
        let mut best = (0, None);
        let mut at = list.first();
        while definite > 0 {
            steps += 1;
            if steps > most {
                return (Verdict::GivenUp, steps);
            }
            let op = list.op(at);
            if !list.is_send(at) {
                // Everything before this answer was tried, and this one does not fit.
                if chosen.len() >= best.0 {
                    best = (chosen.len(), op);
                }
                let Some((last, before)) = chosen.pop() else {
                    return (Verdict::Impossible { stuck: best.1.map(|op| self.ops[op].0), after: best.0 }, steps);
                };
                list.put_back(last);
                set ^= mark(last);
                definite += usize::from(self.ops[last].0.to != u64::MAX);
                model = before;
                at = list.after_send(last);
                continue;
            }
            let Some(op) = op else { break };
            let next = self.apply(model, op).filter(|next| tried.insert((set ^ mark(op), *next)));
            if let Some(next) = next {
                chosen.push((op, model));
                set ^= mark(op);
                definite -= usize::from(self.ops[op].0.to != u64::MAX);
                model = next;
                list.take(op);
                at = list.first();
            } else {
                at = list.after(at);
            }
        }
        (Verdict::Explained, steps)
    }

    /// The model after the operation; `None` if it cannot come next.
    fn apply(&self, model: Model, place: usize) -> Option<Model> {
        let (op, step) = &self.ops[place];
        let Model { current, largest } = model;
        let may_expire = |token: u64| self.may_end.get(&token).is_none_or(|may| *may <= op.to);
        let free = match current {
            Current::Nobody | Current::Unseen(_) => true,
            Current::Token(token) => may_expire(token),
        };
        let becomes = |current, token: u64| Some(Model { current, largest: largest.max(token) });
        match *step {
            Step::Grant { token, .. } if current == Current::Token(token) => matches!(*step, Step::Grant { repeat: true, .. }).then_some(model),
            Step::Grant { token, by_force, .. } => {
                if token > largest && (free || by_force) {
                    becomes(Current::Token(token), token)
                } else {
                    None
                }
            }
            Step::MaybeGrant { token: Some(token), .. } => match current {
                Current::Token(now) if now == token => may_expire(token).then_some(Model { current: Current::Nobody, largest }),
                // A repeat: its grant came of an operation before this one, and is over.
                _ if token <= largest => Some(model),
                _ if free => becomes(Current::Token(token), token),
                _ => None,
            },
            Step::MaybeGrant { .. } => {
                if free {
                    becomes(Current::Unseen(place), 0)
                } else {
                    None
                }
            }
            Step::Held { token, holder } => match current {
                Current::Token(now) if now == token => Some(model),
                Current::Unseen(grant) if token > largest && (holder.is_empty() || self.holder(grant) == Some(holder)) => becomes(Current::Token(token), token),
                _ => None,
            },
            Step::NotHeld { token } => match current {
                Current::Token(now) if now == token => may_expire(token).then_some(Model { current: Current::Nobody, largest }),
                _ => Some(model),
            },
            Step::Nobody => free.then_some(Model { current: Current::Nobody, largest }),
            Step::Release { token } => match current {
                Current::Token(now) if now == token => becomes(Current::Nobody, token),
                Current::Unseen(_) if token > largest => becomes(Current::Nobody, token),
                _ => None,
            },
            Step::MaybeRelease { token } => match current {
                Current::Token(now) if now == token => becomes(Current::Nobody, token),
                _ => None,
            },
            Step::ReleaseOrOver { token } => match current {
                Current::Token(now) if now == token => becomes(Current::Nobody, token),
                _ => Some(model),
            },
            Step::ReleaseRequest { holder, request } => match current {
                Current::Token(now) if self.requests.get(&now).is_none_or(|known| *known == (holder, request)) => becomes(Current::Nobody, now),
                Current::Unseen(grant) if self.holder(grant) == Some(holder) => becomes(Current::Nobody, 0),
                // It only waited.
                _ => Some(model),
            },
            Step::End => becomes(Current::Nobody, 0),
        }
    }

    fn holder(&self, grant: usize) -> Option<&'h str> {
        match self.ops.get(grant)?.1 {
            Step::MaybeGrant { holder, .. } => Some(holder),
            _ => None,
        }
    }
}

/// What an operation means here; `None`: nothing.
fn step<'h>(op: &Op<'h>) -> Option<Step<'h>> {
    let unknown = op.to == u64::MAX;
    match (&op.invoke.call, op.outcome) {
        (Call::Acquire { holder, reclaim, .. }, outcome) => match outcome {
            Some(Outcome::Granted { lease, must_renew, .. }) => Some(Step::Grant { token: lease.token, repeat: *must_renew, by_force: *reclaim }),
            Some(Outcome::Ended { token, .. }) if *token > 0 => Some(Step::MaybeGrant { holder, token: Some(*token) }),
            Some(Outcome::Denied { lease, .. }) => held(lease),
            None | Some(Outcome::Unknown { .. }) => Some(Step::MaybeGrant { holder, token: None }),
            _ => None,
        },
        (Call::Renew { token, .. }, Some(Outcome::Renewed { .. })) => Some(Step::Held { token: *token, holder: "" }),
        (Call::Renew { token, .. }, Some(Outcome::Lost { reason, .. })) if *reason != EndReason::WrongLease => Some(Step::NotHeld { token: *token }),
        (Call::Release { token: 0, holder, request_id, .. }, Some(Outcome::Released { did: Released::Released, .. })) => {
            Some(Step::ReleaseRequest { holder, request: request_id })
        }
        (Call::Release { token: 0, holder, request_id, .. }, _) if unknown => Some(Step::ReleaseRequest { holder, request: request_id }),
        (Call::Release { token: 0, .. }, _) => None,
        (Call::Release { token, .. }, Some(Outcome::Released { did, .. })) => Some(match did {
            Released::Released => Step::Release { token: *token },
            _ => Step::ReleaseOrOver { token: *token },
        }),
        (Call::Release { token, .. }, _) if unknown => Some(Step::MaybeRelease { token: *token }),
        (Call::Get { stale: false, .. }, Some(Outcome::Got { lease: Some(state), .. })) => held(state).or(Some(Step::Nobody)),
        (Call::Get { stale: false, .. }, Some(Outcome::Got { lease: None, .. })) => Some(Step::Nobody),
        (Call::Delete { force: true, .. }, Some(Outcome::Deleted { .. })) => Some(Step::End),
        (Call::Delete { force: true, .. }, _) if unknown => Some(Step::End),
        (Call::Delete { force: false, .. }, Some(Outcome::Deleted { .. })) => Some(Step::Nobody),
        _ => None,
    }
}

fn held(state: &State) -> Option<Step<'_>> {
    (state.state == LeaseState::Held).then_some(Step::Held { token: state.token, holder: &state.holder })
}

/// A number for each operation, so that the sum (exclusive or) of a set tells it from any other.
const fn mark(op: usize) -> u64 {
    let mut z = (op as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Sends and answers in the order of time, as a list from which an operation can be taken and put back.
struct Moments {
    /// (operation, whether it is its send); place 0 is the head, the last one is the end.
    moments: Vec<(Option<usize>, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Of each operation.
    send: Vec<usize>,
    answer: Vec<Option<usize>>,
}

impl Moments {
    fn of(ops: &[(&Op<'_>, Step<'_>)]) -> Self {
        let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(ops.len() * 2);
        for (place, (op, _)) in ops.iter().enumerate() {
            order.push((op.from, false, place));
            if op.to != u64::MAX {
                order.push((op.to, true, place));
            }
        }
        order.sort_unstable();
        let mut this = Self { moments: vec![(None, true)], next: Vec::new(), previous: Vec::new(), send: vec![0; ops.len()], answer: vec![None; ops.len()] };
        for (_, answered, op) in order {
            if answered {
                this.answer[op] = Some(this.moments.len());
            } else {
                this.send[op] = this.moments.len();
            }
            this.moments.push((Some(op), !answered));
        }
        this.moments.push((None, false));
        let count = this.moments.len();
        this.next = (1..=count).collect();
        this.previous = (0..count).map(|place| place.saturating_sub(1)).collect();
        this
    }

    fn first(&self) -> usize {
        self.next[0]
    }

    fn after(&self, place: usize) -> usize {
        self.next[place]
    }

    fn after_send(&self, op: usize) -> usize {
        self.next[self.send[op]]
    }

    fn op(&self, place: usize) -> Option<usize> {
        self.moments[place].0
    }

    fn is_send(&self, place: usize) -> bool {
        self.moments[place].1
    }

    fn take(&mut self, op: usize) {
        self.unlink(self.send[op]);
        if let Some(answer) = self.answer[op] {
            self.unlink(answer);
        }
    }

    /// In the opposite order of [`Self::take`].
    fn put_back(&mut self, op: usize) {
        if let Some(answer) = self.answer[op] {
            self.link(answer);
        }
        self.link(self.send[op]);
    }

    fn unlink(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    fn link(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = place;
        self.previous[after] = place;
    }
}
