//! Operations that meet: renewals, releases and repeats at the very end of short leases; one request sent twice at once.

use std::time::Duration;

use tenure_checker::history::Outcome;

use super::{
    Task,
    asking::{Asked, acquire, release, renew},
};

/// What is left of a lease when the race for its end begins, at most.
const EDGE_MS: u64 = 12;

/// Renews a short lease right before, at and after its deadline, releases it while a renewal is on its way, repeats the request then.
pub(super) async fn race(mut task: Task) -> anyhow::Result<()> {
    while !task.is_ending() {
        let duration_ms = 100 + task.rng.below(80);
        let wait = if task.chance(50) { Some(task.between(50, 800)) } else { None };
        let asked = Asked { name: task.lease(), holder: task.fresh(), request_id: task.fresh(), duration: Duration::from_millis(duration_ms), wait };
        let Outcome::Granted { lease, .. } = acquire(&task, &task.client, &asked).await? else {
            let pause = task.between(1, 30);
            task.rest(pause).await;
            continue;
        };
        for _ in 0..1 + task.rng.below(4) {
            let early = task.rng.below(EDGE_MS * 2);
            task.rest(Duration::from_millis((duration_ms + EDGE_MS).saturating_sub(early))).await;
            let how = task.rng.below(3);
            let renewing = renew(&task, &task.client, &asked.name, lease.token);
            let lost = match how {
                0 => {
                    let (renewed, released) = tokio::join!(renewing, release(&task, &task.client, &asked.name, lease.token));
                    released?;
                    renewed?
                }
                1 => {
                    let (renewed, again) = tokio::join!(renewing, acquire(&task, &task.client, &asked));
                    again?;
                    renewed?
                }
                _ => renewing.await?,
            };
            if matches!(lost, Outcome::Lost { .. }) || task.is_ending() {
                break;
            }
        }
        acquire(&task, &task.client, &asked).await?;
        if task.chance(30) {
            release(&task, &task.client, &asked.name, lease.token).await?;
        }
    }
    Ok(())
}

/// Sends each request twice at once, through two clients that begin at different replicas, and then a third time.
pub(super) async fn twins(mut task: Task) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(super::client(&task.orders, &task.clock, &mut task.rng)?);
    }
    while !task.is_ending() {
        let wait = if task.chance(50) { Some(task.between(50, 1_500)) } else { None };
        let asked = Asked { name: task.lease(), holder: task.fresh(), request_id: task.fresh(), duration: task.duration(), wait };
        let (one, two) = tokio::join!(acquire(&task, &clients[0], &asked), acquire(&task, &clients[1], &asked));
        for outcome in [one?, two?] {
            if let Outcome::Granted { lease, .. } = outcome {
                renew(&task, &clients[0], &asked.name, lease.token).await?;
                release(&task, &clients[1], &asked.name, lease.token).await?;
                break;
            }
        }
        // Its grant, if there was one, is over: it must not be granted again.
        acquire(&task, &clients[1], &asked).await?;
        let pause = task.between(1, 60);
        task.rest(pause).await;
    }
    Ok(())
}
