//! The committed changes in the order of their numbers, and what they cover.

use std::collections::HashMap;

use super::namespace;
use crate::{
    history::{Committed, History, What, WitnessScope},
    spec::Lease,
};

/// See the module. Empty when nothing was dumped.
#[derive(Debug, Default)]
pub struct Witness<'h> {
    /// By number. One that was recorded twice is here once, with its earliest time.
    pub changes: Vec<(u64, &'h Committed)>,
    /// Places in `changes`.
    pub by_lease: HashMap<&'h str, Vec<usize>>,
    /// Numbers that were recorded twice with different contents.
    pub split: Vec<(u64, &'h Committed, &'h Committed)>,
    scopes: Vec<(u64, WitnessScope)>,
    by_revision: HashMap<u64, usize>,
}

impl<'h> Witness<'h> {
    pub(super) fn of(history: &'h History) -> Self {
        let mut witness = Self::default();
        for record in &history.records {
            match &record.what {
                What::Committed(committed) => witness.changes.push((record.at, committed)),
                What::Witness(scope) => witness.cover(record.at, scope),
                _ => {}
            }
        }
        witness.changes.sort_by_key(|(at, committed)| (committed.change.revision, *at));
        let mut kept: Vec<(u64, &Committed)> = Vec::with_capacity(witness.changes.len());
        for (at, committed) in std::mem::take(&mut witness.changes) {
            match kept.last() {
                Some((_, last)) if last.change.revision == committed.change.revision => {
                    if last.change != committed.change {
                        witness.split.push((at, last, committed));
                    }
                }
                _ => kept.push((at, committed)),
            }
        }
        for (place, (_, committed)) in kept.iter().enumerate() {
            witness.by_lease.entry(&committed.change.lease).or_default().push(place);
            witness.by_revision.insert(committed.change.revision, place);
        }
        witness.changes = kept;
        witness
    }

    /// Whether there is any.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !self.scopes.is_empty()
    }

    /// The change of this number.
    #[must_use]
    pub fn change(&self, revision: u64) -> Option<(u64, &'h Committed)> {
        self.by_revision.get(&revision).map(|place| self.changes[*place])
    }

    /// Changes of a lease, in order, with their times.
    pub fn of_lease(&self, lease: &str) -> impl DoubleEndedIterator<Item = (u64, &'h Committed)> {
        self.by_lease.get(lease).into_iter().flatten().map(|place| self.changes[*place])
    }

    /// Changes of a lease with numbers in `(after, upto]`, by bisection.
    pub fn of_lease_in(&self, lease: &str, after: u64, upto: u64) -> impl Iterator<Item = (u64, &'h Committed)> {
        let places = self.by_lease.get(lease).map_or(&[][..], Vec::as_slice);
        let from = places.partition_point(|place| self.changes[*place].1.change.revision <= after);
        places[from..].iter().map(|place| self.changes[*place]).take_while(move |(_, committed)| committed.change.revision <= upto)
    }

    /// Changes with numbers in `(after, upto]`.
    #[must_use]
    pub fn between(&self, after: u64, upto: u64) -> &[(u64, &'h Committed)] {
        let from = self.changes.partition_point(|(_, committed)| committed.change.revision <= after);
        let to = self.changes.partition_point(|(_, committed)| committed.change.revision <= upto);
        self.changes.get(from..to).unwrap_or_default()
    }

    /// What is covered of the namespace of this lease: the widest.
    #[must_use]
    pub fn scope_of(&self, lease: &str) -> Option<&WitnessScope> {
        self.scope_of_namespace(Some(namespace(lease)))
    }

    /// What is covered of a namespace; of all for `None`.
    #[must_use]
    pub fn scope_of_namespace(&self, wanted: Option<&str>) -> Option<&WitnessScope> {
        self.widest(wanted).map(|(_, scope)| scope)
    }

    fn widest(&self, wanted: Option<&str>) -> Option<&(u64, WitnessScope)> {
        let covers = |(_, scope): &&(u64, WitnessScope)| scope.namespace.is_none() || scope.namespace.as_deref() == wanted;
        self.scopes.iter().filter(covers).max_by_key(|(_, scope)| scope.upto.saturating_sub(scope.after))
    }

    /// One that goes on where another ended makes it longer.
    fn cover(&mut self, at: u64, new: &WitnessScope) {
        let goes_on = |(_, scope): &&mut (u64, WitnessScope)| {
            scope.namespace == new.namespace && scope.renewals == new.renewals && scope.after <= new.after && new.after <= scope.upto && scope.upto <= new.upto
        };
        match self.scopes.iter_mut().find(goes_on) {
            Some((until, scope)) => (*until, scope.upto) = (at, new.upto),
            None => self.scopes.push((at, new.clone())),
        }
    }

    /// Whether what had happened to this lease by then would be there.
    #[must_use]
    pub fn covers_until(&self, lease: &str, at: u64) -> bool {
        self.widest(Some(namespace(lease))).is_some_and(|(until, _)| at <= *until)
    }

    /// Whether the change of this number would be there if it had happened to this lease.
    #[must_use]
    pub fn covers(&self, lease: &str, revision: u64) -> bool {
        self.scope_of(lease).is_some_and(|scope| scope.after < revision && revision <= scope.upto)
    }

    /// A lease before its first change here.
    #[must_use]
    pub fn before(&self, lease: &str) -> Lease {
        let first = self.of_lease(lease).next();
        let created = first.is_some_and(|(_, first)| first.change.create_revision == first.change.revision);
        let from_the_beginning = self.scope_of(lease).is_some_and(|scope| scope.after == 0);
        if created || from_the_beginning { Lease::not_there() } else { Lease::default() }
    }
}
