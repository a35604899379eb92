//! Acquire and release, with nobody else about.

use std::time::Duration;

use anyhow::ensure;
use tenure_proto::v1::{ReleaseRequest, release_response::Outcome};

use super::{Client, NAMESPACE, acquire};
use crate::load::Op;

const LEASE: Duration = Duration::from_secs(60);

/// One client's.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) client: Client,
    pub(crate) name: String,
}

impl Op for Pair {
    async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
        let token = acquire(&mut self.client, &self.name, LEASE).await?;
        release(&mut self.client, &self.name, token).await?;
        Ok(None)
    }
}

/// By its holder, who held it until now.
pub(crate) async fn release(client: &mut Client, name: &str, token: u64) -> anyhow::Result<()> {
    let request = ReleaseRequest { namespace: NAMESPACE.to_owned(), name: name.to_owned(), token, ..Default::default() };
    let released = client.release(request).await?.into_inner();
    ensure!(released.outcome() == Outcome::Released, "{name} was not released: {released:?}");
    Ok(())
}
