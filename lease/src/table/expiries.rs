//! When holds run out: by instant, and in an instant by token. Filing one, or taking one out, walks no other hold.
//!
//! The holds of an instant are a list through their slots, put in order when it is their turn; an instant is passed once, and nothing is filed under
//! it by then. Local to the replica, like slots; the order in which they come out is not.

use std::collections::{BTreeMap, btree_map::Entry};

use super::slots::Slot;
use crate::LeaseTime;

/// No slot.
const NONE: Slot = Slot::MAX;

#[derive(Debug, Default)]
pub(super) struct Expiries {
    instants: BTreeMap<LeaseTime, List>,
    /// By slot; means something only while that is filed.
    links: Vec<Link>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: Slot,
    in_order: bool,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: Slot,
    after: Slot,
}

impl Expiries {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The first instant.
    pub(super) fn first(&self) -> Option<LeaseTime> {
        self.instants.first_key_value().map(|(at, _)| *at)
    }

    /// The hold that comes first of all.
    pub(super) fn next(&mut self, token: impl Fn(Slot) -> u64) -> Option<(LeaseTime, Slot)> {
        let mut entry = self.instants.first_entry()?;
        let (at, list) = (*entry.key(), entry.get_mut());
        if !list.in_order {
            let mut slots: Vec<Slot> = follow(&self.links, list.first).collect();
            slots.sort_unstable_by_key(|slot| token(*slot));
            for (n, slot) in slots.iter().enumerate() {
                let before = n.checked_sub(1).map_or(NONE, |n| slots[n]);
                self.links[*slot as usize] = Link { before, after: slots.get(n + 1).copied().unwrap_or(NONE) };
            }
            *list = List { first: slots[0], in_order: true };
        }
        Some((at, list.first))
    }

    /// A slot may be filed once.
    pub(super) fn insert(&mut self, at: LeaseTime, slot: Slot) {
        let place = slot as usize;
        if self.links.len() <= place {
            self.links.resize(place + 1, Link { before: NONE, after: NONE });
        }
        let after = match self.instants.entry(at) {
            Entry::Vacant(entry) => {
                entry.insert(List { first: slot, in_order: true });
                NONE
            }
            Entry::Occupied(mut entry) => {
                let others = entry.insert(List { first: slot, in_order: false });
                self.links[others.first as usize].before = slot;
                others.first
            }
        };
        self.links[place] = Link { before: NONE, after };
        self.len += 1;
    }

    /// Where it was filed.
    pub(super) fn remove(&mut self, at: LeaseTime, slot: Slot) {
        let Link { before, after } = self.links[slot as usize];
        if after != NONE {
            self.links[after as usize].before = before;
        }
        if before != NONE {
            self.links[before as usize].after = after;
        } else if after == NONE {
            let list = self.instants.remove(&at);
            assert!(list.is_some_and(|list| list.first == slot), "every hold has a timer");
        } else {
            let list = self.instants.get_mut(&at).filter(|list| list.first == slot);
            list.expect("every hold has a timer").first = after;
        }
        self.len -= 1;
    }

    /// For tests.
    pub(super) fn is_filed(&self, at: LeaseTime, slot: Slot) -> bool {
        self.instants.get(&at).is_some_and(|list| follow(&self.links, list.first).any(|other| other == slot))
    }
}

fn follow(links: &[Link], first: Slot) -> impl Iterator<Item = Slot> {
    std::iter::successors(Some(first), |slot| Some(links[*slot as usize].after).filter(|after| *after != NONE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots whose tokens fall while their numbers rise.
    fn token(slot: Slot) -> u64 {
        1_000 - u64::from(slot)
    }

    fn drain(expiries: &mut Expiries) -> Vec<(u64, Slot)> {
        let mut order = Vec::new();
        while let Some((at, slot)) = expiries.next(token) {
            expiries.remove(at, slot);
            order.push((at.0, slot));
        }
        order
    }

    #[test]
    fn holds_come_out_by_instant_and_then_by_token_wherever_they_were_filed() {
        let mut expiries = Expiries::default();
        for (at, slot) in [(20, 3), (10, 1), (20, 7), (10, 5), (10, 2), (20, 0), (5, 9)] {
            expiries.insert(LeaseTime(at), slot);
        }
        assert_eq!((expiries.len(), expiries.first()), (7, Some(LeaseTime(5))));
        assert_eq!(drain(&mut expiries), [(5, 9), (10, 5), (10, 2), (10, 1), (20, 7), (20, 3), (20, 0)]);
        assert_eq!((expiries.len(), expiries.first()), (0, None));
    }

    #[test]
    fn any_of_an_instant_can_be_taken_out_at_any_time() {
        for gone in 0..5 {
            let mut expiries = Expiries::default();
            for slot in 0..5 {
                expiries.insert(LeaseTime(10), slot);
            }
            // In order by now, and out of order again.
            assert_eq!(expiries.next(token), Some((LeaseTime(10), 4)));
            expiries.insert(LeaseTime(10), 6);
            expiries.remove(LeaseTime(10), gone);
            assert!(!expiries.is_filed(LeaseTime(10), gone) && expiries.is_filed(LeaseTime(10), (gone + 1) % 5));
            let left: Vec<_> = [6, 4, 3, 2, 1, 0].into_iter().filter(|slot| *slot != gone).map(|slot| (10, slot)).collect();
            assert_eq!(drain(&mut expiries), left);
        }
    }

    #[test]
    fn slot_can_be_filed_again_elsewhere() {
        let mut expiries = Expiries::default();
        for slot in [2, 0, 1] {
            expiries.insert(LeaseTime(10), slot);
        }
        expiries.remove(LeaseTime(10), 0);
        expiries.insert(LeaseTime(11), 0);
        assert_eq!(drain(&mut expiries), [(10, 2), (10, 1), (11, 0)]);
    }
}
