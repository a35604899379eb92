//! Keeps what replicas write from others who have an account on this machine: the log holds every lease with what its holder attached to it, and
//! whoever can write to it can change what the cluster remembers.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rustix::{fs::Mode, process::umask};

/// From here on, whatever this process creates belongs to its user alone: directories are 0700 and files 0600. For all of the process, because the
/// log and the history make files by themselves.
pub(crate) fn whatever_is_created() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// Warns of a data directory that others may look into; one that is not there yet is made as it should be. It is not refused: what an operator has
/// chosen, or a volume comes with, must not keep a replica from its cluster.
pub(crate) fn warn_if_wider(data_dir: &Path) {
    let Ok(found) = fs::metadata(data_dir) else { return };
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let mode = format!("{mode:04o}");
        tracing::warn!(mode, "others on this machine may look into the data directory, which holds all leases; to end that: chmod 700 {}", data_dir.display());
    }
}
