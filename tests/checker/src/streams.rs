//! What the watch properties have in common: which changes a watch must show, and which of those it said are changes and not the first picture.

use crate::{
    facts::{Facts, Said, Watch, namespace},
    history::{Change, Kind},
};

/// Whether a watch asked for the changes of this lease.
#[must_use]
pub(crate) fn covers(watch: &Watch<'_>, lease: &str) -> bool {
    let open = watch.open;
    let name = || lease.split_once('/').map_or("", |(_, name)| name);
    open.namespace.as_deref().is_none_or(|wanted| wanted == namespace(lease)) && open.name.as_deref().is_none_or(|wanted| wanted == name())
}

/// Its changes with their times, without the picture of what was there when it began.
pub(crate) fn changes<'a, 'h>(watch: &'a Watch<'h>) -> impl Iterator<Item = (u64, &'h Change)> + use<'a, 'h> {
    // The picture ends with the first bookmark; where there is none, because nothing was there, with the first change that is no creation.
    let is_other = |(_, said): &(u64, Said<'_>)| matches!(said, Said::Bookmark(_)) || matches!(said, Said::Change(change) if change.kind != Kind::Created);
    let begun = if watch.open.send_initial { watch.said.iter().position(is_other).unwrap_or(watch.said.len()) } else { 0 };
    watch.said.iter().enumerate().filter_map(move |(place, (at, said))| match said {
        Said::Change(change) if place >= begun || change.kind != Kind::Created => Some((*at, *change)),
        _ => None,
    })
}

/// Place and revision of the first bookmark.
#[must_use]
pub(crate) fn first_bookmark(watch: &Watch<'_>) -> Option<(usize, u64)> {
    watch.said.iter().enumerate().find_map(|(place, (_, said))| if let Said::Bookmark(revision) = said { Some((place, *revision)) } else { None })
}

/// The revision after which it must show everything, if that is known.
#[must_use]
pub(crate) fn begins_after(watch: &Watch<'_>) -> Option<u64> {
    if watch.open.after_revision > 0 {
        return Some(watch.open.after_revision);
    }
    // From now on: what came before its first bookmark it may have missed, unless it said so.
    let first = first_bookmark(watch).map(|(_, revision)| revision);
    let change = changes(watch).next().map(|(_, change)| change.revision);
    match (first, change) {
        (Some(bookmark), Some(change)) => Some(bookmark.min(change.saturating_sub(1))),
        (bookmark, change) => bookmark.or(change),
    }
}

/// How far it has come: the largest number of a change or bookmark, with the time of that.
#[must_use]
pub(crate) fn reached(watch: &Watch<'_>) -> Option<(u64, u64)> {
    let numbers = watch.said.iter().filter_map(|(at, said)| match said {
        Said::Change(change) => Some((change.revision, *at)),
        Said::Bookmark(revision) => Some((*revision, *at)),
        Said::End(_) => None,
    });
    numbers.max_by_key(|(revision, at)| (*revision, std::cmp::Reverse(*at)))
}

/// What a watch must have shown of `(after, upto]`, renewals apart (they are live only).
pub(crate) fn due<'a, 'h>(facts: &'a Facts<'h>, watch: &'a Watch<'h>, after: u64, upto: u64) -> impl Iterator<Item = &'h Change> + use<'a, 'h> {
    let all = facts.witness.between(after, upto).iter().map(|(_, committed)| &committed.change);
    all.filter(|change| change.kind != Kind::Renewed && covers(watch, &change.lease))
}
