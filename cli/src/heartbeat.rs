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
    let name = match args.name {
        Some(name) => name,
        None => node_name(&host_name())?,
    };
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
    let mut beaten = false;
    let mut stopped = loop {
        tokio::select! {
            biased;
            _ = signals.next() => break Ok(()),
            failed = shown.lines.failed() => break Err(failed),
            pulse = heartbeat.changed() => {
                shown.change(&pulse);
                beaten |= matches!(pulse, Pulse::Beating { .. });
                if let Pulse::Stopped(error) = pulse {
                    break Err(error.map_or_else(|| Failed::Refused("the heartbeat has stopped".into()), Failed::from));
                }
            }
        }
    };
    let beating = matches!(heartbeat.pulse(), Pulse::Beating { .. });
    let until_then = format!("others see it as Ready for {} at most, then as Unknown", short(args.duration));
    if matches!(heartbeat.pulse(), Pulse::Stopped(_)) || args.no_release {
        drop(heartbeat);
        if beating {
            note(&format!("{place} is not released: {until_then}"));
        }
    } else {
        match heartbeat.stop().await {
            Ok(()) if beating => note(&format!("{place} is released: others see at once that it has left")),
            Ok(()) => {}
            Err(error) => {
                if beaten {
                    note(&format!("{place} could not be released: {until_then}"));
                }
                stopped = stopped.and(Err(error.into()));
            }
        }
    }
    // Whatever happened: the last change is written before this ends.
    shown.lines.end().await;
    stopped
}

/// The name of this node when none is given: the host's name in lower case, as kubelets have it.
fn node_name(host: &str) -> Result<String, Failed> {
    let name = host.to_ascii_lowercase();
    let label = |label: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(label.chars().next()) && ends(label.chars().last()) && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        Ok(name)
    } else {
        Err(Failed::Usage(format!("this machine's host name {host:?} is no lease name (a DNS subdomain): give NAME")))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_is_named_after_its_host_in_lower_case_or_asked_for() {
        assert_eq!(node_name("SRV-West-01.Example").ok().as_deref(), Some("srv-west-01.example"));
        for odd in ["rack_7", "", "-a", "a..b", "a.", &"a".repeat(254)] {
            assert_eq!(node_name(odd).expect_err(odd).code(), 2, "{odd}");
        }
    }
}
