//! Tenure beside etcd, in turns on the same machine and disk: never both under load, each measurement on a new cluster.

mod plots;
mod rows;
mod table;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};

use self::{
    rows::{Row, Sizes},
    table::Line,
};
use crate::{cli::Setup, clock, cluster::Target, lab::Lab, load::Plan, report::Figure, scenario::Case, usage};

/// See the module. `--seconds` is of each load; `--rounds` as they are, but two at least.
#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// Only these groups of rows, comma-separated.
    #[arg(long, value_delimiter = ',', value_name = "GROUP", value_parser = rows::GROUPS)]
    rows: Vec<String>,
    /// A minute's worth of everything at sizes that say nothing about speed: does it work, is every answer right?
    #[arg(long)]
    quick: bool,
    /// Load Tenure for so long at the end, and see whether its raft leader stays; half an hour is what the goal asks for.
    #[arg(long, default_value_t = 0, value_name = "N")]
    soak_minutes: u64,
    /// Where compare.json, compare.md and the plots go.
    #[arg(long, default_value = "target/tenure-bench", value_name = "DIR")]
    out: PathBuf,
}

/// What was measured, in the order in which it was.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) case: Case,
    pub(crate) figure: Figure,
}

/// What came to no figure: the others are measured all the same, and its rows say so.
#[derive(Debug)]
struct Failed {
    case: Case,
    target: Target,
    error: String,
}

/// What has come of everything so far.
#[derive(Debug, Default)]
struct Results {
    measured: Vec<Measured>,
    failed: Vec<Failed>,
}

impl Results {
    async fn add(&mut self, case: &Case, target: Target, plan: Plan, lab: &Lab, when: &str) {
        let one = one(case, target, plan, lab, when).await.and_then(|one| check(case, &one.figure).map(|()| one));
        match one {
            Ok(one) => self.measured.push(one),
            Err(error) => {
                let error = format!("{error:#}");
                eprintln!("  FAILED: {error}");
                self.failed.push(Failed { case: case.clone(), target, error });
            }
        }
    }
}

impl Compare {
    pub(crate) async fn run(&self, lab: &Lab, setup: &Setup) -> anyhow::Result<()> {
        let begun = clock::now();
        let sizes = if self.quick { Sizes::QUICK } else { Sizes::FULL };
        let wanted = |group: &str| self.rows.is_empty() || self.rows.iter().any(|name| name == group);
        let rows: Vec<Row> = rows::all(&sizes).into_iter().filter(|row| wanted(row.group)).collect();
        let mut targets = vec![Target::Tenure];
        match &setup.etcd_bin {
            Some(_) => targets.push(Target::Etcd),
            None => eprintln!("no --etcd-bin: etcd's column stays empty, and nothing is compared"),
        }
        let setting = Setting::new(&targets, lab, setup)?;
        eprintln!("{}", setting.line());
        let plan = match self.quick {
            true => Plan { warm_up: Duration::from_millis(200), time: Duration::from_millis(500), rate: None },
            false => Plan { warm_up: Duration::from_secs(1), time: Duration::from_secs(setup.seconds), rate: None },
        };
        let rounds = if self.quick { 1 } else { setup.rounds.max(2) };
        let mut results = Results::default();
        measure(&mut results, &rows, &targets, rounds, plan, lab).await;
        if wanted("plots") {
            for target in &targets {
                for case in plots::cases(&sizes, *target) {
                    results.add(&case, *target, plan, lab, "for the plots").await;
                }
            }
        }
        if self.soak_minutes > 0 {
            let (case, plan) = (rows::soak(), Plan { time: Duration::from_secs(self.soak_minutes * 60), ..plan });
            results.add(&case, Target::Tenure, plan, lab, "at length").await;
        }
        let Results { measured, failed } = results;
        let mut lines: Vec<Line> = rows.iter().map(|row| Line::new(row, &measured, &failed, self.quick)).collect();
        lines.push(Line::elections(&measured));
        print!("\n{}\n\n{}", setting.line(), table::text(&lines));
        fs::create_dir_all(&self.out).with_context(|| format!("no folder {}", self.out.display()))?;
        let (json, markdown) = (table::json(&lines, &measured, &setting), table::markdown(&lines, &setting));
        fs::write(self.out.join("compare.json"), format!("{json:#}\n"))?;
        fs::write(self.out.join("compare.md"), markdown)?;
        for (file, plot) in plots::all(&sizes, &measured) {
            fs::write(self.out.join(file), plot.svg())?;
        }
        let (count, seconds) = (measured.len(), begun.passed().as_secs());
        println!("\n{count} measurements in {seconds} s; compare.json, compare.md and plots are in {}", self.out.display());
        for Failed { case, target, error } in &failed {
            eprintln!("FAILED: {target}: {}: {error}", case.what(*target));
        }
        ensure!(failed.is_empty(), "{} of {} measurements failed", failed.len(), failed.len() + count);
        Ok(())
    }
}

/// What it is measured on, and what of.
#[derive(Debug)]
pub(crate) struct Setting {
    machine: String,
    file_system: String,
    versions: Vec<String>,
    seconds: u64,
}

impl Setting {
    fn new(targets: &[Target], lab: &Lab, setup: &Setup) -> anyhow::Result<Self> {
        let versions = targets.iter().map(|target| lab.binaries.version(*target)).collect::<anyhow::Result<_>>()?;
        let file_system = lab.binaries.file_system();
        if file_system.contains("memory") {
            eprintln!("data will be in memory, where fsync costs nothing: name a folder on a disk (--data-dir)");
        }
        Ok(Self { machine: usage::machine(), file_system, versions, seconds: setup.seconds })
    }

    fn line(&self) -> String {
        format!("{}; {}; data on {}", self.versions.join(" and "), self.machine, self.file_system)
    }
}

/// Row group by row group, so that what is compared is near in time; in each, the targets in turns.
async fn measure(results: &mut Results, rows: &[Row], targets: &[Target], rounds: u32, plan: Plan, lab: &Lab) {
    let mut groups: Vec<&str> = rows.iter().map(|row| row.group).collect();
    groups.dedup();
    for group in groups {
        for round in 1..=rounds {
            for target in targets {
                let mut cases: Vec<&Case> = Vec::new();
                for case in rows.iter().filter(|row| row.group == group).flat_map(|row| row.cases(*target)) {
                    if !cases.contains(&case) {
                        cases.push(case);
                    }
                }
                for case in cases {
                    results.add(case, *target, plan, lab, &format!("round {round} of {rounds}")).await;
                }
            }
        }
    }
}

async fn one(case: &Case, target: Target, plan: Plan, lab: &Lab, when: &str) -> anyhow::Result<Measured> {
    eprintln!("{when}, {target}: {}", case.what(target));
    let mut cluster = lab.new_cluster(target).await?;
    let figure = case.run(&mut cluster, plan).await.with_context(|| format!("{target}: {}", case.what(target)))?;
    eprintln!("  {}", figure.line());
    Ok(Measured { case: case.clone(), figure })
}

/// That it measured anything: what holds at any speed.
fn check(case: &Case, figure: &Figure) -> anyhow::Result<()> {
    let n = figure.latency.as_ref().map_or(0, hdrhistogram::Histogram::len);
    ensure!(n > 0, "{}: nothing was measured", figure.what);
    if let Case::Failover { times } | Case::Transfer { times } | Case::Expiry { times } = case {
        ensure!(n == *times as u64, "{}: {n}", figure.what);
    }
    Ok(())
}
