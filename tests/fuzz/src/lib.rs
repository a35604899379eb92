//! Fuzzing: every reader of what clients, peers, disks and people send gets bytes that nobody has made for it.
//!
//! A [`Target`] is one function from bytes; it must not panic, whatever the bytes, and asserts what must hold of those that it takes. Each has a corpus
//! under `corpus/`: valid inputs of real encodings, inputs that once reached something new, and every input that ever broke something. The corpora and
//! some mutations of them are run by `cargo test`; campaigns by `cargo run -p tenure-fuzz` (main.rs). Nothing here decides by a clock but when to stop.

pub mod campaign;
mod clock;
pub mod corpus;
mod coverage;
mod memory;
mod mutate;
mod run;
pub mod targets;
mod wire;

pub use run::{Violation, run};
pub use targets::{ALL, Target};
