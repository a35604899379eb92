//! Damage to a data directory that nobody uses: bits that flip, files that are cut, gone, doubled, swapped or old.
//!
//! Knows the names of a replica's files and nothing of their formats.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{clock::Rng, storage::Layer};

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The Raft log.
    Log,
    /// How far it was synced.
    Mark,
    /// Snapshots.
    Snapshot,
    /// identity.json.
    Identity,
    /// sled; nothing that was promised is in it.
    History,
}

const PARTS: [(Part, &str, u64); 5] = [
    (Part::Log, "raft-log", 55),
    (Part::Snapshot, "snapshots", 20),
    (Part::Identity, "identity.json", 10),
    (Part::Mark, "raft-log.synced", 8),
    (Part::History, "history", 7),
];

/// What was done.
#[derive(Clone, Debug)]
pub struct Damage {
    /// For people.
    pub text: String,
    /// To what.
    pub part: Part,
    /// The file, or its directory; the message of a refusal names one of these.
    pub names: Vec<String>,
    /// What a power loss can do as well: no reason to refuse.
    pub must_start: bool,
}

/// The files of a part, in order of their names.
fn files(dir: &Path, part: Part) -> Vec<PathBuf> {
    let (_, name, _) = PARTS.into_iter().find(|(each, ..)| *each == part).expect("every part is listed");
    let mut found = Vec::new();
    walk(&dir.join(name), &mut found);
    found.retain(|path| path.file_name().is_none_or(|name| name != "LOCK"));
    found.sort();
    found
}

fn walk(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_file() {
        found.push(path.to_owned());
    } else if let Ok(entries) = fs::read_dir(path) {
        entries.flatten().for_each(|entry| walk(&entry.path(), found));
    }
}

/// Copies a directory.
pub fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() { copy(&entry.path(), &target)? } else { fs::copy(entry.path(), target).map(|_| ())? }
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn damage(text: String, part: Part, paths: &[&Path]) -> Damage {
    let mut names: Vec<String> = paths.iter().map(|path| name(path)).collect();
    // A file that is gone is told by its directory or by its neighbour.
    names.extend(["raft-log", "snapshots", "identity.json"].map(str::to_owned));
    Damage { text, part, names, must_start: false }
}

/// Damages a directory as the layer does. `None`: nothing there for what was chosen. `older`: files as they were a while ago.
pub fn apply(layer: Layer, dir: &Path, older: &Path, boundaries: &[(String, u64)], rng: &mut Rng) -> std::io::Result<Option<Damage>> {
    let mut at = rng.below(PARTS.iter().map(|(.., weight)| weight).sum());
    let part = PARTS
        .iter()
        .find(|(.., weight)| {
            at < *weight || {
                at -= weight;
                false
            }
        })
        .map_or(Part::Log, |(part, ..)| *part);
    let files = files(dir, part);
    if files.is_empty() {
        return Ok(None);
    }
    // The newest matter most.
    let file = if rng.below(2) == 0 { files.last().expect("not empty").clone() } else { rng.pick(&files).clone() };
    let bytes = fs::read(&file)?;
    let changed = match layer {
        Layer::Bitflips => flip(part, &file, bytes, rng)?,
        _ => mutilate(part, dir, &file, &files, older, boundaries, rng)?,
    };
    Ok(changed)
}

/// A place in a file: anywhere, or where the structure is.
fn place(length: usize, rng: &mut Rng) -> usize {
    let length = length as u64;
    let at = match rng.below(5) {
        0 => rng.below(length.min(64)),
        1 => length - 1 - rng.below(length.min(128)),
        _ => rng.below(length),
    };
    usize::try_from(at).expect("in memory")
}

fn flip(part: Part, file: &Path, bytes: Vec<u8>, rng: &mut Rng) -> std::io::Result<Option<Damage>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut changed = bytes.clone();
    let at = place(bytes.len(), rng);
    let sector = at - at % 512..(at - at % 512 + 512).min(bytes.len());
    let what = match rng.below(10) {
        0 => {
            changed[at] = changed[at].wrapping_add(1 + u8::try_from(rng.below(255)).expect("small"));
            format!("byte {at}")
        }
        1 => {
            let second = place(bytes.len(), rng);
            changed[at] ^= 1 << rng.below(8);
            changed[second] ^= 1 << rng.below(8);
            format!("a bit in each of bytes {at} and {second}")
        }
        2 => {
            changed[sector.clone()].fill(0);
            format!("sector {}..{}, now zeros", sector.start, sector.end)
        }
        3 => {
            changed[sector.clone()].fill_with(|| rng.bits().to_le_bytes()[0]);
            format!("sector {}..{}, now noise", sector.start, sector.end)
        }
        _ => {
            let bit = rng.below(8);
            changed[at] ^= 1 << bit;
            format!("bit {bit} of byte {at}")
        }
    };
    if changed == bytes {
        return Ok(None);
    }
    fs::write(file, changed)?;
    Ok(Some(damage(format!("{}: {what} of {}", name(file), bytes.len()), part, &[file])))
}

fn cut(file: &Path, length: u64) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.set_len(length)
}

#[allow(clippy::too_many_lines)]
fn mutilate(
    part: Part,
    dir: &Path,
    file: &Path,
    files: &[PathBuf],
    older: &Path,
    boundaries: &[(String, u64)],
    rng: &mut Rng,
) -> std::io::Result<Option<Damage>> {
    let length = fs::metadata(file)?.len();
    let other = rng.pick(files).clone();
    let done = |text: String| Ok(Some(damage(text, part, &[file, &other])));
    match rng.below(11) {
        0 | 1 if length > 0 => {
            let to = if rng.below(2) == 0 { length - 1 - rng.below(length.min(200)) } else { rng.below(length) };
            cut(file, to)?;
            done(format!("{} cut from {length} to {to}", name(file)))
        }
        2 | 3 => {
            // Where a record ends.
            let here: Vec<u64> = boundaries.iter().filter(|(of, at)| *of == name(file) && *at < length).map(|(_, at)| *at).collect();
            if here.is_empty() {
                return Ok(None);
            }
            let to = *rng.pick(&here);
            cut(file, to)?;
            done(format!("{} cut from {length} to {to}, where a record ends", name(file)))
        }
        4 => {
            fs::remove_file(file)?;
            done(format!("{} removed", name(file)))
        }
        5 => {
            let (_, of, _) = PARTS.into_iter().find(|(each, ..)| *each == part).expect("every part is listed");
            if dir.join(of).is_dir() {
                fs::remove_dir_all(dir.join(of))?;
                return done(format!("{of} removed with all in it"));
            }
            Ok(None)
        }
        6 if other != *file && fs::read(&other)? != fs::read(file)? => {
            fs::copy(&other, file)?;
            done(format!("{} replaced by a copy of {}", name(file), name(&other)))
        }
        7 if other != *file && fs::read(&other)? != fs::read(file)? => {
            let aside = file.with_extension("aside");
            fs::rename(file, &aside)?;
            fs::rename(&other, file)?;
            fs::rename(&aside, &other)?;
            done(format!("{} and {} swapped", name(file), name(&other)))
        }
        8 => {
            // As the next of its kind would be named.
            let copy = match part {
                Part::Log => renumbered(file, length + 1 - rng.below(2)),
                Part::Snapshot => Some(file.with_file_name(format!("{}-9.snap", 1_000_000 + rng.below(1000)))),
                _ => None,
            };
            let Some(copy) = copy else { return Ok(None) };
            fs::copy(file, &copy)?;
            Ok(Some(damage(format!("{} copied to {}", name(file), name(&copy)), part, &[file, &copy])))
        }
        9 => {
            let before = older.join(file.strip_prefix(dir).expect("is in it"));
            if !before.is_file() || fs::read(&before)? == fs::read(file)? {
                return Ok(None);
            }
            fs::copy(&before, file)?;
            done(format!("{} as it was before", name(file)))
        }
        _ if part == Part::Log && files.last().is_some_and(|last| last == file) => {
            let mut bytes = fs::read(file)?;
            let (tail, what): (Vec<u8>, _) = match rng.below(4) {
                // What a record begins with, and no more of it.
                0 => (bytes[..bytes.len().min(4 + usize::try_from(rng.below(13)).expect("small"))].to_vec(), "an unfinished write"),
                // All of it, where it does not belong.
                1 => (bytes[..bytes.len().min(4 + usize::try_from(rng.below(80)).expect("small"))].to_vec(), "what it begins with"),
                2 => (vec![0; 512 * (1 + usize::try_from(rng.below(8)).expect("small"))], "sectors that were never written"),
                _ => ((0..1 + rng.below(300)).map(|_| rng.bits().to_le_bytes()[0] | 1).collect(), "noise"),
            };
            let must_start = !bytes.is_empty() && (what.starts_with("an unfinished") || what.starts_with("sectors"));
            bytes.extend(tail);
            fs::write(file, &bytes)?;
            let done = damage(format!("{what} appended to {}: {length} to {} bytes", name(file), bytes.len()), part, &[file]);
            Ok(Some(Damage { must_start, ..done }))
        }
        _ => Ok(None),
    }
}

/// The name of a log file that begins so many bytes later.
fn renumbered(file: &Path, by: u64) -> Option<PathBuf> {
    let digits: String = name(file).chars().filter(char::is_ascii_digit).collect();
    let number = format!("{:020}", digits.parse::<u64>().ok()? + by);
    let grouped: Vec<&str> = [&number[..2], &number[2..5], &number[5..8], &number[8..11], &number[11..14], &number[14..17], &number[17..]].to_vec();
    Some(file.with_file_name(format!("r-{}.wal", grouped.join("_"))))
}
