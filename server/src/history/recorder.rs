//! The history's thread: takes what it finds in the queue, writes it in blocks, answers questions in their order.
//!
//! After the first message it lets more of them gather, not to be woken for each entry that is applied, and because a block of many holds costs little
//! more than one of a single hold. Whoever asks wakes it.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use tenure_lease::{Event, Hold, LeaseKey};

use super::{
    Holds, Message, Seen,
    store::{KEPT_HOLDS, Marks, Store},
};

/// How stale the mark of what was seen may be on disk while nothing ends. A crash in between makes the answer claim less than is true.
const MARK_EVERY: Duration = Duration::from_secs(1);
/// How long messages gather. The queue has room for more than are applied meanwhile.
const GATHER: Duration = Duration::from_millis(100);
/// Messages taken at a time.
const BATCH: usize = 1_024;
/// Holds in one block.
const BLOCK: usize = 512;

pub(super) struct Recorder {
    store: Store,
    messages: Receiver<Message>,
    seen: Arc<Seen>,
    broken: bool,
}

impl Recorder {
    pub(super) fn new(store: Store, messages: Receiver<Message>, seen: Arc<Seen>) -> Self {
        Self { store, messages, seen, broken: false }
    }

    pub(super) fn run(mut self) {
        loop {
            let first = match self.messages.recv_timeout(MARK_EVERY) {
                Ok(first @ Message::Ended(_)) => {
                    // A wake-up too many makes a smaller block.
                    thread::park_timeout(GATHER);
                    Some(first)
                }
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if !self.work(first) {
                break;
            }
        }
        if let Err(error) = self.store.flush() {
            tracing::warn!(error = format!("{error:#}"), "the history was not flushed");
        }
    }

    /// `false`: close.
    fn work(&mut self, first: Option<Message>) -> bool {
        // Before the queue is drained: everything that this covers is in it, or was dropped.
        let through = self.seen.through.load(Ordering::Acquire);
        let mut marks = self.store.marks;
        let mut ended: Vec<Arc<Event>> = Vec::new();
        let mut questions = Vec::new();
        let mut open = true;
        let mut taken = 0;
        let mut drained = false;
        let mut next = first;
        while taken < BATCH {
            let message = match next.take() {
                Some(message) => message,
                None => match self.messages.try_recv() {
                    Ok(message) => message,
                    Err(_) => {
                        drained = true;
                        break;
                    }
                },
            };
            taken += 1;
            match message {
                Message::Ended(events) => {
                    marks.through = marks.through.max(events.last().map_or(0, |event| event.revision));
                    ended.extend(events);
                }
                Message::Jumped(revision) => {
                    if revision > marks.through {
                        marks.complete_since = marks.complete_since.max(revision);
                        marks.through = revision;
                    }
                }
                Message::Question { key, limit, answer } => questions.push((key, limit, answer)),
                Message::Close => {
                    open = false;
                    drained = true;
                    break;
                }
            }
        }
        if drained {
            marks.through = marks.through.max(through);
        }
        marks.complete_since = marks.complete_since.max(self.seen.dropped.load(Ordering::Acquire));
        self.record(&ended, marks);
        for (key, limit, answer) in questions {
            // The asker may have gone.
            let _ = answer.send(self.holds(&key, limit));
        }
        open
    }

    fn record(&mut self, ended: &[Arc<Event>], marks: Marks) {
        // A replay of the log tells again what is there already.
        let known = self.store.marks.through;
        let ended: Vec<_> = ended.iter().filter(|event| event.revision > known).collect();
        if ended.is_empty() {
            if marks != self.store.marks {
                self.write(&[], marks);
            }
            return;
        }
        let last = ended.len().div_ceil(BLOCK) - 1;
        for (at, block) in ended.chunks(BLOCK).enumerate() {
            let through = if at == last { marks.through } else { block.last().map_or(known, |event| event.revision) };
            self.write(block, Marks { complete_since: marks.complete_since, through, holds: self.store.marks.holds });
        }
    }

    fn write(&mut self, ended: &[&Arc<Event>], marks: Marks) {
        let holds = ended.iter().filter_map(|event| {
            let hold: &Hold = event.ended.as_ref()?;
            Some((LeaseKey::trusted(event.lease.namespace.clone(), event.lease.name.clone()), hold))
        });
        let result = self.store.record(holds, marks).and_then(|()| self.store.prune(KEPT_HOLDS));
        match result {
            Ok(()) => self.broken = false,
            Err(error) => {
                // Not retried: what was lost counts as a gap, and the leases do not depend on it.
                let lost = ended.last().map_or(0, |event| event.revision);
                self.seen.dropped.fetch_max(lost, Ordering::AcqRel);
                if !self.broken {
                    tracing::error!(error = format!("{error:#}"), "the history cannot be written: holds that end now will be missing from it");
                }
                self.broken = true;
            }
        }
    }

    fn holds(&self, key: &LeaseKey, limit: usize) -> anyhow::Result<Holds> {
        let complete_since = self.store.marks.complete_since.max(self.seen.dropped.load(Ordering::Acquire));
        Ok(Holds { holds: self.store.of(key, limit)?, complete_since })
    }
}
