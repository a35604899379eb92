//! What openraft wants sent to a follower, and which of the follower's answers openraft may hear.
//!
//! **Commit notices.** An append without entries says only how far is committed. openraft makes one for each commit, at once: with a client that waits for
//! each answer that doubles the appends, and the notices go out before the client's answer. The next append says the same, so a notice is held back for a
//! moment and dropped if one comes. Who hurries: whatever somebody at another replica waits for ([`Hurry`]).
//!
//! **Answers.** openraft takes an answer for one to every append up to that log id, and the last of those says since when a quorum is known to follow:
//! reads rely on it. A notice has the log id of the append before it, so that the answer to the former append would vouch for the later moment, at which the
//! follower may have followed another raft leader already. Such an answer is passed over; the one to the notice, or to the append that replaced
//! it, says the same about the log.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use futures::{
    Stream, StreamExt as _,
    stream::{self, Fuse},
};
use openraft::{OptionalSend, raft::AppendEntriesRequest};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Sleep, sleep},
};

use super::types::TypeConfig;

type Append = AppendEntriesRequest<TypeConfig>;

/// How long a notice waits for an append to take its place. Also how much later a follower's watchers may hear of a change after which nothing happens.
const HOLD: Duration = Duration::from_millis(1);

/// Sends the commit notices that are held back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hurry(watch::Sender<()>);

impl Hurry {
    /// Somebody at another replica waits for what is committed.
    pub(super) fn now(&self) {
        self.0.send_replace(());
    }
}

/// Appends of one stream that were sent and are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<Ledger>);

#[derive(Debug, Default)]
struct Ledger {
    /// Of each in turn: whether openraft made a notice after the one before it. It may be that notice.
    after_notice: VecDeque<bool>,
    /// One was made, and waits.
    held: bool,
}

impl Owed {
    fn holding(&self) {
        self.0.lock().held = true;
    }

    fn sent(&self) {
        let mut ledger = self.0.lock();
        let after_notice = std::mem::take(&mut ledger.held);
        ledger.after_notice.push_back(after_notice);
    }

    /// Whether any answer is to come.
    pub(super) fn any(&self) -> bool {
        !self.0.lock().after_notice.is_empty()
    }

    /// One has come. Whether it vouches for nothing but what it is the answer to; otherwise another will follow.
    ///
    /// A replica's runtime has one thread, so openraft makes no notice between this and hearing the answer, nor between making one and `holding`.
    pub(super) fn answered(&self) -> bool {
        let mut ledger = self.0.lock();
        ledger.after_notice.pop_front();
        !ledger.after_notice.front().copied().unwrap_or(ledger.held)
    }
}

/// The appends to send, beginning with `first`.
pub(super) fn appends<S>(first: Append, input: S, hurry: &Hurry, owed: Arc<Owed>) -> impl Stream<Item = Append> + Send + 'static
where
    S: Stream<Item = Append> + OptionalSend + Unpin + 'static,
{
    owed.sent();
    let rest = Pacing { input: input.fuse(), held: None, hurried: hurry.0.subscribe(), owed };
    stream::iter([first]).chain(stream::unfold(rest, Pacing::next))
}

struct Pacing<S> {
    input: Fuse<S>,
    /// A notice, and how long it waits.
    held: Option<(Append, Pin<Box<Sleep>>)>,
    hurried: watch::Receiver<()>,
    owed: Arc<Owed>,
}

impl<S: Stream<Item = Append> + Unpin> Pacing<S> {
    async fn next(mut self) -> Option<(Append, Self)> {
        loop {
            let next = match &mut self.held {
                None => Next::Append(self.input.next().await),
                Some((_, hold)) => tokio::select! {
                    biased;
                    append = self.input.next() => Next::Append(append),
                    Ok(()) = self.hurried.changed() => Next::Notice,
                    () = hold => Next::Notice,
                },
            };
            let append = match next {
                Next::Append(Some(notice)) if notice.entries.is_empty() => {
                    self.owed.holding();
                    let hold = self.held.take().map_or_else(|| Box::pin(sleep(HOLD)), |(_, hold)| hold);
                    self.held = Some((notice, hold));
                    continue;
                }
                Next::Append(Some(append)) => {
                    // It says how far is committed, too.
                    self.held = None;
                    self.hurried.mark_unchanged();
                    append
                }
                // At the end, too: nothing will take its place.
                Next::Notice | Next::Append(None) => self.held.take()?.0,
            };
            self.owed.sent();
            return Some((append, self));
        }
    }
}

enum Next {
    Append(Option<Append>),
    /// The one that is held.
    Notice,
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, stream::BoxStream};
    use openraft::{
        EntryPayload,
        entry::RaftEntry as _,
        vote::{RaftLeaderId as _, RaftVote as _},
    };
    use tokio::{
        sync::mpsc::{UnboundedSender, unbounded_channel},
        time::timeout,
    };
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::{
        super::types::{Entry, LeaderId, Vote, log_id},
        *,
    };

    /// Up to entry `last`, of which it has one, or none.
    fn append(last: u64, entry: bool, committed: u64) -> Append {
        Append {
            vote: Vote::from_leader_id(LeaderId::new(1, 1), true),
            prev_log_id: Some(log_id(1, 1, if entry { last - 1 } else { last })),
            leader_commit: Some(log_id(1, 1, committed)),
            entries: if entry { vec![Entry::new(log_id(1, 1, last), EntryPayload::Blank)] } else { Vec::new() },
        }
    }

    fn entry(last: u64) -> Append {
        append(last, true, last - 1)
    }

    fn notice(committed: u64) -> Append {
        append(committed, false, committed)
    }

    struct Stream {
        input: UnboundedSender<Append>,
        sent: BoxStream<'static, Append>,
        hurry: Hurry,
        owed: Arc<Owed>,
    }

    impl Stream {
        /// Entry 1 was sent.
        async fn begin() -> Self {
            let (input, appends) = unbounded_channel();
            let (hurry, owed) = (Hurry::default(), Arc::default());
            let sent = super::appends(entry(1), UnboundedReceiverStream::new(appends), &hurry, Arc::clone(&owed)).boxed();
            let mut stream = Self { input, sent, hurry, owed };
            assert_eq!(stream.next().await, (1, Some(1)));
            stream
        }

        fn push(&self, append: Append) {
            assert!(self.input.send(append).is_ok());
        }

        /// How many entries it has, and the last one's index.
        async fn next(&mut self) -> (usize, Option<u64>) {
            let append = self.sent.next().await.expect("an append");
            (append.entries.len(), append.entries.last().map(|entry| entry.index()))
        }

        fn nothing_yet(&mut self) -> bool {
            self.sent.next().now_or_never().is_none()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn notice_gives_way_to_an_append_and_goes_by_itself_when_none_comes() {
        let mut stream = Stream::begin().await;
        stream.push(notice(1));
        assert!(stream.nothing_yet());
        stream.push(entry(2));
        assert_eq!(stream.next().await, (1, Some(2)));
        stream.push(notice(2));
        assert!(stream.nothing_yet());
        assert_eq!(timeout(HOLD * 2, stream.next()).await, Ok((0, None)));
        assert!(stream.nothing_yet());
    }

    #[tokio::test(start_paused = true)]
    async fn another_notice_does_not_make_the_first_wait_longer() {
        let mut stream = Stream::begin().await;
        for _ in 0..2 {
            stream.push(notice(1));
            assert!(stream.nothing_yet());
            tokio::time::advance(HOLD * 3 / 5).await;
        }
        assert!(!stream.nothing_yet());
    }

    #[tokio::test(start_paused = true)]
    async fn hurry_sends_a_notice_whether_it_comes_before_or_after() {
        let mut stream = Stream::begin().await;
        stream.push(notice(1));
        assert!(stream.nothing_yet());
        stream.hurry.now();
        assert_eq!(stream.sent.next().now_or_never().flatten().map(|append| append.entries.len()), Some(0));
        stream.hurry.now();
        stream.push(notice(1));
        assert_eq!(stream.sent.next().now_or_never().flatten().map(|append| append.entries.len()), Some(0));
        // An append tells as much; the next notice has no reason to hurry.
        stream.hurry.now();
        stream.push(entry(2));
        assert_eq!(stream.next().await, (1, Some(2)));
        stream.push(notice(2));
        assert!(stream.nothing_yet());
    }

    #[tokio::test(start_paused = true)]
    async fn notice_is_the_last_when_nothing_comes_any_more() {
        let mut stream = Stream::begin().await;
        stream.push(notice(1));
        drop(std::mem::replace(&mut stream.input, unbounded_channel().0));
        assert_eq!(stream.next().await, (0, None));
        assert!(stream.sent.next().await.is_none());
    }

    /// Else a read would be confirmed by an answer from before it was asked: the raft leader slept, and another was elected meanwhile.
    #[tokio::test(start_paused = true)]
    async fn answer_is_not_heard_when_openraft_would_take_it_for_one_to_a_later_notice() {
        // Held back.
        let mut stream = Stream::begin().await;
        stream.push(notice(1));
        assert!(stream.nothing_yet());
        assert!(!stream.owed.answered());
        assert!(!stream.owed.any());
        assert_eq!(stream.next().await, (0, None));
        assert!(stream.owed.any() && stream.owed.answered());
        // Sent.
        stream.push(entry(2));
        stream.push(notice(2));
        assert_eq!(stream.next().await, (1, Some(2)));
        assert_eq!(stream.next().await, (0, None));
        assert!(!stream.owed.answered());
        assert!(stream.owed.answered());
        // Replaced.
        stream.push(entry(3));
        assert_eq!(stream.next().await, (1, Some(3)));
        stream.push(notice(3));
        assert!(stream.nothing_yet());
        stream.push(entry(4));
        assert_eq!(stream.next().await, (1, Some(4)));
        assert!(!stream.owed.answered());
        assert!(stream.owed.answered());
        assert!(!stream.owed.any());
    }

    #[tokio::test(start_paused = true)]
    async fn answers_to_entries_alone_are_all_heard() {
        let mut stream = Stream::begin().await;
        stream.push(entry(2));
        stream.push(entry(3));
        assert_eq!((stream.next().await, stream.next().await), ((1, Some(2)), (1, Some(3))));
        assert!(stream.owed.answered() && stream.owed.answered() && stream.owed.answered());
    }
}
