//! A history as a page that a person can read: who held what when, what faults there were, what contradicts which property. One file, no scripts.

mod draw;

use std::{collections::HashMap, fmt::Write as _};

use crate::{
    facts::Facts,
    history::{History, What},
    report::Report,
};

/// So many leases are drawn; those with violations come first.
const LEASES: usize = 24;
/// Around a violation, in nanoseconds.
const BEFORE: u64 = 3_000_000_000;
const AFTER: u64 = 1_000_000_000;
/// So many violations are drawn close up.
const CLOSE_UPS: usize = 4;

const STYLE: &str = "
body { font: 14px/1.45 system-ui, sans-serif; margin: 24px; color: #1c2430; background: #fff; max-width: 1480px }
h1 { font-size: 20px; margin: 0 0 4px } h2 { font-size: 16px; margin: 28px 0 6px } p { margin: 4px 0 }
table { border-collapse: collapse; font-size: 13px } td, th { padding: 2px 12px 2px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e6e9ee }
td.n { text-align: right; font-variant-numeric: tabular-nums } tr.bad td { background: #fde8e6; font-weight: 600 } tr.none td { color: #8a94a3 }
li { margin: 2px 0; word-break: break-word } svg { display: block; margin: 4px 0; max-width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif; fill: #1c2430 }
.bad { color: #b3261e } .small { color: #5b6675; font-size: 12.5px }
.key span { display: inline-block; margin-right: 18px } .key i { display: inline-block; width: 22px; height: 10px; margin-right: 5px; vertical-align: middle }";

/// The page.
#[must_use]
pub fn html(history: &History, report: &Report) -> String {
    let facts = Facts::of(history);
    let mut page = String::new();
    let bad = report.violations();
    let name = if report.name.is_empty() { "a history" } else { &report.name };
    let _ = write!(page, "<!doctype html><html lang=en><meta charset=utf-8><title>{}</title><style>{STYLE}</style>", escape(name));
    let seed = if report.seed == 0 { String::new() } else { format!(", seed {}", report.seed) };
    let verdict = if bad == 0 { "no violation".to_owned() } else { format!("<span class=bad>{bad} violations</span>") };
    let _ = write!(page, "<h1>{}{seed}: {verdict}</h1>", escape(name));
    let _ = write!(
        page,
        "<p>{} operations ({} of unknown outcome), {} committed changes, {} faults, {} beliefs, {} watches, {:.3} s of true time.</p>",
        report.operations,
        report.unknown,
        report.changes,
        report.faults,
        facts.beliefs.len(),
        facts.watches.len(),
        (facts.end.saturating_sub(begin(history))) as f64 / 1e9
    );
    if bad > 0 {
        page.push_str("<h2>Violations</h2><ol>");
        for (id, violation) in report.told() {
            let at = draw::seconds(violation.at.saturating_sub(begin(history)));
            let _ = write!(page, "<li><b>{id}</b> at {at} <code>{}</code>: {}</li>", escape(&violation.lease), escape(&violation.text));
        }
        page.push_str("</ol>");
    }
    let leases = leases(&facts, report);
    let whole = draw::Window { from: begin(history), to: facts.end, begin: begin(history) };
    page.push_str("<h2>Timeline</h2><p class='key small'>");
    for (colour, text) in
        [("#7fb3d5", "held, as committed; a colour for each holder"), ("repeating-linear-gradient(45deg,#999 0 3px,#ddd 3px 6px)", "believed, by its holder")]
    {
        let _ = write!(page, "<span><i style='background:{colour}'></i>{text}</span>");
    }
    page.push_str("<span><i style='background:#f6c7a0;opacity:.7'></i>fault</span><span><i style='background:#b3261e'></i>violation, unknown or refused operation</span></p>");
    page.push_str(&draw::svg(&facts, report, &whole, &leases));
    let all = facts.holds.len();
    if all > leases.len() {
        let _ = write!(page, "<p class=small>{} of {all} leases are drawn.</p>", leases.len());
    }
    for (id, violation) in report.told().take(CLOSE_UPS) {
        let at = violation.at.clamp(whole.from, whole.to.max(whole.from));
        let window = draw::Window { from: at.saturating_sub(BEFORE).max(whole.from), to: at.saturating_add(AFTER).min(whole.to), begin: whole.begin };
        let _ = write!(page, "<h2>{id}, close up</h2><p class=small>{}</p>", escape(&violation.text));
        let lease: Vec<&str> = leases.iter().copied().filter(|lease| violation.lease.is_empty() || *lease == violation.lease).take(6).collect();
        page.push_str(&draw::svg(&facts, report, &window, &lease));
    }
    table(&mut page, report);
    page.push_str("</html>\n");
    page
}

fn table(page: &mut String, report: &Report) {
    page.push_str("<h2>Properties</h2><table><tr><th>property<th>claim<th>checked<th>violations<th>note");
    for line in &report.lines {
        let findings = &line.findings;
        let class = match (findings.violated, findings.checked) {
            (1.., _) => "bad",
            (_, 0) => "none",
            _ => "",
        };
        let note = findings.note.as_deref().unwrap_or(if findings.checked == 0 { "nothing to check" } else { "" });
        let _ = write!(
            page,
            "<tr class='{class}'><td>{}<td>{}<td class=n>{}<td class=n>{}<td>{}",
            line.id,
            escape(line.claim),
            findings.checked,
            findings.violated,
            escape(note)
        );
    }
    page.push_str("</table>");
}

/// The first moment of which anything but the run itself is told.
fn begin(history: &History) -> u64 {
    let told = |what: &What| !matches!(what, What::Meta(_) | What::Witness(_) | What::Committed(_));
    history.records.iter().find(|record| told(&record.what)).map_or(0, |record| record.at)
}

/// Those to draw: with violations, then with the most beliefs and holds.
fn leases<'h>(facts: &Facts<'h>, report: &Report) -> Vec<&'h str> {
    let mut weight: HashMap<&str, (usize, usize)> = facts.holds.iter().map(|(lease, holds)| (*lease, (0, holds.len()))).collect();
    for held in &facts.beliefs {
        weight.entry(&held.belief.lease).or_default().1 += 2;
    }
    for (_, violation) in report.told() {
        if let Some(weight) = weight.get_mut(violation.lease.as_str()) {
            weight.0 += 1;
        }
    }
    let mut leases: Vec<(&str, (usize, usize))> = weight.into_iter().collect();
    leases.sort_by_key(|(lease, weight)| (std::cmp::Reverse(*weight), *lease));
    leases.truncate(LEASES);
    leases.into_iter().map(|(lease, _)| lease).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use crate::{history::What, judge, story::Story};

    #[test]
    fn page_shows_who_held_what_and_what_was_wrong() {
        let mut story = Story::default();
        story
            .granted(0, 5, "alice", 1)
            .belief(5, 500, "alice", 1)
            .belief(400, 700, "<bob>", 2)
            .at(450, What::Fault { fault: 1, kind: "pause".into(), nodes: vec!["2".into()] });
        let history = crate::History::sorted(story.records);
        let page = super::html(&history, &judge(&history));
        for wanted in ["alice", "&lt;bob&gt;", "pause", "P1", "class='bad'", "close up", "<svg"] {
            assert!(page.contains(wanted), "{wanted} is missing: {page}");
        }
        assert!(!page.contains("<bob>") && !page.contains("<script"), "{page}");
    }

    #[test]
    fn empty_history_is_a_page_too() {
        let history = crate::History::default();
        assert!(super::html(&history, &judge(&history)).contains("no violation"));
    }
}
