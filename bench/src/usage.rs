//! What processes use, as the kernel counts it. Reads /proc and nothing else.

use std::{fs, path::Path, time::Duration};

use anyhow::Context as _;

/// User and system time of a process so far, threads that ended included.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may contain anything, but it ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')').context("a name in parentheses")?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?;
    Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}

/// Bytes of memory that a process has in RAM.
pub(crate) fn rss(pid: u32) -> anyhow::Result<u64> {
    Ok(number(&format!("/proc/{pid}/status"), "VmRSS:")? * 1024)
}

/// Bytes that a process caused to be written to disk.
pub(crate) fn written(pid: u32) -> anyhow::Result<u64> {
    number(&format!("/proc/{pid}/io"), "write_bytes:")
}

fn number(file: &str, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} in {file}"))?;
    Ok(line.split_whitespace().next().with_context(|| format!("a number for {name} in {file}"))?.parse()?)
}

/// The machine, for the head of a report.
pub(crate) fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map_or("unknown CPU", |(_, name)| name.trim());
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = number("/proc/meminfo", "MemTotal:").unwrap_or(0) >> 20;
    format!("{count} × {model}, {memory} GiB, Linux {}", kernel.trim())
}

/// What keeps the data; where it is not a disk, figures say little.
pub(crate) fn file_system(dir: &Path) -> String {
    const KNOWN: [(u64, &str); 5] =
        [(0xEF53, "ext4"), (0x5846_5342, "xfs"), (0x9123_683E, "btrfs"), (0x0102_1994, "tmpfs (memory)"), (0x794C_7630, "overlayfs")];
    match rustix::fs::statfs(dir) {
        Ok(found) => {
            let kind = u64::try_from(found.f_type).unwrap_or(0);
            KNOWN.iter().find(|(known, _)| *known == kind).map_or_else(|| format!("{kind:#x}"), |(_, name)| (*name).to_owned())
        }
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_be_measured() {
        let pid = std::process::id();
        cpu(pid).expect("CPU time");
        written(pid).expect("bytes written");
        assert!(rss(pid).expect("memory") > 1 << 16);
    }
}
