//! `elect`: one candidate, and who leads as the cluster says it. It does no work under its leadership, so that losing it costs a line.

use rustix::process::Signal;
use serde::Serialize;
use tenure_client::{Client, Error, LeaderElection, Leadership, Observation};
use tokio::time::{Duration, sleep};

use crate::{
    args::{self, Output},
    clock,
    fail::Failed,
    print::{Lines, Printer, note},
    rows,
    signals::Signals,
    table::{Cell, Paint, Table},
    text::{shown, to_the_second},
    view,
};

const HEADERS: &[&str] = &["TIME", "STATE", "HOLDER", "TOKEN", "DATA"];
/// While no replica answers.
const PAUSE: Duration = Duration::from_secs(1);

/// One change, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    /// When it was seen, by this machine's clock.
    time: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    /// Instead of `data` when that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

pub(crate) async fn elect(client: &Client, printer: Printer, namespace: &str, args: args::Elect) -> Result<(), Failed> {
    let mut builder = LeaderElection::builder(client, namespace, &args.name).lease_duration(args.duration);
    if let Some(holder) = &args.holder {
        builder = builder.identity(holder);
    }
    if let Some(data) = &args.data {
        builder = builder.data(data.as_bytes());
    }
    let election = builder.build()?;
    let place = format!("{namespace}/{}", args.name);
    let mut shown = Shown { printer, table: printer.table(HEADERS).streaming(), lines: Lines::start(printer), held: None, last: None };
    let mut signals = Signals::listen(&[Signal::INT, Signal::TERM, Signal::HUP])?;
    if !args.observe {
        note(&format!("campaigning for {place} as {}", election.identity()));
    }
    let mut watching = Watching { election: &election, observation: None };
    let mut leadership: Option<Leadership> = None;
    let result = {
        let campaign = campaign(&election, args.observe);
        tokio::pin!(campaign);
        loop {
            let led = async {
                match &leadership {
                    Some(leadership) => leadership.lost().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = signals.next() => break Ok(()),
                failed = shown.lines.failed() => break Err(failed),
                reason = led => {
                    note(&format!("this process does not lead any more: {reason}; campaigning again"));
                    leadership = None;
                    shown.lost();
                    campaign.set(self::campaign(&election, false));
                }
                elected = &mut campaign, if leadership.is_none() => match elected {
                    Ok(elected) => {
                        shown.elected(elected.token());
                        leadership = Some(elected);
                    }
                    Err(error) => break Err(error.into()),
                },
                change = watching.next() => match change {
                    Ok(leader) => shown.change(leader),
                    Err(error) => break Err(error.into()),
                },
            }
        }
    };
    if let Some(leadership) = leadership {
        // Whoever waits leads from here on.
        leadership.resign().await?;
        note(&format!("{place} is resigned"));
    }
    shown.lines.end().await;
    result
}

async fn campaign(election: &LeaderElection, observe: bool) -> Result<Leadership, Error> {
    if observe { std::future::pending().await } else { election.campaign().await }
}

/// Goes on while no replica answers. Cancel-safe.
struct Watching<'a> {
    election: &'a LeaderElection,
    observation: Option<Observation>,
}

impl Watching<'_> {
    async fn next(&mut self) -> Result<Option<tenure_client::Leader>, Error> {
        loop {
            let told = match &mut self.observation {
                Some(observation) => observation.next().await,
                None => match self.election.observe().await {
                    Ok(observation) => {
                        self.observation = Some(observation);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match told {
                Err(error) if matches!(error, Error::NotApplied(_) | Error::OutcomeUnknown(_)) => {
                    note(&format!("still trying: {error}"));
                    sleep(PAUSE).await;
                }
                told => return told,
            }
        }
    }
}

struct Shown {
    printer: Printer,
    table: Table,
    lines: Lines,
    /// The token of the leadership in hand. A name proves nothing: another process may have the same.
    held: Option<u64>,
    /// The leader that the cluster named last.
    last: Option<tenure_client::Leader>,
}

impl Shown {
    /// This process leads from now on.
    fn elected(&mut self, token: u64) {
        self.held = Some(token);
        // Otherwise the cluster is still to say it.
        if let Some(leader) = self.last.clone().filter(|leader| leader.token == token) {
            self.show("ELECTED", Some(leader));
        }
    }

    /// This process does not lead any more, and who does is not known yet.
    fn lost(&mut self) {
        let leads_as_shown = self.last.as_ref().is_some_and(|leader| self.held == Some(leader.token));
        self.held = None;
        if leads_as_shown {
            self.show("LOST", None);
        }
    }

    fn change(&mut self, leader: Option<tenure_client::Leader>) {
        self.last.clone_from(&leader);
        let state = match &leader {
            None => "VACANT",
            Some(leader) if self.held == Some(leader.token) => "ELECTED",
            Some(_) => "LED",
        };
        self.show(state, leader);
    }

    fn show(&mut self, state: &'static str, leader: Option<tenure_client::Leader>) {
        let time = to_the_second(clock::now());
        let data = leader.as_ref().map(|leader| leader.data.as_slice()).filter(|data| !data.is_empty());
        let text = data.and_then(|data| std::str::from_utf8(data).ok()).map(str::to_owned);
        let base64 = data.filter(|_| text.is_none()).map(view::base64);
        let token = leader.as_ref().map(|leader| leader.token);
        let holder = leader.map(|leader| leader.holder);
        self.lines.text(match self.printer.output {
            Some(Output::Json | Output::Yaml) => self.printer.one(&Change { time, state, holder, token, data: text, data_base64: base64 }),
            Some(Output::Name) => shown(&holder.unwrap_or_else(rows::dash)).into_owned() + "\n",
            None | Some(Output::Table | Output::Wide) => {
                let paint = match state {
                    "ELECTED" => Paint::Green,
                    "VACANT" | "LOST" => Paint::Red,
                    _ => Paint::Plain,
                };
                let token = token.map_or_else(rows::dash, |token| token.to_string());
                let data = text.or(base64).unwrap_or_else(rows::dash);
                self.table.print(&[vec![time.into(), Cell(state.into(), paint), holder.unwrap_or_else(rows::dash).into(), token.into(), data.into()]])
            }
        });
    }
}
