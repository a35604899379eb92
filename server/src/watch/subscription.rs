//! One watch: its bounded queue, and how it catches up from the table's tail when the queue was full, at its start, or after a snapshot.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;
use tenure_lease::{Compacted, Event, Frozen, LeaseTable, Scope, bug};
use tokio::sync::Notify;

use super::{Delivery, Filter, MAX_WATCHES, Shared, WatchHub};
use crate::replica::Applications;

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

/// Where apply puts events and the stream takes them.
pub(super) struct Inbox {
    filter: Filter,
    /// Most that may wait.
    limit: usize,
    state: Mutex<State>,
    ready: Notify,
}

struct State {
    queue: VecDeque<Delivery>,
    /// `Some(revision)`: the queue holds what matches up to that change and nothing later; the rest must come from the tail.
    behind: Option<u64>,
}

impl Inbox {
    pub(super) fn offer(&self, event: &Arc<Event>) {
        let Some(delivery) = self.filter.delivery(event) else { return };
        {
            let mut state = self.state.lock();
            if state.behind.is_some() {
                return;
            }
            if state.queue.len() < self.limit {
                state.queue.push_back(delivery);
            } else if bug!("bug_watch_drops") {
                // What does not fit is left out, and nobody is told (etcd#17529).
                return;
            } else {
                state.behind = Some(event.revision - 1);
            }
        }
        self.ready.notify_one();
    }

    /// What follows `seen` did not come as events.
    pub(super) fn fall_back(&self, seen: u64) {
        self.state.lock().behind.get_or_insert(seen);
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
    inbox: Arc<Inbox>,
    /// Never goes back.
    bookmark: u64,
}

impl WatchHub {
    /// Registers a watch and fixes its first change in one step. The second part is there for [`Start::Initial`].
    pub(crate) fn watch(&self, applications: &Applications, filter: Filter, start: Start) -> Result<(Subscription, Option<Frozen>), Unwatchable> {
        // No change is applied while this is held.
        let table = applications.table.read();
        let (behind, bookmark) = match start {
            Start::Now | Start::Initial => (None, table.revision()),
            Start::After(revision) if revision < table.watch_floor() => return Err(Unwatchable::Compacted(Compacted { floor: table.watch_floor() })),
            Start::After(revision) if revision > table.revision() => return Err(Unwatchable::Future),
            Start::After(revision) => ((revision < table.revision()).then_some(revision), revision),
        };
        if self.shared.open.fetch_add(1, Ordering::Relaxed) >= MAX_WATCHES {
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Unwatchable::TooMany);
        }
        self.shared.renewals.fetch_add(usize::from(filter.renewals), Ordering::Relaxed);
        let wanted = Wanted::by(&filter);
        let limit = self.shared.queue;
        let inbox = Arc::new(Inbox { filter, limit, state: Mutex::new(State { queue: VecDeque::new(), behind }), ready: Notify::new() });
        let id = {
            let mut registry = self.shared.registry.lock();
            let id = registry.next;
            registry.next += 1;
            registry.by_scope.entry(wanted).or_default().insert(id, inbox.clone());
            id
        };
        let frozen = (start == Start::Initial).then(|| table.freeze());
        Ok((Subscription { hub: self.shared.clone(), id, inbox, bookmark }, frozen))
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
        drop(registry);
        self.hub.open.fetch_sub(1, Ordering::Relaxed);
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
        // In this order: see `WatchHub::applied`.
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
            if state.queue.len() == self.inbox.limit {
                state.behind = Some(event.revision - 1);
                return Ok(());
            }
            state.queue.push_back(delivery);
        }
        state.behind = None;
        Ok(())
    }
}
