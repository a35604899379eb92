//! `tenure exec` and the rest of the command line under whatever their parent has left them: signals that are ignored or blocked, closed descriptors,
//! the first process of a container; and what they leave behind: no process that runs below a lost or stopped runner, and no lease that nobody knows of.

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tenure_tests::{Cluster, Tool, api, binaries, clock, cluster::Settings, replica::PATIENCE, v1, v1::lease::State};
use tokio::process::Command;

async fn lease(cluster: &Cluster, name: &str) -> anyhow::Result<v1::Lease> {
    let request = v1::GetRequest { namespace: "default".into(), name: name.into(), ..Default::default() };
    Ok(cluster.api().lease.get(request).await?.into_inner().lease.unwrap_or_default())
}

/// `tenure`, started through another program and its arguments.
fn through(cluster: &Cluster, program: &str, before: &[&str], args: &[&str]) -> anyhow::Result<Tool> {
    let mut command = Command::new(program);
    command.env("TENURE_ENDPOINTS", cluster.endpoints()).args(before).arg(binaries::tenure()?).args(args);
    Tool::spawn(command)
}

/// A shell script with the path of `tenure` as $0.
fn script(cluster: &Cluster, text: &str) -> anyhow::Result<Tool> {
    through(cluster, "sh", &["-c", text], &[])
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

/// The ids that were written as `WORD N`.
async fn pid(tool: &Tool, word: &str) -> anyhow::Result<Pid> {
    let pid = tool.line(word, |line| line.strip_prefix(word)?.trim().parse().ok()).await?;
    Pid::from_raw(pid).context("a process has an id")
}

#[tokio::test]
async fn exec_ends_with_its_command_whatever_signals_were_ignored_or_blocked_at_its_start() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-inherited").await?;
    for (number, how) in [["--ignore-signal=CHLD"], ["--block-signal=CHLD"], ["--block-signal"], ["--ignore-signal=PIPE"]].iter().enumerate() {
        let name = format!("job-{number}");
        let how = [&["--default-signal"], how.as_slice()].concat();
        let job = ["exec", &name, "--", "sh", "-c", "(exit 3); echo $?; exit 7"];
        let ended = through(&cluster, "env", &how, &job)?.ended().await.with_context(|| format!("{how:?}"))?.exited(7)?;
        ensure!(ended.out == "3\n", "the command does not hear of its own children under {how:?}: {ended:?}");
        ensure!(lease(&cluster, &name).await?.state() == State::Free, "it was not released under {how:?}");

        let job = ["exec", &name, "--", "sh", "-c", "echo ready; sleep 1000 & wait"];
        let tool = through(&cluster, "env", &how, &job)?;
        tool.line("ready", |line| (line == "ready").then_some(())).await?;
        tool.signal(Signal::TERM)?;
        tool.ended().await.with_context(|| format!("{how:?}"))?.exited(143)?;
    }
    cluster.passed()
}

#[tokio::test]
async fn command_begins_with_the_signals_that_its_runner_was_started_with() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-signals-inherited").await?;
    let look = ["--default-signal", "--ignore-signal=HUP", "--ignore-signal=QUIT", "--block-signal=USR1", "--block-signal=WINCH"];
    // What env alone gives it, and what there is between.
    let shown = ["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"];
    let mut plain = Command::new("env");
    plain.args(look).args(shown);
    let plain = Tool::spawn(plain)?.ended().await?.exited(0)?;
    let job = [&["exec", "job", "--"], shown.as_slice()].concat();
    let below = through(&cluster, "env", &look, &job)?.ended().await?.exited(0)?;
    ensure!(plain.out == below.out, "{} is not {}", below.out, plain.out);
    cluster.passed()
}

#[tokio::test]
async fn commands_keep_their_exit_codes_where_descriptors_are_closed_or_full() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-descriptors").await?;
    script(&cluster, "exec $0 exec job -- sh -c 'exit 7' <&- >&- 2>&-")?.ended().await?.exited(7)?;
    // Not 101: a message that cannot be written is no reason to panic.
    script(&cluster, "exec $0 get missing 2>/dev/full")?.ended().await?.exited(1)?;
    script(&cluster, "exec $0 get missing 2>&-")?.ended().await?.exited(1)?;
    script(&cluster, "exec $0 exec job -- no-such-command 2>/dev/full")?.ended().await?.exited(127)?;
    let ended = script(&cluster, "$0 completions bash | head -n 1")?.ended().await?.exited(0)?;
    ensure!(!ended.err.contains("panicked"), "{ended:?}");
    // Others' descriptors are the command's as well.
    let handed = script(&cluster, "exec 7>&1; exec $0 exec job -- sh -c 'echo through 7 >&7'")?.ended().await?.exited(0)?;
    ensure!(handed.out == "through 7\n", "{handed:?}");
    cluster.passed()
}

/// In a PID namespace of its own; `None` where this machine allows none.
fn contained(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Option<Tool>> {
    const BOX: &[&str] = &["--pid", "--fork", "--mount-proc", "--kill-child"];
    let may = |more: &[&str]| std::process::Command::new("unshare").args(more).args(BOX).arg("true").output().is_ok_and(|ended| ended.status.success());
    let more: &[&str] = if may(&[]) {
        &[]
    } else if may(&["--user", "--map-root-user"]) {
        &["--user", "--map-root-user"]
    } else {
        println!("skipped: this machine gives us no PID namespace");
        return Ok(None);
    };
    through(cluster, "env", &[&["--default-signal", "unshare"], more, BOX].concat(), args).map(Some)
}

/// The process that is 1 inside.
async fn inside(tool: &Tool) -> anyhow::Result<Pid> {
    let children = format!("/proc/{0}/task/{0}/children", tool.pid().as_raw_nonzero());
    let begun = clock::now();
    while clock::since(begun) < PATIENCE {
        if let Some(pid) = fs::read_to_string(&children)?.split_whitespace().next() {
            let pid = Pid::from_raw(pid.parse()?).context("a process has an id")?;
            // Not before it is what it will be.
            if fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).is_ok_and(|program| binaries::tenure().is_ok_and(|tenure| *tenure == *program)) {
                return Ok(pid);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    anyhow::bail!("nothing runs inside")
}

#[tokio::test]
async fn first_process_of_a_container_reaps_orphans_and_ends_with_all_that_its_command_started() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-first").await?;
    let job = ["exec", "job", "--", "sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.01 &); done; sleep 0.5; ps -eo stat= | grep -c ^Z; sleep 1000 & wait"];
    let Some(tool) = contained(&cluster, &job)? else { return cluster.passed() };
    let zombies = tool.line("a count", |line| line.trim().parse::<u32>().ok()).await?;
    ensure!(zombies == 0, "{zombies} orphans were left unburied");
    let begun = clock::now();
    kill_process(inside(&tool).await?, Signal::TERM)?;
    tool.ended().await?.exited(143)?;
    let took = clock::since(begun);
    ensure!(took < Duration::from_secs(3), "it ended {took:?} after TERM");
    ensure!(lease(&cluster, "job").await?.state() == State::Free, "it was not released");
    cluster.passed()
}

#[tokio::test]
async fn every_command_ends_on_term_as_the_first_process_of_a_container() -> anyhow::Result<()> {
    let cluster = Cluster::three("first-commands").await?;
    let held = Tool::start(&cluster, &["acquire", "job", "--duration", "1h"])?.ended().await?.exited(0)?;
    let waits = ["acquire", "job", "--wait", "1h"];
    for args in [
        ["watch", "-A"].as_slice(),
        &["list", "-A", "-w"],
        &["nodes", "-w"],
        &["elect", "main"],
        &["heartbeat", "node"],
        &waits,
        &["exec", "job", "--", "true"],
    ] {
        let Some(tool) = contained(&cluster, args)? else { return cluster.passed() };
        let first = inside(&tool).await?;
        // A moment after its start it hears; before that the kernel drops it.
        let begun = clock::now();
        while test_kill_process(first).is_ok() {
            ensure!(clock::since(begun) < PATIENCE, "{args:?} goes on after TERM");
            let _ = kill_process(first, Signal::TERM);
            tokio::time::sleep(Duration::from_millis(50)).await;
            if fs::read_to_string(format!("/proc/{}/status", first.as_raw_nonzero())).map_or(true, |status| status.contains("State:\tZ")) {
                break;
            }
        }
        tool.ended().await?;
    }
    Tool::start(&cluster, &["release", "job", "--token", held.out.trim()])?.ended().await?.exited(0)?;
    cluster.passed()
}

/// Each leaves its parents, its group or its session, or ignores what it is told.
const RUNNERS: &[&str] = &[
    "echo below $$; sleep 1000 & wait",
    "$T exec inner -- sh -c 'echo below $$; sleep 1000 & wait'",
    "setsid sh -c 'echo below $$; sleep 1000 & wait' & wait",
    "setsid setsid sh -c '(setsid sh -c \"echo below \\$\\$; sleep 1000; :\" &)'; sleep 1000 & wait",
    "nohup sh -c 'echo below $$; sleep 1000 & wait' & wait",
    "timeout 1000 sh -c 'echo below $$; sleep 1000; :'; :",
    "$T exec inner -- timeout 1000 sh -c 'echo below $$; sleep 1000; :'; :",
    // Leaves an orphan that was not there when it was told to end.
    "setsid sh -c 'trap \"sleep 1000 & exit\" TERM; echo below $$; while :; do sleep 0.05; done' & wait",
];

async fn stops_all(cluster: &Cluster, runners: &[&str], signal: Signal) -> anyhow::Result<()> {
    for runner in runners {
        let text = format!("T=$0; export T; exec $0 exec outer --duration 4s -- sh -c {}", quoted(runner));
        let tool = through(cluster, "env", &["--default-signal", "sh", "-c", &text], &[])?;
        let below = pid(&tool, "below ").await.with_context(|| format!("in {runner}"))?;
        tool.signal(signal)?;
        let begun = clock::now();
        tool.ended().await.with_context(|| format!("in {runner}"))?;
        ensure!(clock::since(begun) < Duration::from_secs(8), "{runner} took {:?}", clock::since(begun));
        ensure!(test_kill_process(below).is_err(), "{below:?} runs on without a lease: {runner}");
        for name in ["outer", "inner"] {
            ensure!(lease(cluster, name).await.map_or(true, |lease| lease.state() == State::Free), "{name} is not released: {runner}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_cleans_up_after_term_is_not_told_to_end_itself() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-cleans-up").await?;
    let cleans = "setsid sh -c 'trap \"sleep 0.5 && echo cleaned \\$\\$; exit\" TERM; echo below $$; while :; do sleep 0.05; done' & wait";
    let tool = script(&cluster, &format!("exec $0 exec outer -- sh -c {}", quoted(cleans)))?;
    pid(&tool, "below ").await?;
    tool.signal(Signal::TERM)?;
    pid(&tool, "cleaned ").await?;
    tool.ended().await?.exited(143)?;
    cluster.passed()
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[tokio::test]
async fn term_to_the_outer_of_nested_runners_stops_everything_below_and_releases_both_leases() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-nested").await?;
    stops_all(&cluster, RUNNERS, Signal::TERM).await?;
    // A shell that waits for what it runs in the foreground waits on after INT; these are in the background.
    stops_all(&cluster, &RUNNERS[..4], Signal::INT).await?;
    cluster.passed()
}

#[tokio::test]
async fn everything_below_is_killed_when_the_lease_of_the_outer_runner_is_lost() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-nested-lost").await?;
    for runner in RUNNERS {
        let stubborn = format!("trap '' TERM; {runner}");
        let text = format!("T=$0; export T; exec $0 exec outer -- sh -c {}", quoted(&stubborn));
        let tool = script(&cluster, &text)?;
        let below = pid(&tool, "below ").await.with_context(|| format!("in {runner}"))?;
        Tool::start(&cluster, &["delete", "outer", "--force"])?.ended().await?.exited(0)?;
        let ended = tool.ended().await?.exited(122)?;
        ensure!(ended.err.contains("the command was killed"), "{ended:?}");
        gone(below).await.with_context(|| format!("in {runner}"))?;
        // That of the inner one runs out by itself; not for the next round to wait for.
        Tool::start(&cluster, &["delete", "inner", "--force"])?.ended().await?;
    }
    cluster.passed()
}

#[tokio::test]
async fn what_was_there_before_exec_and_what_a_command_leaves_on_purpose_are_left_alone() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-left-alone").await?;
    let tool = script(&cluster, "sleep 1000 & echo before $!; exec $0 exec job -- sh -c 'echo ready; sleep 1000 & wait'")?;
    let before = pid(&tool, "before ").await?;
    tool.line("ready", |line| (line == "ready").then_some(())).await?;
    tool.signal(Signal::TERM)?;
    tool.ended().await?.exited(143)?;
    kill_process(before, Signal::KILL).context("what was there before was stopped as well")?;

    let ended = script(&cluster, "exec $0 exec job -- sh -c 'sleep 1000 >/dev/null 2>&1 & echo left $!'")?.ended().await?.exited(0)?;
    let left = ended.out.trim().strip_prefix("left ").and_then(|pid| Pid::from_raw(pid.parse().ok()?)).context("it has an id")?;
    kill_process(left, Signal::KILL).context("what was left in the background was stopped")?;
    cluster.passed()
}

#[tokio::test]
async fn command_that_ignores_term_is_killed_after_the_time_that_was_given() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-kill-after").await?;
    let stubborn =
        ["exec", "job", "--kill-after", "300ms", "--", "sh", "-c", "trap '' TERM; echo below $$; setsid sleep 1000 & wait; while :; do sleep 1; done"];
    let tool = Tool::start(&cluster, &stubborn)?;
    let below = pid(&tool, "below ").await?;
    tool.signal(Signal::TERM)?;
    tool.ended().await?.exited(137)?;
    gone(below).await?;
    ensure!(lease(&cluster, "job").await?.state() == State::Free, "it was not released");
    cluster.passed()
}

#[tokio::test]
async fn min_hold_beyond_the_clusters_limit_is_refused_before_the_command_runs() -> anyhow::Result<()> {
    let cluster = Cluster::start("exec-limit", Settings { max_duration: "5s", ..Settings::default() }).await?;
    let job = ["exec", "job", "--no-wait", "--duration", "3s", "--min-hold", "20s", "--", "echo", "ran"];
    let refused = Tool::start(&cluster, &job)?.ended().await?.exited(125)?;
    ensure!(refused.out.is_empty() && refused.err.contains("--min-hold") && refused.err.contains("1s to 5s"), "{refused:?}");
    ensure!(lease(&cluster, "job").await?.state() == State::Free, "it was not given back");
    cluster.passed()
}

#[tokio::test]
async fn short_min_hold_is_held_for_that_long_and_no_longer() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-min-hold").await?;
    let begun = clock::now();
    Tool::start(&cluster, &["exec", "job", "--min-hold", "2s", "--", "sh", "-c", "exit 5"])?.ended().await?.exited(5)?;
    let held = clock::since(begun);
    ensure!(held >= Duration::from_secs(2) && held < Duration::from_secs(6), "held for {held:?}");
    ensure!(lease(&cluster, "job").await?.state() == State::Free, "it is held longer than was asked for");
    cluster.passed()
}

#[tokio::test]
async fn acquire_whose_token_nobody_can_read_gives_the_lease_back() -> anyhow::Result<()> {
    let cluster = Cluster::three("acquire-unread").await?;
    let full = script(&cluster, "exec $0 acquire job > /dev/full")?.ended().await?.exited(3)?;
    ensure!(full.err.contains("could not be printed") && full.err.contains("nothing is held"), "{full:?}");
    ensure!(lease(&cluster, "job").await?.state() == State::Free);
    // The reader is gone before there is anything to read.
    let deaf = script(&cluster, "exec 3>&1; { sleep 0.3; $0 acquire job -o json; echo code $? >&3; } | true")?.ended().await?;
    ensure!(deaf.out.contains("code 3"), "{deaf:?}");
    ensure!(lease(&cluster, "job").await?.state() == State::Free);
    for nowhere in [">/dev/null", ">&-"] {
        let held = script(&cluster, &format!("exec $0 acquire job-1 --reclaim --holder me {nowhere}"))?.ended().await?.exited(0)?;
        let token = lease(&cluster, "job-1").await?.token;
        ensure!(held.err.contains(&format!("with token {token}")), "{held:?}");
    }
    cluster.passed()
}

#[tokio::test]
async fn interrupted_attempt_ends_at_once_where_nothing_was_sent_and_at_the_second_word_where_it_may_have_been() -> anyhow::Result<()> {
    let start = |endpoint: &str, args: &[&str]| {
        let mut command = Command::new("env");
        command.arg("--default-signal").arg(binaries::tenure()?).env("TENURE_ENDPOINTS", endpoint).args(args);
        Tool::spawn(command)
    };
    let (nobody, silent) = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        (nobody.to_string(), listener)
    };
    // Its connections are taken by the kernel, and never answered.
    let mute = silent.local_addr()?.to_string();
    for args in [["acquire", "a", "--wait", "60s"].as_slice(), &["exec", "a", "--", "true"]] {
        let tool = start(&nobody, args)?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = clock::now();
        tool.signal(Signal::INT)?;
        let ended = tool.ended().await?.exited(130)?;
        ensure!(clock::since(begun) < Duration::from_secs(2), "{args:?} took {:?}: {ended:?}", clock::since(begun));

        let tool = start(&mute, args)?;
        let (mut taken, _) = silent.accept().await?;
        // It has spoken.
        tokio::io::AsyncReadExt::read(&mut taken, &mut [0; 24]).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = clock::now();
        tool.signal(Signal::INT)?;
        tool.says("press Ctrl-C again").await?;
        tool.signal(Signal::INT)?;
        let ended = tool.ended().await?.exited(130)?;
        ensure!(clock::since(begun) < Duration::from_secs(4), "{args:?} took {:?}: {ended:?}", clock::since(begun));
        ensure!(ended.err.contains("runs out within 15s"), "{ended:?}");
    }
    Ok(())
}

#[tokio::test]
async fn place_of_an_interrupted_waiter_and_grant_of_a_cut_off_attempt_are_given_back() -> anyhow::Result<()> {
    let cluster = Cluster::three("given-back").await?;
    cluster.api().grant(api::acquire("default", "job", "other", 60_000)).await?;
    for args in [["acquire", "job", "--wait", "60s"].as_slice(), &["exec", "job", "--", "true"]] {
        let tool = Tool::start(&cluster, args)?;
        tool.says("position 1").await?;
        tool.signal(Signal::TERM)?;
        let ended = tool.ended().await?;
        ensure!(ended.status.code().is_some_and(|code| code == 130 || code == 143), "{ended:?}");
        ensure!(lease(&cluster, "job").await?.waiters == 0, "a place was left behind by {args:?}");
    }
    cluster.passed()
}

#[tokio::test]
async fn conflict_that_is_no_failure_is_no_error_and_quiet_says_nothing_of_it() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-quiet").await?;
    cluster.api().grant(api::acquire("default", "job", "other", 60_000)).await?;
    let no_failure = ["exec", "job", "--no-wait", "--conflict-exit-code", "0", "--", "echo", "ran"];
    let told = Tool::start(&cluster, &no_failure)?.ended().await?.exited(0)?;
    ensure!(told.err.starts_with("not run: default/job is held by other") && told.out.is_empty(), "{told:?}");
    let quiet = Tool::start(&cluster, &["exec", "job", "-q", "--wait", "300ms", "--", "echo", "ran"])?.ended().await?.exited(121)?;
    ensure!(quiet.err.is_empty() && quiet.out.is_empty(), "{quiet:?}");
    let wrong = Tool::start(&cluster, &["exec", "job", "-q", "--duration", "1ms", "--", "echo", "ran"])?.ended().await?.exited(125)?;
    ensure!(wrong.err.contains("--duration"), "{wrong:?}");
    let dashes = Tool::start(&cluster, &["exec", "job", "date"])?.ended().await?.exited(2)?;
    ensure!(dashes.err.contains("put -- before the command"), "{dashes:?}");
    cluster.passed()
}

#[tokio::test]
async fn reclaiming_exec_takes_over_from_its_own_name_and_the_old_command_is_killed() -> anyhow::Result<()> {
    let cluster = Cluster::three("exec-reclaim").await?;
    let old = Tool::start(&cluster, &["exec", "job", "--holder", "me", "--duration", "3s", "--", "sh", "-c", "echo ready; sleep 1000; :"])?;
    old.line("ready", |line| (line == "ready").then_some(())).await?;
    let denied = Tool::start(&cluster, &["exec", "job", "--holder", "me", "--no-wait", "--", "true"])?.ended().await?.exited(121)?;
    ensure!(denied.err.contains("--reclaim"), "{denied:?}");
    let new = Tool::start(&cluster, &["exec", "job", "--holder", "me", "--no-wait", "--reclaim", "--", "echo", "taken over"])?.ended().await?.exited(0)?;
    ensure!(new.out == "taken over\n", "{new:?}");
    old.ended().await?.exited(122)?;
    Tool::start(&cluster, &["exec", "job", "--reclaim", "--", "true"])?.ended().await?.exited(2)?;
    cluster.passed()
}

#[tokio::test]
async fn last_document_is_printed_however_a_command_ends() -> anyhow::Result<()> {
    let cluster = Cluster::three("last-line").await?;
    for _ in 0..10 {
        let ended = Tool::start(&cluster, &["heartbeat", "NOT_A_NAME", "-o", "json"])?.ended().await?.exited(2)?;
        ensure!(ended.out.lines().last().is_some_and(|line| line.contains("STOPPED")), "{ended:?}");
    }
    cluster.passed()
}
