//! `tenured`: starts replicas and probes them. Everything that can be decided without a process is decided in the library.

mod args;
mod dev;
mod private;
mod probe;
mod serve;

use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser;
use tenure_server::check::Verdict;

/// Measured: 11 to 32 % more operations a second than with the C library's allocator (docs/decisions/0005).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    // The allocator's sparse segments would be backed by 2 MiB pages: 40 MB of an idle replica. Where the kernel has none, nothing is lost.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    private::whatever_is_created();
    let result = match args.command {
        Command::Dev(dev) => dev::run(&dev),
        Command::Serve(serve) => serve::run(&serve),
        Command::Check { data_dir } => return check(&data_dir),
        Command::Health { addr, timeout } => probe::ready(&addr, timeout.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tenured: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what an offline look at a data directory finds; fails on damage, and otherwise when there was nothing to look at.
fn check(data_dir: &std::path::Path) -> ExitCode {
    let report = tenure_server::check::data_dir(data_dir);
    print!("{report}");
    match report.verdict() {
        Verdict::Sound => ExitCode::SUCCESS,
        Verdict::Spared | Verdict::Refused => ExitCode::FAILURE,
        Verdict::Unknown => ExitCode::from(2),
    }
}
