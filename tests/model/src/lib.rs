//! The lease protocol as a state machine that stateright walks through completely, within small bounds: two holders, two raft leaders whose clocks
//! drift, messages and answers that take any time, raft leaders that fall at any moment. The lease table is the real one; what is modelled is
//! what surrounds it: the raft leader's lease clock, the proposer with one entry on its way, and the SDK's reckoning of a deadline.
//!
//! Time has no unit here: a lease lasts [`DURATION`] steps, and each clock may be a step ahead of true time, or not, as it pleases.

mod holder;
mod replicated;
mod world;

pub use holder::{DURATION, Holder};
use stateright::{Model, Property};
pub use world::{Action, World};

/// How far to explore.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Steps of true time.
    pub horizon: u64,
    /// Raft leaders, one after the other.
    pub terms: u64,
    /// Acquires by each holder.
    pub attempts: u8,
    /// Renewals by each holder besides claims.
    pub renewals: u8,
    /// Whether holders may release.
    pub releases: bool,
    /// Whether clocks drift.
    pub drift: bool,
}

impl Bounds {
    /// Clocks that disagree, raft leaders that fall, a queue: who believes when.
    pub const CLOCKS: Self = Self { horizon: 5, terms: 2, attempts: 1, renewals: 0, releases: false, drift: true };
    /// Renewals, releases and repeats: what is answered to whom. Clocks are true.
    pub const ANSWERS: Self = Self { horizon: 4, terms: 2, attempts: 1, renewals: 1, releases: true, drift: false };
}

/// A mistake to make, so that a run shows that it would be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The holder counts from the answer instead of the send.
    CountsFromTheAnswer,
    /// The holder leaves no margin for clocks that disagree.
    NoMargin,
    /// A grant from the queue is believed when it is heard of, without a renewal.
    BelievesUnclaimed,
    /// A new raft leader goes on from its own clock's idea of the time instead of from the clock last applied.
    NewLeaderRunsAhead,
    /// The raft leader measures time with a clock that nothing bounds.
    UnboundedDrift,
}

impl Bug {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::CountsFromTheAnswer, Self::NoMargin, Self::BelievesUnclaimed, Self::NewLeaderRunsAhead, Self::UnboundedDrift];
}

/// The model: bounds, and at most one mistake.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// How far.
    pub bounds: Bounds,
    /// `None`: as it should be.
    pub bug: Option<Bug>,
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(self, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        Some(world.after(self, action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("two holders never believe at once (P1)", |_, world: &World| world.believing() < 2),
            Property::always("nobody is granted what another believes to hold (P3)", |_, world: &World| !world.faults.granted_early),
            Property::always("tokens only grow (P2)", |_, world: &World| !world.faults.token_went_back),
            Property::always("a hold that is believed in is not lost but by its holder (P4)", |_, world: &World| !world.faults.lost_early),
            Property::always("an entry of a former raft leader changes nothing (P9)", |_, world: &World| !world.faults.inert_entry_worked),
            Property::always("a request is granted once (P7)", |_, world: &World| !world.faults.granted_twice),
        ];
        if self.bounds.renewals > 0 {
            properties.push(Property::sometimes("a renewal is kept past its deadline, before the expiry", |_, world: &World| world.seen.renewed_late));
        }
        if self.bounds.releases {
            properties.push(Property::sometimes("a lease is handed over in the commit of a release", |_, world: &World| world.seen.handed_over));
        }
        properties.extend([
            Property::sometimes("a lease expires under another raft leader than granted it", |_, world: &World| world.seen.expired_by_another),
            Property::sometimes("a request is repeated after its grant", |_, world: &World| world.seen.repeated),
            Property::sometimes("both holders have held it", |_, world: &World| world.seen.both_held),
        ]);
        properties
    }
}
