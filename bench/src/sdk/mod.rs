//! What the SDK promises, measured through it: elections that change hands, many leases kept by one process. Of Tenure only.

pub(crate) mod handover;
pub(crate) mod keep;
