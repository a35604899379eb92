//! Watches, as they are on the wire.

use anyhow::Context as _;
use tenure_proto::v1::{Event, WatchRequest, WatchResponse};
use tonic::{Streaming, transport::Channel};

use super::Client;

/// A watch that is open.
#[derive(Debug)]
pub(crate) struct Watch {
    answers: Streaming<WatchResponse>,
    revision: u64,
}

impl Watch {
    /// From now on. Of everything, or of one namespace.
    pub(crate) async fn open(channel: Channel, namespace: Option<&str>) -> anyhow::Result<Self> {
        let request = WatchRequest { namespace: namespace.unwrap_or_default().to_owned(), all_namespaces: namespace.is_none(), ..Default::default() };
        let mut answers = Client::new(channel).watch(request).await?.into_inner();
        // The first bookmark says where it begins: nothing after it is missed.
        let first = answers.message().await?.context("the watch has ended")?;
        Ok(Self { answers, revision: first.bookmark })
    }

    /// The next events; none in a bookmark. Revisions must grow.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<Event>> {
        let answer = self.answers.message().await?.context("the watch has ended")?;
        for event in &answer.events {
            anyhow::ensure!(event.revision > self.revision, "event {} after {}", event.revision, self.revision);
            self.revision = event.revision;
        }
        Ok(answer.events)
    }
}
