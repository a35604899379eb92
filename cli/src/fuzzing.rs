//! Doors for the fuzz targets (tests/fuzz): what reads files and texts that people write, and what shows the answers of a server. In no release.
#![allow(missing_docs, clippy::missing_errors_doc, reason = "for one crate, which has them all in one place")]

use std::time::Duration;

use jiff::Timestamp;
use tenure_client::v1;

use crate::{manifest, rows, text, view};

/// What one document of a manifest asks for: kind, name, duration of the hold.
pub type Wanted = (&'static str, String, Option<Duration>);

/// A file as `apply -f` takes it.
pub fn manifest(text: &str) -> Result<Vec<Wanted>, String> {
    let all = manifest::read(text.as_bytes())?;
    Ok(all.into_iter().map(|wanted| (wanted.kind, wanted.name, wanted.hold.map(|hold| hold.duration))).collect())
}

/// A duration as it is typed.
pub fn duration(text: &str) -> Result<Duration, String> {
    text::parse_duration(text)
}

/// As `-o json` shows a duration.
#[must_use]
pub fn json_duration(duration: Duration) -> String {
    text::json_duration(duration)
}

/// Everything that shows a lease, its holds, and an event about it: to be read by people, and as JSON.
#[must_use]
pub fn shown(lease: &v1::Lease, event: &v1::Event) -> String {
    let now = Timestamp::UNIX_EPOCH;
    let mut rows = vec![rows::lease(lease, true, now, false), rows::lease(lease, true, now, true), rows::event(event, true)];
    rows.extend(lease.recent_holds.iter().map(|hold| rows::hold(hold, now)));
    let cells: Vec<String> = rows.into_iter().flatten().map(|cell| cell.0).collect();
    let json = serde_json::to_string(&(view::Lease::from(lease), view::Event::from(event))).expect("what is shown is plain data");
    cells.join(" ") + &json
}
