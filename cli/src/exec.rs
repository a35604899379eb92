//! `exec`: a command that runs only while its lease is held.
//!
//! It must never let the command run when somebody else can hold the lease, as far as a process can know that by its clocks: whatever wakes this loop,
//! it looks at the lease first. While it was paused it knew nothing, which is what TENURE_TOKEN is for. Nothing here may block: a reader of stderr
//! that has stopped must not stop the renewals.

use std::{process::ExitStatus, time::Duration};

use rustix::process::Signal;
use tenure_client::{
    Asking, Client, Error, Lease, LostReason, Step,
    clock::Readings,
    v1::{self, RenewItem, renew_result::Result as Renewal},
};
use tokio::time::{sleep, timeout};

use crate::{
    args,
    child::{Child, exit_code, find, suspend_ourselves},
    clock,
    fail::{Failed, exec_code, signalled},
    hold::{Asked, denied},
    leave,
    print::note,
    rows,
    signals::{ENDING, Inherited, Signals},
    text::{short, wire},
};

/// Of the time to stop in, kept back for KILL to have worked before the lease can be somebody else's.
const KILL_SHARE: u32 = 5;
const LONGEST_KILL: Duration = Duration::from_millis(500);

/// Passed on to the command. TSTP stops it and us, CONT lets both go on.
const HEARD: &[Signal] = &[Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::TSTP, Signal::CONT, Signal::CHILD];

/// Nobody tells when a process group is empty.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long what the command has left may clean up after it was told to end, with the lease held.
const LEFTOVERS: Duration = Duration::from_secs(10);
/// What is left of a group that was sent another signal than TERM may ignore that one, as what a shell runs in the background ignores INT.
const SECOND_WORD: Duration = Duration::from_secs(2);
/// How long to wait for those who were killed: one that hangs in the kernel may take for ever.
const LONGEST_DEATH: Duration = Duration::from_secs(2);
/// Timers stand still while a machine sleeps, so that none may be long.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// After an error of the cluster, until it is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// Counters begin far above it.
const NOBODYS: u64 = 1;
/// The longest that a lease can be held without a renewal.
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 3600);

pub(crate) async fn exec(client: &Client, namespace: &str, args: args::Exec, inherited: Inherited) -> Result<(), Failed> {
    let not_run = |failed: Failed| match failed {
        said @ Failed::Said(_) => said,
        failed => failed.with_code(exec_code::NOT_RUN),
    };
    check(&args).map_err(not_run)?;
    find(&args.command[0])?;
    let mut signals = Signals::listen(HEARD)?;
    let place = format!("{namespace}/{}", args.name);
    let lease = acquire(client, namespace, &place, &args, &mut signals).await.map_err(not_run)?;
    // From a little before the grant at most, which only makes the hold a little shorter than the clock on the wall would.
    let begun = clock::readings();
    let environment = [("TENURE_TOKEN", lease.token().to_string()), ("TENURE_LEASE", place.clone()), ("TENURE_HOLDER", lease.holder().to_owned())];
    if let Some(hold) = args.min_hold.filter(|hold| *hold > args.duration)
        && let Err(failed) = may_hold(client, hold).await
    {
        let _ = lease.release().await;
        return Err(not_run(failed));
    }
    if !lease.is_held() {
        return Err(not_run(Failed::NotDone(format!("{place} was lost before the command was started"))));
    }
    let mut child = match Child::spawn(&args.command, &environment, inherited) {
        Ok(child) => child,
        Err(error) => {
            let _ = lease.release().await;
            return Err(not_run(Failed::Usage(format!("cannot start a process: {error}"))));
        }
    };
    let ended = attend(&lease, &mut child, &mut signals, kill_before(stop_before(&args)), args.kill_after).await?;
    let status = match ended {
        Ended::ByItself(status) => status,
        Ended::Stopped { reason, killed } => {
            let how = if killed { "killed" } else { "stopped with TERM" };
            return Err(Failed::Refused(format!("{place} is lost ({reason}); the command was {how}")).with_code(exec_code::LOST));
        }
    };
    let left = || args.min_hold.map_or(Duration::ZERO, |hold| hold.saturating_sub(clock::readings().possibly_since(begun)));
    let hold = left();
    if let Err(failed) = let_go(client, lease, left, &mut signals).await {
        note(&format!("the command has ended, but {place} could not be {}: {}", if hold.is_zero() { "released" } else { "held on" }, failed.text()));
    }
    match exit_code(status) {
        0 => Ok(()),
        code => Err(Failed::Said(code)),
    }
}

fn stop_before(args: &args::Exec) -> Duration {
    args.stop_before.unwrap_or(args.duration / 3)
}

/// KILL comes this long before the deadline, TERM `stop_before` before it.
fn kill_before(stop_before: Duration) -> Duration {
    (stop_before / KILL_SHARE).min(LONGEST_KILL)
}

fn check(args: &args::Exec) -> Result<(), Failed> {
    if stop_before(args) > args.duration * 9 / 10 {
        return Err(Failed::Usage("nothing of --duration is left after --stop-before: make that shorter, or --duration longer".into()));
    }
    if args.min_hold.is_some_and(|hold| hold > LONGEST_HOLD) {
        return Err(Failed::Usage("a lease cannot be held for more than 24h without a process: make --min-hold shorter".into()));
    }
    Ok(())
}

/// Waits as long as was asked for. Any end of the process gives up the place in the queue.
async fn acquire(client: &Client, namespace: &str, place: &str, args: &args::Exec, signals: &mut Signals) -> Result<Lease, Failed> {
    let mut builder = client.lease(&args.name).namespace(namespace).duration(args.duration).stop_before(stop_before(args)).reclaim(args.reclaim);
    let say = |text: &str| {
        if !args.quiet {
            note(text)
        }
    };
    if let Some(holder) = &args.holder {
        builder = builder.holder(holder);
    }
    if let Some(data) = &args.data {
        builder = builder.data(data.as_bytes());
    }
    if let Some(retention) = args.retention {
        builder = builder.retention(retention);
    }
    for (key, value) in &args.labels {
        builder = builder.label(key, value);
    }
    let for_ever = !args.no_wait && args.wait.is_none();
    let wait = args.wait.unwrap_or_default();
    builder = if for_ever { builder.wait_forever() } else { builder.wait_for(wait) };
    let mut asking = builder.ask()?;
    let holder = asking.holder().to_owned();
    let asked = Asked { place, holder: &holder, wait: args.wait };
    let begun = clock::readings();
    let mut told = 0;
    loop {
        let step = tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Signal::CONT | Signal::CHILD => continue,
                // The place in the queue is kept until the connection breaks.
                Signal::TSTP => {
                    suspend_ourselves();
                    continue;
                }
                signal => return Err(leave(place, args, asking, signal, signals).await),
            },
            step = asking.next() => step,
        };
        match step {
            Ok(Step::Held(lease)) => return Ok(lease),
            Ok(Step::Queued { position, lease }) => {
                if position != told {
                    told = position;
                    say(&format!("waiting for {place}: position {position}, held by {}", rows::or_dash(&lease.holder)));
                }
            }
            Ok(Step::Denied(lease)) => {
                return Err(conflict(args, denied(client, &asked, *lease).await));
            }
            Err(error) => {
                let left = wait.saturating_sub(clock::readings().possibly_since(begun));
                if !may_pass(&error) || (!for_ever && left.is_zero()) {
                    return Err(error.into());
                }
                say(&format!("still trying: {error}"));
                tokio::select! {
                    () = sleep(if for_ever { PAUSE } else { PAUSE.min(left) }) => {}
                    signal = signals.next() => if !matches!(signal, Signal::CONT | Signal::CHILD | Signal::TSTP) { return Err(leave(place, args, asking, signal, signals).await) },
                }
            }
        }
    }
}

/// Who has it, and the exit code for that. Where that is 0, it is no error.
fn conflict(args: &args::Exec, text: String) -> Failed {
    let code = args.conflict_exit_code;
    match text.lines().next() {
        _ if args.quiet => Failed::Said(code),
        Some(who) if code == 0 => {
            note(&format!("not run: {who}"));
            Failed::Said(code)
        }
        _ => Failed::Refused(text).with_code(code),
    }
}

async fn leave(place: &str, args: &args::Exec, asking: Asking, signal: Signal, signals: &mut Signals) -> Failed {
    let left = format!("whatever it got runs out within {}", short(args.duration));
    leave::give_up(place, &left, asking.give_up(), signals).await;
    Failed::Said(signalled(signal))
}

/// Waiting may cure it.
fn may_pass(error: &Error) -> bool {
    matches!(error, Error::NotApplied(_) | Error::OutcomeUnknown(_))
}

#[derive(Debug)]
enum Ended {
    ByItself(ExitStatus),
    Stopped { reason: LostReason, killed: bool },
}

/// Until the command has ended, one way or the other, and what it had started too, if it was made to end.
async fn attend(lease: &Lease, child: &mut Child, signals: &mut Signals, kill_before: Duration, kill_after: Option<Duration>) -> Result<Ended, Failed> {
    let mut lost: Option<LostReason> = None;
    // The first signal of ours that asked the command to end, and when.
    let mut asked: Option<(Signal, Readings)> = None;
    let mut killed: Option<Readings> = None;
    let mut ended: Option<(ExitStatus, Readings)> = None;
    let mut told_twice = false;
    let since = |then: Readings| clock::readings().possibly_since(then);
    loop {
        // By the clock, and before anything else: we may have been stopped for an hour.
        if lost.is_none() && !lease.is_held() {
            lost = Some(lease.lost_reason().unwrap_or(LostReason::NotRenewed(None)));
            if lease.remaining() > kill_before {
                child.signal(Signal::TERM);
                // One that is stopped could not hear it.
                child.signal(Signal::CONT);
            }
        }
        let too_late = lost.is_some() && lease.remaining() <= kill_before;
        let too_long = asked.zip(kill_after).is_some_and(|((_, at), limit)| since(at) >= limit);
        let never_ends = lost.is_none() && ended.is_some_and(|(_, at)| asked.is_some() && since(at) >= LEFTOVERS);
        if killed.is_none() && (too_late || too_long || never_ends) {
            killed = Some(clock::readings());
        }
        if killed.is_some() {
            // Again and again: whoever was being started was not hit.
            child.kill();
        }
        if ended.is_none() {
            ended = child.poll()?.map(|status| (status, clock::readings()));
        }
        if let Some((status, at)) = ended {
            // What it has left in the background on purpose is not ours; what was told to end is, wherever it is.
            let made_to_end = lost.is_some() || asked.is_some() || killed.is_some();
            if !made_to_end || !child.leaves_something() || killed.is_some_and(|at| since(at) >= LONGEST_DEATH) {
                return Ok(lost.map_or(Ended::ByItself(status), |reason| Ended::Stopped { reason, killed: killed.is_some() }));
            }
            // Not before the command itself has ended: one that passes signals on, as we do, would have its own command hear each of them twice.
            child.tell_the_rest();
            if asked.is_some_and(|(signal, _)| signal != Signal::TERM) && since(at) >= SECOND_WORD && !std::mem::replace(&mut told_twice, true) {
                child.signal(Signal::TERM);
            }
        }
        let until_kill = lost.as_ref().map(|_| lease.remaining().saturating_sub(kill_before));
        let until_late = asked.zip(kill_after).map(|((_, at), limit)| limit.saturating_sub(since(at)));
        let pause = match (ended.is_some() || killed.is_some(), until_kill.into_iter().chain(until_late).min()) {
            (true, _) => Some(LOOK_AGAIN),
            (false, until) => until.map(|until| until.min(LONGEST_SLEEP)),
        };
        tokio::select! {
            biased;
            _ = lease.lost(), if lost.is_none() => {}
            signal = signals.next() => match signal {
                Signal::CHILD => {}
                Signal::TSTP => child.suspend(),
                Signal::CONT if lease.is_held() => child.resume(),
                Signal::CONT => {}
                signal => {
                    if ENDING.contains(&signal) {
                        asked.get_or_insert((signal, clock::readings()));
                    }
                    child.signal(signal);
                }
            },
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

/// So that a cluster that holds no lease for that long says so before the command has run, and not when it should be kept from others. Asked with a
/// token that nobody has, which changes nothing.
async fn may_hold(client: &Client, hold: Duration) -> Result<(), Failed> {
    let item = RenewItem { token: NOBODYS, duration: Some(wire(hold)), ..RenewItem::default() };
    match timeout(PAUSE, client.renew(vec![item])).await {
        Ok(Err(Error::Misuse(failure))) if failure.violations.iter().any(|(field, _)| field.contains("duration")) => {
            let why: Vec<_> = failure.violations.iter().map(|(_, why)| why.rsplit_once("; it ").map_or(why.as_str(), |(_, rule)| rule)).collect();
            Err(Failed::Usage(format!("the cluster does not hold a lease for {}: a duration {}\n  make --min-hold shorter", short(hold), why.join("; "))))
        }
        // Whatever else is wrong now may be right then.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Releases, or holds for what is `left` of the time that was asked for: by one last renewal of that length, so that no process has to stay for it; or,
/// where the lease is good for longer than that already, or the cluster does not take that renewal, by staying for the rest.
async fn let_go(client: &Client, lease: Lease, left: impl Fn() -> Duration, signals: &mut Signals) -> Result<(), Failed> {
    let hold = left();
    if hold > lease.remaining() {
        let item = RenewItem { token: lease.token(), duration: Some(wire(hold)), ..RenewItem::default() };
        match client.renew(vec![item]).await.map(|answer| answer.results.into_iter().next().and_then(|result| result.result)) {
            Ok(Some(Renewal::Renewed(_))) => return Ok(()),
            Ok(Some(Renewal::Lost(v1::Lost { holder, .. }))) if !holder.is_empty() => return Err(Failed::Refused(format!("{holder} holds it now"))),
            Ok(_) => return Err(Failed::Refused("it had ended".into())),
            Err(error) => note(&format!("this process stays and renews for another {}, as one long renewal failed: {error}", short(hold))),
        }
    }
    loop {
        let hold = left();
        if hold.is_zero() {
            return Ok(lease.release().await?);
        }
        tokio::select! {
            biased;
            reason = lease.lost() => return Err(Failed::Refused(reason.to_string())),
            // What was asked for still holds: it runs out by itself.
            signal = signals.next() => if ENDING.contains(&signal) { return Ok(()) },
            () = sleep(hold.min(LONGEST_SLEEP)) => {}
        }
    }
}
