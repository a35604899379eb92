//! `tenure`: the command line. Reads what was typed, makes one client, runs one command, ends with an exit code that scripts can use.

mod apply;
mod args;
mod child;
mod clock;
mod cluster;
mod elect;
mod exec;
mod fail;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod heartbeat;
mod hold;
mod leave;
mod manifest;
mod nodes;
mod print;
mod read;
mod rows;
mod signals;
mod table;
mod text;
mod tree;
mod view;

use std::{process::ExitCode, time::Duration};

use args::{Cli, Command};
use clap::CommandFactory as _;
use fail::Failed;
use print::Printer;
use signals::Inherited;
use tenure_client::Client;

/// For what is given back in the background, at the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// A new replica may have gigabytes to fetch.
const ADD_MEMBER_TIMEOUT: Duration = Duration::from_secs(600);

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    // Not a command that can be typed: `tenure exec` starts itself this way on the far side of its fork.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == child::SHIM) {
        return child::shim(words);
    }
    match start(Cli::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => failed.report(),
    }
}

fn start(cli: Cli) -> Result<(), Failed> {
    if let Command::Completions { shell } = cli.command {
        // Into memory first: the generator panics where its reader has left.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "tenure", &mut script);
        return Printer::new(None).text(&String::from_utf8_lossy(&script));
    }
    // First of all, while there is only this thread.
    let inherited = Inherited::set_aside()?;
    if !matches!(cli.command, Command::Exec(_) | Command::Acquire(_) | Command::Elect(_) | Command::Heartbeat(_)) {
        signals::end_the_first_process()?;
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(cli, inherited))
}

async fn run(cli: Cli, inherited: Inherited) -> Result<(), Failed> {
    let Cli { global, command } = cli;
    let printer = Printer::new(global.output);
    let mut builder = Client::builder().endpoints(global.endpoints()).discover(global.discover);
    let timeout = global.timeout.or_else(|| matches!(command, Command::Cluster(args::Cluster::AddMember { .. })).then_some(ADD_MEMBER_TIMEOUT));
    if let Some(timeout) = timeout {
        builder = builder.request_timeout(timeout);
    }
    let client = builder.build()?;
    let done = dispatch(&client, printer, &global.namespace, command, inherited).await;
    // An attempt that was cut off may still be granted to somebody who is gone.
    let _ = tokio::time::timeout(FAREWELL, client.settled()).await;
    done
}

async fn dispatch(client: &Client, printer: Printer, namespace: &str, command: Command, inherited: Inherited) -> Result<(), Failed> {
    match command {
        Command::Get(args) => read::get(client, printer, namespace, args).await,
        Command::List(args) => read::list(client, printer, namespace, args).await,
        Command::Acquire(args) => hold::acquire(client, printer, namespace, args).await,
        Command::Renew(args) => hold::renew(client, printer, namespace, args).await,
        Command::Release(args) => hold::release(client, printer, namespace, args).await,
        Command::Watch(args) => read::watch(client, printer, namespace, args).await,
        Command::Apply(args) => apply::apply(client, printer, namespace, args).await,
        Command::Delete(args) => hold::delete(client, printer, namespace, args).await,
        Command::History(args) => read::history(client, printer, namespace, args).await,
        Command::Exec(args) => exec::exec(client, namespace, args, inherited).await,
        Command::Elect(args) => elect::elect(client, printer, namespace, args).await,
        Command::Heartbeat(args) => heartbeat::heartbeat(client, printer, namespace, args).await,
        Command::Nodes(args) => nodes::nodes(client, printer, namespace, args).await,
        Command::Cluster(command) => cluster::run(client, printer, command).await,
        Command::Completions { .. } => Ok(()),
    }
}
