//! Streams at this replica that wait in a queue: the replica's session, and notices to the stream they are for.
//!
//! A [`Place`] is held for as long as a call may wait here; while there is any, [`Waiting::run`] keeps the session alive. Apply only files notices;
//! positions are looked up apart from it, a few times a second, and only told when they change. A stream that does not read keeps one piece of news: the
//! end of its wait, or else its newest position.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tenure_lease::{Applied, LeaseKey, LeaseTable, LeaseTime, NoticeKind, SessionId, WaiterId};
use tenure_proto::peer::v1::{Command, KeepSession, command};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    replica::{Applications, OnApplied},
    write::Router,
};

/// A quarter of what a session may be silent.
const KEEP_EVERY: Duration = Duration::from_millis(500);
/// Positions are looked up at most this often.
const POSITIONS_EVERY: Duration = Duration::from_millis(100);
/// Notices that came before their subscription are kept for so much lease clock.
const KEEP_NOTICES_MS: u64 = 5_000;
/// And no more than these.
const KEEP_NOTICES: usize = 10_000;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Waiting {
    shared: Arc<Shared>,
}

struct Shared {
    session: SessionId,
    /// Calls that wait, or may.
    places: AtomicUsize,
    first_place: Notify,
    streams: Mutex<Streams>,
    /// Some queue has moved since positions were last told.
    moved: AtomicBool,
    positions_due: Notify,
}

#[derive(Default)]
struct Streams {
    by_waiter: HashMap<WaiterId, Stream>,
    /// Notices whose stream has not subscribed yet: the answer travels slower than the apply.
    early: VecDeque<(LeaseTime, WaiterId, NoticeKind)>,
}

struct Stream {
    key: LeaseKey,
    position: u32,
    news: watch::Sender<Option<Heard>>,
}

impl Stream {
    fn tell(&self, heard: Heard) {
        tell(&self.news, heard);
    }
}

/// Puts news in the place of older news. A notice stays: it is the end of the wait.
fn tell(news: &watch::Sender<Option<Heard>>, heard: Heard) {
    news.send_if_modified(|newest| {
        let stays = match newest {
            Some(Heard::Notice(_)) => true,
            Some(Heard::AskAgain) => matches!(heard, Heard::Position(_)),
            Some(Heard::Position(_)) | None => false,
        };
        if !stays {
            *newest = Some(heard);
        }
        !stays
    });
}

/// What a waiting stream has not heard yet.
pub(crate) struct News(watch::Receiver<Option<Heard>>);

impl News {
    /// Waits for the next piece. `None`: another subscription of the same place has taken over.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        self.0.changed().await.ok()?;
        self.0.borrow_and_update().clone()
    }
}

/// What a waiting stream hears.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    /// 1 is next.
    Position(u32),
    Notice(NoticeKind),
    /// Notices may have been missed: ask again with the same request id.
    AskAgain,
}

impl Waiting {
    pub(crate) fn new(session: SessionId) -> Self {
        let shared = Shared {
            session,
            places: AtomicUsize::new(0),
            first_place: Notify::new(),
            streams: Mutex::new(Streams::default()),
            moved: AtomicBool::new(false),
            positions_due: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.shared.session
    }

    /// To be taken before the command that may queue is sent.
    pub(crate) fn place(&self) -> Place {
        if self.shared.places.fetch_add(1, Ordering::Relaxed) == 0 {
            self.shared.first_place.notify_one();
        }
        Place { shared: self.shared.clone(), waiter: None }
    }

    /// Keeps the session alive while anybody waits here, and tells positions. When `stopping` is cancelled: closes the session and returns.
    pub(crate) async fn run(&self, router: Router, applications: Arc<Applications>, stopping: CancellationToken) {
        tokio::select! {
            () = self.keep_session(&router) => {}
            () = self.tell_positions(&applications) => {}
            () = stopping.cancelled() => {}
        }
        if self.shared.places.load(Ordering::Relaxed) > 0
            && let Err(error) = router.submit(self.keep(true), KEEP_EVERY).await
        {
            tracing::debug!(%error, "the session was not closed: its waiters are detached when it lapses");
        }
    }

    async fn keep_session(&self, router: &Router) {
        loop {
            // Acquire itself starts (or renews) the session.
            tokio::time::sleep(KEEP_EVERY).await;
            while self.shared.places.load(Ordering::Relaxed) == 0 {
                self.shared.first_place.notified().await;
            }
            if let Err(error) = router.submit(self.keep(false), KEEP_EVERY * 4).await {
                tracing::warn!(%error, "the session of this replica's waiters was not kept alive");
            }
        }
    }

    fn keep(&self, close: bool) -> Command {
        Command { kind: Some(command::Kind::KeepSession(KeepSession { session: self.shared.session.0, close })) }
    }

    async fn tell_positions(&self, applications: &Applications) {
        loop {
            self.shared.positions_due.notified().await;
            // A hand-over is under way: who is granted comes first, those who moved up hear of it after.
            tokio::time::sleep(POSITIONS_EVERY).await;
            self.shared.moved.store(false, Ordering::Relaxed);
            self.tell_positions_once(applications);
        }
    }

    fn tell_positions_once(&self, applications: &Applications) {
        // Who is next can only be told of a notice.
        let keys: HashSet<LeaseKey> =
            self.shared.streams.lock().by_waiter.values().filter(|stream| stream.position > 1).map(|stream| stream.key.clone()).collect();
        for key in keys {
            let queue = applications.table.read().queue(&key);
            let mut streams = self.shared.streams.lock();
            for (position, (waiter, _)) in (1..).zip(queue) {
                // Nobody falls back in a queue. A larger number is an older one: the stream has its own from a raft leader that had applied more than this
                // replica had when its table was looked at.
                if let Some(stream) = streams.by_waiter.get_mut(&waiter)
                    && stream.position > position
                {
                    stream.position = position;
                    stream.tell(Heard::Position(position));
                }
            }
        }
    }
}

/// A call that waits here, or may; given up by dropping it.
pub(crate) struct Place {
    shared: Arc<Shared>,
    waiter: Option<WaiterId>,
}

impl Place {
    /// News for a waiter that was told its position.
    pub(crate) fn subscribe(&mut self, key: LeaseKey, waiter: WaiterId, position: u32) -> News {
        let (news, receiver) = watch::channel(None);
        let mut streams = self.shared.streams.lock();
        if let Some(before) = self.waiter.replace(waiter) {
            streams.by_waiter.remove(&before);
        }
        streams.early.retain(|(_, whose, kind)| {
            if *whose == waiter {
                tell(&news, Heard::Notice(kind.clone()));
            }
            *whose != waiter
        });
        if let Some(other) = streams.by_waiter.insert(waiter, Stream { key, position, news }) {
            // The same request through another stream of this replica: it is that stream's now.
            other.tell(Heard::Notice(NoticeKind::Moved));
        }
        drop(streams);
        self.shared.look_soon();
        News(receiver)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            let mut streams = self.shared.streams.lock();
            // Not if another stream has taken the place over: its receiver lives.
            if streams.by_waiter.get(&waiter).is_some_and(|stream| stream.news.is_closed()) {
                streams.by_waiter.remove(&waiter);
            }
        }
        self.shared.places.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn look_soon(&self) {
        if !self.moved.swap(true, Ordering::Relaxed) {
            self.positions_due.notify_one();
        }
    }
}

impl OnApplied for Waiting {
    fn applied(&self, table: &LeaseTable, applied: &Applied) {
        if applied.notices.is_empty() {
            return;
        }
        let mut streams = self.shared.streams.lock();
        let now = table.clock();
        while streams.early.front().is_some_and(|(at, ..)| at.after(KEEP_NOTICES_MS) < now) || streams.early.len() > KEEP_NOTICES {
            streams.early.pop_front();
        }
        for notice in applied.notices.iter().filter(|notice| notice.session == self.shared.session) {
            match streams.by_waiter.get(&notice.waiter) {
                Some(stream) => stream.tell(Heard::Notice(notice.kind.clone())),
                None => streams.early.push_back((now, notice.waiter, notice.kind.clone())),
            }
        }
        let anybody = !streams.by_waiter.is_empty();
        drop(streams);
        // Every notice is of somebody who left a queue, ours or another replica's.
        if anybody {
            self.shared.look_soon();
        }
    }

    fn replaced(&self, _table: &LeaseTable) {
        let streams = self.shared.streams.lock();
        for stream in streams.by_waiter.values() {
            stream.tell(Heard::AskAgain);
        }
    }
}

#[cfg(test)]
mod tests;
