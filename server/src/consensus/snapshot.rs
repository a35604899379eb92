//! Snapshot files: `snapshots/<index>-<term>.snap`.
//!
//! ```text
//! magic (8) | format u32 | head length u32 | head: tenure.peer.v1.SnapshotMeta | crc32c of the head u32
//! blocks:  length u32 | crc32c of the data u32 | data      … the last one has length 0 and crc 0
//! footer:  bytes of data u64 | crc32c of all data u32 | magic (8)
//! ```
//! Little endian. A file counts only after it was written, fsynced, read back and renamed, and the directory fsynced. The same bytes go
//! over the wire, so a receiver checks what the sender wrote.

use std::{
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::Message as _;
use tenure_proto::peer::v1 as pb;

use super::{types::SnapshotMeta, wire};
use crate::{
    disk::{NewFile, SharedDisk, Stepwise},
    failpoint,
};

const MAGIC: [u8; 8] = *b"TNRSNAP\n";
const FORMAT: u32 = 1;
const BLOCK: usize = 256 << 10;
const MAX_BLOCK: usize = 4 << 20;
const MAX_HEAD: usize = 16 << 20;
/// The newest, and one to look at when something is wrong with it.
const KEPT: usize = 2;

/// A verified snapshot on disk.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) path: PathBuf,
    pub(crate) meta: SnapshotMeta,
    pub(crate) size: u64,
    disk: SharedDisk,
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("cannot use the snapshot {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "the snapshot {path} is damaged ({why}). The log before it is gone, so this replica will not start. Remove this member from the cluster, move \
         the data directory away, and add the replica anew with an empty one (docs: replacing a replica)"
    )]
    Damaged { path: PathBuf, why: String },
    #[error("the snapshot {path} has format {format}; this build knows {FORMAT}: use a newer tenured")]
    Format { path: PathBuf, format: u32 },
}

/// The directory of snapshots.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    disk: SharedDisk,
    dir: PathBuf,
}

impl Snapshots {
    /// Makes the directory and sweeps away what a crash left half written.
    pub(crate) fn open(disk: SharedDisk, data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("snapshots");
        disk.create_dir_all(&dir)?;
        // So that the directory itself outlives a power loss.
        disk.sync_dir(data_dir)?;
        for path in disk.list(&dir)? {
            if path.extension().is_some_and(|extension| extension == "tmp") {
                disk.remove(&path)?;
            }
        }
        Ok(Self { disk, dir })
    }

    /// To look at only: makes and sweeps nothing.
    pub(crate) fn existing(disk: SharedDisk, data_dir: &Path) -> Self {
        Self { disk, dir: data_dir.join("snapshots") }
    }

    pub(crate) fn disk(&self) -> &SharedDisk {
        &self.disk
    }

    /// Stands for there being none.
    pub(crate) fn none(&self) -> SnapshotFile {
        SnapshotFile { path: PathBuf::new(), meta: SnapshotMeta::default(), size: 0, disk: Arc::clone(&self.disk) }
    }

    /// Every snapshot there is, oldest first.
    pub(crate) fn paths(&self) -> io::Result<Vec<PathBuf>> {
        Ok(if self.dir.is_dir() { self.list()?.into_iter().map(|(_, _, path)| path).collect() } else { Vec::new() })
    }

    /// The newest snapshot, verified from end to end.
    pub(crate) fn newest(&self) -> Result<Option<SnapshotFile>, SnapshotError> {
        let all = self.list().map_err(|error| SnapshotError::Io { path: self.dir.clone(), error })?;
        all.last().map(|(_, _, path)| verify(&self.disk, path)).transpose()
    }

    /// Writes a snapshot whose body `write` supplies.
    pub(crate) fn write(&self, meta: &SnapshotMeta, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<SnapshotFile> {
        let tmp = self.dir.join(format!("{}.built.tmp", name(meta)));
        let written = self.disk.create(&tmp).and_then(|file| write_file(file, meta, write)).and_then(|()| self.adopt(&tmp).map_err(io::Error::other));
        if written.is_err() {
            // Half a snapshot is of no use, and a full disk wants its space back. The next start sweeps what stays.
            let _swept = self.disk.remove(&tmp);
        }
        written
    }

    /// Where to receive a snapshot; one at a time.
    pub(crate) fn received(&self, meta: &SnapshotMeta) -> PathBuf {
        self.dir.join(format!("{}.received.tmp", name(meta)))
    }

    /// Verifies a finished temporary file (already fsynced) and makes it a snapshot.
    pub(crate) fn adopt(&self, tmp: &Path) -> Result<SnapshotFile, SnapshotError> {
        let mut file = verify(&self.disk, tmp)?;
        let path = self.dir.join(format!("{}.snap", name(&file.meta)));
        let io_error = |error| SnapshotError::Io { path: path.clone(), error };
        failpoint::pass("snapshot_before_rename");
        self.disk.rename(tmp, &path).map_err(io_error)?;
        failpoint::pass("snapshot_before_dirsync");
        self.disk.sync_dir(&self.dir).map_err(io_error)?;
        failpoint::pass("snapshot_before_sweep");
        file.path.clone_from(&path);
        self.sweep();
        Ok(file)
    }

    fn sweep(&self) {
        let Ok(all) = self.list() else { return };
        for (_, _, path) in all.iter().rev().skip(KEPT) {
            if let Err(error) = self.disk.remove(path) {
                tracing::warn!(path = %path.display(), %error, "an old snapshot stays");
            }
        }
    }

    /// (index, term, path), oldest first.
    fn list(&self) -> io::Result<Vec<(u64, u64, PathBuf)>> {
        let mut all = Vec::new();
        for path in self.disk.list(&self.dir)? {
            let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".snap"));
            if let Some((index, term)) = stem.and_then(|stem| stem.split_once('-'))
                && let (Ok(index), Ok(term)) = (index.parse(), term.parse())
            {
                all.push((index, term, path));
            }
        }
        all.sort();
        Ok(all)
    }
}

fn name(meta: &SnapshotMeta) -> String {
    let (index, term) = meta.last_log_id.as_ref().map_or((0, 0), |id| (id.index(), id.committed_leader_id().term));
    format!("{index}-{term}")
}

fn write_file(file: Box<dyn NewFile>, meta: &SnapshotMeta, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BLOCK, Stepwise::new(file));
    let head = wire::snapshot_meta_to(meta).encode_to_vec();
    out.write_all(&MAGIC)?;
    out.write_all(&FORMAT.to_le_bytes())?;
    out.write_all(&u32::try_from(head.len()).map_err(io::Error::other)?.to_le_bytes())?;
    out.write_all(&head)?;
    out.write_all(&crc32c::crc32c(&head).to_le_bytes())?;
    let mut blocks = BlockWriter { out, block: Vec::with_capacity(BLOCK), bytes: 0, crc: 0 };
    write(&mut blocks)?;
    let mut file = blocks.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    failpoint::pass("snapshot_before_fsync");
    if tenure_lease::bug!("bug_snapshot_unsynced") {
        // Renamed before it is on disk, and the log purged behind it (ext4's empty files after a power loss; LevelDB's CURRENT).
        return Ok(());
    }
    file.sync_all()
}

struct BlockWriter<W> {
    out: W,
    block: Vec<u8>,
    bytes: u64,
    crc: u32,
}

impl<W: Write> BlockWriter<W> {
    fn put(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let crc = crc32c::crc32c(&self.block);
        self.out.write_all(&u32::try_from(self.block.len()).map_err(io::Error::other)?.to_le_bytes())?;
        self.out.write_all(&crc.to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.crc = crc32c::crc32c_combine(self.crc, crc, self.block.len());
        self.bytes += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        self.put()?;
        self.out.write_all(&[0; 8])?;
        self.out.write_all(&self.bytes.to_le_bytes())?;
        self.out.write_all(&self.crc.to_le_bytes())?;
        self.out.write_all(&MAGIC)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&data[..taken]);
        if self.block.len() == BLOCK {
            self.put()?;
        }
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body of a snapshot; ends only after the footer was found to fit.
pub(crate) struct Body<R> {
    input: R,
    block: Vec<u8>,
    at: usize,
    bytes: u64,
    crc: u32,
    done: bool,
}

fn damaged(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map_err(|error| if error.kind() == io::ErrorKind::UnexpectedEof { damaged("it ends too early") } else { error })?;
    Ok(bytes)
}

/// Reads as much as is there, so that a wrong length costs no memory.
fn bytes(input: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() == length { Ok(bytes) } else { Err(damaged("it ends too early")) }
}

impl<R: Read> Body<R> {
    fn next_block(&mut self) -> io::Result<()> {
        let length = u32::from_le_bytes(array(&mut self.input)?) as usize;
        let crc = u32::from_le_bytes(array(&mut self.input)?);
        if length == 0 {
            let all = u64::from_le_bytes(array(&mut self.input)?);
            let all_crc = u32::from_le_bytes(array(&mut self.input)?);
            let magic: [u8; 8] = array(&mut self.input)?;
            if crc != 0 || all != self.bytes || all_crc != self.crc || magic != MAGIC {
                return Err(damaged("its footer does not fit its content"));
            }
            if self.input.read(&mut [0])? != 0 {
                return Err(damaged("there is something after its end"));
            }
            self.done = true;
            return Ok(());
        }
        if length > MAX_BLOCK {
            return Err(damaged(format!("a block of {length} bytes")));
        }
        self.block = bytes(&mut self.input, length)?;
        if crc32c::crc32c(&self.block) != crc {
            return Err(damaged(format!("wrong checksum after {} bytes of content", self.bytes)));
        }
        self.at = 0;
        self.crc = crc32c::crc32c_combine(self.crc, crc, length);
        self.bytes += length as u64;
        Ok(())
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if self.done {
                return Ok(0);
            }
            self.next_block()?;
            if self.done {
                return Ok(0);
            }
        }
        let taken = buffer.len().min(self.block.len() - self.at);
        buffer[..taken].copy_from_slice(&self.block[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

type FileBody = Body<BufReader<Box<dyn Read + Send>>>;

fn open(disk: &SharedDisk, path: &Path) -> Result<(SnapshotMeta, FileBody), SnapshotError> {
    let fail = |error: io::Error| failure(path, error);
    let mut input = BufReader::with_capacity(BLOCK, disk.open(path).map_err(fail)?);
    if array(&mut input).map_err(fail)? != MAGIC {
        return Err(fail(damaged("it does not begin like a snapshot")));
    }
    let format = u32::from_le_bytes(array(&mut input).map_err(fail)?);
    if format != FORMAT {
        return Err(SnapshotError::Format { path: path.into(), format });
    }
    let length = u32::from_le_bytes(array(&mut input).map_err(fail)?) as usize;
    if length > MAX_HEAD {
        return Err(fail(damaged(format!("a head of {length} bytes"))));
    }
    let head = bytes(&mut input, length).map_err(fail)?;
    if u32::from_le_bytes(array(&mut input).map_err(fail)?) != crc32c::crc32c(&head) {
        return Err(fail(damaged("wrong checksum of the head")));
    }
    let meta = pb::SnapshotMeta::decode(&head[..]).map_err(|error| fail(damaged(error.to_string())))?;
    let meta = wire::snapshot_meta_from(meta).map_err(|error| fail(damaged(error.to_string())))?;
    Ok((meta, Body { input, block: Vec::new(), at: 0, bytes: 0, crc: 0, done: false }))
}

fn failure(path: &Path, error: io::Error) -> SnapshotError {
    if error.kind() == io::ErrorKind::InvalidData {
        SnapshotError::Damaged { path: path.into(), why: error.to_string() }
    } else {
        SnapshotError::Io { path: path.into(), error }
    }
}

/// Reads a file from end to end. Blocking.
pub(crate) fn verify(disk: &SharedDisk, path: &Path) -> Result<SnapshotFile, SnapshotError> {
    let (meta, mut body) = open(disk, path)?;
    io::copy(&mut body, &mut io::sink()).map_err(|error| failure(path, error))?;
    let (found, named) = (name(&meta), path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default());
    if path.extension().is_some_and(|extension| extension == "snap") && named != found {
        return Err(SnapshotError::Damaged { path: path.into(), why: format!("it holds another state, {found}, than its name says") });
    }
    let size = disk.size(path).map_err(|error| failure(path, error))?;
    Ok(SnapshotFile { path: path.into(), meta, size, disk: Arc::clone(disk) })
}

impl SnapshotFile {
    /// Its content. Blocking. Checked again as it is read.
    pub(crate) fn body(&self) -> Result<FileBody, SnapshotError> {
        Ok(open(&self.disk, &self.path)?.1)
    }

    /// The file as it is, to be passed on. Blocking.
    pub(crate) fn bytes(&self) -> io::Result<Box<dyn Read + Send>> {
        self.disk.open(&self.path)
    }

    pub(crate) fn disk(&self) -> &SharedDisk {
        &self.disk
    }

    /// A failure to read it, told apart.
    pub(crate) fn damaged(&self, why: impl std::fmt::Display) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), why: why.to_string() }
    }
}
