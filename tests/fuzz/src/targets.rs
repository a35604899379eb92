//! The targets. Each is a file: what it reads, what must hold of what it takes.

mod answers;
mod config;
mod entries;
mod files;
mod history;
mod leases;
mod log;
mod manifest;
mod peers;
mod requests;
pub mod seeds;
mod selector;
mod snapshot;
mod table;
mod texts;

/// What inputs look like, for whoever mutates them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Anything.
    Bytes,
    /// Lines and words.
    Text,
    /// A byte that chooses one of several messages, and then protobuf.
    Messages,
}

/// One function from bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also of its corpus.
    pub name: &'static str,
    /// What it reads.
    pub reads: &'static str,
    /// See [`Shape`].
    pub shape: Shape,
    /// What occurs in its inputs.
    pub words: &'static [&'static str],
    /// Mutations that each `cargo test` runs: a second or two in a debug build.
    pub mutations: u32,
    /// Panics if something is wrong; otherwise whether the input was taken for valid.
    pub run: fn(&[u8]) -> bool,
}

/// Every target.
pub const ALL: &[Target] = &[
    requests::TARGET,
    peers::TARGET,
    entries::TARGET,
    leases::TARGET,
    log::TARGET,
    snapshot::TARGET,
    table::TARGET,
    files::TARGET,
    selector::TARGET,
    config::TARGET,
    manifest::TARGET,
    texts::TARGET,
    answers::TARGET,
    history::TARGET,
];

/// The target of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Target> {
    ALL.iter().find(|target| target.name == name)
}

/// What occurs in requests, entries and answers alike.
const LEASE_WORDS: &[&str] = &[
    "default",
    "kube-node-lease",
    "job",
    "worker-1",
    "a.b.c",
    "r-1",
    "app",
    "example.com/app",
    "web",
    "labels",
    "annotations",
    "retention",
    "é",
    "A",
    "-",
    "a=b,c",
];
