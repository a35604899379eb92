//! Mistakes on purpose: each must be found. What they are, which of them this process makes, and the search for all.
//!
//! They are cargo features of the crates that make them (`tenure_lease::bugs`, `tenure_client::bugs`). With one such feature alone a build always makes
//! that mistake; with the feature `bugs` it makes the one that `--bug` names, or none.

use std::{path::Path, process::Command, sync::OnceLock};

use anyhow::{Context as _, bail, ensure};

/// A mistake, and how it is found.
pub(crate) struct Bug {
    pub(crate) name: &'static str,
    /// In a few words; where it is made says more.
    pub(crate) what: &'static str,
    pub(crate) found_by: FoundBy,
    /// Whether this build has it.
    built: bool,
}

/// Who must find it.
#[derive(Clone, Copy)]
pub(crate) enum FoundBy {
    /// The simulation, within so many seeds.
    Seeds(u64),
    /// A test of the lease table, which says that it failed. For what cannot come about in a whole cluster.
    LeaseTest(&'static str),
}

macro_rules! bugs {
    ($($name:tt $what:literal $found_by:expr;)*) => {
        /// All of them, in the order in which they are looked for.
        pub(crate) const BUGS: &[Bug] = &[$(Bug { name: $name, what: $what, found_by: $found_by, built: cfg!(feature = $name) }),*];
    };
}

use FoundBy::{LeaseTest, Seeds};

bugs! {
    "bug_vote_unsynced" "a vote is told before it is on disk" Seeds(60);
    "bug_ack_unsynced" "what is not yet on disk is acknowledged" Seeds(60);
    "bug_snapshot_unsynced" "a snapshot is renamed before it is on disk" Seeds(60);
    "bug_former_term" "an entry counts under a raft leader that did not stamp it" LeaseTest("entries::inert_entry_changes_nothing_not_even_the_clock");
    "bug_expiry_without_term" "who was raft leader ends what its successor renewed" Seeds(60);
    "bug_leader_clock" "deadlines are instants of the raft leader's own clock" Seeds(60);
    "bug_clock_in_outage" "the lease clock runs while nothing can be committed" Seeds(60);
    "bug_deadlines_reset" "a new raft leader gives every hold its full time again" Seeds(60);
    "bug_expiry_first" "what an entry expires goes before its renewals" Seeds(60);
    "bug_expiry_at_deadline" "a hold ends at its deadline, not after it" Seeds(60);
    "bug_renewal_shortens" "a shorter renewal takes back what was promised" Seeds(60);
    "bug_tokens_reset" "a restored table has forgotten its largest numbers" Seeds(60);
    "bug_requests_forgotten" "snapshots leave out the ended requests" Seeds(60);
    "bug_waiters_forgotten" "snapshots leave out the queues" Seeds(60);
    "bug_granted_twice" "a request whose grant has ended is granted again" Seeds(60);
    "bug_detached_granted" "granted to a waiter that is not there" Seeds(60);
    "bug_last_first" "the last waiter is granted first" Seeds(60);
    "bug_wait_never_ends" "granted to a waiter after its wait was over" Seeds(60);
    "bug_stale_release" "an old token releases the present hold" Seeds(60);
    "bug_gives_back_renewed" "a broken stream gives back what was renewed" Seeds(60);
    "bug_write_retried" "an edit without an answer is sent again" Seeds(60);
    "bug_read_local" "a replica answers reads from what it has" Seeds(60);
    "bug_read_deposed" "a raft leader answers reads without asking a quorum" Seeds(60);
    "bug_watch_drops" "what does not fit into a watcher's queue is left out" Seeds(60);
    "bug_watch_misses_snapshot" "what came in a snapshot is not shown to watchers" Seeds(60);
    "bug_resume_skips_one" "a watch resumes one change too late" Seeds(60);
    "bug_counts_from_answer" "the SDK counts from the answer, not from the send" Seeds(60);
    "bug_holds_past_deadline" "the SDK holds until it is told otherwise" Seeds(60);
    "bug_believes_unclaimed" "the SDK believes a grant from the queue unrenewed" Seeds(60);
    "bug_retry_is_another_request" "the SDK gives each attempt a request id of its own" Seeds(60);
}

static CHOSEN: OnceLock<&'static Bug> = OnceLock::new();

/// From now on this process makes this mistake.
///
/// # Errors
/// There is no such one, or this build does not have it.
pub(crate) fn choose(name: &str) -> anyhow::Result<()> {
    let Some(bug) = BUGS.iter().find(|bug| bug.name == name) else {
        bail!("no such bug: {name}; there are {}", BUGS.iter().map(|bug| bug.name).collect::<Vec<_>>().join(", "));
    };
    ensure!(bug.built, "this build does not have {name}: build with `--features bugs` or `--features {name}`");
    #[cfg(feature = "bugs")]
    {
        tenure_lease::bugs::choose(bug.name);
        tenure_client::bugs::choose(bug.name);
    }
    // The first stays.
    let _ = CHOSEN.set(bug);
    Ok(())
}

/// Whether this process makes a mistake that was named to it.
pub(crate) fn is_chosen() -> bool {
    CHOSEN.get().is_some()
}

/// For a process that is to do the same as this one.
pub(crate) fn passed_on(mut command: Command) -> Command {
    if let Some(bug) = CHOSEN.get() {
        command.args(["--bug", bug.name]);
    }
    command
}

/// How to start this build from a shell.
pub(crate) fn command() -> String {
    let chosen = CHOSEN.get().map(|bug| format!(" --bug {}", bug.name)).unwrap_or_default();
    let built: Vec<&str> = BUGS.iter().filter(|bug| bug.built).map(|bug| bug.name).collect();
    let features = match (cfg!(feature = "bugs"), built.is_empty()) {
        (true, _) => " --features bugs".to_owned(),
        (false, true) => String::new(),
        (false, false) => format!(" --features {}", built.join(",")),
    };
    format!("cargo run -p tenure-sim{features} --{chosen}")
}

/// Seeds that found a bug once, from lines of a bug's name and a seed; what follows a `#` is for people.
///
/// # Errors
/// The file cannot be read, or a line is something else.
pub(crate) fn known(file: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim()).filter(|line| !line.is_empty());
    let parsed = lines.map(|line| {
        let words = line.split_once(char::is_whitespace).and_then(|(name, seed)| Some((name.to_owned(), seed.trim().parse().ok()?)));
        let (name, seed) = words.with_context(|| format!("{line:?} in {} is not a bug and a seed", file.display()))?;
        ensure!(BUGS.iter().any(|bug| bug.name == name), "{name} in {} is no bug", file.display());
        Ok((name, seed))
    });
    parsed.collect()
}
