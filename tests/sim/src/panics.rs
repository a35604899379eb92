//! A panic of any simulated program is a violation, also where a runtime would keep it to itself.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{clock::now, world::World};

/// Somebody is about to catch one.
static EXPECTED: AtomicBool = AtomicBool::new(false);

/// From now on, in this process.
pub(crate) fn are_violations(world: &Arc<World>) {
    let world = Arc::clone(world);
    panic::set_hook(Box::new(move |info| {
        if !EXPECTED.load(Ordering::Relaxed) {
            world.violation(now(), "panic", info.to_string());
        }
    }));
}

/// Runs what may panic and leaves nothing half done.
///
/// # Errors
/// What it said.
pub(crate) fn caught(f: impl FnOnce()) -> Result<(), String> {
    EXPECTED.store(true, Ordering::Relaxed);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    EXPECTED.store(false, Ordering::Relaxed);
    result.map_err(|said| {
        let text = said.downcast_ref::<String>().cloned().or_else(|| said.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_default()
    })
}
