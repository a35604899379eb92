//! The operator of a simulated cluster: hands over raft leadership, adds a spare replica and removes it again; and at the end asks for proof that
//! the cluster works.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use rand::Rng as _;
use tenure_client::{Client, v1};
use tokio::time::{sleep, timeout};
use turmoil::Sim;

use crate::{
    client::{NAMESPACE, User},
    clock::{nanoseconds, now},
    net::{PEER_PORT, address},
    replica::Machine,
    world::World,
};

/// A machine that is a member at times. Once removed its disk can never come back.
pub(crate) struct Spare {
    machine: Machine,
    wipe: Cell<bool>,
}

impl Spare {
    pub(crate) fn new(machine: Machine) -> Self {
        Self { machine, wipe: Cell::new(false) }
    }

    /// Wipes and restarts it when it has been removed; restarts it when its process has ended.
    pub(crate) fn step(&self, sim: &mut Sim<'_>) {
        let name = self.machine.name.as_str();
        if self.wipe.take() {
            sim.crash(name);
            self.machine.disk.wipe();
            self.machine.world().trace.line(nanoseconds(sim.elapsed()), format_args!("wiped {name}"));
            sim.bounce(name);
        } else if !sim.is_host_running(name) {
            sim.bounce(name);
        }
    }
}

/// Until the run winds down; then the proof.
pub(crate) async fn operate(user: User, spare: Rc<Spare>) -> turmoil::Result {
    let world = Arc::clone(user.world());
    let client = user.client(world.plan.derived("operator"))?;
    let mut rng = world.plan.rng("operator");
    let (id, addr) = (spare.machine.id, address(&spare.machine.name, PEER_PORT));
    let mut member = false;
    while !world.is_winding_down() {
        sleep(Duration::from_millis(rng.random_range(500..3_000))).await;
        // Most fail at times of faults: the next look says what became of them.
        match rng.random_range(0..4) {
            0 => drop(client.transfer_leader(v1::TransferLeaderRequest { node_id: rng.random_range(1..=world.plan.replicas) }).await),
            1 | 2 if !member => {
                let added = client.add_member(v1::AddMemberRequest { node_id: id, peer_addr: addr.clone(), learner_only: rng.random_bool(0.3) }).await;
                if added.is_ok() {
                    world.covered("member added");
                }
                world.trace.line(now(), format_args!("add {:?}", added.map(drop)));
                member = is_member(&client, id).await.unwrap_or(true);
            }
            3 if member => {
                let removed = client.remove_member(v1::RemoveMemberRequest { node_id: id }).await;
                world.trace.line(now(), format_args!("remove {:?}", removed.map(drop)));
                if is_member(&client, id).await == Some(false) {
                    member = false;
                    spare.wipe.set(true);
                }
            }
            _ => {}
        }
    }
    prove(&world, &client).await;
    Ok(())
}

/// `None`: nobody says.
async fn is_member(client: &Client, id: u64) -> Option<bool> {
    let status = client.cluster_status().await.ok()?;
    Some(status.members.iter().any(|member| member.node_id == id))
}

/// Ten leases, one after the other, each held, renewed and released. Repeats what fails: the run sees to it that this comes to an end.
async fn prove(world: &World, client: &Client) {
    for n in 0..10 {
        loop {
            let asked = client.lease(format!("proof-{n}")).namespace(NAMESPACE).duration(Duration::from_secs(1)).acquire();
            if let Ok(Ok(lease)) = timeout(Duration::from_secs(10), asked).await
                && lease.release().await.is_ok()
            {
                break;
            }
            world.trace.line(now(), format_args!("proof {n} failed"));
            sleep(Duration::from_millis(100)).await;
        }
    }
}
