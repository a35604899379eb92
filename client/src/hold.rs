//! What a holder may believe: the deadline of one token, to the letter of the contract. Shared by the guard and the task that renews it.
//!
//! **Invariant**: what has ended never begins again, and nothing counts from later than before the first send.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tenure_proto::v1::EndReason;
use tokio_util::sync::CancellationToken;

use crate::{
    bugs::bug,
    clock::{Clock, Readings},
    error::Error,
};

/// Why a lease is not held any more.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum LostReason {
    /// No renewal succeeded in time; with the last error, if there was one. It is not known whether the cluster has ended the hold.
    NotRenewed(Option<Box<Error>>),
    /// The cluster said that the token has ended. Somebody else may have been granted the lease already.
    Ended {
        /// Why.
        reason: EndReason,
        /// Who held it at that moment; empty if nobody, or not known.
        holder: String,
        /// With which token; 0 if nobody, or not known.
        token: u64,
    },
    /// By this process: [`Lease::release`](crate::Lease::release) was called.
    Released,
    /// By this process: the guard was dropped. The cluster ends the hold when it runs out.
    Dropped,
    /// By this process: [`Leadership::proclaim`](crate::Leadership::proclaim) asked for another token in the place of this one.
    Superseded,
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRenewed(None) => f.write_str("it was not renewed in time"),
            // What may be concluded for one renewal is of no use any more.
            Self::NotRenewed(Some(error)) => write!(f, "it was not renewed in time: {}", error.failure()),
            Self::Ended { reason, holder, .. } if holder.is_empty() => write!(f, "the cluster ended it: {}", reason.as_str_name()),
            Self::Ended { reason, holder, token } => write!(f, "the cluster ended it: {}; {holder} holds it now (token {token})", reason.as_str_name()),
            Self::Released => f.write_str("it was released"),
            Self::Dropped => f.write_str("its guard was dropped"),
            Self::Superseded => f.write_str("another token was asked for in its place"),
        }
    }
}

/// A duration as it is on the wire. What no server sends (less than nothing, more than a second of nanoseconds) is none.
pub(crate) fn length(seconds: i64, nanos: i32) -> Option<Duration> {
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

/// How long a granted or renewed duration may be relied on, from before the send: less than the raft leader waits, if the two clocks agree to 0.1 %.
pub(crate) fn reliable(duration: Duration) -> Duration {
    Duration::from_nanos(u64::try_from(duration.as_nanos() * 998 / 1000).unwrap_or(u64::MAX)).saturating_sub(Duration::from_millis(1))
}

/// How a hold is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Given up this long before the deadline, so that whoever works under it has time to stop.
    pub(crate) stop_before: Duration,
    /// At most this long between renewals.
    pub(crate) renew_every: Duration,
    /// Of `renew_every`, up or down.
    pub(crate) jitter: f64,
}

#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) holder: String,
    pub(crate) token: u64,
    pub(crate) terms: Terms,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    over: CancellationToken,
}

#[derive(Debug)]
struct State {
    deadline: Readings,
    lost: Option<LostReason>,
    error: Option<Box<Error>>,
}

/// What a token belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) holder: String,
    pub(crate) token: u64,
}

impl Hold {
    /// `sent` is from before the first send of what was answered with `duration`.
    pub(crate) fn new(of: Identity, terms: Terms, clock: Arc<dyn Clock>, sent: Readings, duration: Duration) -> Self {
        let Identity { namespace, name, holder, token } = of;
        let sent = if bug!("bug_counts_from_answer") { clock.readings() } else { sent };
        let state = State { deadline: sent.plus(reliable(duration)), lost: None, error: None };
        Self { namespace, name, holder, token, terms, clock, state: Mutex::new(state), over: CancellationToken::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn over(&self) -> &CancellationToken {
        &self.over
    }

    pub(crate) fn deadline(&self) -> Readings {
        self.state().deadline
    }

    /// Until somebody else may be granted the lease; zero when that may have happened.
    pub(crate) fn remaining(&self) -> Duration {
        let state = self.state();
        match state.lost {
            None | Some(LostReason::NotRenewed(_) | LostReason::Dropped) => self.clock.readings().until(state.deadline),
            Some(LostReason::Ended { .. } | LostReason::Released | LostReason::Superseded) => Duration::ZERO,
        }
    }

    /// Until it is given up, if nothing renews it.
    pub(crate) fn left(&self) -> Duration {
        let state = self.state();
        if state.lost.is_some() { Duration::ZERO } else { self.left_until_stop(&state) }
    }

    fn left_until_stop(&self, state: &State) -> Duration {
        if bug!("bug_holds_past_deadline") {
            // Held until the cluster says otherwise, be it reached or not (etcd#6127; ZooKeeper clients that ignore a disconnect).
            return Duration::from_secs(1);
        }
        self.clock.readings().until(state.deadline).saturating_sub(self.terms.stop_before)
    }

    pub(crate) fn lost(&self) -> Option<LostReason> {
        self.state().lost.clone()
    }

    /// A renewal was answered. What was over by then stays over.
    pub(crate) fn renewed(&self, sent: Readings, duration: Duration) {
        let mut state = self.state();
        if state.lost.is_some() {
            return;
        }
        if self.left_until_stop(&state).is_zero() {
            drop(state);
            return self.not_renewed();
        }
        state.error = None;
        let now = self.clock.readings();
        // bug_counts_from_answer: from when the answer is there, and so by its way too long (Kleppmann on Redlock; etcd's clientv3 keep-alives).
        let sent = if bug!("bug_counts_from_answer") { now } else { sent };
        let deadline = sent.plus(reliable(duration));
        if now.until(deadline) > now.until(state.deadline) {
            state.deadline = deadline;
        }
    }

    /// For whoever asks why it was not renewed.
    pub(crate) fn failed(&self, error: &Error) {
        self.state().error = Some(Box::new(error.clone()));
    }

    pub(crate) fn not_renewed(&self) {
        let error = self.state().error.take();
        self.lose(LostReason::NotRenewed(error));
    }

    /// The first reason stays.
    pub(crate) fn lose(&self, reason: LostReason) {
        self.state().lost.get_or_insert(reason);
        self.over.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct ByHand(Mutex<Readings>);

    impl ByHand {
        fn advance(&self, by: Duration) {
            let mut now = self.0.lock().unwrap();
            *now = now.plus(by);
        }
    }

    impl Clock for ByHand {
        fn readings(&self) -> Readings {
            *self.0.lock().unwrap()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn hold(clock: &Arc<ByHand>, stop_before: Duration) -> Hold {
        let of = Identity { namespace: "default".into(), name: "a".into(), holder: "me".into(), token: 7 };
        let terms = Terms { stop_before, renew_every: SECOND, jitter: 0.0 };
        let shared: Arc<dyn Clock> = Arc::clone(clock) as _;
        Hold::new(of, terms, shared, clock.readings(), 10 * SECOND)
    }

    #[test]
    fn what_is_no_duration_is_none() {
        assert_eq!(length(15, 5), Some(Duration::new(15, 5)));
        for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, i32::MIN), (0, 1_000_000_000), (i64::MAX, i32::MAX)] {
            assert_eq!(length(seconds, nanos), None, "{seconds} {nanos}");
        }
    }

    #[test]
    fn the_deadline_counts_from_the_send_and_is_a_little_short() {
        assert_eq!(reliable(10 * SECOND), Duration::from_millis(9_979));
        assert_eq!(reliable(Duration::from_millis(1)), Duration::ZERO);
        let clock = Arc::new(ByHand::default());
        let sent = clock.readings();
        clock.advance(4 * SECOND);
        let hold = hold(&clock, Duration::ZERO);
        assert_eq!(hold.remaining(), Duration::from_millis(9_979));
        // An answer to something sent before the grant moves nothing back.
        hold.renewed(sent, 10 * SECOND);
        assert_eq!(hold.remaining(), Duration::from_millis(9_979));
    }

    #[test]
    fn a_late_answer_revives_nothing() {
        let clock = Arc::new(ByHand::default());
        let hold = hold(&clock, Duration::ZERO);
        clock.advance(Duration::from_millis(9_978));
        assert!(!hold.left().is_zero());
        let sent = clock.readings();
        clock.advance(Duration::from_millis(1));
        assert!(hold.left().is_zero(), "nobody had to notice for it to be over");
        hold.renewed(sent, 10 * SECOND);
        assert!(hold.left().is_zero() && hold.over().is_cancelled());
        assert!(matches!(hold.lost(), Some(LostReason::NotRenewed(None))));
    }

    #[test]
    fn it_is_given_up_before_the_deadline_and_then_for_good() {
        let clock = Arc::new(ByHand::default());
        let hold = hold(&clock, 3 * SECOND);
        clock.advance(7 * SECOND);
        assert!(hold.left().is_zero());
        assert_eq!(hold.remaining(), Duration::from_millis(2_979), "nobody else before that");
        hold.renewed(clock.readings(), 10 * SECOND);
        assert!(hold.left().is_zero());
    }

    #[test]
    fn the_first_reason_stays() {
        let clock = Arc::new(ByHand::default());
        let hold = hold(&clock, Duration::ZERO);
        hold.lose(LostReason::Ended { reason: EndReason::Revoked, holder: String::new(), token: 0 });
        hold.lose(LostReason::Released);
        assert!(matches!(hold.lost(), Some(LostReason::Ended { reason: EndReason::Revoked, .. })));
        assert!(hold.remaining().is_zero(), "somebody else may hold it");
    }
}
