//! Where leases live: slots in copy-on-write chunks, what renewals touch apart from what they do not.
//!
//! Freezing clones chunk pointers only; the first write to a shared chunk copies that chunk. Slot numbers are local to a
//! replica and must never decide anything.

use std::sync::Arc;

use super::requests::RequestKey;
use crate::{Hold, Labels, LeaseTime, SessionId, UnixMillis, WaiterId};

/// As many hot parts as fill 4 KiB together with the counts of their `Arc`: what the first renewal after a freeze copies. A million leases are 12,000
/// pointers.
const HOT_CHUNK: usize = 85;
/// As many cold parts as fill 20 KiB. In place, not each in an `Arc` of its own: 24 bytes a lease less.
const COLD_CHUNK: usize = 116;

/// How many holds a lease remembers, the present one included.
pub(crate) const RECENT_HOLDS: usize = 8;

/// Number of a slot.
pub(crate) type Slot = u32;

/// What a renewal touches.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hot {
    /// Zero unless held.
    pub(crate) deadline: LeaseTime,
    /// Under which instant the expiry index knows this hold; never after `deadline`. Local to the replica.
    pub(crate) armed: LeaseTime,
    pub(crate) token: u64,
    pub(crate) renew_revision: u64,
    pub(crate) renew_time: UnixMillis,
    pub(crate) duration_ms: u32,
    pub(crate) held: bool,
    pub(crate) unclaimed: bool,
    /// Nobody holds it, as the last hold ran out.
    pub(crate) expired: bool,
}

/// What a renewal does not touch.
#[derive(Clone, Debug)]
pub(crate) struct Cold {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) labels: Arc<Labels>,
    pub(crate) annotations: Arc<Labels>,
    pub(crate) create_revision: u64,
    pub(crate) create_time: UnixMillis,
    pub(crate) revision: u64,
    pub(crate) transitions: u64,
    pub(crate) retention: Retention,
    /// Since when nobody holds or waits for it; means something only while that is so.
    pub(crate) idle_since: LeaseTime,
    /// Of the newest grant.
    pub(crate) holder: Option<Arc<str>>,
    pub(crate) holder_data: Arc<[u8]>,
    pub(crate) acquire_time: UnixMillis,
    /// Of the request that was granted; zero unless held.
    pub(crate) request: RequestKey,
    pub(crate) fingerprint: u64,
    /// Set while a grant from the queue has not been renewed.
    pub(crate) claim: Option<Box<Claim>>,
    /// Ended holds, oldest first.
    pub(crate) past: Option<Arc<Vec<Hold>>>,
}

/// For how many milliseconds an idle lease is kept; the largest number is for ever, so that it costs 8 bytes a lease, not 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention(u64);

impl Retention {
    pub(crate) fn new(ms: Option<u64>) -> Self {
        Self(ms.unwrap_or(u64::MAX))
    }

    pub(crate) fn ms(self) -> Option<u64> {
        Some(self.0).filter(|ms| *ms != u64::MAX)
    }
}

const _: () = assert!(size_of::<Hot>() == 48 && size_of::<Cold>() == 176, "a million leases fit into 500 MB");

/// Whose place in the queue an unclaimed hold came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) waiter: WaiterId,
    pub(crate) session: SessionId,
}

type HotChunk = [Hot; HOT_CHUNK];
type ColdChunk = [Option<Cold>; COLD_CHUNK];

/// What an allocation for an `Arc` begins with.
const COUNTS: usize = 16;
const _: () = assert!(size_of::<HotChunk>() + COUNTS == 4096 && size_of::<ColdChunk>() + COUNTS <= 20 << 10, "chunks fill what the allocator hands out");

/// The slab.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    hot: Vec<Arc<HotChunk>>,
    cold: Vec<Arc<ColdChunk>>,
    /// Of those below `end`.
    vacant: Vec<Slot>,
    end: Slot,
    len: usize,
}

impl Slots {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, hot: Hot, cold: Cold) -> Slot {
        let slot = self.vacant.pop().unwrap_or_else(|| self.grow());
        let (chunk, at) = cold_place(slot);
        let place = &mut Arc::make_mut(&mut self.cold[chunk])[at];
        assert!(place.is_none(), "a vacant slot has no lease");
        *place = Some(cold);
        *self.hot_mut(slot) = hot;
        self.len += 1;
        slot
    }

    fn grow(&mut self) -> Slot {
        let slot = self.end;
        self.end = slot.checked_add(1).expect("fewer than 2^32 leases fit in memory");
        if hot_place(slot).0 == self.hot.len() {
            self.hot.push(Arc::new([Hot::default(); HOT_CHUNK]));
        }
        if cold_place(slot).0 == self.cold.len() {
            self.cold.push(Arc::new([const { None }; COLD_CHUNK]));
        }
        slot
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        let (chunk, at) = cold_place(slot);
        let cold = Arc::make_mut(&mut self.cold[chunk])[at].take();
        assert!(cold.is_some(), "only what is there can be removed");
        *self.hot_mut(slot) = Hot::default();
        self.vacant.push(slot);
        self.len -= 1;
    }

    pub(crate) fn hot(&self, slot: Slot) -> &Hot {
        let (chunk, at) = hot_place(slot);
        &self.hot[chunk][at]
    }

    pub(crate) fn hot_mut(&mut self, slot: Slot) -> &mut Hot {
        let (chunk, at) = hot_place(slot);
        &mut Arc::make_mut(&mut self.hot[chunk])[at]
    }

    /// Has what [`Self::hot_mut`] looks at, besides the slot, at hand before it is called.
    pub(crate) fn fetch(&self, slot: Slot) {
        std::hint::black_box(Arc::strong_count(&self.hot[hot_place(slot).0]));
    }

    pub(crate) fn cold(&self, slot: Slot) -> &Cold {
        let (chunk, at) = cold_place(slot);
        self.cold[chunk][at].as_ref().expect("indexes point at live slots only")
    }

    pub(crate) fn cold_mut(&mut self, slot: Slot) -> &mut Cold {
        let (chunk, at) = cold_place(slot);
        Arc::make_mut(&mut self.cold[chunk])[at].as_mut().expect("indexes point at live slots only")
    }

    /// Pointers to the same chunks.
    pub(crate) fn share(&self) -> Self {
        Self { hot: self.hot.clone(), cold: self.cold.clone(), vacant: Vec::new(), end: self.end, len: self.len }
    }

    /// All that are there, in the order of slots: sort before it matters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Hot, &Cold)> {
        let hot = self.hot.iter().flat_map(|chunk| chunk.iter());
        let cold = self.cold.iter().flat_map(|chunk| chunk.iter());
        (0..self.end).zip(hot.zip(cold)).filter_map(|(slot, (hot, cold))| Some((slot, hot, cold.as_ref()?)))
    }
}

const fn hot_place(slot: Slot) -> (usize, usize) {
    (slot as usize / HOT_CHUNK, slot as usize % HOT_CHUNK)
}

const fn cold_place(slot: Slot) -> (usize, usize) {
    (slot as usize / COLD_CHUNK, slot as usize % COLD_CHUNK)
}
