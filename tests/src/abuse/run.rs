//! One run of one scenario: quiet, the attack, and what is left of the cluster after it.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;

use super::{
    Expect, Hurt, Row, Scenario, Told,
    bystander::Bystander,
    memory::Watcher,
    stage::{self, Stage},
};
use crate::clock;

/// How long the quiet before the attack is measured.
const QUIET: Duration = Duration::from_secs(2);
/// The bystander goes on for a while after the attack: what was left behind may hurt too.
const AFTER: Duration = Duration::from_secs(1);
/// When the run takes something away: after the attacking process has begun.
const HURT_AFTER: Duration = Duration::from_secs(1);

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What happens.
    pub scenario: &'static Scenario,
    /// How long the attack lasts.
    pub seconds: u64,
    /// Where `tenured` is; `None`: of the running profile, built when it is missing or stale.
    pub bin_dir: Option<PathBuf>,
}

/// Runs it. An error of the run itself is in the row, and fails it: nothing was shown.
pub async fn run(plan: &Plan) -> Row {
    let mut row = Row::of(plan.scenario);
    say(plan.scenario, plan.scenario.what);
    match attempt(plan, &mut row).await {
        Ok(()) => {}
        Err(Stop::Skip(why)) => row.skipped = Some(why),
        Err(Stop::Fail(error)) => row.wrong.push(format!("the run broke off: {error:#}")),
    }
    for remark in &row.remarks {
        say(plan.scenario, remark);
    }
    row
}

enum Stop {
    Skip(String),
    Fail(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Fail(error.into())
    }
}

fn say(scenario: &Scenario, text: &str) {
    println!("{:<4} {}: {text}", scenario.row, scenario.name);
}

async fn attempt(plan: &Plan, row: &mut Row) -> Result<(), Stop> {
    let Plan { scenario, seconds, bin_dir } = plan;
    let mut stage = match Stage::prepare(scenario, bin_dir.as_deref()) {
        Ok(stage) => stage,
        Err(error) if scenario.setup.disk_mib.is_some() => return Err(Stop::Skip(format!("{error:#}"))),
        Err(error) => return Err(error.into()),
    };
    if let Some(said) = stage.start().await? {
        refused_to_start(scenario, &said, row);
        stage.cluster.passed()?;
        return Ok(());
    }
    if scenario.setup.leases > 0 {
        say(scenario, &format!("puts {} leases there", scenario.setup.leases));
        stage.fill(scenario.setup.leases).await.context("the leases before the attack")?;
    }
    let (leader, term) = (stage.raft_leader().await?, stage.term().await);
    let victims = stage.victims(scenario.setup.hurt, leader);

    let addrs: Vec<String> = stage.cluster.replicas.iter().map(|replica| replica.client.addr()).collect();
    let (bystander, begun) = (Bystander::spawn(&addrs).await?, clock::now());
    tokio::time::sleep(QUIET).await;
    let quiet = bystander.since(begun, &[]);
    let before = stage.takes()?;
    row.figures.quiet_worst_ms = millis(quiet.worst);
    row.figures.quiet_mib = before.iter().map(|(memory, _)| memory >> 20).collect();
    say(scenario, &format!("quiet: worst renewal {} ms, {:?} MiB; attacks for {seconds} s", row.figures.quiet_worst_ms, row.figures.quiet_mib));

    let watcher = Watcher::spawn(stage.watched()?, scenario.setup.memory_mib.map(|mib| mib << 20));
    let (orders, begun) = (stage.orders(scenario, leader, *seconds), clock::now());
    let taking = async {
        if scenario.setup.hurt != Hurt::Nothing {
            tokio::time::sleep(HURT_AFTER).await;
            stage.disks.take(scenario.setup.hurt, &victims).context("takes space or inodes")?;
        }
        anyhow::Ok(())
    };
    let (told, taken) = tokio::join!(stage::attack(&orders), taking);
    let over = clock::now();
    taken?;
    stage.disks.give_back(&victims)?;

    let ended = stage.ended()?;
    row.figures.ended = ended.len();
    let refused = stage.start_again(&ended).await?;
    if !ended.is_empty() {
        let ids: Vec<usize> = ended.iter().map(|at| at + 1).collect();
        row.remarks.push(format!("replicas {ids:?} had ended; started again: {} of {}", ended.len() - refused.len(), ended.len()));
        row.wrong.extend(refused.iter().map(|why| format!("does not start again: {}", why.replace('\n', " "))));
    }
    row.figures.back_s = if refused.is_empty() { stage.serves_again(over).await.map(|back| back.as_secs_f64()) } else { None };
    tokio::time::sleep(AFTER).await;
    let seen = bystander.since(begun, if scenario.expect == Expect::VictimsMayStop { &victims } else { &[] });
    let figures = &mut row.figures;
    (figures.median_ms, figures.worst_ms) = (millis(seen.median), millis(seen.worst));
    (figures.calls, figures.failed, figures.lost) = (seen.calls, seen.failed, seen.lost);
    let most = watcher.most();
    let above = |(most, before): (u64, u64)| most.saturating_sub(before) >> 20;
    figures.above_mib = most.iter().zip(&before).map(|(most, before)| above((most.resident, before.0))).max().unwrap_or(0);
    figures.disk_mib = most.iter().zip(&before).map(|(most, before)| above((most.disk, before.1))).max().unwrap_or(0);
    row.judge(scenario);
    told_and_left(&stage, told, term, row).await?;
    if let Err(error) = stage.cluster.passed() {
        row.wrong.push(format!("{error:#}"));
    }
    Ok(())
}

/// What the attacking process says, and what is left in the cluster.
async fn told_and_left(stage: &Stage, told: anyhow::Result<Told>, term: Option<u64>, row: &mut Row) -> anyhow::Result<()> {
    match told {
        Ok(Told { counts, complaints, acknowledged }) => {
            row.remarks.push(counts.clone());
            row.told = counts;
            row.wrong.extend(complaints);
            // Whoever is down has said so above.
            if row.figures.back_s.is_some() {
                row.wrong.extend(stage.missing(&acknowledged).await?);
            }
        }
        Err(error) => row.wrong.push(format!("{error:#}")),
    }
    if let (Some(before), Some(now)) = (term, stage.term().await)
        && before != now
    {
        row.remarks.push(format!("term {before} before the attack, {now} after it: there were elections"));
    }
    Ok(())
}

/// Every replica ended instead of serving: right if that is allowed, and if it says why.
fn refused_to_start(scenario: &Scenario, said: &[String], row: &mut Row) {
    let names_it = |text: &String| text.contains("descriptor") || text.contains("open files");
    if scenario.expect == Expect::YardstickOrRefusal && said.iter().all(names_it) {
        row.remarks.push(format!("refused to start, as it may: {}", said.first().and_then(|text| text.lines().last()).unwrap_or_default()));
        row.figures.back_s = Some(0.0);
    } else {
        row.wrong.extend(said.iter().map(|text| format!("ended instead of serving: {}", text.replace('\n', " "))));
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
