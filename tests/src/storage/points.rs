//! The failpoints of `tenured`, and what it takes to reach each.

/// What has a replica pass by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// Load, on any replica; so it may also be a majority that dies.
    Load,
    /// Load on the raft leader.
    Lead,
    /// Raft leaders that come and go.
    Elections,
    /// The first start, of the replica that founds.
    Found,
    /// The first start, of any.
    Join,
    /// A snapshot that comes in, because the log is gone from where the replica was.
    Install,
    /// Entries that no majority got, and that are overwritten.
    Conflict,
    /// A replica that is added, seen by any other.
    Member,
    /// A replica that is added, by the raft leader.
    Change,
    /// SIGTERM.
    Stop,
    /// A torn tail.
    Torn,
}

/// A failpoint.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// As in the source.
    pub name: &'static str,
    /// How to get there,
    pub drive: Drive,
    /// and how often at most within moments.
    pub passages: u64,
}

const fn point(name: &'static str, drive: Drive, passages: u64) -> Point {
    Point { name, drive, passages }
}

/// All of them.
pub const POINTS: &[Point] = &[
    point("vote_before_save", Drive::Elections, 3),
    point("vote_after_save", Drive::Elections, 3),
    point("log_before_append", Drive::Load, 150),
    point("log_before_fsync", Drive::Load, 150),
    point("log_before_mark", Drive::Load, 150),
    point("log_after_fsync", Drive::Load, 150),
    point("truncate_before", Drive::Conflict, 1),
    point("truncate_after", Drive::Conflict, 1),
    point("purge_before", Drive::Load, 4),
    point("purge_after", Drive::Load, 4),
    point("apply_before_one", Drive::Load, 150),
    point("apply_after_one", Drive::Load, 150),
    point("membership_before_apply", Drive::Member, 2),
    point("membership_after_apply", Drive::Member, 2),
    point("snapshot_before_build", Drive::Load, 4),
    point("snapshot_before_fsync", Drive::Load, 4),
    point("snapshot_before_rename", Drive::Load, 4),
    point("snapshot_before_dirsync", Drive::Load, 4),
    point("snapshot_before_sweep", Drive::Load, 4),
    point("install_while_receiving", Drive::Install, 1),
    point("install_before_adopt", Drive::Install, 1),
    point("install_after_adopt", Drive::Install, 1),
    point("install_before_replace", Drive::Install, 1),
    point("install_after_replace", Drive::Install, 1),
    point("propose_before", Drive::Lead, 60),
    point("propose_before_answers", Drive::Lead, 60),
    point("identity_before_write", Drive::Join, 2),
    point("identity_before_rename", Drive::Join, 2),
    point("identity_after_rename", Drive::Join, 2),
    point("found_before_join", Drive::Found, 1),
    point("found_before_initialize", Drive::Found, 1),
    point("found_after_initialize", Drive::Found, 1),
    point("bootstrap_before_propose", Drive::Found, 1),
    point("change_before_propose", Drive::Change, 1),
    point("change_after_commit", Drive::Change, 1),
    point("close_before_log", Drive::Stop, 1),
    point("close_after_log", Drive::Stop, 1),
    point("repair_before_cut", Drive::Torn, 1),
    point("repair_after_cut", Drive::Torn, 1),
];
