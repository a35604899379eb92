//! The rows with their numbers and verdicts: as text, as Markdown, as JSON.

use serde_json::{Value, json};

use super::{
    Failed, Measured, Setting,
    rows::{Goal, Over, Row},
};
use crate::cluster::Target;

/// One row, filled in.
#[derive(Debug)]
pub(super) struct Line {
    title: String,
    unit: &'static str,
    tenure: Option<f64>,
    etcd: Option<f64>,
    goal: Goal,
    verdict: String,
}

impl Line {
    pub(super) fn new(row: &Row, measured: &[Measured], failed: &[Failed], quick: bool) -> Self {
        let value = |target| {
            let side = row.side(target)?;
            let of = measured.iter().filter(|one| one.figure.target == target && one.case == side.case);
            summary(of.filter_map(|one| one.figure.value(side.value)).collect(), row.over)
        };
        let (tenure, etcd) = (value(Target::Tenure), value(Target::Etcd));
        let of_row = |one: &&Failed| row.side(one.target).is_some_and(|side| side.case == one.case);
        let verdict = match failed.iter().find(of_row) {
            Some(failed) => format!("FAILED on {}", failed.target),
            None if quick => "not judged".to_owned(),
            None => verdict(row.goal, tenure, etcd),
        };
        Self { title: row.title.clone(), unit: row.unit, tenure, etcd, goal: row.goal, verdict }
    }

    /// Elections that nobody asked for, in everything that loaded a cluster without hurting it.
    pub(super) fn elections(measured: &[Measured]) -> Self {
        let sum = |target, name| {
            let of = measured.iter().filter(|one| one.figure.target == target && one.figure.value("elections").is_some());
            let values: Vec<f64> = of.filter_map(|one| one.figure.value(name)).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>())
        };
        let (tenure, etcd, minutes) = (sum(Target::Tenure, "elections"), sum(Target::Etcd, "elections"), sum(Target::Tenure, "seconds").unwrap_or(0.0) / 60.0);
        let verdict = match tenure {
            Some(elections) if elections > 0.0 => format!("{elections:.0} too many"),
            Some(_) if minutes >= ENOUGH_MINUTES => "PASS".to_owned(),
            Some(_) => "not for long enough: --soak-minutes 30".to_owned(),
            None => "not measured".to_owned(),
        };
        let title = format!("elections that nobody asked for, in {minutes:.1} minutes under load");
        Self { title, unit: "", tenure, etcd, goal: Goal::AtMost(0.0), verdict }
    }

    fn ratio(&self) -> Option<f64> {
        Some(self.tenure? / self.etcd.filter(|etcd| *etcd > 0.0)?)
    }

    fn cells(&self) -> [String; 6] {
        let value = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| with_unit(value, self.unit));
        let ratio = self.ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{}×", number(ratio)));
        [self.title.clone(), value(self.tenure), value(self.etcd), ratio, goal(self.goal, self.unit), self.verdict.clone()]
    }
}

/// Of load, to say that there are none.
const ENOUGH_MINUTES: f64 = 30.0;

fn summary(mut values: Vec<f64>, over: Over) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    match (over, values.len()) {
        (_, 0) => None,
        (Over::Most, _) => values.last().copied(),
        (Over::Median, n) => Some(f64::midpoint(values[(n - 1) / 2], values[n / 2])),
    }
}

fn verdict(goal: Goal, tenure: Option<f64>, etcd: Option<f64>) -> String {
    let (Some(tenure), ratio) = (tenure, tenure.zip(etcd).map(|(tenure, etcd)| tenure / etcd)) else { return "not measured".to_owned() };
    let short = |missing: f64| format!("short by {:.0} %", missing * 100.0);
    let at_least = |value: f64, goal: f64| if value >= goal { "PASS".to_owned() } else { short(1.0 - value / goal) };
    let at_most = |value: f64, goal: f64| if value <= goal { "PASS".to_owned() } else { format!("over by {:.0} %", (value / goal - 1.0) * 100.0) };
    match (goal, ratio) {
        (Goal::None, _) => "for information".to_owned(),
        (Goal::AtLeast(goal), _) => at_least(tenure, goal),
        (Goal::AtMost(goal), _) => at_most(tenure, goal),
        (Goal::RatioAtLeast(goal), Some(ratio)) => at_least(ratio, goal),
        (Goal::RatioAtMost(goal), Some(ratio)) => at_most(ratio, goal),
        (Goal::RatioAtLeast(_) | Goal::RatioAtMost(_), None) => "not compared".to_owned(),
    }
}

fn goal(goal: Goal, unit: &str) -> String {
    match goal {
        Goal::RatioAtLeast(ratio) => format!("≥ {}×", number(ratio)),
        Goal::RatioAtMost(ratio) => format!("≤ {}×", number(ratio)),
        Goal::AtLeast(value) => format!("≥ {}", with_unit(value, unit)),
        Goal::AtMost(value) => format!("≤ {}", with_unit(value, unit)),
        Goal::None => "–".to_owned(),
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "" => format!("{value:.0}"),
        "/s" | "×" => format!("{}{unit}", number(value)),
        _ => format!("{} {unit}", number(value)),
    }
}

/// Three digits or so, thousands apart.
fn number(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

const HEAD: [&str; 6] = ["what", "Tenure", "etcd", "ratio", "goal", "verdict"];

pub(super) fn text(lines: &[Line]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(lines.iter().map(Line::cells));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = (0..6)
            .map(|at| match at {
                0 | 5 => format!("{:<width$}", row[at], width = widths[at]),
                _ => format!("{:>width$}", row[at], width = widths[at]),
            })
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

pub(super) fn markdown(lines: &[Line], setting: &Setting) -> String {
    let mut out = format!("{}\n\n| {} |\n|---|--:|--:|--:|--:|---|\n", setting.line(), HEAD.join(" | "));
    for line in lines {
        out.push_str(&format!("| {} |\n", line.cells().join(" | ")));
    }
    out
}

pub(super) fn json(lines: &[Line], measured: &[Measured], setting: &Setting) -> Value {
    let rows: Vec<Value> = lines
        .iter()
        .map(|line| {
            let (ratio, goal) = (line.ratio(), goal(line.goal, line.unit));
            json!({ "what": line.title, "unit": line.unit, "tenure": line.tenure, "etcd": line.etcd, "ratio": ratio, "goal": goal, "verdict": line.verdict })
        })
        .collect();
    let figures: Vec<Value> = measured.iter().map(|one| one.figure.json()).collect();
    json!({
        "machine": setting.machine,
        "file_system": setting.file_system,
        "versions": setting.versions,
        "seconds": setting.seconds,
        "rows": rows,
        "figures": figures,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_say_how_much_is_missing() {
        let both = (Some(30.0), Some(10.0));
        let of = |goal| verdict(goal, both.0, both.1);
        assert_eq!(of(Goal::RatioAtLeast(3.0)), "PASS");
        assert_eq!(of(Goal::RatioAtLeast(4.0)), "short by 25 %");
        assert_eq!(of(Goal::RatioAtMost(2.0)), "over by 50 %");
        assert_eq!(of(Goal::AtMost(30.0)), "PASS");
        assert_eq!(of(Goal::AtLeast(40.0)), "short by 25 %");
        assert_eq!(verdict(Goal::RatioAtLeast(1.0), Some(1.0), None), "not compared");
        assert_eq!(verdict(Goal::AtLeast(1.0), None, None), "not measured");
    }

    #[test]
    fn rounds_become_one_number_and_numbers_are_readable() {
        assert_eq!(summary(vec![3.0, 1.0, 2.0], Over::Median), Some(2.0));
        assert_eq!(summary(vec![4.0, 1.0], Over::Median), Some(2.5));
        assert_eq!(summary(vec![4.0, 1.0], Over::Most), Some(4.0));
        assert_eq!([0.456, 12.34, 123.4, 1_234_567.0].map(number), ["0.46", "12.3", "123", "1,234,567"]);
    }
}
