//! A holder as the SDK is one (DESIGN section 4, "What a holder computes"). Reads its own clock only.

use crate::Bug;

/// Steps that a lease lasts.
pub const DURATION: u64 = 2;
/// Steps that a holder takes off for clocks that disagree. With one less, two clocks that are a step apart each let two holders believe at once.
const MARGIN: u64 = 1;

/// One holder. Times are readings of its clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Where it is.
    pub state: State,
    /// Acquires sent so far; the number of the present one is its request id.
    pub attempts: u8,
    /// Renewals sent so far.
    pub renewals: u8,
}

/// What a holder does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing.
    Idle,
    /// Waits for the answer to its request, or for its turn in the queue.
    Asking,
    /// Granted, but not to be believed before a renewal was answered.
    Claiming {
        /// Of the grant.
        token: u64,
    },
    /// Holds it until the deadline.
    Holding {
        /// Of the grant.
        token: u64,
        /// From here on it believes nothing.
        deadline: u64,
        /// A renewal is on its way.
        renewing: bool,
    },
}

impl Holder {
    pub(crate) fn new() -> Self {
        Self { state: State::Idle, attempts: 0, renewals: 0 }
    }

    /// Whether it would say "mine" at this reading.
    pub(crate) fn believes(&self, now: u64) -> bool {
        matches!(self.state, State::Holding { deadline, .. } if now < deadline)
    }

    /// The token that it believes in.
    pub(crate) fn believed_token(&self, now: u64) -> Option<u64> {
        match self.state {
            State::Holding { token, deadline, .. } if now < deadline => Some(token),
            _ => None,
        }
    }

    /// Granted, or a renewal was answered: what was sent at `sent` counts from there.
    pub(crate) fn kept(&mut self, bug: Option<Bug>, token: u64, sent: u64, now: u64) {
        let from = if bug == Some(Bug::CountsFromTheAnswer) { now } else { sent };
        let margin = if bug == Some(Bug::NoMargin) { 0 } else { MARGIN };
        let counted = from + DURATION - margin;
        let before = match self.state {
            State::Holding { token: held, deadline, .. } if held == token => {
                // Once over, it stays over.
                if now >= deadline {
                    self.state = State::Idle;
                    return;
                }
                deadline
            }
            State::Holding { .. } | State::Idle => return,
            State::Asking | State::Claiming { .. } => 0,
        };
        let deadline = counted.max(before);
        self.state = if now < deadline { State::Holding { token, deadline, renewing: false } } else { State::Idle };
    }
}
