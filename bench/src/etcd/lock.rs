//! Lock and unlock by etcd's own lock service, on leases that are long enough to need no keeping.

use std::time::Duration;

use anyhow::ensure;
use tonic::transport::Channel;

use super::{
    grant,
    lockpb::{LockRequest, UnlockRequest, lock_client::LockClient},
};
use crate::{exclusive::Exclusive, load::Op};

const LEASE: Duration = Duration::from_secs(3600);

/// One client's, and its lease.
#[derive(Debug)]
pub(crate) struct Locker {
    client: LockClient<Channel>,
    name: Vec<u8>,
    lease: i64,
    /// Where others want it too, and who this is.
    contended: Option<(Exclusive, usize)>,
}

impl Locker {
    /// Of a lock that nobody else wants.
    pub(crate) async fn alone(channel: Channel, name: &str) -> anyhow::Result<Self> {
        let lease = grant(&channel, LEASE).await?;
        Ok(Self { client: LockClient::new(channel), name: name.into(), lease, contended: None })
    }

    /// Of one that others want.
    pub(crate) async fn contending(channel: Channel, lock: &Exclusive, who: usize) -> anyhow::Result<Self> {
        Ok(Self { contended: Some((lock.clone(), who)), ..Self::alone(channel, "tenure-bench/contended").await? })
    }
}

impl Op for Locker {
    async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
        let key = self.client.lock(LockRequest { name: self.name.clone(), lease: self.lease }).await?.into_inner().key;
        ensure!(key.starts_with(&self.name), "locked by another key: {key:?}");
        let mut took = None;
        if let Some((lock, who)) = &self.contended {
            took = Some(lock.enter_untold(*who)?);
            lock.leave(*who)?;
        }
        self.client.unlock(UnlockRequest { key }).await?;
        Ok(took)
    }
}
