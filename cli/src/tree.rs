//! All that runs below `tenure exec`: its command, what that has started, and what that has left behind, in whatever process group or session.
//!
//! The kernel hands orphans to the nearest ancestor that asked for them (PR_SET_CHILD_SUBREAPER), so that nothing below us can get away by losing its
//! parents. It must never signal a process that is not below us: a number may have gone to somebody else by the time that it is used.

use std::{collections::HashSet, fs, path::Path};

use nix::sys::wait::{Id, WaitPidFlag, waitid as waitid_of};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, kill_process, pidfd_open, pidfd_send_signal, set_child_subreaper, waitid},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Children from before this program: of a shell that became it, say. Not the command's, and not ours to end.
    before: HashSet<Pid>,
    /// Who was told to end by [`Tree::tell`], with the time of its start, as a number may be given again.
    told: HashSet<(Pid, u64)>,
}

/// One line of the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: Pid,
    parent: Option<Pid>,
    group: Option<Pid>,
    /// Ended, and only not yet waited for.
    zombie: bool,
    /// In ticks since the machine's start.
    started: u64,
}

impl Tree {
    /// From now on what is orphaned below us is ours. To be called before the command is started.
    pub(crate) fn adopt() -> Self {
        // A kernel or a sandbox that refuses leaves us the command's process group.
        let _ = set_child_subreaper(Some(getpid()));
        let own = Some(getpid());
        let before = table().into_iter().filter(|process| process.parent == own).map(|process| process.pid).collect();
        Self { before, told: HashSet::new() }
    }

    /// Buries all who have ended, except the command, which is waited for by whoever wants to know how it ended.
    pub(crate) fn bury(&self, command: Pid) {
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        loop {
            match waitid_of(Id::All, ended).map(|status| status.pid().and_then(|pid| Pid::from_raw(pid.as_raw()))) {
                // As long as the command is unburied, it may stand before others: they come with it.
                Ok(Some(pid)) if pid != command => bury_one(pid),
                // Ended by a signal that has no name there.
                Err(nix::Error::EINVAL) => return zombies_of_ours().into_iter().filter(|pid| *pid != command).for_each(bury_one),
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Whether anything below us is left; to be asked when the command was waited for.
    pub(crate) fn is_empty(&self) -> bool {
        let any = waitid_of(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT);
        any == Err(nix::Error::ECHILD) || (!self.before.is_empty() && self.below(|_| true).is_empty())
    }

    /// Sends to all of it.
    pub(crate) fn signal(&self, signal: Signal) {
        for process in self.below(|_| true) {
            send(process, &[signal]);
        }
    }

    /// Tells all of it to end, except who is in the group `but`: TERM, and CONT for who is stopped. To be repeated until [`Tree::is_empty`]: a process
    /// that was forked while the table was read is in no table and hears nothing, and becomes an orphan when its parent ends. Each process is told once.
    /// What a process starts after it was told is how it cleans up, and is left alone as long as it has that parent.
    pub(crate) fn tell(&mut self, but: Pid) {
        let first = self.told.is_empty();
        let own = Some(getpid());
        for process in self.below(|process| process.group != Some(but) && (first || process.parent == own)) {
            if self.told.insert((process.pid, process.started)) {
                send(process, &[Signal::TERM, Signal::CONT]);
            }
        }
    }

    fn below(&self, wanted: impl Fn(&Process) -> bool) -> Vec<Process> {
        below(getpid(), &table(), &self.before).into_iter().filter(|process| !process.zombie && wanted(process)).collect()
    }
}

/// To that process, and to no other that has its number by now.
fn send(process: Process, signals: &[Signal]) {
    match pidfd_open(process.pid, PidfdFlags::empty()) {
        Ok(handle) => {
            if of(process.pid).is_some_and(|now| now.started == process.started) {
                for signal in signals {
                    let _ = pidfd_send_signal(&handle, *signal);
                }
            }
        }
        Err(Errno::SRCH) => {}
        // An old kernel, or a sandbox.
        Err(_) => {
            for signal in signals {
                let _ = kill_process(process.pid, *signal);
            }
        }
    }
}

fn bury_one(pid: Pid) {
    let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

fn zombies_of_ours() -> Vec<Pid> {
    let own = Some(getpid());
    table().into_iter().filter(|process| process.zombie && process.parent == own).map(|process| process.pid).collect()
}

/// All below `root`, without the children that are in `but` and what is below those.
fn below(root: Pid, table: &[Process], but: &HashSet<Pid>) -> Vec<Process> {
    let (mut found, mut parents) = (Vec::new(), vec![root]);
    while let Some(parent) = parents.pop() {
        for process in table.iter().filter(|process| process.parent == Some(parent) && !(parent == root && but.contains(&process.pid))) {
            found.push(*process);
            parents.push(process.pid);
        }
    }
    found
}

/// Every process that there is; none where /proc is not there, or counts processes otherwise than we do (another namespace's).
fn table() -> Vec<Process> {
    let own = fs::read_link("/proc/self").ok().and_then(|link| number(&link));
    if own != Some(getpid()) {
        return Vec::new();
    }
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    all.flatten().filter_map(|entry| of(number(Path::new(&entry.file_name()))?)).collect()
}

fn number(name: &Path) -> Option<Pid> {
    name.to_str()?.parse().ok().and_then(Pid::from_raw)
}

fn of(pid: Pid) -> Option<Process> {
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    parse(pid, &String::from_utf8_lossy(&stat))
}

/// `pid (name) state parent group ...`, where the name may hold anything; the start is the 22nd field.
fn parse(pid: Pid, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let mut pid_of = || fields.next()?.parse().ok().map(Pid::from_raw);
    let (parent, group) = (pid_of()?, pid_of()?);
    Some(Process { pid, parent, group, zombie: matches!(state, "Z" | "X"), started: fields.nth(16)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_move_the_fields() {
        let read = parse(pid(7), "7 (a) b) Z 3 5 5 0 -1 4228100 83 0 0 0 0 0 0 0 20 0 1 0 41234 2375680 176").unwrap();
        assert_eq!(read, Process { pid: pid(7), parent: Some(pid(3)), group: Some(pid(5)), zombie: true, started: 41_234 });
        assert_eq!(parse(pid(1), "1 (init) S 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 3 1 1").unwrap().parent, None);
        assert_eq!(parse(pid(1), "1 (init) S"), None);
    }

    #[test]
    fn what_was_there_before_is_not_below_and_neither_is_what_that_started() {
        let of = |number, parent| Process { pid: pid(number), parent: Some(pid(parent)), group: None, zombie: false, started: 0 };
        let table = [of(2, 1), of(3, 2), of(4, 3), of(5, 2), of(6, 5), of(7, 1)];
        let mut found: Vec<_> = below(pid(2), &table, &HashSet::from([pid(5)])).iter().map(|process| process.pid).collect();
        found.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        assert_eq!(found, [pid(3), pid(4)]);
    }

    #[test]
    fn this_process_is_in_the_table() {
        assert!(table().iter().any(|process| process.pid == getpid() && !process.zombie));
    }
}
