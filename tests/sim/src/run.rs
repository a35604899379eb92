//! One run: builds the machines, lets time pass, heals everything at the end and demands progress.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tenure_checker::history::{Bounds, Meta, What, WitnessScope};

use crate::{
    admin::{self, Spare},
    bugs,
    client::User,
    clock::nanoseconds,
    entry::AHEAD_MS,
    faults::Chaos,
    observer::Ledger,
    panics,
    plan::{Clocks, Plan},
    replica::Machine,
    trace::Trace,
    trap::Trap,
    world::World,
};

/// From the end of all faults until everything works: several attempts of several seconds may each have begun just before.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of a run.
pub(crate) struct Report {
    pub(crate) world: Arc<World>,
    pub(crate) faults: u64,
    /// Simulated.
    pub(crate) elapsed: Duration,
    pub(crate) lines: u64,
    pub(crate) hash: u64,
}

/// Runs a seed. Once in a process: its randomness is process-wide.
///
/// # Errors
/// The trace cannot be written, or a simulated program came to an end that it must not have.
pub(crate) fn run(seed: u64, trace: Option<&Path>) -> anyhow::Result<Report> {
    mad_turmoil::rand::set_rng(rand_010::SeedableRng::seed_from_u64(seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let plan = Plan::of(seed);
    let trace = Arc::new(match trace {
        Some(path) => Trace::to(path)?,
        None => Trace::default(),
    });
    let world = World::new(plan.clone(), trace);
    world.record_at(0, What::Meta(meta(&plan)));
    let ledger = Ledger::new(Arc::clone(&world));
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .enable_random_order()
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(Duration::from_secs(3_600))
        .min_message_latency(plan.latency.0)
        .max_message_latency(plan.latency.1)
        .tcp_capacity(1 << 16)
        .build();

    let machines: Vec<Machine> = (1..=plan.replicas).map(|id| Machine::new(id, true, &world, &ledger)).collect();
    let spare = Machine::new(plan.replicas + 1, false, &world, &ledger);
    for machine in machines.iter().chain([&spare]) {
        let machine = machine.clone();
        sim.host(machine.name.clone(), move || machine.clone().run());
    }
    let names: Vec<String> = machines.iter().map(|machine| machine.name.clone()).collect();
    let users: Vec<User> = (1..=plan.clients).map(|n| User::new(format!("c{n}"), &world, &names)).collect();
    for user in &users {
        let user = user.clone();
        sim.host(user.name.clone(), move || user.clone().run());
    }
    let operator = User::new("operator".into(), &world, &names);
    let spare = Rc::new(Spare::new(spare));
    sim.client("operator", admin::operate(operator, Rc::clone(&spare)));

    let mut chaos = Chaos::new(&world, &ledger, &machines, &users);
    let mut trap = Trap::new(&world, &ledger, &machines);
    panics::are_violations(&world);
    let mut goes_on = true;
    while goes_on && sim.elapsed() < plan.busy {
        goes_on = step(&mut sim, &world)?.is_some();
        if plan.faults {
            let now = nanoseconds(sim.elapsed());
            chaos.step(&mut sim, trap.wants_quiet(now));
            trap.step(&mut sim, now, chaos.is_at_work());
        }
        spare.step(&mut sim);
    }

    // From here on nothing is disturbed, and everything must come to its end.
    let healed = sim.elapsed();
    trap.disarm(&mut sim, nanoseconds(healed));
    chaos.heal_all(&mut sim);
    if goes_on {
        world.record_at(nanoseconds(healed), What::Calm);
    }
    world.winding_down.store(true, Ordering::Relaxed);
    while let Some(operator_done) = if goes_on { step(&mut sim, &world)? } else { None } {
        let now = nanoseconds(sim.elapsed());
        chaos.restart_failed(&mut sim, now);
        spare.step(&mut sim);
        let ended = users.iter().all(|user| !sim.is_host_running(user.name.as_str()));
        if operator_done && ended && ledger.all_agree(&names) {
            break;
        }
        if sim.elapsed() > healed + PATIENCE {
            let progress = ledger.progress(&names);
            let text = format!("no end {PATIENCE:?} after the last fault: operator done {operator_done}, clients done {ended}, applied {progress:?}");
            world.violation(nanoseconds(sim.elapsed()), "progress", text);
            break;
        }
    }
    let elapsed = sim.elapsed();
    let upto = ledger.revision();
    world.record_at(nanoseconds(elapsed), What::Witness(WitnessScope { after: 0, upto, renewals: true, namespace: None }));
    let (lines, hash) = world.trace.finish();
    if world.is_violated() {
        // A panic in the middle of it has left who knows what behind.
        std::mem::forget(sim);
    }
    Ok(Report { world, faults: chaos.count + trap.count, elapsed, lines, hash })
}

/// A millisecond: whether the operator is done. `None`: there is no going on. With a bug on purpose one violation is enough.
fn step(sim: &mut turmoil::Sim<'_>, world: &World) -> anyhow::Result<Option<bool>> {
    let stepped = catch_unwind(AssertUnwindSafe(|| sim.step()));
    // The panic is a violation already.
    let Ok(stepped) = stepped else { return Ok(None) };
    let done = stepped.map_err(|error| anyhow::anyhow!("a simulated program failed: {error}"))?;
    Ok((!bugs::is_chosen() || !world.is_violated()).then_some(done))
}

fn meta(plan: &Plan) -> Meta {
    Meta {
        name: format!("simulation of {} replicas", plan.replicas),
        seed: plan.seed,
        clocks_within_promise: plan.clocks == Clocks::Promised,
        doubt_lag_ms: 5,
        all_edits_recorded: true,
        bounds: Bounds { expiry_by_lease_clock: Some(AHEAD_MS), ..Bounds::default() },
        ..Meta::default()
    }
}
