//! Watches of a prefix.

use anyhow::{Context as _, ensure};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::pb::{Event, WatchCreateRequest, WatchRequest, WatchResponse, watch_client::WatchClient, watch_request::RequestUnion};

/// A watch that is open.
#[derive(Debug)]
pub(crate) struct Watch {
    answers: Streaming<WatchResponse>,
    /// Its end would end the watch.
    _requests: mpsc::Sender<WatchRequest>,
}

impl Watch {
    /// From now on, of all keys that begin so.
    pub(crate) async fn open(channel: Channel, prefix: &str) -> anyhow::Result<Self> {
        let mut end = Vec::from(prefix);
        *end.last_mut().context("a prefix")? += 1;
        let create = WatchCreateRequest { key: prefix.into(), range_end: end, start_revision: 0 };
        let (send, requests) = mpsc::channel(1);
        send.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await?;
        let mut answers = WatchClient::new(channel).watch(ReceiverStream::new(requests)).await?.into_inner();
        let first = answers.message().await?.context("the watch has ended")?;
        ensure!(first.created && !first.canceled, "no watch: {first:?}");
        Ok(Self { answers, _requests: send })
    }

    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<Event>> {
        let answer = self.answers.message().await?.context("the watch has ended")?;
        ensure!(!answer.canceled, "the watch was cancelled: {}", answer.cancel_reason);
        Ok(answer.events)
    }
}
