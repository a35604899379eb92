//! The newest changes, kept so that watches can resume: bounded, replicated, in snapshots.

use std::{collections::VecDeque, sync::Arc};

use super::Compacted;
use crate::Event;

/// How many changes are kept.
pub(crate) const KEPT_EVENTS: usize = 32_768;

/// How much of them, by [`size`]. A snapshot of a version that did not have this bound may bring more; the oldest are then dropped as it is read.
pub(crate) const KEPT_BYTES: usize = 64 << 20;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    floor: u64,
}

/// What an event is counted as. It follows from what the event says alone, so that all replicas drop the same events, also those that read theirs from
/// a snapshot; what events share in memory is counted for each.
fn size(event: &Event) -> usize {
    let Event { lease, ended, previous_labels, .. } = event;
    let maps = [Some(&lease.labels), Some(&lease.annotations), previous_labels.as_ref()];
    let maps: usize = maps.into_iter().flatten().flat_map(|map| map.iter()).map(|(key, value)| PER_LABEL + key.len() + value.len()).sum();
    let holders = [lease.holder.as_ref(), lease.last_holder.as_ref(), ended.as_ref().map(|hold| &hold.holder)];
    let holders: usize = holders.into_iter().flatten().map(|holder| holder.len()).sum();
    PER_EVENT + lease.namespace.len() + lease.name.len() + lease.holder_data.len() + maps + holders
}

/// For what is of one size, and the memory around it.
const PER_EVENT: usize = 512;
const PER_LABEL: usize = 64;

impl Tail {
    /// No change up to `floor` will ever be known here.
    pub(crate) const fn starting_at(floor: u64) -> Self {
        Self { events: VecDeque::new(), bytes: 0, floor }
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) {
        self.bytes += size(&event);
        self.events.push_back(event);
        while (self.events.len() > KEPT_EVENTS || self.bytes > KEPT_BYTES)
            && let Some(dropped) = self.events.pop_front()
        {
            self.bytes -= size(&dropped);
            self.floor = dropped.revision;
        }
    }

    pub(crate) const fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn newest(&self) -> Option<u64> {
        self.events.back().map(|event| event.revision)
    }

    pub(crate) fn after(&self, revision: u64) -> Result<Vec<Arc<Event>>, Compacted> {
        if revision < self.floor {
            return Err(Compacted { floor: self.floor });
        }
        let from = self.events.partition_point(|event| event.revision <= revision);
        // bug_resume_skips_one: resumes behind the first change that it should show (etcd#19179, #18089).
        let skipped = usize::from(crate::bug!("bug_resume_skips_one"));
        Ok(self.events.range(from..).skip(skipped).cloned().collect())
    }

    pub(crate) const fn events(&self) -> &VecDeque<Arc<Event>> {
        &self.events
    }
}
