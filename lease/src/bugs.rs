//! Mistakes on purpose, each behind a cargo feature `bug_*` of its own: the proof that our tests would notice a real one. docs/simulation.md lists
//! them, and `cargo run -p tenure-sim --features bugs -- --bugs` looks for each.
//!
//! Nothing of them is in a build without such a feature: there [`bug!`](crate::bug) is `false`. No release may have one.

#[cfg(feature = "bugs")]
use std::sync::OnceLock;

/// Whether the mistake of this name is to be made here: if its feature is on, and, where the feature `bugs` has them all, if it was [`choose`]n.
#[doc(hidden)]
#[macro_export]
macro_rules! bug {
    ($name:tt) => {
        cfg!(feature = $name) && $crate::bugs::active($name)
    };
}

#[cfg(feature = "bugs")]
static CHOSEN: OnceLock<&'static str> = OnceLock::new();

/// From now on, and for good, this process makes this mistake and no other. Until then it makes none.
#[cfg(feature = "bugs")]
pub fn choose(bug: &'static str) {
    // The first stays.
    let _ = CHOSEN.set(bug);
}

/// For [`bug!`](crate::bug).
#[inline]
#[must_use]
pub fn active(bug: &str) -> bool {
    #[cfg(feature = "bugs")]
    return CHOSEN.get().is_some_and(|chosen| *chosen == bug);
    #[cfg(not(feature = "bugs"))]
    !bug.is_empty()
}
