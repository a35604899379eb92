//! Small file systems of our own: full ones, and ones that lose power. Needs the right to mount; where there is none, tests say so and pass.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// A mounted file system, unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    /// Where.
    pub path: PathBuf,
    image: Option<PathBuf>,
    mounted: bool,
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Past the test harness' capture: a skipped test must be seen.
pub fn skipped(test: &str, why: &anyhow::Error) {
    let text = format!("\n!!! SKIPPED {test}: {why:#}\n\n");
    std::io::stderr().write_all(text.as_bytes()).ok();
    assert!(std::env::var_os("TENURE_TEST_NO_SKIP").is_none(), "{test} may not be skipped here");
}

/// Unmounts whatever is mounted in a folder: for what a test left behind that was killed.
pub fn unmount_all(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).filter(|entry| entry.path().is_dir()) {
        // Fails where nothing is.
        run("umount", &["-l", &entry.path().to_string_lossy()]).ok();
    }
}

/// Fills the file system of a folder to the last byte, with one file: which.
pub fn fill(dir: &Path) -> anyhow::Result<PathBuf> {
    let ballast = dir.join("ballast");
    let mut file = std::fs::File::create(&ballast)?;
    for size in [1 << 20, 4096, 1] {
        let block = vec![7_u8; size];
        while file.write_all(&block).is_ok() {}
    }
    Ok(ballast)
}

impl Mount {
    /// ext4 in a file, through a loop device.
    pub fn ext4(dir: &Path, name: &str, mib: u64) -> anyhow::Result<Self> {
        let image = dir.join(format!("{name}.img"));
        std::fs::File::create(&image)?.set_len(mib << 20)?;
        run("mkfs.ext4", &["-q", "-F", &image.to_string_lossy()])?;
        let path = dir.join(name);
        std::fs::create_dir_all(&path)?;
        let mut mount = Self { path, image: Some(image), mounted: false };
        mount.mount()?;
        Ok(mount)
    }

    /// tmpfs with a limit.
    pub fn tmpfs(dir: &Path, name: &str, mib: u64) -> anyhow::Result<Self> {
        Self::tmpfs_with(dir, name, &format!("size={mib}m"))
    }

    /// tmpfs with options of mount's.
    pub fn tmpfs_with(dir: &Path, name: &str, options: &str) -> anyhow::Result<Self> {
        let path = dir.join(name);
        std::fs::create_dir_all(&path)?;
        run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &path.to_string_lossy()])?;
        Ok(Self { path, image: None, mounted: true })
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        let image = self.image.as_ref().context("only an image can be mounted again")?;
        run("mount", &["-o", "loop", &image.to_string_lossy(), &self.path.to_string_lossy()])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> anyhow::Result<()> {
        if self.mounted {
            run("umount", &[&self.path.to_string_lossy()])?;
            self.mounted = false;
        }
        Ok(())
    }

    /// Unmounts and mounts again: whoever used it must be gone.
    pub fn remount(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// From the moment that it returns (by [`crate::clock::now`]) nothing reaches the disk any more: `EXT4_IOC_SHUTDOWN` without flushing the
    /// journal. What was fsynced before is there after [`Mount::remount`], what was not is gone.
    ///
    /// A power failure stops whoever would tell of an fsync; this call does not. An fsync that runs at this very moment may succeed although its
    /// journal commit was aborted, so what is acknowledged after the moment proves nothing.
    pub fn power_loss(&self) -> anyhow::Result<u64> {
        // In Python, so that this crate needs no unsafe code.
        let script = "import fcntl,os,struct,sys,time\nd=os.open(sys.argv[1],os.O_RDONLY)\nprint(time.clock_gettime_ns(time.CLOCK_BOOTTIME))\n\
                      fcntl.ioctl(d,0x8004587d,struct.pack('I',2))";
        let output = Command::new("python3").args(["-c", script]).arg(&self.path).output().context("cannot run python3")?;
        ensure!(output.status.success(), "the ioctl failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            run("umount", &["-l", &self.path.to_string_lossy()]).ok();
        }
        if let Some(image) = &self.image {
            std::fs::remove_file(image).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_loss_keeps_what_was_fsynced_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut mount = match Mount::ext4(dir.path(), "disk", 32) {
            Ok(mount) => mount,
            Err(error) => return skipped("power_loss_keeps_what_was_fsynced_and_nothing_else", &error),
        };
        let (kept, gone) = (mount.path.join("kept"), mount.path.join("gone"));
        let mut file = std::fs::File::create(&kept).expect("created");
        file.write_all(b"kept").expect("written");
        file.sync_all().expect("fsynced");
        std::fs::File::open(&mount.path).expect("opened").sync_all().expect("fsynced");
        file.write_all(b", and this is not").expect("written");
        std::fs::write(&gone, b"gone").expect("written");
        mount.power_loss().expect("ext4 takes the ioctl");
        drop(file);
        mount.remount().expect("the journal is replayed");
        assert_eq!(std::fs::read(&kept).expect("is there"), b"kept");
        assert!(!gone.exists());
    }
}
