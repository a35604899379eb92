//! The guard of a held lease: it keeps itself alive, and says at any moment whether it may still be relied on.
//!
//! It must never say "held" after its deadline, whatever paused, slept, starved or was cut off in between: it looks at the clock when asked.

use std::{sync::Arc, time::Duration};

use tenure_proto::v1::ReleaseRequest;
use tokio_util::sync::CancellationToken;

use crate::{
    Client, Error,
    clock::Readings,
    hold::{Hold, LostReason},
    keepalive::Keepalive,
};

/// A lease that this process holds. It is renewed in the background until it is released, lost or dropped.
///
/// - **Dropping** it stops the renewals and cancels [`Lease::cancellation`]; it does not block and tells nobody, so the cluster grants the lease to
///   somebody else only when it runs out. [`Lease::release`] hands over at once.
/// - Work under a lease should end when [`Lease::cancellation`] fires, and a write that matters should carry [`Lease::token`], so that whatever is
///   written to can refuse the past ([`FencedWriter`](crate::FencedWriter)).
#[derive(Debug)]
#[must_use = "dropping the guard stops renewing"]
pub struct Lease {
    client: Client,
    keepalive: Arc<Keepalive>,
    hold: Arc<Hold>,
}

impl Lease {
    pub(crate) fn keep(client: Client, keepalive: Arc<Keepalive>, hold: Hold, sent: Readings) -> Self {
        let hold = Arc::new(hold);
        keepalive.keep(&hold, sent);
        Self { client, keepalive, hold }
    }

    /// Of the lease.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.hold.namespace
    }

    /// Of the lease.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.hold.name
    }

    /// The name under which this process holds it.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.hold.holder
    }

    /// The fencing token: larger than every token this lease ever had before. Below 2^53; public, no credential.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.hold.token
    }

    /// Before this reading of the client's clock nobody else is granted the lease, however the network behaves; unless an operator deletes it by
    /// force, or another process asks with the same holder name and `reclaim`. Renewals move it forward.
    ///
    /// It is counted from before the request was sent, and a little short (0.2 % and 1 ms) for clocks that disagree.
    #[must_use]
    pub fn deadline(&self) -> Readings {
        self.hold.deadline()
    }

    /// Time until [`Lease::deadline`], now. Zero after it, and as soon as the lease was released or ended by the cluster. After a loss for want
    /// of renewals this may be more than nothing: the time to stop in.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.hold.remaining()
    }

    /// Whether this process holds it, by the clock as it is now. Once false it stays false.
    ///
    /// What may be concluded from `true`: nobody else held it when the clock was read. A process can be paused right after that, which is what the
    /// token is for.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.hold.left().is_zero()
    }

    /// Waits until it is not held any more, and says why. Cancel-safe; answers at once, and the same, after the first time.
    pub async fn lost(&self) -> LostReason {
        self.hold.over().cancelled().await;
        // The reason is set first.
        self.hold.lost().unwrap_or(LostReason::NotRenewed(None))
    }

    /// Why it is not held any more, if that was noticed.
    #[must_use]
    pub fn lost_reason(&self) -> Option<LostReason> {
        self.hold.lost()
    }

    /// Fires when the lease is lost, released or dropped. For want of renewals it fires before the deadline
    /// ([`LeaseBuilder::stop_before`](crate::LeaseBuilder::stop_before)), hence before anybody else can be granted the lease, provided that this
    /// process gets to run; [`Lease::is_held`] needs no such luck.
    ///
    /// It is a child: cancelling it stops what was given it, not the lease.
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        self.hold.over().child_token()
    }

    /// Stops believing, because this process is about to ask for another token in the place of this one.
    pub(crate) fn supersede(&self) {
        self.hold.lose(LostReason::Superseded);
        self.keepalive.forget(self.hold.token);
    }

    /// Hands the lease over: to whoever is first in the queue, in one commit. The cancellation fires before anything is sent, so stop the work first.
    ///
    /// May be called again after an error, also after a loss; that is harmless. Dropped in the middle, the release may or may not be made.
    ///
    /// # Errors
    /// As [`Client::release`], which repeats it until the request timeout. After any error the lease runs out by itself within its duration.
    pub async fn release(&self) -> Result<(), Error> {
        self.hold.lose(LostReason::Released);
        self.keepalive.forget(self.hold.token);
        let (namespace, name) = (self.hold.namespace.clone(), self.hold.name.clone());
        self.client.release(ReleaseRequest { namespace, name, token: self.hold.token, ..ReleaseRequest::default() }).await.map(drop)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.hold.lose(LostReason::Dropped);
        self.keepalive.forget(self.hold.token);
    }
}
