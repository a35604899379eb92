//! The SDK's examples do what they say, run as programs against a real cluster.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use tenure_tests::{Cluster, binaries, clock, example::Program, replica::PATIENCE};

/// Each has a test below.
const EXAMPLES: [&str; 6] = ["fencing", "fencing_sqlite", "heartbeat", "leader_election", "lock", "members"];

fn start(cluster: &Cluster, example: &str, args: &[&str]) -> anyhow::Result<Program> {
    Program::start(&binaries::examples()?.join(example), &cluster.endpoints(), cluster.dir(), args)
}

async fn output(mut program: Program) -> anyhow::Result<String> {
    let (status, text) = program.ended().await?;
    ensure!(status.success(), "{status}: {text}");
    Ok(text)
}

#[test]
fn every_example_is_run_here_and_short() -> anyhow::Result<()> {
    let mut found = BTreeSet::new();
    for file in std::fs::read_dir(binaries::repository().join("client/examples"))? {
        let path = file?.path();
        let lines = std::fs::read_to_string(&path)?.lines().count();
        ensure!((20..=40).contains(&lines), "{} has {lines} lines: an example has 20 to 40", path.display());
        found.insert(path.file_stem().and_then(|name| name.to_str()).context("a name")?.to_owned());
    }
    ensure!(found.iter().map(String::as_str).eq(EXAMPLES), "{found:?} are there, and {EXAMPLES:?} are tested");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_writes_of_the_fencing_examples_are_refused() -> anyhow::Result<()> {
    let cluster = Cluster::three("examples-fencing").await?;
    let text = output(start(&cluster, "fencing", &[])?).await?;
    ensure!(text.contains("refused: token ") && text.trim_end().ends_with("says: by the second"), "{text}");

    let database = cluster.dir().join("report.sqlite");
    let run = || start(&cluster, "fencing_sqlite", &[database.to_str().unwrap_or_default()]);
    // The second run finds what the first one left: tokens grow for ever.
    for _ in 0..2 {
        let text = output(run()?).await?;
        let lines: Vec<&str> = text.lines().collect();
        ensure!(lines.len() == 4 && lines[0].ends_with("written true") && lines[1].ends_with("written true"), "{text}");
        ensure!(lines[2].starts_with("late, token ") && lines[2].ends_with("written false"), "{text}");
        ensure!(lines[3] == "the database says: by the second", "{text}");
    }
    ensure!(Path::new(&database).exists());
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_lock_example_waits_for_the_first() -> anyhow::Result<()> {
    let cluster = Cluster::three("examples-lock").await?;
    let mut first = start(&cluster, "lock", &[])?;
    let (_, holding) = first.line("holding it with token").await?;
    let mut second = start(&cluster, "lock", &[])?;
    second.line("we are number 1 in the queue").await?;
    let (done, _) = first.line("the work is done").await?;
    let (begun, holding_too) = second.line("holding it with token").await?;
    // What each prints is read by a thread of its own: so much do the moments differ.
    ensure!(begun + clock::nanos(Duration::from_millis(500)) > done, "before the first was done: {holding}, {holding_too}");
    for program in [first, second] {
        let text = output(program).await?;
        ensure!(text.contains("the work is done") && !text.contains("stop:"), "{text}");
    }
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_example_shows_the_heartbeat_example_come_and_go() -> anyhow::Result<()> {
    let cluster = Cluster::three("examples-members").await?;
    let mut members = start(&cluster, "members", &["zone=a"])?;
    members.line("revision").await?;
    let mut heartbeat = start(&cluster, "heartbeat", &["node-1"])?;
    heartbeat.line("beating with token").await?;
    members.line("node-1 is ready").await?;
    heartbeat.signal(Signal::INT)?;
    output(heartbeat).await?;
    members.line("node-1 has left").await?;
    members.signal(Signal::INT)?;
    output(members).await?;
    cluster.passed()
}

/// The seconds of a lease here: long enough to tell a hand-over from a lease that ran out.
const LEASE: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_election_example_hands_over_at_sigterm_and_outlives_kill_9() -> anyhow::Result<()> {
    let cluster = Cluster::three("examples-election").await?;
    let seconds = LEASE.as_secs().to_string();
    let mut programs = Vec::new();
    for _ in 0..3 {
        let mut program = start(&cluster, "leader_election", &[&seconds])?;
        // The first leads; the others are told so.
        program.line(if programs.is_empty() { "leading with token" } else { " leads (pid " }).await?;
        programs.push(program);
    }
    let killed = clock::now();
    programs.remove(0).kill()?;
    let (at, next) = leads(&mut programs).await?;
    let took = Duration::from_nanos(next - killed);
    println!("kill -9: the next one led {took:?} later, with leases of {LEASE:?}");
    ensure!(took < LEASE + PATIENCE / 6, "{took:?} from kill -9 to the next one");

    let mut leading = programs.remove(at);
    let told = clock::now();
    leading.signal(Signal::TERM)?;
    let (_, next) = leads(&mut programs).await?;
    let took = Duration::from_nanos(next - told);
    println!("SIGTERM: the next one led {took:?} later");
    ensure!(took < LEASE / 2, "{took:?} from SIGTERM to the next one, with leases of {LEASE:?}");
    let (status, text) = leading.ended().await?;
    ensure!(status.success() && text.contains("stopping\nstopped\n") && text.contains("is done: Cancelled"), "{status}: {text}");
    cluster.passed()
}

/// Which of them leads first, and when it said so.
async fn leads(programs: &mut [Program]) -> anyhow::Result<(usize, u64)> {
    let waiting = programs.iter_mut().enumerate().map(|(at, program)| {
        Box::pin(async move {
            let (when, _) = program.line("leading with token").await?;
            anyhow::Ok((at, when))
        })
    });
    Ok(futures::future::select_ok(waiting).await?.0)
}
