//! What every answer carries, and the wire forms that only the service needs.

use tenure_lease::Hold;
use tenure_proto::v1;
use tokio::sync::watch;

use crate::{
    consensus::Leadership,
    identity::Identity,
    watch::Delivery,
    write::codec::{lease_to_wire, reason_to_wire, timestamp_to_wire},
};

/// Makes headers.
#[derive(Clone)]
pub(super) struct Headers {
    pub(super) identity: Identity,
    pub(super) leadership: watch::Receiver<Leadership>,
}

impl Headers {
    pub(super) fn at(&self, revision: u64) -> Option<v1::ResponseHeader> {
        let raft_leader = {
            let known = self.leadership.borrow();
            known.raft_leader.and_then(|id| known.nodes.get(&id)).map(|member| member.node.client_addr.clone())
        };
        Some(v1::ResponseHeader {
            cluster_id: self.identity.cluster_id().as_deref().unwrap_or_default().to_owned(),
            revision,
            served_by: self.identity.node_id(),
            raft_leader: raft_leader.unwrap_or_default(),
        })
    }
}

pub(super) fn hold_to_wire(hold: &Hold) -> v1::Hold {
    v1::Hold {
        holder: hold.holder.as_ref().to_owned(),
        token: hold.token,
        acquire_time: Some(timestamp_to_wire(hold.acquire_time)),
        end_time: hold.end_time.map(timestamp_to_wire),
        end_reason: hold.end_reason.map_or(0, reason_to_wire),
        end_revision: hold.end_revision,
    }
}

pub(super) fn event_to_wire(delivery: &Delivery) -> v1::Event {
    let event = &delivery.event;
    v1::Event {
        // The numbers are the same by contract (`EventKind`).
        r#type: delivery.kind() as i32,
        lease: Some(lease_to_wire(&delivery.lease(), None)),
        previous_holder: event.previous_holder().map(|holder| holder.as_ref().to_owned()).unwrap_or_default(),
        reason: event.reason().map_or(0, reason_to_wire),
        revision: event.revision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenure_lease::EventKind;
    use v1::event::Type;

    #[test]
    fn event_kinds_have_the_same_numbers_on_the_wire() {
        let pairs = [
            (EventKind::Created, Type::Created),
            (EventKind::Acquired, Type::Acquired),
            (EventKind::Renewed, Type::Renewed),
            (EventKind::Released, Type::Released),
            (EventKind::Expired, Type::Expired),
            (EventKind::Updated, Type::Updated),
            (EventKind::Deleted, Type::Deleted),
        ];
        for (core, wire) in pairs {
            assert_eq!(core as i32, i32::from(wire));
        }
    }
}
