//! What two runs of one seed must have in common, to the byte: every message on the network, every entry applied, every record.

use std::{
    fmt::Arguments,
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use parking_lot::Mutex;

/// Hashes lines, and writes them to a file if asked to.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    hash: u64,
    lines: u64,
    out: Option<BufWriter<File>>,
}

impl Trace {
    /// With every line in a file.
    pub(crate) fn to(path: &Path) -> std::io::Result<Self> {
        let out = Some(BufWriter::new(File::create(path)?));
        Ok(Self { inner: Mutex::new(Inner { out, ..Inner::default() }) })
    }

    /// Takes down one line, with the true time.
    pub(crate) fn line(&self, at: u64, line: Arguments<'_>) {
        let text = format!("{at} {line}\n");
        let mut inner = self.inner.lock();
        inner.lines += 1;
        // FNV-1a.
        let start = if inner.lines == 1 { 0xcbf2_9ce4_8422_2325 } else { inner.hash };
        inner.hash = text.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        if let Some(out) = &mut inner.out {
            // A trace that cannot be written is found short.
            let _ = out.write_all(text.as_bytes());
        }
    }

    /// How many lines there were, and their hash. Writes out what is pending.
    pub(crate) fn finish(&self) -> (u64, u64) {
        let mut inner = self.inner.lock();
        if let Some(out) = &mut inner.out {
            let _ = out.flush();
        }
        (inner.lines, inner.hash)
    }
}
