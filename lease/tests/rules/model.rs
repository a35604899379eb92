//! A naive lease table, written from the rules and not from the code: lists, whole scans, and expiry that is never put off.

use std::collections::BTreeMap;

use tenure_lease::{Acquire, Command, EndReason, Limits, Refusal, ReleaseBy, ReleaseOutcome};

/// What an outcome says, without the lease.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    Renewed(Vec<Result<u32, (EndReason, Option<String>)>>),
    Granted { token: u64, must_renew: bool },
    Queued { position: u32, waiter: u64, token: u64 },
    Denied { token: u64, waiters: u32 },
    Ended { token: u64, reason: EndReason },
    Released { outcome: ReleaseOutcome, token: Option<u64> },
    Put { revision: u64 },
    Deleted { token: u64, waiters: u32 },
    Done,
    Refused(Refusal),
}

/// A notice: session, waiter, and what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Granted(u64, u64, u64),
    Denied(u64, u64),
    Ended(u64, u64, EndReason),
    Moved(u64, u64),
}

/// An event: revision, kind, name, token and reason of what ended.
pub(crate) type Change = (u64, u8, String, Option<(u64, EndReason)>);

/// What can be seen of a lease.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) holder: Option<String>,
    pub(crate) last_holder: Option<String>,
    pub(crate) token: u64,
    pub(crate) deadline: Option<u64>,
    pub(crate) duration: u32,
    pub(crate) unclaimed: bool,
    pub(crate) expired: bool,
    pub(crate) transitions: u64,
    pub(crate) retention: Option<u64>,
    pub(crate) queue: Vec<(u64, bool)>,
    pub(crate) revision: u64,
    pub(crate) renew_revision: u64,
    pub(crate) create_revision: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Asked {
    holder: String,
    id: String,
    duration: u32,
    reclaim: bool,
    retention: u64,
}

#[derive(Clone, Debug)]
struct Waiting {
    waiter: u64,
    asked: Asked,
    session: u64,
    until: u64,
    /// Since when it is detached, and whether by the lapse of its session.
    gone: Option<(u64, bool)>,
}

#[derive(Clone, Debug)]
struct Held {
    asked: Asked,
    deadline: u64,
    claim: Option<(u64, u64)>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    held: Option<Held>,
    token: u64,
    duration: u32,
    last_holder: Option<String>,
    expired: bool,
    transitions: u64,
    retention: Option<u64>,
    idle_since: u64,
    waiting: Vec<Waiting>,
    revision: u64,
    renew_revision: u64,
    create_revision: u64,
}

#[derive(Clone, Debug)]
struct Over {
    name: String,
    holder: String,
    id: String,
    asked: Option<Asked>,
    token: u64,
    reason: EndReason,
    at: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    limits: Limits,
    clock: u64,
    pub(crate) counter: u64,
    leases: BTreeMap<String, Entry>,
    /// When heard of last, and whether it lapsed.
    sessions: BTreeMap<u64, (u64, bool)>,
    over: Vec<Over>,
    told: Vec<Told>,
    changes: Vec<Change>,
    /// Every token ever granted, and every waiter ever queued (with its lease).
    pub(crate) tokens: Vec<u64>,
    pub(crate) waiters: Vec<(String, u64)>,
}

const CREATED: u8 = 1;
const ACQUIRED: u8 = 2;
const RELEASED: u8 = 4;
const EXPIRED: u8 = 5;
const UPDATED: u8 = 6;
const DELETED: u8 = 7;

impl Model {
    pub(crate) fn new(counter: u64, limits: Limits) -> Self {
        Self { counter, limits, ..Self::default() }
    }

    pub(crate) fn apply(&mut self, stamp: u64, commands: &[Command]) -> (Vec<Said>, Vec<Told>, Vec<Change>) {
        self.clock = self.clock.max(stamp);
        let early = |command: &Command| matches!(command, Command::Renew(_) | Command::Release(_) | Command::KeepSession { .. });
        let mut said: Vec<(usize, Said)> = Vec::new();
        for (at, command) in commands.iter().enumerate().filter(|(_, command)| early(command)) {
            said.push((at, self.run(command)));
        }
        self.pass_time();
        for (at, command) in commands.iter().enumerate().filter(|(_, command)| !early(command)) {
            said.push((at, self.run(command)));
        }
        said.sort_by_key(|(at, _)| *at);
        (said.into_iter().map(|(_, said)| said).collect(), std::mem::take(&mut self.told), std::mem::take(&mut self.changes))
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        let see = |(name, entry): (&String, &Entry)| Seen {
            name: name.clone(),
            holder: entry.held.as_ref().map(|held| held.asked.holder.clone()),
            last_holder: entry.last_holder.clone().filter(|_| entry.held.is_none()),
            token: entry.token,
            deadline: entry.held.as_ref().map(|held| held.deadline),
            duration: entry.duration,
            unclaimed: entry.held.as_ref().is_some_and(|held| held.claim.is_some()),
            expired: entry.expired && entry.held.is_none(),
            transitions: entry.transitions,
            retention: entry.retention,
            queue: entry.waiting.iter().map(|waiting| (waiting.waiter, waiting.gone.is_none())).collect(),
            revision: entry.revision,
            renew_revision: entry.renew_revision,
            create_revision: entry.create_revision,
        };
        self.leases.iter().map(see).collect()
    }

    pub(crate) fn ended(&self) -> u64 {
        self.over.len() as u64
    }

    fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn entry(&mut self, name: &str) -> &mut Entry {
        self.leases.get_mut(name).expect("the model's lease is there")
    }

    fn token(&self, name: &str) -> Option<u64> {
        self.leases.get(name).map(|entry| entry.token)
    }

    /// Whatever is due, first the earliest; found by looking at everything, every time.
    fn pass_time(&mut self) {
        loop {
            let mut due: Vec<(u64, u8, u64, String)> = Vec::new();
            for (session, (last, lapsed)) in &self.sessions {
                if !lapsed {
                    due.push((last + 2000, 0, *session, String::new()));
                }
            }
            for (name, entry) in &self.leases {
                for waiting in &entry.waiting {
                    if let Some((since, _)) = waiting.gone {
                        due.push((since + 10_000, 1, waiting.waiter, name.clone()));
                    }
                    due.push((waiting.until, 3, waiting.waiter, name.clone()));
                }
                if let Some(held) = &entry.held {
                    due.push((held.deadline, 2, entry.token, name.clone()));
                }
                if let (None, true, Some(retention)) = (&entry.held, entry.waiting.is_empty(), entry.retention) {
                    due.push((entry.idle_since + retention, 4, entry.create_revision, name.clone()));
                }
            }
            let Some((_, kind, id, name)) = due.into_iter().filter(|(at, ..)| self.clock > *at).min() else { break };
            match kind {
                0 => self.lapse(id),
                1 | 3 => {
                    self.number();
                    let session = self.remove_waiter(&name, id).session;
                    self.told.push(if kind == 1 { Told::Ended(session, id, EndReason::Detached) } else { Told::Denied(session, id) });
                }
                2 => {
                    let unclaimed = self.entry(&name).held.as_ref().is_some_and(|held| held.claim.is_some());
                    self.end(&name, if unclaimed { EndReason::Unclaimed } else { EndReason::Expired }, true);
                }
                _ => {
                    let number = self.number();
                    self.leases.remove(&name);
                    self.changes.push((number, DELETED, name, None));
                }
            }
        }
        let now = self.clock;
        self.over.retain(|over| now <= over.at + 300_000);
    }

    fn lapse(&mut self, session: u64) {
        let now = self.clock;
        for waiting in self.leases.values_mut().flat_map(|entry| &mut entry.waiting).filter(|waiting| waiting.session == session) {
            if waiting.gone.is_none() {
                waiting.gone = Some((now, true));
            }
        }
        if let Some((_, lapsed)) = self.sessions.get_mut(&session) {
            *lapsed = true;
        }
    }

    fn remove_waiter(&mut self, name: &str, waiter: u64) -> Waiting {
        let now = self.clock;
        let entry = self.entry(name);
        let at = entry.waiting.iter().position(|waiting| waiting.waiter == waiter).expect("it waits");
        let waiting = entry.waiting.remove(at);
        if entry.held.is_none() && entry.waiting.is_empty() {
            entry.idle_since = now;
        }
        waiting
    }

    fn close(&mut self, name: &str, reason: EndReason, number: u64) -> (u64, EndReason) {
        let now = self.clock;
        let entry = self.entry(name);
        let held = entry.held.take().expect("it is held");
        let token = entry.token;
        entry.idle_since = now;
        entry.revision = number;
        entry.renew_revision = number;
        let (holder, id) = (held.asked.holder.clone(), held.asked.id.clone());
        self.over.push(Over { name: name.into(), holder, id, asked: Some(held.asked), token, reason, at: now });
        (token, reason)
    }

    fn end(&mut self, name: &str, reason: EndReason, ran_out: bool) {
        let number = self.number();
        let ended = self.close(name, reason, number);
        if !self.give_to_next(name, Some(number), Some(ended)) {
            self.entry(name).expired = ran_out;
            self.changes.push((number, if ran_out { EXPIRED } else { RELEASED }, name.into(), Some(ended)));
        }
    }

    fn give_to_next(&mut self, name: &str, number: Option<u64>, ended: Option<(u64, EndReason)>) -> bool {
        let Some(next) = self.entry(name).waiting.iter().find(|waiting| waiting.gone.is_none()).cloned() else { return false };
        let number = number.unwrap_or_else(|| self.number());
        self.remove_waiter(name, next.waiter);
        self.give(name, next.asked, Some((next.waiter, next.session)), number, ended);
        self.told.push(Told::Granted(next.session, next.waiter, number));
        true
    }

    fn give(&mut self, name: &str, asked: Asked, claim: Option<(u64, u64)>, number: u64, ended: Option<(u64, EndReason)>) {
        let now = self.clock;
        let entry = self.entry(name);
        let first = if claim.is_some() { asked.duration.min(2000) } else { asked.duration };
        if entry.last_holder.as_ref().is_some_and(|last| *last != asked.holder) {
            entry.transitions += 1;
        }
        entry.last_holder = Some(asked.holder.clone());
        entry.duration = asked.duration;
        entry.token = number;
        entry.revision = number;
        entry.renew_revision = number;
        entry.expired = false;
        entry.held = Some(Held { asked, deadline: now + u64::from(first), claim });
        self.tokens.push(number);
        self.changes.push((number, ACQUIRED, name.into(), ended));
    }

    fn was_renewed(&self, token: u64) -> bool {
        self.leases.values().any(|entry| entry.held.is_some() && entry.token == token && entry.renew_revision > token)
    }

    fn keep(&mut self, session: u64) {
        let came_back = self.sessions.insert(session, (self.clock, false)).is_some_and(|(_, lapsed)| lapsed);
        if !came_back {
            return;
        }
        let mut back: Vec<(u64, String)> = Vec::new();
        for (name, entry) in &mut self.leases {
            for waiting in entry.waiting.iter_mut().filter(|waiting| waiting.session == session) {
                if matches!(waiting.gone, Some((_, true))) {
                    waiting.gone = None;
                    back.push((waiting.waiter, name.clone()));
                }
            }
        }
        back.sort();
        for (_, name) in back {
            if self.entry(&name).held.is_none() {
                self.give_to_next(&name, None, None);
            }
        }
    }

    fn run(&mut self, command: &Command) -> Said {
        match command {
            Command::Renew(renew) => {
                Said::Renewed(renew.items.iter().map(|item| self.renew(item.token, item.duration_ms, item.key.as_ref().map(|key| &*key.name))).collect())
            }
            Command::Release(release) => {
                let name = &*release.key.name;
                let outcome = match &release.by {
                    ReleaseBy::Token(token) => self.release_token(name, *token),
                    ReleaseBy::Undelivered(token) if self.was_renewed(*token) => ReleaseOutcome::NotHolder,
                    ReleaseBy::Undelivered(token) => self.release_token(name, *token),
                    ReleaseBy::Request { holder, request_id } => self.release_request(name, holder, request_id),
                };
                Said::Released { outcome, token: self.token(name) }
            }
            Command::KeepSession { session, close: false } => {
                self.keep(session.0);
                Said::Done
            }
            Command::KeepSession { session, close: true } => {
                let now = self.clock;
                for waiting in self.leases.values_mut().flat_map(|entry| &mut entry.waiting).filter(|waiting| waiting.session == session.0) {
                    waiting.gone = Some(waiting.gone.map_or((now, false), |(since, _)| (since, false)));
                }
                if let Some((_, lapsed)) = self.sessions.get_mut(&session.0) {
                    *lapsed = true;
                }
                Said::Done
            }
            Command::Acquire(acquire) => self.acquire(acquire),
            Command::Detach(detach) => {
                let (now, name) = (self.clock, &*detach.key.name);
                let Some(entry) = self.leases.get_mut(name) else { return Said::Done };
                if let Some(waiting) = entry.waiting.iter_mut().find(|waiting| waiting.waiter == detach.waiter.0) {
                    if waiting.session == detach.session.0 {
                        waiting.gone = Some(waiting.gone.map_or((now, false), |(since, _)| (since, false)));
                    }
                } else if entry.held.as_ref().is_some_and(|held| held.claim == Some((detach.waiter.0, detach.session.0))) {
                    self.end(name, EndReason::Unclaimed, false);
                }
                Said::Done
            }
            Command::Put(put) => {
                let name = &*put.key.name;
                let now = self.clock;
                let Some(entry) = self.leases.get_mut(name) else {
                    if put.if_revision.is_some() {
                        return Said::Refused(Refusal::NotFound);
                    }
                    if self.leases.len() as u64 >= self.limits.leases_per_namespace {
                        return Said::Refused(Refusal::NamespaceFull { limit: self.limits.leases_per_namespace });
                    }
                    let number = self.number();
                    let retention = put.retention_ms.flatten();
                    let entry = Entry { revision: number, renew_revision: number, create_revision: number, retention, idle_since: now, ..Entry::default() };
                    self.leases.insert(name.into(), entry);
                    self.changes.push((number, CREATED, name.into(), None));
                    return Said::Put { revision: number };
                };
                if put.must_not_exist {
                    return Said::Refused(Refusal::AlreadyExists);
                }
                if put.if_revision.is_some_and(|revision| revision != entry.revision) {
                    return Said::Refused(Refusal::RevisionMismatch { current: entry.revision });
                }
                if entry.token == 0 {
                    entry.idle_since = now;
                }
                if let Some(retention) = put.retention_ms.filter(|retention| *retention != entry.retention) {
                    let number = self.number();
                    let entry = self.entry(name);
                    entry.retention = retention;
                    entry.revision = number;
                    entry.renew_revision = number;
                    self.changes.push((number, UPDATED, name.into(), None));
                }
                Said::Put { revision: self.entry(name).revision }
            }
            Command::Delete(delete) => {
                let name = &*delete.key.name;
                let Some(entry) = self.leases.get(name).cloned() else { return Said::Refused(Refusal::NotFound) };
                if delete.if_revision.is_some_and(|revision| revision != entry.revision) {
                    return Said::Refused(Refusal::RevisionMismatch { current: entry.revision });
                }
                if !delete.force && (entry.held.is_some() || !entry.waiting.is_empty()) {
                    return Said::Refused(Refusal::InUse { until: entry.held.map(|held| tenure_lease::LeaseTime(held.deadline)) });
                }
                let number = self.number();
                let ended = entry.held.is_some().then(|| self.close(name, EndReason::Revoked, number));
                for waiting in &entry.waiting {
                    self.told.push(Told::Denied(waiting.session, waiting.waiter));
                }
                self.leases.remove(name);
                self.changes.push((number, DELETED, name.into(), ended));
                Said::Deleted { token: entry.token, waiters: entry.waiting.len() as u32 }
            }
            Command::Bootstrap { .. } => Said::Done,
        }
    }

    fn renew(&mut self, token: u64, duration: Option<u32>, named: Option<&str>) -> Result<u32, (EndReason, Option<String>)> {
        let live = self.leases.iter().find(|(_, entry)| entry.held.is_some() && entry.token == token).map(|(name, _)| name.clone());
        let holder = named.and_then(|name| self.leases.get(name)?.held.as_ref().map(|held| held.asked.holder.clone()));
        let Some(name) = live else {
            let over = self.over.iter().find(|over| over.token == token && token != 0);
            return Err((over.map_or(EndReason::UnknownToken, |over| over.reason), holder));
        };
        if named.is_some_and(|named| named != name) {
            return Err((EndReason::WrongLease, holder));
        }
        let (now, number) = (self.clock, self.number());
        let entry = self.entry(&name);
        let duration = duration.unwrap_or(entry.duration);
        entry.duration = duration;
        entry.renew_revision = number;
        let held = entry.held.as_mut().expect("it is live");
        held.deadline = held.deadline.max(now + u64::from(duration));
        held.claim = None;
        Ok(duration)
    }

    fn release_token(&mut self, name: &str, token: u64) -> ReleaseOutcome {
        match self.leases.get(name) {
            Some(entry) if entry.token == token && token != 0 => {
                if entry.held.is_none() {
                    return ReleaseOutcome::AlreadyReleased;
                }
                self.end(name, EndReason::Released, false);
                ReleaseOutcome::Released
            }
            _ => ReleaseOutcome::NotHolder,
        }
    }

    fn release_request(&mut self, name: &str, holder: &str, id: &str) -> ReleaseOutcome {
        let is = |asked: &Asked| asked.holder == holder && asked.id == id;
        if self.leases.get(name).and_then(|entry| entry.held.as_ref()).is_some_and(|held| is(&held.asked)) {
            self.end(name, EndReason::Released, false);
            return ReleaseOutcome::Released;
        }
        let waiting = self.leases.get(name).and_then(|entry| entry.waiting.iter().find(|waiting| is(&waiting.asked))).map(|waiting| waiting.waiter);
        let over = |asked, reason, at| Over { name: name.into(), holder: holder.into(), id: id.into(), asked, token: 0, reason, at };
        if let Some(waiter) = waiting {
            self.number();
            let waiting = self.remove_waiter(name, waiter);
            self.told.push(Told::Ended(waiting.session, waiter, EndReason::Released));
            self.over.push(over(Some(waiting.asked), EndReason::Released, self.clock));
            return ReleaseOutcome::Released;
        }
        if let Some(over) = self.find_over(name, holder, id) {
            return if over.reason == EndReason::Barred { ReleaseOutcome::Barred } else { ReleaseOutcome::AlreadyReleased };
        }
        self.over.push(over(None, EndReason::Barred, self.clock));
        ReleaseOutcome::Barred
    }

    fn find_over(&self, name: &str, holder: &str, id: &str) -> Option<&Over> {
        self.over.iter().find(|over| over.name == name && over.holder == holder && over.id == id)
    }

    fn acquire(&mut self, acquire: &Acquire) -> Said {
        let (name, now) = (&*acquire.key.name, self.clock);
        let asked = Asked {
            holder: acquire.holder.to_string(),
            id: acquire.request_id.to_string(),
            duration: acquire.duration_ms,
            reclaim: acquire.reclaim,
            retention: acquire.retention_ms,
        };
        let same = |other: &Asked| other.holder == asked.holder && other.id == asked.id;
        let waits = |model: &Self| model.leases.get(name).and_then(|entry| entry.waiting.iter().find(|waiting| same(&waiting.asked)).cloned());
        if acquire.wait_ms > 0 && waits(self).is_some() {
            self.keep(acquire.session.0);
        }
        if let Some(entry) = self.leases.get_mut(name)
            && let Some(held) = entry.held.as_mut().filter(|held| same(&held.asked))
        {
            if held.asked != asked {
                return Said::Refused(Refusal::RequestMismatch);
            }
            if let Some((_, session)) = &mut held.claim {
                *session = acquire.session.0;
            }
            return Said::Granted { token: entry.token, must_renew: true };
        }
        if let Some(waiting) = waits(self) {
            if waiting.asked != asked {
                return Said::Refused(Refusal::RequestMismatch);
            }
            let moved = waiting.session != acquire.session.0;
            if self.entry(name).held.is_none() {
                let number = self.number();
                self.remove_waiter(name, waiting.waiter);
                self.give(name, asked, Some((waiting.waiter, acquire.session.0)), number, None);
                if moved {
                    self.told.push(Told::Moved(waiting.session, waiting.waiter));
                }
                return Said::Granted { token: number, must_renew: true };
            }
            if acquire.wait_ms == 0 {
                self.number();
                self.remove_waiter(name, waiting.waiter);
                self.told.push(Told::Moved(waiting.session, waiting.waiter));
                let entry = self.entry(name);
                return Said::Denied { token: entry.token, waiters: entry.waiting.len() as u32 };
            }
            if moved {
                self.told.push(Told::Moved(waiting.session, waiting.waiter));
            }
            let entry = self.entry(name);
            let at = entry.waiting.iter().position(|other| other.waiter == waiting.waiter).expect("it waits");
            entry.waiting[at] = Waiting { session: acquire.session.0, until: now + acquire.wait_ms, gone: None, ..waiting };
            return Said::Queued { position: at as u32 + 1, waiter: entry.waiting[at].waiter, token: entry.token };
        }
        if let Some(over) = self.find_over(name, &asked.holder, &asked.id) {
            if over.asked.as_ref().is_some_and(|other| *other != asked) {
                return Said::Refused(Refusal::RequestMismatch);
            }
            return Said::Ended { token: over.token, reason: over.reason };
        }
        let Some(entry) = self.leases.get(name) else {
            if self.leases.len() as u64 >= self.limits.leases_per_namespace {
                return Said::Refused(Refusal::NamespaceFull { limit: self.limits.leases_per_namespace });
            }
            let number = self.number();
            let retention = Some(acquire.retention_ms);
            let entry = Entry { create_revision: number, retention, idle_since: now, ..Entry::default() };
            self.leases.insert(name.into(), entry);
            self.give(name, asked, None, number, None);
            return Said::Granted { token: number, must_renew: false };
        };
        let Some(held) = &entry.held else {
            let number = self.number();
            self.give(name, asked, None, number, None);
            return Said::Granted { token: number, must_renew: false };
        };
        if acquire.reclaim && held.asked.holder == asked.holder {
            let number = self.number();
            let ended = self.close(name, EndReason::Reclaimed, number);
            self.give(name, asked, None, number, Some(ended));
            return Said::Granted { token: number, must_renew: false };
        }
        if acquire.wait_ms == 0 {
            return Said::Denied { token: entry.token, waiters: entry.waiting.len() as u32 };
        }
        if entry.waiting.len() >= self.limits.waiters_per_lease as usize {
            return Said::Refused(Refusal::QueueFull { limit: self.limits.waiters_per_lease });
        }
        self.keep(acquire.session.0);
        let waiter = self.number();
        self.waiters.push((name.into(), waiter));
        let entry = self.entry(name);
        entry.waiting.push(Waiting { waiter, asked, session: acquire.session.0, until: now + acquire.wait_ms, gone: None });
        Said::Queued { position: entry.waiting.len() as u32, waiter, token: entry.token }
    }
}
