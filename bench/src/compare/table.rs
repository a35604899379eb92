//! The rows with their numbers and verdicts: as text, as Markdown, as JSON.

use serde_json::{Value, json};

use super::{
    Measured,
    rows::{Goal, Over, Row},
};
use crate::{cli::Setup, cluster::Target, lab::Lab, usage};

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
    pub(super) fn new(row: &Row, measured: &[Measured], quick: bool) -> Self {
        let value = |target| {
            let side = row.side(target)?;
            let of = measured.iter().filter(|one| one.figure.target == target && one.case == side.case);
            summary(of.filter_map(|one| one.figure.value(side.value)).collect(), row.over)
        };
        let (tenure, etcd) = (value(Target::Tenure), value(Target::Etcd));
        let verdict = if quick { "not judged".to_owned() } else { verdict(row.goal, tenure, etcd) };
        Self { title: row.title.clone(), unit: row.unit, tenure, etcd, goal: row.goal, verdict }
    }

    fn ratio(&self) -> Option<f64> {
        Some(self.tenure? / self.etcd?)
    }

    fn cells(&self) -> [String; 6] {
        let value = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{} {}", number(value), self.unit).replace(" /s", "/s"));
        let ratio = self.ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{}×", number(ratio)));
        [self.title.clone(), value(self.tenure), value(self.etcd), ratio, goal(self.goal, self.unit), self.verdict.clone()]
    }
}

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
        Goal::AtLeast(value) => format!("≥ {} {unit}", number(value)).replace(" /s", "/s"),
        Goal::AtMost(value) => format!("≤ {} {unit}", number(value)),
        Goal::None => "–".to_owned(),
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

pub(super) fn markdown(lines: &[Line]) -> String {
    let mut out = format!("| {} |\n|---|--:|--:|--:|--:|---|\n", HEAD.join(" | "));
    for line in lines {
        out.push_str(&format!("| {} |\n", line.cells().join(" | ")));
    }
    out
}

pub(super) fn json(lines: &[Line], measured: &[Measured], lab: &Lab, setup: &Setup) -> Value {
    let rows: Vec<Value> = lines
        .iter()
        .map(|line| {
            let (ratio, goal) = (line.ratio(), goal(line.goal, line.unit));
            json!({ "what": line.title, "unit": line.unit, "tenure": line.tenure, "etcd": line.etcd, "ratio": ratio, "goal": goal, "verdict": line.verdict })
        })
        .collect();
    let figures: Vec<Value> = measured.iter().map(|one| one.figure.json()).collect();
    let dir = lab.binaries.dir.clone().unwrap_or_else(std::env::temp_dir);
    json!({
        "machine": usage::machine(),
        "file_system": usage::file_system(&dir),
        "seconds": setup.seconds,
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
