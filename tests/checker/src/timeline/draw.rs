//! The drawing: strips from top to bottom (time, raft leader, faults, then leases), true time from left to right.

use std::fmt::Write as _;

use super::escape;
use crate::{
    facts::{Facts, Op},
    history::{Call, Outcome},
    report::Report,
};

const LABEL: f64 = 190.0;
const WIDTH: f64 = 1440.0;
const BAR: f64 = 15.0;
/// So many operations, holds and beliefs of a lease are drawn: more would be less than a pixel each.
const MARKS: usize = 1200;

/// What is drawn, in true time; labels count from `begin`.
pub(super) struct Window {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) begin: u64,
}

impl Window {
    fn x(&self, at: u64) -> f64 {
        let at = at.clamp(self.from, self.to) - self.from;
        let span = (self.to - self.from).max(1);
        LABEL + at as f64 / span as f64 * (WIDTH - LABEL - 10.0)
    }

    const fn touches(&self, from: u64, to: u64) -> bool {
        from <= self.to && to >= self.from
    }
}

/// Nanoseconds as a person reads them.
pub(super) fn seconds(nanos: u64) -> String {
    let seconds = nanos as f64 / 1e9;
    if seconds < 10.0 { format!("{seconds:.3} s") } else { format!("{seconds:.1} s") }
}

/// The drawing of these leases.
pub(super) fn svg(facts: &Facts<'_>, report: &Report, window: &Window, leases: &[&str]) -> String {
    let mut body = String::new();
    let mut y = 24.0;
    raft_leaders(&mut body, facts, window, &mut y);
    faults(&mut body, facts, window, &mut y);
    let top = y;
    for lease in leases {
        of_lease(&mut body, facts, window, lease, &mut y);
    }
    let mut back = String::new();
    axis(&mut back, window, y);
    for fault in facts.faults.iter().filter(|fault| window.touches(fault.from, fault.to)) {
        let (from, to) = (window.x(fault.from), window.x(fault.to));
        let _ = write!(back, "<rect x='{from:.1}' y='{top}' width='{:.1}' height='{:.1}' fill='#f6c7a0' opacity='.35'/>", (to - from).max(1.0), y - top);
    }
    let mut front = String::new();
    for (id, violation) in report.told().filter(|(_, violation)| window.touches(violation.at, violation.at)) {
        let x = window.x(violation.at);
        let _ = write!(front, "<g><title>{id} {}: {}</title>", escape(&violation.lease), escape(&violation.text));
        let _ = write!(front, "<line x1='{x:.1}' y1='20' x2='{x:.1}' y2='{y:.1}' stroke='#b3261e' stroke-width='1.5' stroke-dasharray='4 3'/>");
        let _ = write!(front, "<text x='{:.1}' y='{:.1}' style='fill:#b3261e;font-weight:700'>{id}</text></g>", x + 3.0, y + 11.0);
    }
    let height = y + 18.0;
    format!(
        "<svg viewBox='0 0 {WIDTH} {height:.0}' width='{WIDTH}' height='{height:.0}' xmlns='http://www.w3.org/2000/svg'>\
         <defs><pattern id='b' width='6' height='6' patternUnits='userSpaceOnUse' patternTransform='rotate(45)'><rect width='3' height='6' fill='#fff' opacity='.55'/></pattern></defs>\
         {back}{body}{front}</svg>"
    )
}

/// Lines at round times.
fn axis(out: &mut String, window: &Window, bottom: f64) {
    let span = (window.to - window.from).max(1);
    let mut step = 1_000_000_u64;
    while span / step > 14 {
        step *= if step.to_string().starts_with('2') { 5 } else { 2 };
        // 1, 2, 10, 20, 100 …: 5 is left out, which keeps the labels short.
    }
    let first = (window.from - window.begin).div_ceil(step);
    for at in (first..).map_while(|n| step.checked_mul(n)) {
        let Some(when) = window.begin.checked_add(at).filter(|when| *when <= window.to) else { break };
        let x = window.x(when);
        let _ = write!(out, "<line x1='{x:.1}' y1='16' x2='{x:.1}' y2='{bottom:.1}' stroke='#e3e7ed'/>");
        let _ = write!(out, "<text x='{:.1}' y='12' style='fill:#5b6675'>{}</text>", x + 2.0, seconds(at));
    }
}

fn label(out: &mut String, y: f64, text: &str, strong: bool) {
    let shown: String = if text.chars().count() > 30 { text.chars().take(29).chain("…".chars()).collect() } else { text.into() };
    let weight = if strong { "font-weight:600" } else { "fill:#5b6675" };
    let _ =
        write!(out, "<text x='{}' y='{:.1}' style='{weight}'><title>{}</title>{}</text>", if strong { 0 } else { 12 }, y + 11.0, escape(text), escape(&shown));
}

/// A bar with its text, if there is room for it.
fn bar(out: &mut String, (from, to): (f64, f64), y: f64, fill: &str, believed: bool, text: &str, title: &str) {
    let width = (to - from).max(1.5);
    let _ = write!(out, "<g><title>{}</title>", escape(title));
    let _ = write!(out, "<rect x='{from:.1}' y='{y:.1}' width='{width:.1}' height='{BAR}' rx='2' fill='{fill}' stroke='#0002'/>");
    if believed {
        let _ = write!(out, "<rect x='{from:.1}' y='{y:.1}' width='{width:.1}' height='{BAR}' rx='2' fill='url(#b)'/>");
    }
    let room = (width / 6.2) as usize;
    if room >= 3 {
        let shown: String = if text.chars().count() > room { text.chars().take(room - 1).chain("…".chars()).collect() } else { text.into() };
        let _ = write!(out, "<text x='{:.1}' y='{:.1}'>{}</text>", from + 3.0, y + 11.5, escape(&shown));
    }
    out.push_str("</g>");
}

/// Always the same for one name.
fn colour(name: &str) -> String {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("hsl({},58%,72%)", (hash >> 16) % 360)
}

fn raft_leaders(out: &mut String, facts: &Facts<'_>, window: &Window, y: &mut f64) {
    if facts.raft_leaders.is_empty() {
        return;
    }
    label(out, *y, "raft leader", true);
    for (place, (at, node, term)) in facts.raft_leaders.iter().enumerate() {
        let until = facts.raft_leaders.get(place + 1).map_or(facts.end, |(next, ..)| *next);
        if window.touches(*at, until) {
            let text = format!("{node}, term {term}");
            bar(out, (window.x(*at), window.x(until)), *y, &colour(node), false, &text, &text);
        }
    }
    *y += BAR + 5.0;
}

fn faults(out: &mut String, facts: &Facts<'_>, window: &Window, y: &mut f64) {
    let shown: Vec<_> = facts.faults.iter().filter(|fault| window.touches(fault.from, fault.to)).collect();
    if shown.is_empty() {
        return;
    }
    label(out, *y, "faults", true);
    let mut lanes = Vec::new();
    for fault in shown {
        let (from, to) = (window.x(fault.from), window.x(fault.to));
        let text = format!("{} {}", fault.kind, fault.nodes.join(" "));
        let title = format!("{text}, for {}", seconds(fault.to - fault.from));
        // Room for the text: a kill is a moment, and should be readable all the same.
        let lane = lane(&mut lanes, from, to.max(from + 60.0));
        bar(out, (from, to.max(from + 3.0)), *y + lane as f64 * (BAR + 2.0), "#f0a35e", false, &text, &title);
        if to - from < 40.0 {
            let _ = write!(out, "<text x='{:.1}' y='{:.1}'>{}</text>", to.max(from + 3.0) + 2.0, *y + lane as f64 * (BAR + 2.0) + 11.5, escape(&text));
        }
    }
    *y += lanes.len() as f64 * (BAR + 2.0) + 6.0;
}

/// The first lane that is free from there on.
fn lane(lanes: &mut Vec<f64>, from: f64, to: f64) -> usize {
    let lane = lanes.iter().position(|end| *end <= from).unwrap_or(lanes.len());
    if lane == lanes.len() {
        lanes.push(to);
    } else {
        lanes[lane] = to;
    }
    lane
}

fn of_lease(out: &mut String, facts: &Facts<'_>, window: &Window, lease: &str, y: &mut f64) {
    *y += 8.0;
    let _ = write!(out, "<line x1='0' y1='{:.1}' x2='{WIDTH}' y2='{:.1}' stroke='#c9d0da'/>", *y - 3.0, *y - 3.0);
    label(out, *y, lease, true);
    let mut lanes = Vec::new();
    for (token, hold) in facts.holds.get(lease).into_iter().flatten().take(MARKS) {
        let Some(seen) = hold.seen else { continue };
        let over = hold.over.unwrap_or(facts.end);
        if !window.touches(seen, over) {
            continue;
        }
        let (from, to) = (window.x(seen), window.x(over).max(window.x(seen)));
        let title = format!("{} holds with token {token}: known from {} to {}, ended {:?}", hold.holder, since(window, seen), since(window, over), hold.reason);
        let lane = lane(&mut lanes, from, to);
        bar(out, (from, to), *y + lane as f64 * (BAR + 2.0), &colour(hold.holder), false, &format!("{} {token}", hold.holder), &title);
    }
    *y += lanes.len().max(1) as f64 * (BAR + 2.0);
    believed(out, facts, window, lease, y);
    marks(out, facts, window, lease, y);
}

fn believed(out: &mut String, facts: &Facts<'_>, window: &Window, lease: &str, y: &mut f64) {
    let mut lanes = Vec::new();
    for held in facts.beliefs.iter().filter(|held| held.belief.lease == lease && window.touches(held.from, held.to)).take(MARKS) {
        let (from, to) = (window.x(held.from), window.x(held.to));
        let lane = lane(&mut lanes, from, to);
        let (holder, token) = (&held.belief.holder, held.belief.token);
        let title = format!("{holder} believes in token {token} from {} to {}", since(window, held.from), since(window, held.to));
        bar(out, (from, to), *y + lane as f64 * (BAR + 2.0), &colour(holder), true, &format!("{holder} {token}"), &title);
    }
    if !lanes.is_empty() {
        label(out, *y, "believed", false);
        *y += lanes.len() as f64 * (BAR + 2.0);
    }
}

/// Operations as ticks from send to answer.
fn marks(out: &mut String, facts: &Facts<'_>, window: &Window, lease: &str, y: &mut f64) {
    let ops: Vec<&Op<'_>> = facts.ops.iter().filter(|op| op.lease() == Some(lease) && window.touches(op.from, op.to.min(facts.end))).collect();
    if ops.is_empty() {
        return;
    }
    let text = if ops.len() > MARKS { format!("operations (first {MARKS} of {})", ops.len()) } else { "operations".into() };
    label(out, *y, &text, false);
    for op in ops.into_iter().take(MARKS) {
        let (from, to) = (window.x(op.from), window.x(op.to.min(facts.end)));
        let (letter, fine) = match (&op.invoke.call, op.outcome) {
            (_, None | Some(Outcome::Unknown { .. } | Outcome::Refused { .. })) => ("?", false),
            (Call::Acquire { .. }, Some(Outcome::Granted { .. })) => ("A", true),
            (Call::Acquire { .. }, _) => ("a", true),
            (Call::Renew { .. }, Some(Outcome::Lost { .. })) => ("L", true),
            (Call::Renew { .. }, _) => ("", true),
            (Call::Release { .. }, _) => ("R", true),
            _ => ("", true),
        };
        let ink = if fine { "#3b4656" } else { "#b3261e" };
        let _ = write!(out, "<g><title>{}</title>", escape(&op.text()));
        let to = if fine { to } else { to.min(from + 8.0) };
        let _ = write!(out, "<line x1='{from:.1}' y1='{:.1}' x2='{from:.1}' y2='{:.1}' stroke='{ink}'/>", *y + 2.0, *y + 12.0);
        let _ = write!(
            out,
            "<line x1='{from:.1}' y1='{:.1}' x2='{:.1}' y2='{:.1}' stroke='{ink}' opacity='.45' stroke-width='2'/>",
            *y + 12.0,
            to.max(from + 1.0),
            *y + 12.0
        );
        if !letter.is_empty() {
            let _ = write!(out, "<text x='{:.1}' y='{:.1}' style='font-size:9px;fill:{ink}'>{letter}</text>", from + 1.5, *y + 9.0);
        }
        out.push_str("</g>");
    }
    *y += BAR;
}

fn since(window: &Window, at: u64) -> String {
    seconds(at.saturating_sub(window.begin))
}
