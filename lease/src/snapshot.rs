//! A frozen table, and its versioned file format: little-endian, hand-written, the same bytes for equal tables.

mod read;
mod write;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    sync::Arc,
};

use crate::{
    Lease, LeaseTable, LeaseTime, Limits, Scope, Selector, SessionId,
    table::{
        Queue,
        requests::{Digest, EndedBlocks},
        sessions::Session,
        slots::{Cold, Hot, Slot, Slots},
        tail::Tail,
        view,
    },
};

/// The only one so far.
const FORMAT: u32 = 1;
/// Written last, so that a file that lost its end is not taken for a smaller table.
const END: u32 = 0x454e_4454;

/// A table at one revision. Cheap to make ([`LeaseTable::freeze`]), slow to write; meant for another thread.
#[derive(Debug)]
pub struct Frozen {
    bootstrapped: bool,
    clock: LeaseTime,
    counter: u64,
    limits: Limits,
    slots: Slots,
    queues: BTreeMap<Slot, Arc<Queue>>,
    /// Without their waiters, which the queues have.
    sessions: Vec<(SessionId, Session)>,
    ended: EndedBlocks,
    tail: Tail,
}

impl Frozen {
    /// Equal on equal tables, however they came to be. Looks at every lease.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        let mut hash = Hashing(Digest::new(4));
        let mut w = io::BufWriter::with_capacity(4096, &mut hash);
        let written = write::table(self, &mut w).and_then(|()| w.flush());
        assert!(written.is_ok(), "hashing cannot fail");
        drop(w);
        let mut digest = hash.0;
        digest.number(self.tail.floor());
        digest.number(self.tail.newest().unwrap_or(0));
        digest.finish().0
    }

    /// Number of the newest change in it.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.counter
    }

    /// What matches, in order of namespace and name, by a full scan.
    #[must_use]
    pub fn list(&self, scope: &Scope, selector: &Selector) -> Vec<Arc<Lease>> {
        let wanted = |cold: &Cold| scope.contains(&cold.namespace) && selector.matches(&cold.labels);
        self.in_order(wanted).into_iter().map(|(slot, hot, cold)| view::lease(hot, cold, self.queues.get(&slot).map_or(0, |queue| queue.len()))).collect()
    }

    /// Writes it all, format version first. The caller adds the checksum.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_to(&self, w: &mut dyn io::Write) -> io::Result<()> {
        // The format is many small fields: one call of `w` for each would cost more than making them.
        let mut w = io::BufWriter::with_capacity(64 * 1024, w);
        write::table(self, &mut w)?;
        write::tail(&self.tail, &mut w)?;
        w.flush()
    }

    fn in_order(&self, wanted: impl Fn(&Cold) -> bool) -> Vec<(Slot, &Hot, &Cold)> {
        let mut leases: Vec<_> = self.slots.iter().filter(|(_, _, cold)| wanted(cold)).collect();
        leases.sort_unstable_by(|(_, _, one), (_, _, other)| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        leases
    }
}

/// Why bytes are not a table.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Read error or early end.
    #[error("cannot read the snapshot: {0}")]
    Io(#[from] io::Error),
    /// A format this build does not know.
    #[error("snapshot format {0} is not known to this build (it knows up to {1}): use a newer tenured")]
    Version(u32, u32),
    /// Not what `write_to` writes.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
}

impl LeaseTable {
    /// A copy that later applies do not touch, in time far below that of copying the leases.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        Frozen {
            bootstrapped: self.bootstrapped,
            clock: self.clock,
            counter: self.counter,
            limits: self.limits,
            slots: self.slots.share(),
            queues: self.queues.clone(),
            sessions: self.sessions.iter().map(|(id, session)| (*id, Session { waiters: BTreeMap::new(), ..*session })).collect(),
            ended: self.ended.blocks().clone(),
            tail: self.tail.clone(),
        }
    }

    /// Equal on equal tables, however they came to be.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        self.freeze().state_hash()
    }

    /// The table that [`Frozen::write_to`] wrote.
    ///
    /// # Errors
    /// See [`RestoreError`]. Never panics, whatever the bytes, and allocates no more than a small multiple of what it has read.
    pub fn restore(r: &mut dyn io::Read) -> Result<Self, RestoreError> {
        read::table(r)
    }
}

struct Hashing(Digest);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.raw(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
