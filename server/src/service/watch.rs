//! Watch: what a subscription delivers, as batches, with bookmarks.

use std::{collections::VecDeque, sync::Arc, time::Duration, vec};

use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;
use tenure_lease::{EventKind, Lease};
use tenure_proto::v1;
use tonic::{Request, Status};

use super::{Service, header::event_to_wire, patience, status, validate};
use crate::{
    admission::Caller,
    disk::offloaded,
    watch::{Delivery, Start, Subscription},
    write::codec::lease_to_wire,
};

/// Of one response.
const EVENTS: usize = 500;
const BYTES: usize = 256 << 10;
/// A stream that has nothing to say says so this often.
const BOOKMARK_EVERY: Duration = Duration::from_secs(5);

/// For opening one: less than the 3 s that clients give an endpoint, as the call has no deadline and they should hear why.
const PATIENCE: Duration = Duration::from_secs(2);

type Answers = BoxStream<'static, Result<v1::WatchResponse, Status>>;

pub(super) async fn watch(service: &Arc<Service>, request: Request<v1::WatchRequest>) -> Result<Answers, Status> {
    let patience = patience(request.metadata()).min(PATIENCE);
    let source = request.extensions().get::<Caller>().and_then(Caller::source);
    let (filter, start) = validate::watch(request.into_inner())?;
    let parts = &service.parts;
    let after = match start {
        Start::After(after) => {
            // Needs no raft leader: what is shown is what follows, whenever it is applied here.
            parts.reads.revision(after, patience).await.map_err(|error| status::read(&error))?;
            after
        }
        Start::Now | Start::Initial => {
            parts.reads.barrier(patience).await.map_err(|error| status::read(&error))?;
            0
        }
    };
    let (subscription, frozen) = parts.watches.watch(&parts.applications, filter, start, source).map_err(|error| status::unwatchable(error, after))?;
    let initial = match frozen {
        None => Vec::new(),
        Some(frozen) => {
            let filter = subscription.filter().clone();
            let listing = offloaded(&*parts.disk, move || {
                let mut leases = frozen.list(&filter.scope, &filter.selector);
                leases.retain(|lease| filter.covers(lease));
                leases
            });
            listing.await.map_err(|_| status::shutting_down())?
        }
    };
    let watching = Watching { service: service.clone(), subscription, initial: initial.into_iter(), pending: VecDeque::new(), bookmark: 0, begun: false };
    let answers = stream::unfold(Some(watching), |watching| async move {
        let mut watching = watching?;
        match watching.next().await {
            Ok(response) => Some((Ok(response), Some(watching))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(answers.boxed())
}

struct Watching {
    service: Arc<Service>,
    subscription: Subscription,
    initial: vec::IntoIter<Arc<Lease>>,
    /// Taken and not sent yet, for the limits of a response.
    pending: VecDeque<Delivery>,
    /// Holds once `pending` is empty.
    bookmark: u64,
    begun: bool,
}

impl Watching {
    async fn next(&mut self) -> Result<v1::WatchResponse, Status> {
        if !self.begun {
            return Ok(self.begin());
        }
        if self.pending.is_empty() {
            let parts = &self.service.parts;
            let batch = tokio::select! {
                biased;
                () = parts.stopping.cancelled() => return Err(status::shutting_down()),
                batch = self.subscription.next(&parts.applications, EVENTS) => Some(batch.map_err(status::compacted)?),
                () = tokio::time::sleep(BOOKMARK_EVERY) => None,
            };
            let Some(batch) = batch else {
                let bookmark = self.subscription.bookmark();
                return Ok(self.response(Vec::new(), bookmark));
            };
            self.pending = batch.deliveries.into();
            self.bookmark = batch.bookmark;
        }
        Ok(self.some_of_pending())
    }

    /// What was there when the watch began. The last of these, or an empty one, has the first bookmark.
    fn begin(&mut self) -> v1::WatchResponse {
        let mut events = Vec::new();
        let mut bytes = 0;
        while events.len() < EVENTS
            && bytes < BYTES
            && let Some(lease) = self.initial.next()
        {
            let event = v1::Event {
                r#type: EventKind::Created as i32,
                revision: lease.revision,
                lease: Some(lease_to_wire(&lease, None)),
                previous_holder: String::new(),
                reason: 0,
            };
            bytes += event.encoded_len();
            events.push(event);
        }
        self.begun = self.initial.len() == 0;
        let bookmark = if self.begun { self.subscription.begins_after() } else { 0 };
        self.response(events, bookmark)
    }

    fn some_of_pending(&mut self) -> v1::WatchResponse {
        let mut events = Vec::with_capacity(self.pending.len().min(EVENTS));
        let mut bytes = 0;
        let mut bookmark = self.bookmark;
        while bytes < BYTES
            && let Some(delivery) = self.pending.pop_front()
        {
            let event = event_to_wire(&delivery);
            bytes += event.encoded_len();
            bookmark = if self.pending.is_empty() { self.bookmark } else { event.revision };
            events.push(event);
        }
        self.response(events, bookmark)
    }

    fn response(&self, events: Vec<v1::Event>, bookmark: u64) -> v1::WatchResponse {
        // An event can be here before the replica's progress says that it was applied; a header is never older than what comes with it.
        let shown = events.last().map_or(bookmark, |event| event.revision.max(bookmark));
        v1::WatchResponse { header: self.service.header_at_least(shown), events, bookmark }
    }
}
