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
    text::to_the_second,
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
    let mut shown = Shown { printer, table: printer.table(HEADERS).streaming(), lines: Lines::start(printer), own: None };
    let mut signals = Signals::listen(&[Signal::INT, Signal::TERM, Signal::HUP])?;
    if !args.observe {
        shown.own = Some(election.identity().to_owned());
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
                    campaign.set(self::campaign(&election, false));
                }
                elected = &mut campaign, if leadership.is_none() => match elected {
                    Ok(elected) => leadership = Some(elected),
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
    own: Option<String>,
}

impl Shown {
    fn change(&mut self, leader: Option<tenure_client::Leader>) {
        let state = match &leader {
            None => "VACANT",
            Some(leader) if self.own.as_ref() == Some(&leader.holder) => "ELECTED",
            Some(_) => "LED",
        };
        let time = to_the_second(clock::now());
        let data = leader.as_ref().map(|leader| leader.data.as_slice()).filter(|data| !data.is_empty());
        let text = data.and_then(|data| std::str::from_utf8(data).ok()).map(str::to_owned);
        let base64 = data.filter(|_| text.is_none()).map(view::base64);
        let token = leader.as_ref().map(|leader| leader.token);
        let holder = leader.map(|leader| leader.holder);
        self.lines.text(match self.printer.output {
            Some(Output::Json | Output::Yaml) => self.printer.one(&Change { time, state, holder, token, data: text, data_base64: base64 }),
            Some(Output::Name) => holder.unwrap_or_else(rows::dash) + "\n",
            None | Some(Output::Table | Output::Wide) => {
                let paint = match state {
                    "ELECTED" => Paint::Green,
                    "VACANT" => Paint::Red,
                    _ => Paint::Plain,
                };
                let token = token.map_or_else(rows::dash, |token| token.to_string());
                let data = text.or(base64).unwrap_or_else(rows::dash);
                self.table.print(&[vec![time.into(), Cell(state.into(), paint), holder.unwrap_or_else(rows::dash).into(), token.into(), data.into()]])
            }
        });
    }
}
