//! One watch: its bounded queue, and how it catches up from the table's tail when the queue was full, at its start, or after a snapshot.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tenure_lease::{Compacted, Event, Frozen, LeaseTable, Scope, bug};
use tokio::sync::Notify;

use super::{Delivery, Filter, MAX_WATCHES, MAX_WATCHES_OF_SOURCE, QUEUED, Shared, WatchHub};
use crate::{admission::Source, replica::Applications};

/// The key under which the hub finds a watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    All,
    Namespace(Arc<str>),
    Lease(Arc<str>, Arc<str>),
}

impl Wanted {
    fn by(filter: &Filter) -> Self {
        match (&filter.scope, &filter.name) {
            (Scope::Namespace(namespace), Some(name)) => Self::Lease(namespace.clone(), name.clone()),
            (Scope::Namespace(namespace), None) => Self::Namespace(namespace.clone()),
            (Scope::All, _) => Self::All,
        }
    }
}

/// Events that a watch which is behind takes from the tail at a time, when there is no more room for all watches.
const CATCH_UP: usize = 16;

/// Where the hub puts events and the stream takes them.
pub(super) struct Inbox {
    filter: Filter,
    /// Most that may wait.
    limit: usize,
    state: Mutex<State>,
    ready: Notify,
}

struct State {
    queue: VecDeque<Delivery>,
    /// The newest change that was looked at for this watch. The hub may offer it later than a watch that was behind finds it in the tail.
    seen: u64,
    /// `Some(revision)`: the queue holds what matches up to that change and nothing later; the rest must come from the tail.
    behind: Option<u64>,
}

impl Inbox {
    /// Takes what is for this watch and new to it. `queued` counts what waits in all queues.
    pub(super) fn offer(&self, events: &[Arc<Event>], queued: &AtomicUsize) {
        let news = {
            let mut state = self.state.lock();
            if state.behind.is_some() {
                return;
            }
            let before = state.queue.len();
            for event in events {
                if event.revision <= state.seen {
                    continue;
                }
                if let Some(delivery) = self.filter.delivery(event) {
                    if state.queue.len() < self.limit && queued.load(Ordering::Relaxed) < QUEUED {
                        state.queue.push_back(delivery);
                        queued.fetch_add(1, Ordering::Relaxed);
                    } else if !bug!("bug_watch_drops") {
                        state.behind = Some(event.revision - 1);
                        break;
                    }
                    // bug_watch_drops: what does not fit is left out, and nobody is told (etcd#17529).
                }
                state.seen = event.revision;
            }
            state.queue.len() > before || state.behind.is_some()
        };
        if news {
            self.ready.notify_one();
        }
    }

    /// What follows did not come as events: what was put into all queues, and what this watch has looked at beyond that, is known.
    pub(super) fn fall_back(&self, dispatched: u64) {
        {
            let mut state = self.state.lock();
            let seen = state.seen.max(dispatched);
            state.behind.get_or_insert(seen);
        }
        self.ready.notify_one();
    }
}

/// From where a watch shows changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The first change from now on.
    Now,
    /// The first change after this one.
    After(u64),
    /// Everything that is there, then every change.
    Initial,
}

/// Why a watch did not start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unwatchable {
    Compacted(Compacted),
    /// The replica has not got there yet.
    Future,
    /// The replica has as many as it may.
    TooMany,
    /// The source address has as many as it may.
    TooManyOfSource,
}

/// Some events in their order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) deliveries: Vec<Delivery>,
    /// With these, nothing up to this change is missing.
    pub(crate) bookmark: u64,
}

/// An open watch; closed by dropping it.
pub(crate) struct Subscription {
    hub: Arc<Shared>,
    id: u64,
    source: Option<Source>,
    inbox: Arc<Inbox>,
    /// Never goes back.
    bookmark: u64,
}

impl WatchHub {
    /// Registers a watch and fixes its first change in one step. The second part is there for [`Start::Initial`]. `source`: who watches, if it is known.
    pub(crate) fn watch(
        &self,
        applications: &Applications,
        filter: Filter,
        start: Start,
        source: Option<Source>,
    ) -> Result<(Subscription, Option<Frozen>), Unwatchable> {
        // No change is applied while this is held.
        let table = applications.table.read();
        let (behind, bookmark) = match start {
            Start::Now | Start::Initial => (None, table.revision()),
            Start::After(revision) if revision < table.watch_floor() => return Err(Unwatchable::Compacted(Compacted { floor: table.watch_floor() })),
            Start::After(revision) if revision > table.revision() => return Err(Unwatchable::Future),
            Start::After(revision) => ((revision < table.revision()).then_some(revision), revision),
        };
        let wanted = Wanted::by(&filter);
        let (renewals, limit) = (usize::from(filter.renewals), self.shared.queue);
        let state = State { queue: VecDeque::new(), seen: bookmark, behind };
        let inbox = Arc::new(Inbox { filter, limit, state: Mutex::new(state), ready: Notify::new() });
        let id = {
            let mut registry = self.shared.registry.lock();
            if self.shared.open.load(Ordering::Relaxed) >= MAX_WATCHES {
                return Err(Unwatchable::TooMany);
            }
            if let Some(source) = &source {
                let of_source = registry.by_source.entry(source.clone()).or_default();
                if *of_source >= MAX_WATCHES_OF_SOURCE {
                    return Err(Unwatchable::TooManyOfSource);
                }
                *of_source += 1;
            }
            self.shared.open.fetch_add(1, Ordering::Relaxed);
            self.shared.renewals.fetch_add(renewals, Ordering::Relaxed);
            let id = registry.next;
            registry.next += 1;
            registry.by_scope.entry(wanted).or_default().insert(id, inbox.clone());
            id
        };
        let frozen = (start == Start::Initial).then(|| table.freeze());
        Ok((Subscription { hub: self.shared.clone(), id, source, inbox, bookmark }, frozen))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let wanted = Wanted::by(&self.inbox.filter);
        let mut registry = self.hub.registry.lock();
        if let Some(inboxes) = registry.by_scope.get_mut(&wanted) {
            inboxes.remove(&self.id);
            if inboxes.is_empty() {
                registry.by_scope.remove(&wanted);
            }
        }
        if let Some(source) = &self.source
            && let Some(of_source) = registry.by_source.get_mut(source)
        {
            *of_source -= 1;
            if *of_source == 0 {
                registry.by_source.remove(source);
            }
        }
        self.hub.open.fetch_sub(1, Ordering::Relaxed);
        drop(registry);
        // The hub may be at it, and put something in yet.
        let mut state = self.inbox.state.lock();
        state.behind = Some(u64::MAX);
        self.hub.queued.fetch_sub(std::mem::take(&mut state.queue).len(), Ordering::Relaxed);
        drop(state);
        self.hub.renewals.fetch_sub(usize::from(self.inbox.filter.renewals), Ordering::Relaxed);
    }
}

impl Subscription {
    pub(crate) fn filter(&self) -> &Filter {
        &self.inbox.filter
    }

    /// The change after which it shows everything, before anything was taken.
    pub(crate) const fn begins_after(&self) -> u64 {
        self.bookmark
    }

    /// Up to here nothing is missing, once everything taken so far has been sent.
    pub(crate) fn bookmark(&mut self) -> u64 {
        // In this order: see `Shared::dispatch`.
        let dispatched = self.hub.dispatched();
        let state = self.inbox.state.lock();
        if state.queue.is_empty() && state.behind.is_none() {
            self.bookmark = self.bookmark.max(dispatched);
        }
        self.bookmark
    }

    /// Waits until there is at least one event and takes up to `limit`. Safe to drop at any time: takes nothing before it returns.
    pub(crate) async fn next(&mut self, applications: &Applications, limit: usize) -> Result<Batch, Compacted> {
        loop {
            if let Some(batch) = self.take(applications, limit)? {
                return Ok(batch);
            }
            self.inbox.ready.notified().await;
        }
    }

    /// What is there now.
    pub(crate) fn take(&mut self, applications: &Applications, limit: usize) -> Result<Option<Batch>, Compacted> {
        let catch_up = {
            let state = self.inbox.state.lock();
            state.queue.is_empty() && state.behind.is_some()
        };
        if catch_up {
            self.catch_up(&applications.table.read())?;
        }
        let deliveries: Vec<Delivery> = {
            let mut state = self.inbox.state.lock();
            let n = state.queue.len().min(limit);
            self.hub.queued.fetch_sub(n, Ordering::Relaxed);
            state.queue.drain(..n).collect()
        };
        let Some(last) = deliveries.last() else { return Ok(None) };
        // A snapshot's tail may repeat nothing: revisions only grow.
        self.bookmark = self.bookmark.max(last.event.revision);
        let bookmark = self.bookmark();
        Ok(Some(Batch { deliveries, bookmark }))
    }

    /// Fills the empty queue from the tail. The caller holds the table, so that no change comes in between.
    fn catch_up(&self, table: &LeaseTable) -> Result<(), Compacted> {
        let mut state = self.inbox.state.lock();
        let Some(seen) = state.behind else { return Ok(()) };
        for event in table.events_after(seen)? {
            let Some(delivery) = self.inbox.filter.delivery(&event) else { continue };
            // Some can always be taken, whatever waits for others.
            if state.queue.len() == self.inbox.limit || (state.queue.len() >= CATCH_UP && self.hub.queued.load(Ordering::Relaxed) >= QUEUED) {
                state.behind = Some(event.revision - 1);
                return Ok(());
            }
            state.queue.push_back(delivery);
            self.hub.queued.fetch_add(1, Ordering::Relaxed);
        }
        state.behind = None;
        state.seen = state.seen.max(table.revision());
        Ok(())
    }
}
