//! Watches: of everything, resumed by the SDK and by hand; and by readers who stop reading, come back to long ago, or ask for what is to come.

use std::time::Duration;

use tenure_checker::history::{WatchEnd, WatchOpen, What};
use tenure_client::{Error, Watch, v1};

use super::{NAMESPACE, Task};
use crate::{clock, history::change};

/// Where a watch begins.
#[derive(Clone, Copy, Debug, Default)]
struct From {
    after_revision: u64,
    resumes: Option<u64>,
    send_initial: bool,
    include_renewals: bool,
}

/// Watches everything; now and then goes away and comes back where it was.
pub(super) async fn watch(mut task: Task) -> anyhow::Result<()> {
    let include_renewals = task.chance(50);
    let (mut seen, mut last) = (0, None);
    while !task.is_ending() {
        let after_revision = if task.chance(80) { seen } else { 0 };
        let resumes = if after_revision == 0 { None } else { last };
        let send_initial = after_revision == 0 && task.chance(30);
        let how_long = task.between(200, 9_000);
        let (number, end) = one(&task, From { after_revision, resumes, send_initial, include_renewals }, how_long, Duration::ZERO, &mut seen).await?;
        if matches!(end, WatchEnd::Compacted { .. }) {
            seen = 0;
        }
        last = Some(number);
        let pause = task.between(1, 300);
        task.rest(pause).await;
    }
    Ok(())
}

/// A reader with bad manners. What it gets is complete and in order all the same, or it is told.
pub(super) async fn watch_badly(mut task: Task) -> anyhow::Result<()> {
    let (mut seen, mut first) = (0, 0);
    while !task.is_ending() {
        let from = match task.rng.below(5) {
            // Before anything that this cluster remembers.
            0 => From { after_revision: 1, ..From::default() },
            // What is to come.
            1 if seen > 0 => From { after_revision: seen + 20 + task.rng.below(500), ..From::default() },
            // The whole past.
            2 if first > 0 => From { after_revision: first, ..From::default() },
            3 => From { send_initial: true, ..From::default() },
            _ => From { after_revision: seen, ..From::default() },
        };
        let (how_long, silent) = (task.between(500, 3_000), task.between(0, 2_500));
        let mut reached = from.after_revision;
        one(&task, from, how_long, silent, &mut reached).await?;
        seen = seen.max(if from.after_revision > seen { seen } else { reached });
        first = if first == 0 { seen } else { first };
    }
    Ok(())
}

/// One watch from its opening to its end: its number, and how it ended. Reads nothing at first for as long as it is told to be silent.
async fn one(task: &Task, from: From, how_long: Duration, silent: Duration, seen: &mut u64) -> anyhow::Result<(u64, WatchEnd)> {
    let From { after_revision, resumes, send_initial, include_renewals } = from;
    let number = task.journal.number();
    let open = WatchOpen {
        watch: number,
        client: task.name.clone(),
        namespace: Some(NAMESPACE.into()),
        after_revision,
        send_initial,
        include_renewals,
        resumes,
        ..WatchOpen::default()
    };
    task.journal.record(What::WatchOpen(open))?;
    let request = v1::WatchRequest { namespace: NAMESPACE.into(), after_revision, send_initial, include_renewals, ..v1::WatchRequest::default() };
    let end = match task.client.watch(request).await {
        Err(error) => ended(&error),
        Ok(watch) => {
            task.rest(silent).await;
            follow(task, number, watch, how_long, seen).await?
        }
    };
    task.journal.record(What::WatchEnd { watch: number, end: end.clone() })?;
    Ok((number, end))
}

fn ended(error: &Error) -> WatchEnd {
    match error {
        Error::Relist(_) => WatchEnd::Compacted { floor: 0 },
        error => WatchEnd::Failed { error: error.to_string() },
    }
}

async fn follow(task: &Task, number: u64, mut watch: Watch, how_long: Duration, seen: &mut u64) -> anyhow::Result<WatchEnd> {
    let begun = clock::now();
    while clock::since(begun) < how_long && !task.is_ending() {
        let Ok(next) = tokio::time::timeout(Duration::from_millis(300), watch.next()).await else { continue };
        let answer = match next {
            Ok(answer) => answer,
            Err(error) => return Ok(ended(&error)),
        };
        for change in answer.events.iter().filter_map(change) {
            task.journal.record(What::WatchEvent { watch: number, change })?;
        }
        if answer.bookmark != 0 {
            task.journal.record(What::WatchBookmark { watch: number, revision: answer.bookmark })?;
        }
        *seen = watch.revision();
    }
    Ok(WatchEnd::Closed)
}
