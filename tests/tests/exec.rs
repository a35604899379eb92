//! `tenure exec`: its command runs only under the lease, whatever is killed, stopped or cut off.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tenure_tests::{
    Cluster, Tool, api, binaries, clock,
    clock::Rng,
    elector::{Belief, judge},
    replica::PATIENCE,
    v1::{self, lease::State},
};

const RUNNER: &str = env!("CARGO_BIN_EXE_runner");

async fn lease(cluster: &Cluster, name: &str) -> anyhow::Result<v1::Lease> {
    let request = v1::GetRequest { namespace: "default".into(), name: name.into(), ..Default::default() };
    Ok(cluster.api().lease.get(request).await?.into_inner().lease.unwrap_or_default())
}

/// Waits until the lease is as wanted; nobody tells.
async fn becomes(cluster: &Cluster, name: &str, what: &str, wanted: impl Fn(&v1::Lease) -> bool) -> anyhow::Result<v1::Lease> {
    let begun = clock::now();
    let mut seen = None;
    while clock::since(begun) < PATIENCE {
        // It may not be there yet, or no raft leader.
        seen = lease(cluster, name).await.ok().or(seen);
        if let Some(lease) = seen.as_ref().filter(|lease| wanted(lease)) {
            return Ok(lease.clone());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("{name} has not become {what} within {PATIENCE:?}: {seen:?}")
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("paths of tests are text")
}

async fn pid(tool: &Tool) -> anyhow::Result<Pid> {
    let pid = tool.line("pid", |line| line.strip_prefix("pid ")?.parse().ok()).await?;
    Pid::from_raw(pid).context("a process has an id")
}

/// Zombies that nobody has buried are gone too.
async fn gone(pid: Pid) -> anyhow::Result<()> {
    let status = format!("/proc/{}/status", pid.as_raw_nonzero());
    let begun = clock::now();
    while clock::since(begun) < PATIENCE {
        if fs::read_to_string(&status).map_or(true, |status| status.contains("State:\tZ")) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    anyhow::bail!("{pid:?} lives on")
}

#[tokio::test]
async fn command_sees_its_lease_and_its_exit_code_is_passed_on() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-plain").await?;
    let print = "echo $TENURE_LEASE $TENURE_HOLDER $TENURE_TOKEN; exit 7";
    let ended = Tool::start(&cluster, &["exec", "job", "--holder", "me", "--", "sh", "-c", print])?.ended().await?.exited(7)?;
    let after = lease(&cluster, "job").await?;
    ensure!(ended.out == format!("default/job me {}\n", after.token), "{ended:?}");
    ensure!(after.state() == State::Free && after.last_holder == "me", "it was not released: {after:?}");

    let mut cat = Tool::start(&cluster, &["exec", "job", "--", "cat"])?;
    cat.type_in("through stdin\n").await?;
    ensure!(cat.ended().await?.exited(0)?.out == "through stdin\n");

    Tool::start(&cluster, &["exec", "job", "--", "sh", "-c", "kill -TERM $$"])?.ended().await?.exited(143)?;
    let missing = Tool::start(&cluster, &["exec", "job", "--", "no-such-command"])?.ended().await?.exited(127)?;
    ensure!(missing.err.contains("no-such-command: no such command") && missing.err.contains("change CMD"), "{missing:?}");
    let plain = cluster.dir().join("plain-file");
    fs::write(&plain, "no program")?;
    Tool::start(&cluster, &["exec", "job", "--", text(&plain)?])?.ended().await?.exited(126)?;
    // Found at the time of asking, and not for this machine.
    fs::write(&plain, "#!/no/such/interpreter\n")?;
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o755))?;
    Tool::start(&cluster, &["exec", "job", "--", text(&plain)?])?.ended().await?.exited(127)?;
    ensure!(lease(&cluster, "job").await?.state() == State::Free);

    let wrong = Tool::start(&cluster, &["exec", "job", "--duration", "2s", "--stop-before", "3s", "--", "true"])?.ended().await?.exited(125)?;
    ensure!(wrong.err.contains("--stop-before"), "{wrong:?}");
    let alone = ["exec", "job", "--no-wait", "--endpoints", "127.0.0.1:1", "--timeout", "300ms", "--", "true"];
    let alone = Tool::start(&cluster, &alone)?.ended().await?.exited(125)?;
    ensure!(alone.err.contains("--endpoints"), "{alone:?}");
    cluster.passed()
}

#[tokio::test]
async fn command_is_not_run_while_somebody_else_holds_the_lease() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-denied").await?;
    let held = cluster.api().grant(api::acquire("default", "job", "other", 60_000)).await?;
    let refused = Tool::start(&cluster, &["exec", "job", "--no-wait", "--", "echo", "ran"])?.ended().await?.exited(121)?;
    ensure!(refused.out.is_empty() && refused.err.contains("is held by other") && refused.err.contains("--wait"), "{refused:?}");
    let late = ["exec", "job", "--wait", "300ms", "--conflict-exit-code", "0", "--", "echo", "ran"];
    let late = Tool::start(&cluster, &late)?.ended().await?.exited(0)?;
    ensure!(late.out.is_empty() && late.err.contains("not run: after a wait of 300ms") && !late.err.contains("error"), "{late:?}");

    // Whoever stops waiting leaves no place behind, and by default nobody does.
    let gives_up = Tool::start(&cluster, &["exec", "job", "--", "echo", "ran"])?;
    gives_up.says("waiting for default/job: position 1, held by other").await?;
    let waits = Tool::start(&cluster, &["exec", "job", "--", "echo", "ran"])?;
    waits.says("position 2").await?;
    gives_up.signal(Signal::TERM)?;
    ensure!(gives_up.ended().await?.exited(143)?.out.is_empty());
    waits.says("position 1").await?;
    ensure!(lease(&cluster, "job").await?.waiters == 1);
    let release = v1::ReleaseRequest { namespace: "default".into(), name: "job".into(), token: held.token, ..Default::default() };
    cluster.api().lease.release(release).await?;
    ensure!(waits.ended().await?.exited(0)?.out == "ran\n");
    cluster.passed()
}

#[tokio::test]
async fn signals_reach_all_of_the_command() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-signals").await?;
    // Two shells, each with something in the foreground, so that only a signal to the group is heard by both.
    let shell = "for s in INT HUP QUIT USR1 USR2; do trap \"echo $0 $s\" $s; done; trap 'echo $0 TERM; exit 9' TERM; echo $0 ready; \
                 [ $0 = outer ] && sh -c \"$LOOP\" inner & while :; do sleep 0.05; done";
    // These tests may themselves run where signals are ignored (under nohup, say); what is ignored from the start stays so.
    let mut command = tokio::process::Command::new("env");
    command.arg("--default-signal").arg(binaries::tenure()?);
    command.env("TENURE_ENDPOINTS", cluster.endpoints()).env("LOOP", shell).args(["exec", "job", "--", "sh", "-c", shell, "outer"]);
    let tool = Tool::spawn(command)?;
    let both = async |word: &'static str| {
        for shell in ["outer", "inner"] {
            tool.line(&format!("{shell} {word}"), |line| (line == format!("{shell} {word}")).then_some(())).await?;
        }
        anyhow::Ok(())
    };
    both("ready").await?;
    for (signal, word) in [(Signal::HUP, "HUP"), (Signal::USR1, "USR1"), (Signal::USR2, "USR2"), (Signal::QUIT, "QUIT"), (Signal::INT, "INT")] {
        tool.signal(signal)?;
        // What runs in the background of a shell ignores INT and QUIT.
        if matches!(word, "INT" | "QUIT") {
            tool.line(word, |line| (line == format!("outer {word}")).then_some(())).await?;
        } else {
            both(word).await?;
        }
    }
    tool.signal(Signal::TERM)?;
    both("TERM").await?;
    tool.ended().await?.exited(9)?;
    ensure!(lease(&cluster, "job").await?.state() == State::Free);

    // As under nohup: what is ignored from the start stays so, for the command too.
    let mut command = tokio::process::Command::new("sh");
    let nohup = "trap '' HUP; exec \"$0\" exec job -- sh -c 'trap \"echo USR1\" USR1; echo ready; while :; do sleep 0.05; done'";
    command.env("TENURE_ENDPOINTS", cluster.endpoints()).args(["-c", nohup]).arg(binaries::tenure()?);
    let tool = Tool::spawn(command)?;
    tool.line("ready", |line| (line == "ready").then_some(())).await?;
    tool.signal(Signal::HUP)?;
    tool.signal(Signal::USR1)?;
    tool.line("USR1", |line| (line == "USR1").then_some(())).await?;
    tool.signal(Signal::TERM)?;
    tool.ended().await?.exited(143)?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_is_told_to_stop_and_then_killed_before_the_lease_can_be_somebody_elses() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("exec-lost").await?;
    let (stubborn_file, polite_file) = (cluster.dir().join("stubborn"), cluster.dir().join("polite"));
    let duration = Duration::from_secs(6);
    let stubborn = Tool::start(&cluster, &["exec", "stubborn", "--duration", "6s", "--", RUNNER, text(&stubborn_file)?, "120000"])?;
    let polite = Tool::start(&cluster, &["exec", "polite", "--duration", "6s", "--", RUNNER, text(&polite_file)?, "120000", "polite"])?;
    let (pid_of_stubborn, _) = (pid(&stubborn).await?, pid(&polite).await?);
    cluster.kill_all()?;
    // No renewal was sent and answered after this.
    let killed = clock::now();
    let told = stubborn.line("TERM", |line| line.strip_prefix("TERM ")?.parse::<u64>().ok()).await?;
    let stubborn = stubborn.ended().await?.exited(122)?;
    ensure!(stubborn.err.contains("the command was killed") && stubborn.err.contains("default/stubborn is lost"), "{stubborn:?}");
    gone(pid_of_stubborn).await?;
    let last = judge(&[stubborn_file])?.last().context("it ran")?.to;
    println!("told {:?} and gone {:?} after the last replica", Duration::from_nanos(told - killed), Duration::from_nanos(last - killed));
    ensure!(last < killed + clock::nanos(duration), "it ran when somebody else could hold the lease");
    ensure!(told + 200_000_000 < last, "it had no time to stop by itself");
    let polite = polite.ended().await?.exited(122)?;
    ensure!(polite.err.contains("the command was stopped with TERM"), "{polite:?}");
    ensure!(judge(&[polite_file])?.last().context("it ran")?.to < last, "who listens has ended first");

    // What an operator ends may be somebody else's already: no time to stop in.
    cluster.start_all().await?;
    let revoked = Tool::start(&cluster, &["exec", "revoked", "--", RUNNER, text(&cluster.dir().join("revoked"))?, "120000"])?;
    pid(&revoked).await?;
    Tool::start(&cluster, &["delete", "revoked", "--force"])?.ended().await?.exited(0)?;
    let revoked = revoked.ended().await?.exited(122)?;
    ensure!(revoked.err.contains("REVOKED") && !revoked.out.contains("TERM"), "{revoked:?}");
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_runner_that_wakes_up_is_stopped_and_its_late_write_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-paused").await?;
    let report = cluster.dir().join("report");
    let run = |file: &Path| {
        let file = text(file)?.to_owned();
        Tool::start(&cluster, &["exec", "job", "--duration", "5s", "--", RUNNER, &file, "120000", "polite", "fenced", text(&report)?])
    };
    let (first_file, second_file) = (cluster.dir().join("first"), cluster.dir().join("second"));
    let wrote = |line: &str| line.strip_prefix("wrote ")?.parse::<u64>().ok();
    let first = run(&first_file)?;
    let (command, old) = (pid(&first).await?, first.line("wrote", wrote).await?);
    let second = run(&second_file)?;
    second.says("position 1").await?;
    // As a paused machine: all of it.
    first.signal(Signal::STOP)?;
    kill_process(command, Signal::STOP)?;
    let new = second.line("wrote", wrote).await?;
    ensure!(new > old);
    // The worst order of waking up: the command goes on, and nobody who would stop it.
    kill_process(command, Signal::USR1)?;
    kill_process(command, Signal::CONT)?;
    first.line("refused", |line| (line == format!("refused {old}")).then_some(())).await?;
    ensure!(fs::read_to_string(&report)? == format!("by {new}"), "the late write was done");
    first.signal(Signal::CONT)?;
    let first = first.ended().await?.exited(122)?;
    ensure!(first.err.contains("the command was killed"), "{first:?}");
    gone(command).await?;
    second.signal(Signal::TERM)?;
    second.ended().await?.exited(3)?;
    ensure!(fs::read_to_string(&report)? == format!("by {new}"));
    cluster.passed()
}

#[tokio::test]
async fn killed_exec_takes_its_command_along() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-killed").await?;
    let tool = Tool::start(&cluster, &["exec", "job", "--duration", "3s", "--", RUNNER, text(&cluster.dir().join("runs"))?, "120000"])?;
    let command = pid(&tool).await?;
    tool.signal(Signal::KILL)?;
    gone(command).await?;
    becomes(&cluster, "job", "free for the next", |lease| lease.state() == State::Expired).await?;
    cluster.passed()
}

async fn round(cluster: &mut Cluster, rng: &mut Rng, args: &[&str]) -> anyhow::Result<Vec<i32>> {
    let mut hosts = tokio::task::JoinSet::new();
    let endpoints = cluster.endpoints();
    for _ in 0..5 {
        let late = Duration::from_millis(rng.below(500));
        let mut command = tokio::process::Command::new(binaries::tenure()?);
        command.env("TENURE_ENDPOINTS", &endpoints).args(["exec", "cron"]).args(args);
        hosts.spawn(async move {
            // Clocks differ.
            tokio::time::sleep(late).await;
            Tool::spawn(command)?.ended_within(5 * PATIENCE).await
        });
    }
    let mut codes = Vec::new();
    while !hosts.is_empty() {
        let id = 1 + rng.below(3);
        cluster.replica(id)?.kill()?;
        tokio::time::sleep(Duration::from_millis(100 + rng.below(400))).await;
        cluster.start_all().await?;
        while let Some(ended) = hosts.try_join_next() {
            let ended = ended??;
            ensure!(matches!(ended.status.code(), Some(0 | 121)), "{ended:?}");
            codes.extend(ended.status.code());
        }
    }
    codes.sort_unstable();
    Ok(codes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cron_job_on_five_hosts_runs_once_a_round_while_replicas_are_killed() -> anyhow::Result<()> {
    let mut rng = Rng::seeded("exec-cron");
    let mut cluster = Cluster::three("exec-cron").await?;
    let file = cluster.dir().join("runs");
    let rounds = if std::env::var_os("TENURE_TEST_LONG").is_some() { 30 } else { 4 };
    let mut runs = 0;
    for number in 0..rounds {
        let codes = round(&mut cluster, &mut rng, &["--no-wait", "--min-hold", "60s", "--", RUNNER, text(&file)?, "300"]).await?;
        ensure!(codes == [0, 121, 121, 121, 121], "round {number}: {codes:?}");
        runs += 1;
        let all = judge(std::slice::from_ref(&file))?;
        ensure!(all.len() == runs, "round {number}: {all:?}");
        let Belief { token, .. } = *all.last().context("there was a run")?;
        // Nobody runs any more, and the lease is held for whoever is late.
        let held = becomes(&cluster, "cron", "held on", |lease| lease.state() == State::Held).await?;
        ensure!(held.token == token && api::to_millis(held.expires_in.as_ref()) > 30_000, "{held:?}");
        Tool::start(&cluster, &["release", "cron", "--token", &token.to_string()])?.ended().await?.exited(0)?;
    }
    // And each in turn, when all are to run.
    let codes = round(&mut cluster, &mut rng, &["--", RUNNER, text(&file)?, "300"]).await?;
    let all = judge(&[file])?;
    ensure!(codes == [0; 5] && all.len() == runs + 5, "{codes:?} {all:?}");
    cluster.passed()
}

/// `script` makes a terminal and types what it reads.
fn at_a_terminal(cluster: &Cluster, line: &str) -> anyhow::Result<Tool> {
    // These tests may themselves run where SIGINT is ignored (in the background of a script, say), and what is ignored from the start stays so.
    let mut command = tokio::process::Command::new("env");
    command.args(["--default-signal", "script"]);
    let folder = binaries::tenure()?.parent().context("it is in a folder")?.to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH")?);
    command.env("TENURE_ENDPOINTS", cluster.endpoints()).env("PATH", path).env("SHELL", "/bin/sh").args(["-qfec", line, "/dev/null"]);
    Tool::spawn(command)
}

#[tokio::test]
async fn terminal_stays_usable() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-terminal").await?;
    let mut tool = at_a_terminal(&cluster, "tenure exec a -- sh -c 'echo ready; read line; echo got:$line'; echo next; read after; echo then:$after; exit 4")?;
    tool.line("ready", |line| line.starts_with("ready").then_some(())).await?;
    tool.type_in("hello\n").await?;
    tool.line("got", |line| line.starts_with("got:hello").then_some(())).await?;
    // The script that it was in reads on.
    tool.line("next", |line| line.starts_with("next").then_some(())).await?;
    tool.type_in("world\n").await?;
    tool.line("then", |line| line.starts_with("then:world").then_some(())).await?;
    tool.ended().await?.exited(4)?;

    // Ctrl-C, before and after the command has asked for the terminal.
    for read in [":", "read line"] {
        let line = format!("exec tenure exec b -- sh -c 'trap \"echo interrupted; exit 5\" INT; echo ready; {read}; echo on; while :; do sleep 0.05; done'");
        let mut tool = at_a_terminal(&cluster, &line)?;
        tool.line("ready", |line| line.starts_with("ready").then_some(())).await?;
        if read != ":" {
            tool.type_in("x\n").await?;
        }
        tool.line("on", |line| line.starts_with("on").then_some(())).await?;
        tool.type_in("\u{3}").await?;
        tool.line("interrupted", |line| line.contains("interrupted").then_some(())).await?;
        tool.ended().await?.exited(5)?;
    }
    cluster.passed()
}

#[tokio::test]
async fn command_that_was_stopped_at_the_terminal_goes_on_only_under_its_lease() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-fg").await?;
    let mut shell = at_a_terminal(&cluster, "bash --norc --noprofile -i")?;
    let number = |line: &str| line.trim_end().rsplit_once("tick").and_then(|(_, number)| number.parse::<u64>().ok());
    let last = |shell: &Tool| shell.printed().lines().filter_map(number).max().unwrap_or_default();
    shell.type_in("tenure exec job --duration 10s -- sh -c 'i=0; while :; do i=$((i+1)); echo tick$i; sleep 0.1; done'\n").await?;
    shell.line("tick", |line| number(line).filter(|number| *number > 2)).await?;
    shell.type_in("\u{1a}").await?;
    shell.line("Stopped", |line| line.contains("Stopped").then_some(())).await?;
    let before = last(&shell);
    shell.type_in("fg\n").await?;
    shell.line("another tick", |line| number(line).filter(|number| *number > before + 2)).await?;
    shell.type_in("\u{1a}").await?;
    // Read by the shell once it is in the foreground again.
    shell.type_in("echo at the $((1+1))nd prompt\n").await?;
    shell.line("the second stop", |line| line.contains("at the 2nd prompt").then_some(())).await?;
    let before = last(&shell);
    becomes(&cluster, "job", "somebody else's to take", |lease| lease.state() == State::Expired).await?;
    shell.type_in("fg\n").await?;
    shell.line("the loss", |line| line.contains("default/job is lost").then_some(())).await?;
    shell.type_in("echo code $?\n").await?;
    shell.line("its exit code", |line| line.contains("code 122").then_some(())).await?;
    ensure!(last(&shell) == before, "it went on without its lease: {}", shell.printed());
    shell.type_in("exit\n").await?;
    shell.ended().await?;
    cluster.passed()
}
