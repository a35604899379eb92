//! Hosts of our own on one machine: network namespaces joined by a bridge, with packet filters that cut them off from each other in any direction.
//! Needs root; where it is missing, what needs hosts says so.
//!
//! Touches nothing outside namespaces that bear its prefix and the id of the process that made them; those of a process that is gone are removed
//! by the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    ops::Not as _,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, getpid, kill_process};

const PREFIX: &str = "tenure-chaos-";
const FOLDER: &str = "/run/netns";

/// The host that a process runs on; by default this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub ip: IpAddr,
    netns: Option<String>,
}

impl Default for Place {
    fn default() -> Self {
        Self { ip: Ipv4Addr::LOCALHOST.into(), netns: None }
    }
}

impl Place {
    /// This host, with all that runs on it.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.netns.is_none()
    }

    /// A command that runs there, as one process: its id is the program's.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(netns) = &self.netns else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={FOLDER}/{netns}")).arg(program);
        command
    }
}

/// The namespace of the bridge, in which the harness itself runs.
#[must_use]
pub fn hub(owner: u32) -> String {
    format!("{PREFIX}{owner}-hub")
}

/// Makes the namespace of the bridge, and says where that is.
pub fn make_hub(owner: u32) -> anyhow::Result<Place> {
    let name = hub(owner);
    run("ip", &["netns", "add", &name], "")?;
    let batch = format!("link set lo up\nlink add br0 type bridge\naddr add {}/24 dev br0\nlink set br0 up\n", address(HUB));
    run("ip", &["-n", &name, "-batch", "-"], &batch)?;
    Ok(Place { ip: address(HUB), netns: Some(name) })
}

/// Ends whatever still runs in the namespaces of this owner, and removes them.
pub fn remove(owner: u32) {
    remove_all(|of| of == owner);
}

/// Removes what processes left behind that are gone.
pub fn sweep() {
    // The number may be somebody else's by now.
    remove_all(|owner| std::fs::read_to_string(format!("/proc/{owner}/comm")).is_ok_and(|name| name.trim() == "chaos").not());
}

fn remove_all(whose: impl Fn(u32) -> bool) {
    let names = std::fs::read_dir(FOLDER).into_iter().flatten().filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
    for name in names {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|owner| owner.parse().ok());
        if !owner.is_some_and(&whose) {
            continue;
        }
        let pids = Command::new("ip").args(["netns", "pids", &name]).output().map(|output| output.stdout).unwrap_or_default();
        for pid in String::from_utf8_lossy(&pids).lines().filter_map(|line| line.trim().parse().ok()).filter_map(Pid::from_raw) {
            if pid != getpid() {
                kill_process(pid, Signal::KILL).ok();
            }
        }
        run("ip", &["netns", "del", &name], "").ok();
    }
}

const HUB: u8 = 254;

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, last).into()
}

fn run(program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    child.stdin.take().context("stdin is a pipe")?.write_all(input.as_bytes()).ok();
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a host does not let through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rules {
    /// Packets from these are dropped.
    from: BTreeSet<IpAddr>,
    /// Packets to these are dropped.
    to: BTreeSet<IpAddr>,
    /// Of all that arrives, at random.
    percent: u8,
}

/// Hosts on one bridge, by name. Exists only in a process that runs in [`hub`].
#[derive(Debug)]
pub struct Net {
    owner: u32,
    hosts: BTreeMap<String, Place>,
    rules: Mutex<BTreeMap<String, Rules>>,
}

impl Net {
    /// With these hosts, each with the last byte of its address.
    pub fn new(owner: u32, hosts: &[(String, u8)]) -> anyhow::Result<Self> {
        let mut net = Self { owner, hosts: BTreeMap::new(), rules: Mutex::default() };
        for (name, last) in hosts {
            net.add(name, *last)?;
        }
        Ok(net)
    }

    fn add(&mut self, name: &str, last: u8) -> anyhow::Result<()> {
        let netns = format!("{PREFIX}{}-{name}", self.owner);
        run("ip", &["netns", "add", &netns], "")?;
        let port = format!("port{last}");
        let batch = format!("link add {port} type veth peer name eth0 netns {netns}\nlink set {port} master br0\nlink set {port} up\n");
        run("ip", &["-batch", "-"], &batch)?;
        let batch = format!("link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n", address(last));
        run("ip", &["-n", &netns, "-batch", "-"], &batch)?;
        self.hosts.insert(name.to_owned(), Place { ip: address(last), netns: Some(netns) });
        Ok(())
    }

    /// Where processes of this host run.
    pub fn place(&self, name: &str) -> anyhow::Result<Place> {
        self.hosts.get(name).cloned().with_context(|| format!("there is no host {name}"))
    }

    /// The harness' own address, for proxies and stores.
    #[must_use]
    pub fn own_ip(&self) -> IpAddr {
        address(HUB)
    }

    /// Nothing passes between two hosts, in either direction; connections stay open, nobody is told.
    pub fn cut(&self, one: &str, others: &[String]) -> anyhow::Result<()> {
        let others = self.ips(others)?;
        self.change(one, |rules| {
            rules.from.extend(&others);
            rules.to.extend(&others);
        })
    }

    /// What the others send does not arrive; what they are sent does.
    pub fn deafen(&self, one: &str, to: &[String]) -> anyhow::Result<()> {
        let others = self.ips(to)?;
        self.change(one, |rules| rules.from.extend(&others))
    }

    /// What it sends to the others does not arrive; what they send does.
    pub fn mute(&self, one: &str, towards: &[String]) -> anyhow::Result<()> {
        let others = self.ips(towards)?;
        self.change(one, |rules| rules.to.extend(&others))
    }

    /// Loses so many packets of a hundred that arrive at a host.
    pub fn lose(&self, host: &str, percent: u8) -> anyhow::Result<()> {
        self.change(host, |rules| rules.percent = percent)
    }

    /// All is well again with the packets of this host.
    pub fn mend(&self, host: &str) -> anyhow::Result<()> {
        self.change(host, |rules| *rules = Rules::default())
    }

    /// And with those of all.
    pub fn mend_all(&self) -> anyhow::Result<()> {
        self.hosts.keys().try_for_each(|host| self.mend(host))
    }

    /// Kills every TCP connection of a host: both ends are told by a reset.
    pub fn reset_connections(&self, host: &str) -> anyhow::Result<()> {
        self.inside(host, "ss", &["-K", "-t", "-H", "state", "established"], "").map(drop)
    }

    /// So much goes out of a host in a second, at most; `None`: as much as it likes.
    pub fn limit(&self, host: &str, rate: Option<&str>) -> anyhow::Result<()> {
        match rate {
            Some(rate) => self.inside(host, "tc", &["qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "16kb", "latency", "200ms"], ""),
            None => self.inside(host, "tc", &["qdisc", "del", "dev", "eth0", "root"], ""),
        }
        .map(drop)
    }

    fn ips(&self, names: &[String]) -> anyhow::Result<Vec<IpAddr>> {
        names.iter().map(|name| self.place(name).map(|place| place.ip)).collect()
    }

    fn inside(&self, host: &str, program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
        let netns = self.place(host)?.netns.context("a host has a namespace")?;
        let namespace = format!("--net={FOLDER}/{netns}");
        run("nsenter", &[&[namespace.as_str(), program], args].concat(), input)
    }

    fn change(&self, host: &str, change: impl FnOnce(&mut Rules)) -> anyhow::Result<()> {
        let mut all = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = all.entry(host.to_owned()).or_default();
        let before = rules.clone();
        change(rules);
        if *rules != before {
            self.inside(host, "nft", &["-f", "-"], &script(rules)?)?;
        }
        Ok(())
    }
}

/// Replaces the whole table at once.
fn script(rules: &Rules) -> anyhow::Result<String> {
    let set = |ips: &BTreeSet<IpAddr>| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut text = "table inet chaos\ndelete table inet chaos\n".to_owned();
    if *rules == Rules::default() {
        return Ok(text);
    }
    text.push_str("table inet chaos {\n chain in {\n  type filter hook input priority 0; policy accept;\n");
    if !rules.from.is_empty() {
        writeln!(text, "  ip saddr {{ {} }} drop", set(&rules.from))?;
    }
    if rules.percent > 0 {
        writeln!(text, "  meta l4proto tcp numgen random mod 100 < {} drop", rules.percent)?;
    }
    text.push_str(" }\n chain out {\n  type filter hook output priority 0; policy accept;\n");
    if !rules.to.is_empty() {
        writeln!(text, "  ip daddr {{ {} }} drop", set(&rules.to))?;
    }
    text.push_str(" }\n}\n");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_say_what_is_dropped_and_none_leave_no_table() {
        let mut rules = Rules { percent: 30, ..Rules::default() };
        rules.from.extend([address(1), address(2)]);
        let text = script(&rules).expect("written");
        assert!(text.contains("ip saddr { 10.77.0.1, 10.77.0.2 } drop") && text.contains("< 30 drop") && !text.contains("daddr"), "{text}");
        assert!(!script(&Rules::default()).expect("written").contains("chain"));
    }
}
