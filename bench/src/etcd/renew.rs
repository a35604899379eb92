//! Renewals. Durable: a transaction that puts a record again if nobody else has, as Kubernetes renews its leases. Not durable: LeaseKeepAlive, which the
//! leader notes in memory.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{
    grant,
    pb::{
        Compare, LeaseKeepAliveRequest, LeaseKeepAliveResponse, PutRequest, RequestOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        kv_client::KvClient,
        lease_client::LeaseClient,
        request_op::Request,
    },
};
use crate::load::Op;

/// Who holds it: as long as the holder's name is in Tenure.
const VALUE: &[u8] = crate::tenure::HOLDER.as_bytes();

/// Compare and put, of one record or of several in one transaction.
#[derive(Debug)]
pub(crate) struct Durable {
    client: KvClient<Channel>,
    keys: Vec<Bytes>,
    /// Of all of them: they are only ever put together. None before the first time, which asks for nothing.
    revision: Option<i64>,
}

impl Durable {
    /// Puts records of its own.
    pub(crate) async fn new(channel: Channel, who: usize, records: usize) -> anyhow::Result<Self> {
        let keys = (0..records).map(|n| Vec::from(format!("tenure-bench/renew-{who}-{n}")).into()).collect();
        let mut new = Self { client: KvClient::new(channel), keys, revision: None };
        new.once().await?;
        Ok(new)
    }
}

fn put(key: &Bytes) -> RequestOp {
    RequestOp { request: Some(Request::RequestPut(PutRequest { key: key.to_vec(), value: VALUE.to_vec(), lease: 0 })) }
}

impl Op for Durable {
    async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
        let compare = |key: &Bytes| {
            let is = TargetUnion::ModRevision(self.revision?);
            Some(Compare { result: CompareResult::Equal.into(), target: CompareTarget::Mod.into(), key: key.to_vec(), target_union: Some(is) })
        };
        let request = TxnRequest { compare: self.keys.iter().filter_map(compare).collect(), success: self.keys.iter().map(put).collect(), failure: Vec::new() };
        let answer = self.client.txn(request).await?.into_inner();
        let (puts, expected) = (answer.responses.len(), self.keys.len());
        ensure!(answer.succeeded && puts == expected, "not renewed: succeeded {}, {puts} of {expected}", answer.succeeded);
        self.revision = Some(answer.header.context("a header")?.revision);
        Ok(None)
    }
}

/// Puts a record without asking what was there: what a client may repeat that does not know what became of the last time.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) client: KvClient<Channel>,
    pub(crate) key: Vec<u8>,
}

impl Op for Put {
    async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
        let answer = self.client.put(PutRequest { key: self.key.clone(), value: VALUE.to_vec(), lease: 0 }).await?.into_inner();
        ensure!(answer.header.is_some_and(|header| header.revision > 0), "no revision");
        Ok(None)
    }
}

/// One lease on a stream of its own, one message of it under way.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    id: i64,
    send: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

impl KeepAlive {
    pub(crate) async fn open(channel: Channel, ttl: Duration) -> anyhow::Result<Self> {
        let id = grant(&channel, ttl).await?;
        let (send, messages) = mpsc::channel(1);
        send.send(LeaseKeepAliveRequest { id }).await?;
        let answers = LeaseClient::new(channel).lease_keep_alive(ReceiverStream::new(messages)).await?.into_inner();
        let mut opened = Self { id, send, answers };
        opened.answer().await?;
        Ok(opened)
    }

    async fn answer(&mut self) -> anyhow::Result<()> {
        let answer = self.answers.message().await?.context("the stream of keep-alives has ended")?;
        ensure!(answer.id == self.id && answer.ttl > 0, "not kept alive: {answer:?}");
        Ok(())
    }
}

impl Op for KeepAlive {
    async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
        self.send.send(LeaseKeepAliveRequest { id: self.id }).await?;
        self.answer().await?;
        Ok(None)
    }
}
