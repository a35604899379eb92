//! Where results go: stdout in the chosen format, notes to stderr. Colour only on a terminal.

use std::{
    io::{self, IsTerminal as _, Write as _, stderr, stdout},
    sync::mpsc,
    time::Duration,
};

use serde::Serialize;
use tokio::sync::oneshot;

use crate::{args::Output, fail::Failed, table::Table, text::shown_lines};

/// For what is still to be written at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// The chosen way to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    /// As asked for; `None` lets a command choose.
    pub(crate) output: Option<Output>,
    color: bool,
}

impl Printer {
    pub(crate) fn new(output: Option<Output>) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { output, color: stdout().is_terminal() && !unwanted }
    }

    pub(crate) fn is_wide(self) -> bool {
        self.output == Some(Output::Wide)
    }

    pub(crate) fn table(self, headers: &[&'static str]) -> Table {
        Table::new(headers, self.color)
    }

    /// As it is; flushed, so that a watch piped into something is live.
    pub(crate) fn text(self, text: &str) -> Result<(), Failed> {
        let mut out = stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    pub(crate) fn line(self, text: &str) -> Result<(), Failed> {
        self.text(&format!("{}\n", shown_lines(text)))
    }

    /// One document, indented.
    pub(crate) fn document(self, document: &impl Serialize) -> Result<(), Failed> {
        self.text(&if self.output == Some(Output::Yaml) { yaml(document) } else { json(document, true) })
    }

    /// One of many, as they come: a line of JSON, or a YAML document after `---`.
    pub(crate) fn one_of_many(self, document: &impl Serialize) -> Result<(), Failed> {
        self.text(&self.one(document))
    }

    /// The text of [`Printer::one_of_many`].
    pub(crate) fn one(self, document: &impl Serialize) -> String {
        if self.output == Some(Output::Yaml) { format!("---\n{}", yaml(document)) } else { json(document, false) }
    }

    pub(crate) fn is_document(self) -> bool {
        matches!(self.output, Some(Output::Json | Output::Yaml))
    }
}

/// Lines that are written by a thread of their own, so that a reader who has stopped reading does not stop the renewals.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Until the end.
    lines: Option<mpsc::Sender<String>>,
    failed: oneshot::Receiver<io::Error>,
    /// Told, or dropped, when all is written.
    written: mpsc::Receiver<()>,
}

impl Lines {
    pub(crate) fn start(printer: Printer) -> Self {
        let (lines, waiting) = mpsc::channel::<String>();
        let (tell, failed) = oneshot::channel();
        let (end, written) = mpsc::channel();
        std::thread::spawn(move || {
            let _end: mpsc::Sender<()> = end;
            for line in waiting {
                if let Err(Failed::Output(error)) = printer.text(&line) {
                    let _ = tell.send(error);
                    return;
                }
            }
        });
        Self { lines: Some(lines), failed, written }
    }

    pub(crate) fn text(&self, text: String) {
        // A failure is told by `failed`.
        let _ = self.lines.as_ref().map(|lines| lines.send(text));
    }

    /// Waits until nobody can read it any more.
    pub(crate) async fn failed(&mut self) -> Failed {
        match (&mut self.failed).await {
            Ok(error) => error.into(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets what was said be written, if somebody reads it.
    pub(crate) async fn end(mut self) {
        self.lines = None;
        let _ = tokio::time::timeout(FAREWELL, &mut self.failed).await;
    }
}

impl Drop for Lines {
    /// However a command ends, by an error on the way too: its last line is not lost. Blocks, as the process ends here.
    fn drop(&mut self) {
        if self.lines.take().is_some() {
            let _ = self.written.recv_timeout(FAREWELL);
        }
    }
}

/// Whether what is printed goes to /dev/null: because somebody wants it so, or because stdout was closed, in whose place that is put at the start.
pub(crate) fn goes_nowhere() -> bool {
    let (Ok(out), Ok(null)) = (rustix::fs::fstat(stdout()), rustix::fs::stat("/dev/null")) else { return false };
    rustix::fs::FileType::from_raw_mode(out.st_mode) == rustix::fs::FileType::CharacterDevice && out.st_rdev == null.st_rdev
}

/// For people, beside the result.
pub(crate) fn note(text: &str) {
    let _ = writeln!(stderr(), "{}", shown_lines(text));
}

fn json(document: &impl Serialize, indented: bool) -> String {
    let text = if indented { serde_json::to_string_pretty(document) } else { serde_json::to_string(document) };
    text.expect("views have string keys and no failing Serialize") + "\n"
}

fn yaml(document: &impl Serialize) -> String {
    serde_yaml_ng::to_string(document).expect("views have string keys and no failing Serialize")
}
