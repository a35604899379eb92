//! `get`, `list`, `watch`, `history`: looking, never changing.

use tenure_client::{
    Client, Error,
    v1::{self, GetRequest, HistoryRequest, ListRequest, WatchRequest, event},
};

use crate::{
    args::{self, Output, Scope},
    clock,
    fail::{Failed, Tally},
    print::{Printer, note},
    rows,
    table::Table,
    view,
};

/// The word `lease` before names is kubectl's habit and means nothing here; `lease/NAME` is one name.
pub(crate) fn names(words: &[String]) -> Vec<String> {
    const KINDS: &[&str] = &["lease", "leases", "lease.coordination.k8s.io", "leases.coordination.k8s.io", "lease.tenure.dev"];
    let words = match words {
        [kind, rest @ ..] if KINDS.contains(&kind.as_str()) => rest,
        all => all,
    };
    let bare = |word: &String| match word.split_once('/') {
        Some((kind, name)) if KINDS.contains(&kind) => name.to_owned(),
        _ => word.clone(),
    };
    words.iter().map(bare).collect()
}

pub(crate) async fn get(client: &Client, printer: Printer, namespace: &str, args: args::Get) -> Result<(), Failed> {
    let names = names(&args.what);
    if names.is_empty() {
        return list(client, printer, namespace, args::List { scope: args.scope, watch: args.watch, stale: args.stale }).await;
    }
    if args.scope.all_namespaces || args.scope.selector.is_some() {
        return Err(Failed::Usage("a NAME goes with neither -A nor -l: leave the name out to list".into()));
    }
    if args.watch {
        let [name] = names.as_slice() else { return Err(Failed::Usage("-w takes one NAME, or none for all".into())) };
        return follow_one(client, printer, namespace, name, args.stale).await;
    }
    let mut tally = Tally::default();
    let mut found = Vec::new();
    for name in &names {
        let request = GetRequest { namespace: namespace.into(), name: name.clone(), stale: args.stale, ..Default::default() };
        tally.add(client.get(request).await.map(|lease| found.push(lease)).map_err(Failed::from))?;
    }
    if printer.is_document() && names.len() == 1 {
        for lease in &found {
            printer.document(&view::Lease::from(lease))?;
        }
    } else if !found.is_empty() {
        let revision = found.iter().map(|lease| lease.renew_revision).max().unwrap_or_default();
        print_leases(printer, &found, revision)?;
    }
    tally.end()
}

pub(crate) async fn list(client: &Client, printer: Printer, namespace: &str, args: args::List) -> Result<(), Failed> {
    let args::List { scope: Scope { all_namespaces, selector }, watch, stale } = args;
    // With all namespaces the one given (or the default) does not matter.
    let namespace = if all_namespaces { String::new() } else { namespace.to_owned() };
    let selector = selector.unwrap_or_default();
    let request = ListRequest { namespace: namespace.clone(), all_namespaces, label_selector: selector.clone(), stale, page_size: 5_000, ..Default::default() };
    let all = client.list_all(request).await?;
    let revision = all.header.as_ref().map_or(0, |header| header.revision);
    if !watch {
        if all.leases.is_empty() && !printer.is_document() {
            let place = if all_namespaces { "any namespace".to_owned() } else { format!("namespace {namespace}") };
            let labelled = if selector.is_empty() { String::new() } else { format!(" with labels {selector}") };
            note(&format!("No leases found in {place}{labelled}."));
            return Ok(());
        }
        return print_leases(printer, &all.leases, revision);
    }
    let mut rows = LeaseRows::new(printer);
    rows.table = rows.table.streaming();
    rows.show(&all.leases, false)?;
    let request = WatchRequest { namespace, all_namespaces, label_selector: selector, after_revision: revision, ..Default::default() };
    follow(client, request, |event| rows.event(event)).await
}

pub(crate) async fn watch(client: &Client, printer: Printer, namespace: &str, args: args::Watch) -> Result<(), Failed> {
    let args::Watch { name, scope: Scope { all_namespaces, selector }, after, renewals, watch: _ } = args;
    if name.is_some() && (all_namespaces || selector.is_some()) {
        return Err(Failed::Usage("a NAME goes with neither -A nor -l: leave the name out to watch many".into()));
    }
    let request = WatchRequest {
        namespace: if all_namespaces { String::new() } else { namespace.to_owned() },
        all_namespaces,
        name: name.unwrap_or_default(),
        label_selector: selector.unwrap_or_default(),
        after_revision: after.unwrap_or_default(),
        send_initial: false,
        include_renewals: renewals,
    };
    let mut table = printer.table(if printer.is_wide() { rows::EVENT_WIDE } else { rows::EVENT }).streaming();
    follow(client, request, |event| match printer.output {
        Some(Output::Json | Output::Yaml) => printer.one_of_many(&view::Event::from(event)),
        Some(Output::Name) => printer.line(&format!("lease/{}", event.lease.as_ref().map_or("", |lease| &lease.name))),
        None | Some(Output::Table | Output::Wide) => printer.text(&table.print(&[rows::event(event, printer.is_wide())])),
    })
    .await
}

pub(crate) async fn history(client: &Client, printer: Printer, namespace: &str, args: args::History) -> Result<(), Failed> {
    let request = HistoryRequest { namespace: namespace.into(), name: args.name.clone(), limit: args.limit };
    let answer = client.history(request).await?;
    if printer.is_document() {
        return printer.document(&view::Holds { holds: answer.holds.iter().map(view::Hold::from).collect(), complete_since: answer.complete_since });
    }
    if answer.holds.is_empty() {
        note(&format!("Nobody is known to have held {namespace}/{}.", args.name));
        return Ok(());
    }
    let now = clock::now();
    let rows: Vec<_> = answer.holds.iter().map(|hold| rows::hold(hold, now)).collect();
    printer.text(&printer.table(rows::HOLD).print(&rows))
}

fn print_leases(printer: Printer, leases: &[v1::Lease], revision: u64) -> Result<(), Failed> {
    if printer.is_document() {
        return printer.document(&view::Leases { leases: leases.iter().map(view::Lease::from).collect(), revision });
    }
    LeaseRows::new(printer).show(leases, false)
}

/// Leases as they come.
struct LeaseRows {
    printer: Printer,
    table: Table,
}

impl LeaseRows {
    fn new(printer: Printer) -> Self {
        Self { printer, table: printer.table(if printer.is_wide() { rows::LEASE_WIDE } else { rows::LEASE }) }
    }

    fn show(&mut self, leases: &[v1::Lease], deleted: bool) -> Result<(), Failed> {
        match self.printer.output {
            Some(Output::Json | Output::Yaml) => leases.iter().try_for_each(|lease| self.printer.one_of_many(&view::Lease::from(lease))),
            Some(Output::Name) => self.printer.text(&leases.iter().map(|lease| format!("lease/{}\n", lease.name)).collect::<String>()),
            None | Some(Output::Table | Output::Wide) => {
                let now = clock::now();
                let rows: Vec<_> = leases.iter().map(|lease| rows::lease(lease, self.printer.is_wide(), now, deleted)).collect();
                self.printer.text(&self.table.print(&rows))
            }
        }
    }

    fn event(&mut self, event: &v1::Event) -> Result<(), Failed> {
        if self.printer.is_document() {
            return self.printer.one_of_many(&view::Event::from(event));
        }
        event.lease.iter().try_for_each(|lease| self.show(std::slice::from_ref(lease), event.r#type() == event::Type::Deleted))
    }
}

async fn follow_one(client: &Client, printer: Printer, namespace: &str, name: &str, stale: bool) -> Result<(), Failed> {
    // The watch starts first and the lease is read after it: between them nothing can be missed, and what both show is shown once.
    let request = WatchRequest { namespace: namespace.into(), name: name.into(), ..Default::default() };
    let watch = client.watch(request.clone()).await?;
    let mut rows = LeaseRows::new(printer);
    rows.table = rows.table.streaming();
    let mut shown = watch.revision();
    match client.get(GetRequest { namespace: namespace.into(), name: name.into(), stale, ..Default::default() }).await {
        Ok(lease) => {
            shown = shown.max(lease.revision);
            rows.show(&[lease], false)?;
        }
        Err(Error::Refused(_)) => note(&format!("There is no lease {namespace}/{name} yet; waiting for it.")),
        Err(error) => return Err(error.into()),
    }
    follow(client, WatchRequest { after_revision: shown, ..request }, |event| rows.event(event)).await
}

/// For ever, or until the watch cannot go on. No replica to be reached is a note, not the end.
async fn follow(client: &Client, request: WatchRequest, mut show: impl FnMut(&v1::Event) -> Result<(), Failed>) -> Result<(), Failed> {
    let mut watch = client.watch(request).await?;
    loop {
        match watch.next().await {
            Ok(answer) => answer.events.iter().try_for_each(&mut show)?,
            Err(error) if error.is_retryable() => note(&format!("still trying: {error}")),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_habits_name_leases() {
        let read = |words: &[&str]| names(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read(&["lease"]), Vec::<String>::new());
        assert_eq!(read(&["leases", "a", "b"]), ["a", "b"]);
        assert_eq!(read(&["a"]), ["a"]);
        assert_eq!(read(&["lease/a", "lease.coordination.k8s.io/b"]), ["a", "b"]);
        assert_eq!(read(&["lease", "lease"]), ["lease"]);
        assert_eq!(read(&["odd/name"]), ["odd/name"]);
    }
}
