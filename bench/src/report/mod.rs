//! Shows what was measured.

pub(crate) mod figure;

pub(crate) use self::figure::Figure;
