//! What a run takes from the disks of its replicas, and gives back: space, or inodes. Needs the right to mount.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use super::Hurt;
use crate::disk::{self, Mount};

/// Inodes of a file system of a run: enough for a data directory to begin with, few enough to be used up quickly.
const INODES: u64 = 512;
const NAME: &str = "taken";

/// File systems of their own for all replicas of a run, where the scenario asks for them.
#[derive(Debug, Default)]
pub(super) struct Disks {
    mounts: Vec<Mount>,
}

impl Disks {
    pub(super) fn mount(dir: &Path, replicas: u64, mib: Option<u64>) -> anyhow::Result<Self> {
        let Some(mib) = mib else { return Ok(Self::default()) };
        let options = format!("size={mib}m,nr_inodes={INODES}");
        let mounts = (1..=replicas).map(|id| Mount::tmpfs_with(dir, &format!("disk-{id}"), &options)).collect::<anyhow::Result<_>>()?;
        Ok(Self { mounts })
    }

    /// In order; empty when there are none.
    pub(super) fn data_dirs(&self) -> Vec<PathBuf> {
        self.mounts.iter().map(|mount| mount.path.join("data")).collect()
    }

    /// Takes what the scenario says from these replicas (by index).
    pub(super) fn take(&self, hurt: Hurt, victims: &[usize]) -> anyhow::Result<()> {
        for victim in victims {
            let mount = self.mounts.get(*victim).context("this replica has no disk of its own")?;
            let folder = mount.path.join(NAME);
            fs::create_dir_all(&folder)?;
            match hurt {
                Hurt::Nothing => {}
                Hurt::Space(_) => drop(disk::fill(&folder)?),
                Hurt::Inodes(_) => {
                    let made = (0..INODES * 2).take_while(|number| File::create(folder.join(number.to_string())).is_ok()).count();
                    ensure!((made as u64) < INODES, "{} has more inodes than it was given", mount.path.display());
                }
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub(super) fn give_back(&self, victims: &[usize]) -> anyhow::Result<()> {
        for mount in victims.iter().filter_map(|victim| self.mounts.get(*victim)) {
            fs::remove_dir_all(mount.path.join(NAME))?;
        }
        Ok(())
    }
}
