//! Many wait for one lease; who has it gives it up at once, and queues up again.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tenure_proto::v1::{self, AcquireRequest, acquire_response::Result as Answer};

use super::{Client, HOLDER, NAMESPACE, acquire, duration, pair::release, renew::Renewals};
use crate::{exclusive::Exclusive, load::Op};

const LEASE: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_secs(300);
const NAME: &str = "contended";

/// One of them.
#[derive(Debug)]
pub(crate) struct Contender {
    client: Client,
    lease: Exclusive,
    who: usize,
    /// To renew a grant from the queue before it is called one's own; the SDK does so.
    claims: Option<Renewals>,
}

impl Contender {
    pub(crate) async fn new(channel: tonic::transport::Channel, lease: &Exclusive, who: usize, claim: bool) -> anyhow::Result<Self> {
        let mut client = Client::new(channel.clone());
        let claims = match claim {
            // The stream is opened with a lease that nobody else wants.
            true => Some(Renewals::open(channel, &[acquire(&mut client, &format!("own-{who}"), Duration::from_secs(3600)).await?]).await?),
            false => None,
        };
        Ok(Self { client, lease: lease.clone(), who, claims })
    }

    async fn acquire(&mut self) -> anyhow::Result<u64> {
        let request = AcquireRequest {
            namespace: NAMESPACE.to_owned(),
            name: NAME.to_owned(),
            holder: format!("{HOLDER}-{}", self.who),
            duration: duration(LEASE)?,
            wait_for: duration(WAIT)?,
            ..Default::default()
        };
        let mut answers = self.client.acquire(request).await?.into_inner();
        loop {
            match answers.message().await?.context("the queue has ended")?.result {
                Some(Answer::Queued(_)) => {}
                Some(Answer::Granted(v1::Granted { lease: Some(lease), must_renew })) => {
                    if let (true, Some(claims)) = (must_renew, &mut self.claims) {
                        claims.renew(&[lease.token]).await?;
                    }
                    // To the end, so that the stream is not reset.
                    while answers.message().await?.is_some() {}
                    return Ok(lease.token);
                }
                other => bail!("neither granted nor queued: {other:?}"),
            }
        }
    }
}

impl Op for Contender {
    /// The time from one holder's giving it up to the next one's having it.
    async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
        let token = self.acquire().await?;
        let took = self.lease.enter(self.who, token)?;
        self.lease.leave(self.who)?;
        release(&mut self.client, NAME, token).await?;
        Ok(Some(took))
    }
}
