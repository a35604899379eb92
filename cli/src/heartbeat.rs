//! `heartbeat`: a node that says that it is alive until this process is stopped, and what becomes of that. Printing never holds up a heartbeat.

use rustix::process::Signal;
use serde::Serialize;
use tenure_client::{Client, Heartbeat, LostReason, Pulse};

use crate::{
    args::{self, Output},
    clock,
    fail::Failed,
    hold::host_name,
    print::{Lines, Printer, note},
    rows,
    signals::Signals,
    table::{Cell, Paint, Table},
    text::{short, to_the_second},
};

const HEADERS: &[&str] = &["TIME", "STATE", "TOKEN", "MESSAGE"];

/// One change, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    /// By this machine's clock.
    time: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
}

pub(crate) async fn heartbeat(client: &Client, printer: Printer, namespace: &str, args: args::Heartbeat) -> Result<(), Failed> {
    let name = args.name.unwrap_or_else(host_name);
    let place = format!("{namespace}/{name}");
    if args.every.is_some_and(|every| every.is_zero() || every > args.duration / 3) {
        return Err(Failed::Usage("--every must be more than nothing and at most a third of --duration, so that one lost heartbeat is not the end".into()));
    }
    let mut builder = Heartbeat::builder(client, namespace, &name).duration(args.duration);
    if let Some(every) = args.every {
        builder = builder.every(every);
    }
    if let Some(holder) = args.holder {
        builder = builder.holder(holder);
    }
    if let Some(data) = args.data {
        builder = builder.data(data);
    }
    if let Some(retention) = args.retention {
        builder = builder.retention(retention);
    }
    for (key, value) in args.labels {
        builder = builder.label(key, value);
    }
    let mut signals = Signals::listen(&[Signal::INT, Signal::TERM, Signal::HUP])?;
    let mut heartbeat = builder.start()?;
    let mut shown = Shown { printer, table: printer.table(HEADERS).streaming(), lines: Lines::start(printer) };
    let stopped = loop {
        tokio::select! {
            biased;
            _ = signals.next() => break Ok(()),
            failed = shown.lines.failed() => break Err(failed),
            pulse = heartbeat.changed() => {
                shown.change(&pulse);
                if let Pulse::Stopped(error) = pulse {
                    break Err(error.map_or_else(|| Failed::Refused("the heartbeat has stopped".into()), Failed::from));
                }
            }
        }
    };
    let beating = matches!(heartbeat.pulse(), Pulse::Beating { .. });
    if args.no_release {
        drop(heartbeat);
        if beating {
            note(&format!("{place} is not released: others see it as Ready for {} at most, then as Unknown", short(args.duration)));
        }
    } else {
        heartbeat.stop().await.map_err(|error| {
            note(&format!("{place} could not be released: others see it as Ready for {} at most, then as Unknown", short(args.duration)));
            Failed::from(error)
        })?;
        if beating {
            note(&format!("{place} is released: others see at once that it has left"));
        }
    }
    shown.lines.end().await;
    stopped
}

struct Shown {
    printer: Printer,
    table: Table,
    lines: Lines,
}

impl Shown {
    fn change(&mut self, pulse: &Pulse) {
        let time = to_the_second(clock::now());
        let (state, paint, token, message) = match pulse {
            Pulse::Waiting { error: Some(error), .. } => ("WAITING", Paint::Plain, None, error.to_string()),
            Pulse::Waiting { holder, .. } if !holder.is_empty() => ("WAITING", Paint::Plain, None, format!("held by {holder}, another process")),
            Pulse::Waiting { .. } => ("WAITING", Paint::Plain, None, String::new()),
            Pulse::Beating { token } => ("READY", Paint::Green, Some(*token), String::new()),
            Pulse::Lost(reason) => ("LOST", Paint::Red, None, lost(reason)),
            Pulse::Stopped(error) => ("STOPPED", Paint::Red, None, error.as_ref().map_or_else(String::new, ToString::to_string)),
        };
        self.lines.text(match self.printer.output {
            Some(Output::Json | Output::Yaml) => self.printer.one(&Change { time, state, token, message }),
            Some(Output::Name) => format!("{state}\n"),
            None | Some(Output::Table | Output::Wide) => {
                let token = token.map_or_else(rows::dash, |token| token.to_string());
                self.table.print(&[vec![time.into(), Cell(state.into(), paint), token.into(), rows::or_dash(&message).into()]])
            }
        });
    }
}

fn lost(reason: &LostReason) -> String {
    format!("{reason}; trying to come back")
}
