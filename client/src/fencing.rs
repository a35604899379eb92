//! The other half of a lock: a resource that refuses the past. A holder that was paused may write after its lease has gone to somebody else; only
//! what is written to can know, and only if every write carries the token.
//!
//! **Invariant**: no write is done with a token smaller than the largest ever seen, also after a crash.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Why a fenced write was not done.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum FencedError {
    /// Somebody with a larger token was here: the lease behind this token is over, whatever its holder believes.
    #[error("token {token} is of the past: token {seen} was here before")]
    Stale {
        /// The one that came.
        token: u64,
        /// The largest so far.
        seen: u64,
    },
    /// The file `PATH.token` does not hold a number; without it nothing can be judged, so nothing is written.
    #[error("{0} does not hold a token")]
    Unreadable(PathBuf),
    /// Of the file system. Whether the new content is in place is not known; an older token has no chance all the same.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file that is written as a whole, by holders of one lease, on one machine or on a file system with working `flock`.
///
/// Writers take turns by locking: one that is stopped or paused in the middle of a write keeps the others waiting until it goes on or ends.
///
/// The largest token is kept beside it in `PATH.token`, on disk before the content is. Everybody who writes must go through this.
#[derive(Debug)]
pub struct FencedWriter {
    path: PathBuf,
    token_path: PathBuf,
}

impl FencedWriter {
    /// Touches nothing yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let token_path = beside(&path, ".token");
        Self { path, token_path }
    }

    /// Replaces the content, if no larger token was here before; a reader sees the old or the new, never a half. On disk when it returns. Blocks.
    ///
    /// # Errors
    /// [`FencedError::Stale`] means stop working: somebody else holds the lease, or has held it.
    pub fn write(&self, token: u64, content: &[u8]) -> Result<(), FencedError> {
        // Locked until the end: no other writer comes between the comparison and the write.
        let _locked = self.admit(token)?;
        let fresh = beside(&self.path, ".new");
        let mut file = File::create(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        sync_folder(&self.path)?;
        Ok(())
    }

    /// The largest token so far; 0 if there was none.
    ///
    /// # Errors
    /// Of the file system.
    pub fn seen(&self) -> Result<u64, FencedError> {
        match File::open(&self.token_path) {
            Ok(mut file) => self.parse(&mut file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn admit(&self, token: u64) -> Result<File, FencedError> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.token_path)?;
        flock(&file, FlockOperation::LockExclusive).map_err(io::Error::from)?;
        let seen = self.parse(&mut file)?;
        if token < seen {
            return Err(FencedError::Stale { token, seen });
        }
        if token > seen {
            file.seek(SeekFrom::Start(0))?;
            // Always as long: no torn or shorter number can pass for another one.
            file.write_all(format!("{token:020}\n").as_bytes())?;
            file.sync_all()?;
            sync_folder(&self.token_path)?;
        }
        Ok(file)
    }

    fn parse(&self, file: &mut File) -> Result<u64, FencedError> {
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|_| FencedError::Unreadable(self.token_path.clone()))?;
        if text.is_empty() {
            return Ok(0);
        }
        let whole = text.len() == 21 && text.ends_with('\n');
        whole.then(|| text.trim_end().parse().ok()).flatten().ok_or_else(|| FencedError::Unreadable(self.token_path.clone()))
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_write_of_a_paused_holder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let writer = FencedWriter::new(dir.path().join("report"));
        writer.write(33, b"first").unwrap();
        writer.write(34, b"second").unwrap();
        let error = writer.write(33, b"late").unwrap_err();
        assert!(matches!(error, FencedError::Stale { token: 33, seen: 34 }), "{error}");
        assert_eq!(fs::read(dir.path().join("report")).unwrap(), b"second");
        // As after a restart.
        let writer = FencedWriter::new(dir.path().join("report"));
        assert_eq!(writer.seen().unwrap(), 34);
        writer.write(34, b"third").unwrap();
        assert_eq!(fs::read(dir.path().join("report")).unwrap(), b"third");
    }

    #[test]
    fn without_a_readable_token_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let writer = FencedWriter::new(dir.path().join("report"));
        fs::write(dir.path().join("report.token"), "12").unwrap();
        assert!(matches!(writer.write(99, b"x"), Err(FencedError::Unreadable(_))));
        assert!(!dir.path().join("report").exists());
    }
}
