//! What `tenure exec` runs in tests. Appends a line to a file for every moment at which it ran: `TOKEN NANOSECONDS` of CLOCK_BOOTTIME, so that the
//! moments of all processes of a machine compare. Prints `pid N` first, and `TERM N` for each SIGTERM, N being such a moment.
//!
//! `runner FILE MS [polite] [fenced PATH]`: runs for MS. `polite`: SIGTERM ends it; else it is only told. `fenced`: writes PATH through a
//! `FencedWriter` at the start and at each SIGUSR1, and prints `wrote TOKEN` or `refused TOKEN`. (Not all the time: a process that is stopped while it
//! writes keeps the file locked.)

use std::{fs::OpenOptions, io::Write as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use tenure_client::{FencedError, FencedWriter};
use tenure_tests::clock;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let mut file = OpenOptions::new().create(true).append(true).open(args.next().context("FILE")?)?;
    let length = Duration::from_millis(args.next().context("MS")?.parse()?);
    let rest: Vec<_> = args.collect();
    let fenced = rest.iter().position(|arg| arg == "fenced").and_then(|at| rest.get(at + 1)).map(FencedWriter::new);
    let polite = rest.iter().any(|arg| arg == "polite");
    let token: u64 = std::env::var("TENURE_TOKEN")?.parse()?;
    let mut terminate = signal(SignalKind::terminate())?;
    println!("pid {}", std::process::id());
    let mut again = signal(SignalKind::user_defined1())?;
    let begun = clock::now();
    let mut write = true;
    loop {
        let last = clock::since(begun) >= length;
        // One write, so that lines of many processes do not mix.
        file.write_all(format!("{token} {}\n", clock::now()).as_bytes())?;
        if let Some(fenced) = fenced.as_ref().filter(|_| std::mem::take(&mut write)) {
            match fenced.write(token, format!("by {token}").as_bytes()) {
                Ok(()) => println!("wrote {token}"),
                Err(FencedError::Stale { .. }) => println!("refused {token}"),
                Err(error) => return Err(error.into()),
            }
        }
        if last {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(2)) => {}
            _ = again.recv() => write = true,
            _ = terminate.recv() => {
                println!("TERM {}", clock::now());
                if polite {
                    return Ok(ExitCode::from(3));
                }
            }
        }
    }
}
