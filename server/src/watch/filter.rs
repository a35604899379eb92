//! What one watcher sees of an event: by scope, name and labels. A lease that enters the selector is CREATED to it, one that leaves is DELETED.

use std::sync::Arc;

use tenure_lease::{Event, EventKind, Lease, Scope, Selector};

/// What a watcher asked for.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) scope: Scope,
    /// `None`: every lease of the scope.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) selector: Selector,
    pub(crate) renewals: bool,
}

/// How an event looks to a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// As it is.
    AsIs,
    /// Its labels match since this change.
    Entered,
    /// Its labels do not match any more.
    Left,
}

/// An event for one watcher.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) event: Arc<Event>,
    pub(crate) shown: Shown,
}

impl Filter {
    /// Whether a lease belongs to the watch now.
    pub(crate) fn covers(&self, lease: &Lease) -> bool {
        let scope = match &self.scope {
            Scope::All => true,
            Scope::Namespace(namespace) => *namespace == lease.namespace,
        };
        scope && self.name.as_ref().is_none_or(|name| *name == lease.name) && self.selector.matches(&lease.labels)
    }

    /// `None`: the watcher does not see this event.
    pub(crate) fn shows(&self, event: &Event) -> Option<Shown> {
        let lease = &*event.lease;
        if super::is_renewal(event.kind) && !self.renewals {
            return None;
        }
        let scope = match &self.scope {
            Scope::All => true,
            Scope::Namespace(namespace) => *namespace == lease.namespace,
        };
        if !scope || self.name.as_ref().is_some_and(|name| *name != lease.name) {
            return None;
        }
        if self.selector.is_empty() {
            return Some(Shown::AsIs);
        }
        let after = self.selector.matches(&lease.labels);
        let before = match &event.previous_labels {
            Some(labels) if event.kind != EventKind::Deleted => self.selector.matches(labels),
            _ => after,
        };
        match (before, after) {
            (true, true) => Some(Shown::AsIs),
            (false, true) => Some(Shown::Entered),
            (true, false) => Some(Shown::Left),
            (false, false) => None,
        }
    }

    pub(crate) fn delivery(&self, event: &Arc<Event>) -> Option<Delivery> {
        self.shows(event).map(|shown| Delivery { event: event.clone(), shown })
    }
}

impl Delivery {
    pub(crate) fn kind(&self) -> EventKind {
        match self.shown {
            Shown::AsIs => self.event.kind,
            Shown::Entered => EventKind::Created,
            Shown::Left => EventKind::Deleted,
        }
    }

    /// After the change; for DELETED as it was before, as far as the watcher could see it.
    pub(crate) fn lease(&self) -> Arc<Lease> {
        match (&self.event.previous_labels, self.shown) {
            (Some(labels), Shown::Left) => Arc::new(Lease { labels: labels.clone(), ..(*self.event.lease).clone() }),
            _ => self.event.lease.clone(),
        }
    }
}
