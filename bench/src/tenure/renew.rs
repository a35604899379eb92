//! Renewals: on a stream that stays open, or on a new one for each, as a client of unary calls would.

use std::{error::Error, fmt, time::Duration};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use tenure_proto::v1::{RenewItem, RenewRequest, renew_result::Result as Renewed};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};

use super::{
    Client, acquire,
    wire::{self, Answer, Wire},
};
use crate::load::Op;

const PATH: &str = "/tenure.v1.LeaseService/Renew";

/// The stream is over, without an error.
#[derive(Debug)]
pub(crate) struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream of renewals has ended")
    }
}

impl Error for Ended {}

/// A stream of renewals, one message of it under way.
#[derive(Debug)]
pub(crate) struct Renewals {
    send: mpsc::Sender<Bytes>,
    answers: Streaming<Answer>,
    message: Bytes,
    leases: usize,
}

impl Renewals {
    /// Renews these once, and is ready to go on.
    pub(crate) async fn open(channel: Channel, tokens: &[u64]) -> anyhow::Result<Self> {
        let (send, messages) = mpsc::channel(1);
        let message = wire::message(tokens);
        send.send(message.clone()).await?;
        let mut grpc = Grpc::new(channel);
        grpc.ready().await?;
        let answers = grpc.streaming(Request::new(ReceiverStream::new(messages)), PathAndQuery::from_static(PATH), Wire).await?.into_inner();
        let mut opened = Self { send, answers, message, leases: tokens.len() };
        opened.answer(tokens.len()).await?;
        Ok(opened)
    }

    /// Others than those that it was opened for.
    pub(crate) async fn renew(&mut self, tokens: &[u64]) -> anyhow::Result<()> {
        self.send.send(wire::message(tokens)).await.map_err(|_| Ended)?;
        self.answer(tokens.len()).await
    }

    async fn answer(&mut self, leases: usize) -> anyhow::Result<()> {
        match self.answers.message().await?.ok_or(Ended)? {
            Answer::AllRenewed(renewed) => ensure!(renewed == leases, "{renewed} of {leases} leases were renewed"),
            Answer::Other(answer) => {
                let other = answer.results.iter().find(|result| !matches!(result.result, Some(Renewed::Renewed(_))));
                bail!("not every lease was renewed: {other:?}")
            }
        }
        Ok(())
    }
}

impl Op for Renewals {
    async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
        self.send.send(self.message.clone()).await.map_err(|_| Ended)?;
        self.answer(self.leases).await?;
        Ok(None)
    }
}

/// A stream on which several messages take turns.
#[derive(Debug)]
pub(crate) struct Cycle {
    stream: Renewals,
    /// Each of as many leases.
    messages: Vec<Bytes>,
    next: usize,
}

impl Cycle {
    pub(crate) async fn open(channel: Channel, messages: Vec<Vec<u64>>) -> anyhow::Result<Self> {
        let stream = Renewals::open(channel, messages.first().context("a message")?).await?;
        Ok(Self { stream, messages: messages.iter().map(|tokens| wire::message(tokens)).collect(), next: 0 })
    }
}

impl Op for Cycle {
    async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
        self.stream.message = self.messages[self.next].clone();
        self.next = (self.next + 1) % self.messages.len();
        self.stream.once().await
    }
}

/// A stream for each renewal.
#[derive(Debug)]
pub(crate) struct Unary {
    pub(crate) client: Client,
    pub(crate) token: u64,
}

impl Op for Unary {
    async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
        let request = RenewRequest { items: vec![RenewItem { token: self.token, ..Default::default() }] };
        let mut answers = self.client.renew(tokio_stream::once(request)).await?.into_inner();
        let answer = answers.message().await?.context("the stream of renewals has ended")?;
        ensure!(matches!(answer.results.first().and_then(|r| r.result.as_ref()), Some(Renewed::Renewed(_))), "not renewed: {:?}", answer.results);
        while answers.message().await?.is_some() {}
        Ok(None)
    }
}

/// Of these many clients, each with so many leases of its own.
pub(crate) async fn tokens(channels: &[Channel], clients: usize, leases: usize, duration: Duration) -> anyhow::Result<Vec<(Channel, Vec<u64>)>> {
    // One behind the other on each of these; enough to fill the replicas' batches.
    let mut holders = tokio::task::JoinSet::new();
    for n in 0..clients {
        let channel = channels[n % channels.len()].clone();
        holders.spawn_local(async move {
            let (mut client, mut tokens) = (Client::new(channel.clone()), Vec::with_capacity(leases));
            for lease in 0..leases {
                tokens.push(acquire(&mut client, &format!("renew-{n}-{lease}"), duration).await?);
            }
            anyhow::Ok((channel, tokens))
        });
    }
    let mut ready = Vec::with_capacity(clients);
    while let Some(holder) = holders.join_next().await {
        ready.push(holder??);
    }
    Ok(ready)
}
