//! The newest changes, kept so that watches can resume: bounded, replicated, in snapshots.

use std::{collections::VecDeque, sync::Arc};

use super::Compacted;
use crate::Event;

/// How many changes are kept.
pub(crate) const KEPT_EVENTS: usize = 32_768;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    events: VecDeque<Arc<Event>>,
    floor: u64,
}

impl Tail {
    /// No change up to `floor` will ever be known here.
    pub(crate) const fn starting_at(floor: u64) -> Self {
        Self { events: VecDeque::new(), floor }
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) {
        if self.events.len() == KEPT_EVENTS
            && let Some(dropped) = self.events.pop_front()
        {
            self.floor = dropped.revision;
        }
        self.events.push_back(event);
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
