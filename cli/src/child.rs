//! The command that `tenure exec` runs: a process group of its own, so that one signal reaches all of it, and the terminal on loan when it asks. What
//! has left that group is found as well (`tree.rs`).
//!
//! It must never outlive `tenure exec` unnoticed: the kernel kills it when that is killed. No code of ours runs between fork and exec, which would
//! be unsafe: the program that is started first is `tenure` itself, which sets up its own process and then becomes the command.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{self, Command, ExitCode, ExitStatus},
};

use rustix::{
    fs::{Access, access},
    io::Errno,
    process::{
        Pid, Signal, WaitId, WaitIdOptions, getpgrp, getpid, getppid, getsid, kill_current_process_group, kill_process, kill_process_group,
        set_parent_process_death_signal, setpgid, test_kill_process_group, waitid,
    },
    termios::{tcgetpgrp, tcsetpgrp},
};

use crate::{
    fail::{Failed, exec_code},
    signals::Inherited,
    tree::Tree,
};

/// First word of the command line between fork and the command.
pub(crate) const SHIM: &str = "__exec-child";

/// Becomes the command: `SHIM PARENT_PID CMD...`. Returns only if that failed, with the exit code that shells use.
pub(crate) fn shim(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let parent = words.next().and_then(|word| word.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let Some(program) = words.next() else { return ExitCode::from(exec_code::NOT_RUN) };
    // Kept across exec, unless the program is set-user-id.
    let bound = set_parent_process_death_signal(Some(Signal::KILL));
    if bound.is_err() || parent.is_none() || getppid() != parent {
        return ExitCode::from(exec_code::NOT_RUN);
    }
    let error = Command::new(&program).args(words).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { exec_code::NOT_FOUND } else { exec_code::NOT_EXECUTABLE };
    Failed::Refused(format!("{}: {error}", program.display())).report();
    ExitCode::from(code)
}

/// So that a misspelled command is told at once, and not after a long wait.
pub(crate) fn find(program: &OsString) -> Result<(), Failed> {
    let may_run = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    let shown = program.display();
    let candidates: Vec<_> = if program.as_encoded_bytes().contains(&b'/') {
        vec![program.into()]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        std::env::split_paths(&path).map(|folder| folder.join(program)).collect()
    };
    if candidates.iter().any(|path| may_run(path)) {
        return Ok(());
    }
    Err(if candidates.iter().any(|path| path.exists()) {
        Failed::Usage(format!("{shown} cannot be executed\n  change CMD, or its permissions")).with_code(exec_code::NOT_EXECUTABLE)
    } else {
        Failed::Usage(format!("{shown}: no such command\n  change CMD, or PATH")).with_code(exec_code::NOT_FOUND)
    })
}

/// The command's exit code as shells tell it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let signal = || status.signal().and_then(|signal| u8::try_from(signal).ok()).map_or(u8::MAX, |signal| exec_code::SIGNALLED.saturating_add(signal));
    status.code().map_or_else(signal, |code| u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    group: Pid,
    tree: Tree,
    terminal: Option<File>,
    suspended: bool,
}

impl Child {
    pub(crate) fn spawn(command: &[OsString], environment: &[(&str, String)], inherited: Inherited) -> io::Result<Self> {
        let tree = Tree::adopt();
        // Not the path of this program, which an upgrade may have replaced while we waited.
        let mut shim = Command::new("/proc/self/exe");
        shim.arg(SHIM).arg(process::id().to_string()).args(command);
        shim.envs(environment.iter().map(|(key, value)| (key, value))).process_group(0);
        let process = inherited.lend(|| shim.spawn())?;
        let group = i32::try_from(process.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { process, group, tree, terminal: None, suspended: false })
    }

    /// To all of its process group. Who is gone is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }

    /// Tells all that it has started to end, but not its process group, which was told before. To be repeated, see [`Tree::tell`].
    pub(crate) fn tell_the_rest(&mut self) {
        self.tree.tell(self.group);
    }

    /// To everything, wherever it is. What was being started meanwhile is not hit: to be repeated until [`Child::leaves_something`] is over.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        self.tree.signal(Signal::KILL);
    }

    /// Whether anything that it has started is left, after the command itself has ended.
    pub(crate) fn leaves_something(&self) -> bool {
        self.tree.bury(self.group);
        test_kill_process_group(self.group) != Err(Errno::SRCH) || !self.tree.is_empty()
    }

    /// How the command ended, if it has; to be asked after each SIGCHLD, until it has. One that has stopped for want of the terminal gets it.
    pub(crate) fn poll(&mut self) -> io::Result<Option<ExitStatus>> {
        self.tree.bury(self.group);
        let options = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        // Left as it is, a zombie keeps the group's number from being given to somebody else, and the group there for us to step into.
        let Some(news) = waitid(WaitId::Pid(self.group), options | WaitIdOptions::NOWAIT)? else { return Ok(None) };
        if news.stopped() {
            let _ = waitid(WaitId::Pid(self.group), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG)?;
            self.stopped(news.stopping_signal().and_then(Signal::from_named_raw));
            return Ok(None);
        }
        self.take_the_terminal_back();
        self.process.wait().map(Some)
    }

    /// Ctrl-Z at `tenure exec`: nothing may run on while nobody watches over it.
    pub(crate) fn suspend(&mut self) {
        if under_job_control() {
            self.signal(Signal::STOP);
            self.suspended = true;
            suspend_ourselves();
        }
    }

    /// The command has stopped at its terminal, which would have stopped us, and a script that we are in, had we not been apart.
    fn suspend_all(&mut self) {
        if under_job_control() {
            self.suspended = true;
            let _ = kill_current_process_group(Signal::STOP);
        } else {
            self.signal(Signal::CONT);
        }
    }

    /// We were continued. Look at the lease first.
    pub(crate) fn resume(&mut self) {
        if std::mem::take(&mut self.suspended) {
            if self.terminal.is_some() {
                self.lend_the_terminal();
            }
            self.signal(Signal::CONT);
        }
    }

    fn stopped(&mut self, by: Option<Signal>) {
        match by {
            Some(Signal::TTIN | Signal::TTOU) if self.lend_the_terminal() => self.signal(Signal::CONT),
            // It wants a terminal that is not ours to lend (we run in the background), or was stopped at the terminal that it has (Ctrl-Z): then so are we.
            Some(Signal::TTIN | Signal::TTOU) if self.terminal.is_some() => self.suspend_all(),
            _ if self.has_the_terminal() => self.suspend_all(),
            // By somebody's kill -STOP, who will continue it.
            _ => {}
        }
    }

    fn has_the_terminal(&self) -> bool {
        self.terminal.as_ref().is_some_and(|terminal| tcgetpgrp(terminal) == Ok(self.group))
    }

    /// A group in the background may not read from the terminal or change it. Whether it was lent.
    fn lend_the_terminal(&mut self) -> bool {
        let Ok(terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else { return false };
        let lent = tcgetpgrp(&terminal) == Ok(getpgrp()) && tcsetpgrp(&terminal, self.group).is_ok();
        self.terminal = Some(terminal);
        lent
    }

    /// For whoever comes after us in a script. Only the group in the foreground may say who is there next without being stopped for it, so we step
    /// into it for that moment.
    fn take_the_terminal_back(&mut self) {
        if self.has_the_terminal()
            && let Some(terminal) = self.terminal.take()
        {
            let own = getpgrp();
            if setpgid(None, Some(self.group)).is_ok() {
                let _ = tcsetpgrp(&terminal, own);
                let _ = setpgid(None, Some(own));
            }
        }
    }
}

/// As the terminal would have, had we not caught its signal.
pub(crate) fn suspend_ourselves() {
    if under_job_control() {
        let _ = kill_process(getpid(), Signal::STOP);
    }
}

/// Somebody in our session will continue us when we stop.
fn under_job_control() -> bool {
    let ours = getsid(None);
    ours.is_ok() && getppid().is_some_and(|parent| getsid(Some(parent)) == ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_shells() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(Signal::TERM.as_raw())), 143);
        assert_eq!(exit_code(ExitStatus::from_raw(Signal::KILL.as_raw())), 137);
    }

    #[test]
    fn a_command_that_cannot_run_is_told_apart_from_one_that_is_not_there() {
        assert!(find(&"sh".into()).is_ok());
        assert!(find(&"/bin/sh".into()).is_ok());
        assert!(matches!(find(&"no-such-command-here".into()), Err(Failed::Said(127))));
        assert!(matches!(find(&"/etc/passwd".into()), Err(Failed::Said(126))));
        assert!(matches!(find(&"/".into()), Err(Failed::Said(126))));
    }
}
