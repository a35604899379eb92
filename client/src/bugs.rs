//! Mistakes on purpose, each behind a cargo feature `bug_*` of its own: the proof that our tests would notice a real one. The server's and the lease
//! table's have the same machinery, of which the SDK sees nothing.
//!
//! Nothing of them is in a build without such a feature: there `bug!` is `false`. No release may have one.

#[cfg(feature = "bugs")]
use std::sync::OnceLock;

/// Whether the mistake of this name is to be made here: if its feature is on, and, where the feature `bugs` has them all, if it was chosen.
macro_rules! bug {
    ($name:tt) => {
        cfg!(feature = $name) && $crate::bugs::active($name)
    };
}
pub(crate) use bug;

#[cfg(feature = "bugs")]
static CHOSEN: OnceLock<&'static str> = OnceLock::new();

/// From now on, and for good, this process makes this mistake and no other. Until then it makes none.
#[cfg(feature = "bugs")]
pub fn choose(bug: &'static str) {
    // The first stays.
    let _ = CHOSEN.set(bug);
}

#[inline]
pub(crate) fn active(bug: &str) -> bool {
    #[cfg(feature = "bugs")]
    return CHOSEN.get().is_some_and(|chosen| *chosen == bug);
    #[cfg(not(feature = "bugs"))]
    !bug.is_empty()
}
