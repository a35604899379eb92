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
mod manifest;
mod nodes;
mod print;
mod read;
mod rows;
mod signals;
mod table;
mod text;
mod view;

use std::{process::ExitCode, time::Duration};

use args::{Cli, Command};
use clap::CommandFactory as _;
use fail::Failed;
use print::Printer;
use tenure_client::Client;

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
    let cli = Cli::read();
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "tenure", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    let ended = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::from).and_then(|runtime| runtime.block_on(run(cli)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => failed.report(),
    }
}

async fn run(cli: Cli) -> Result<(), Failed> {
    let Cli { global, command } = cli;
    let printer = Printer::new(global.output);
    let mut builder = Client::builder().endpoints(global.endpoints).discover(global.discover);
    let timeout = global.timeout.or_else(|| matches!(command, Command::Cluster(args::Cluster::AddMember { .. })).then_some(ADD_MEMBER_TIMEOUT));
    if let Some(timeout) = timeout {
        builder = builder.request_timeout(timeout);
    }
    let client = builder.build()?;
    let namespace = global.namespace.as_str();
    match command {
        Command::Get(args) => read::get(&client, printer, namespace, args).await,
        Command::List(args) => read::list(&client, printer, namespace, args).await,
        Command::Acquire(args) => hold::acquire(&client, printer, namespace, args).await,
        Command::Renew(args) => hold::renew(&client, printer, namespace, args).await,
        Command::Release(args) => hold::release(&client, printer, namespace, args).await,
        Command::Watch(args) => read::watch(&client, printer, namespace, args).await,
        Command::Apply(args) => apply::apply(&client, printer, namespace, args).await,
        Command::Delete(args) => hold::delete(&client, printer, namespace, args).await,
        Command::History(args) => read::history(&client, printer, namespace, args).await,
        Command::Exec(args) => exec::exec(&client, namespace, args).await,
        Command::Elect(args) => elect::elect(&client, printer, namespace, args).await,
        Command::Heartbeat(args) => heartbeat::heartbeat(&client, printer, namespace, args).await,
        Command::Nodes(args) => nodes::nodes(&client, printer, namespace, args).await,
        Command::Cluster(command) => cluster::run(&client, printer, command).await,
        Command::Completions { .. } => Ok(()),
    }
}
