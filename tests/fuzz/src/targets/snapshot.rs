//! Snapshot files, from the magic at their beginning to that at their end, with a table in them.
//!
//! Checksums keep a mutated file from getting anywhere, so mostly the file is made around mutated parts, as the format at the head of
//! server/src/consensus/snapshot.rs says it.

use std::{
    any::Any,
    io::{self, Cursor, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use tenure_lease::LeaseTable;
use tenure_server::{
    disk::{Disk, Expected, NewFile, OpenedLog},
    fuzzing as door,
};

use super::{LEASE_WORDS, Shape, Target, table};

pub(super) const TARGET: Target = Target { name: "snapshot", reads: "snapshot files", shape: Shape::Bytes, words: LEASE_WORDS, mutations: 9_000, run };

const MAGIC: &[u8] = b"TNRSNAP\n";

/// First byte 0: a file as it is. Otherwise the length of the head in two bytes, the head, the content; the first byte is where to break what comes of
/// it, if it is odd.
fn run(input: &[u8]) -> bool {
    let Some((kind, rest)) = input.split_first() else { return false };
    let mut file = if *kind == 0 { rest.to_vec() } else { sealed(rest) };
    if kind % 2 == 1
        && let Some(byte) = usize::from(*kind).checked_mul(7).and_then(|at| file.get_mut(at))
    {
        *byte ^= 1;
    }
    let disk: Arc<dyn Disk> = Arc::new(OneFile(file));
    // As it is received, so under a name that says nothing of it.
    let Ok((head, content)) = door::snapshot(&disk, Path::new("received.tmp")) else { return false };
    let (known, kind) = (door::peer_message(5, &head), *kind);
    assert_eq!(known.expect("protobuf").as_ref(), Ok(&head), "a head means the same again ({kind})");
    // That its content is no table is found out when it is restored; the same content is the target `table`.
    if let Ok(restored) = LeaseTable::restore(&mut &*content) {
        table::is_sound(&restored);
    }
    true
}

/// A file around its parts.
pub(super) fn sealed(parts: &[u8]) -> Vec<u8> {
    let (length, rest) = parts.split_at(parts.len().min(2));
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let (head, content) = rest.split_at(length.min(rest.len()));
    let mut file = [MAGIC, &1_u32.to_le_bytes(), &length_of(head), head, &sum(head)].concat();
    for block in content.chunks(1_000) {
        file.extend([&length_of(block)[..], &sum(block), block].concat());
    }
    file.extend([&[0; 8][..], &(content.len() as u64).to_le_bytes(), &sum(content), MAGIC].concat());
    file
}

fn length_of(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("inputs are small").to_le_bytes()
}

fn sum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).to_le_bytes()
}

/// A disk on which every path is this file.
#[derive(Debug)]
struct OneFile(Vec<u8>);

impl Disk for OneFile {
    fn offload(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }

    fn open(&self, _: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.0.clone())))
    }

    fn size(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn NewFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Any + Send>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open_log(&self, _: &Path, _: Expected) -> anyhow::Result<OpenedLog> {
        anyhow::bail!("not of this disk")
    }
}
