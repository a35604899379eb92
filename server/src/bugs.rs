//! bug_expiry_without_term: the raft leader looks for leases that have run out by its own clock and revokes each by a command of its own, which finds
//! its way to whoever leads by then. The mistake of etcd#15247 and #12528: one that was stuck, and is deposed, ends what its successor has renewed.
//!
//! Only in builds with that feature; see `tenure_lease::bugs`.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tenure_lease::{Scope, Selector, SessionId};
use tenure_proto::peer::v1::{Command, Detach, Key, command::Kind};
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, consensus::Consensus, replica::Applications, write::Router};

/// As often as etcd's lessor.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);

/// The lease table takes a detach of this session for a revocation.
const REVOKE: SessionId = SessionId(u64::MAX);

pub(crate) async fn revoke_what_has_expired(
    router: Router,
    consensus: Consensus,
    applications: Arc<Applications>,
    clock: Arc<dyn Clock>,
    closing: CancellationToken,
) {
    let leadership = consensus.leadership();
    let mut applied = (applications.progress().clock, clock.readings());
    let (mut leads, mut revoked) = (false, HashSet::new());
    while closing.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() && tenure_lease::bug!("bug_expiry_without_term") {
        // Who has heard of no other goes on as raft leader.
        leads = leadership.borrow().raft_leader.map_or(leads, |id| id == consensus.node_id());
        let progress = applications.progress();
        if progress.clock != applied.0 {
            applied = (progress.clock, clock.readings());
        }
        let now = applied.0.after(clock.readings().surely_since(applied.1) / 1_000_000);
        let expired = applications.table.read().list(&Scope::All, &Selector::default()).into_iter().filter(|lease| lease.deadline.is_some_and(|at| at < now));
        for lease in expired.filter(|_| leads).filter(|lease| revoked.insert(lease.token)).collect::<Vec<_>>() {
            let key = Key { namespace: lease.namespace.to_string(), name: lease.name.to_string() };
            let command = Command { kind: Some(Kind::Detach(Detach { key: Some(key), session: REVOKE.0, waiter: lease.token })) };
            let router = router.clone();
            tokio::spawn(async move { router.submit(command, PATIENCE).await.is_ok() });
        }
    }
}
