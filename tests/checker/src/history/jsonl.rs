//! Histories as files: one record a line.

use std::io::{self, BufRead, Write};

use super::{History, Record};

/// Why a file is no history.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot read the history: {0}")]
    Io(#[from] io::Error),
    /// A line is no record. A last line without its end is left out instead: its writer was killed.
    #[error("line {line} is no record: {error}")]
    Line {
        /// Counting from 1.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

impl History {
    /// Reads records and sorts them.
    ///
    /// # Errors
    /// When the input cannot be read, or a complete line of it is no record.
    pub fn read(mut from: impl BufRead) -> Result<Self, ReadError> {
        let mut records = Vec::new();
        let mut text = String::new();
        for line in 1.. {
            text.clear();
            if from.read_line(&mut text)? == 0 {
                break;
            }
            if text.trim().is_empty() {
                continue;
            }
            match serde_json::from_str(&text) {
                Ok(record) => records.push(record),
                Err(_) if !text.ends_with('\n') => break,
                Err(error) => return Err(ReadError::Line { line, error }),
            }
        }
        Ok(Self::sorted(records))
    }

    /// Writes them.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        for record in &self.records {
            to.write_all(line(record).as_bytes())?;
        }
        to.flush()
    }
}

/// One record as a line, with its end: for a recorder that must not lose what came before a crash.
#[must_use]
pub fn line(record: &Record) -> String {
    let mut line = serde_json::to_string(record).expect("records are plain data with string keys");
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Call, Change, Invoke, Meta, Outcome, Return, State, What};

    fn some() -> History {
        let call = Call::Acquire { lease: "a/b".into(), holder: "me".into(), request_id: "r".into(), duration_ms: 3000, wait_ms: None, reclaim: false };
        let outcome = Outcome::Granted { lease: State { lease: "a/b".into(), token: 1 << 52, ..State::default() }, must_renew: false, revision: 1 << 52 };
        History::sorted(vec![
            Record { at: 3, what: What::Return(Return { op: 1, outcome }) },
            Record { at: 2, what: What::Invoke(Invoke { op: 1, client: "me".into(), node: None, call }) },
            Record { at: 1, what: What::Meta(Meta::default()) },
            Record { at: 4, what: What::WatchEvent { watch: 1, change: Change { revision: 7, lease: "a/b".into(), ..Change::default() } } },
            Record { at: 5, what: What::Calm },
        ])
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = Vec::new();
        some().write(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(History::read(text.as_bytes()).unwrap(), some(), "{text}");
        assert!(text.lines().nth(1).unwrap().starts_with(r#"{"at":2,"invoke":{"op":1,"client":"me","call":{"acquire":{"lease":"a/b""#), "{text}");
    }

    #[test]
    fn torn_last_line_is_left_out_and_a_torn_one_in_the_middle_is_an_error() {
        let mut bytes = Vec::new();
        some().write(&mut bytes).unwrap();
        let torn = &bytes[..bytes.len() - 4];
        assert_eq!(History::read(torn).unwrap().records.len(), 4);
        let mut worse = torn.to_vec();
        worse.extend_from_slice(b"\n{}\n");
        assert!(matches!(History::read(&worse[..]), Err(ReadError::Line { line: 5, .. })));
    }
}
