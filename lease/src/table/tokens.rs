//! Live tokens, and where each leads. The tokens themselves are in the slots: a million of them cost 10 MB, not 35.

use hashbrown::HashTable;

use super::{
    requests::hash_number,
    slots::{Slot, Slots},
};

/// Every operation is handed the slots whose tokens these are.
#[derive(Debug, Default)]
pub(super) struct Tokens(HashTable<Slot>);

impl Tokens {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, token: u64, slots: &Slots) -> Option<Slot> {
        self.0.find(hash_number(token), |slot| slots.hot(*slot).token == token).copied()
    }

    /// The token that a slot has now. It must not be there yet.
    pub(super) fn insert(&mut self, slot: Slot, slots: &Slots) {
        let token = slots.hot(slot).token;
        assert!(self.get(token, slots).is_none(), "a token is granted once");
        self.0.insert_unique(hash_number(token), slot, |slot| hash_number(slots.hot(*slot).token));
    }

    /// The token that a slot has now.
    pub(super) fn remove(&mut self, slot: Slot, slots: &Slots) {
        let entry = self.0.find_entry(hash_number(slots.hot(slot).token), |other| *other == slot);
        entry.expect("a live token leads to its lease").remove();
    }
}
