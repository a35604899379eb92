//! Renew: every message is sent on at once, answers come in the order of the messages.
//!
//! The answer stream does the work while it is polled, so a client that does not take its answers is not read from either. A message that breaks a
//! rule ends the stream after everything before it was answered; it costs no lease, as its holder can renew through another stream.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, stream::BoxStream};
use tenure_proto::{
    peer::v1::{self as peer, Outcome, command::Kind as Ask, outcome::Kind},
    v1::{self, renew_result::Result as Renewed},
};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use super::{Service, status, validate};
use crate::write::{Submission, codec::duration_to_wire};

/// Messages of one stream that are being answered; reading pauses beyond.
const IN_FLIGHT: usize = 256;

type Answer = Result<v1::RenewResponse, Status>;

/// `patience`: for each message.
pub(super) fn renew<S>(service: &Arc<Service>, messages: S, patience: Duration) -> BoxStream<'static, Answer>
where
    S: Stream<Item = Result<v1::RenewRequest, Status>> + Send + Unpin + 'static,
{
    let stopping = Box::pin(service.parts.stopping.clone().cancelled_owned());
    let service = service.clone();
    Pipeline::new(messages, move |message| Renewing::begin(&service, message, patience), stopping, patience).boxed()
}

/// A message that is being answered.
struct Renewing {
    service: Arc<Service>,
    patience: Duration,
    state: State,
}

enum State {
    Submitted {
        submission: Submission,
        items: usize,
    },
    /// Without asking the raft leader.
    Answered(Option<Answer>),
}

impl Renewing {
    fn begin(service: &Arc<Service>, message: v1::RenewRequest, patience: Duration) -> Self {
        let state = match validate::renew(message, &service.parts.config.limits) {
            Err(error) => State::Answered(Some(Err(error))),
            Ok(renew) if renew.tokens.is_empty() => {
                State::Answered(Some(Ok(v1::RenewResponse { header: service.header(), results: Vec::new(), renew_within: None })))
            }
            Ok(renew) => {
                let items = renew.tokens.len();
                State::Submitted { submission: service.parts.router.begin(validate::command(Ask::Renew(renew))), items }
            }
        };
        Self { service: Arc::clone(service), patience, state }
    }

    fn answer(&self, outcome: Outcome, items: usize) -> Answer {
        let outcome = match outcome.kind {
            Some(Kind::Renewed(outcome)) if outcome.durations_ms.len() == items => outcome,
            Some(Kind::Refused(refusal)) => return Err(status::refused(refusal, "")),
            _ => return Err(status::unknown_answer()),
        };
        let (results, renew_within) = results(outcome);
        Ok(v1::RenewResponse { header: self.service.header(), results, renew_within })
    }
}

impl Future for Renewing {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.get_mut();
        Poll::Ready(match &mut this.state {
            State::Answered(answer) => answer.take().expect("is not polled after its end"),
            State::Submitted { submission, items } => {
                let (outcome, items) = (ready!(submission.poll_unpin(cx)), *items);
                outcome.map_err(|error| status::submit(&error)).and_then(|outcome| this.answer(outcome, items))
            }
        })
    }
}

/// The answer to a message, in the making.
trait Reply: Future<Output = Answer> + Unpin {
    /// Whether it gets on only while it is polled.
    fn needs_polling(&self) -> bool;
    /// What to say when it took too long.
    fn given_up(&self) -> Status;
}

impl Reply for Renewing {
    fn needs_polling(&self) -> bool {
        matches!(&self.state, State::Submitted { submission, .. } if submission.is_searching())
    }

    fn given_up(&self) -> Status {
        match &self.state {
            State::Submitted { submission, .. } => status::submit(&submission.given_up(self.patience)),
            State::Answered(_) => status::unknown_answer(),
        }
    }
}

/// Results in their order, and a third of the shortest duration.
fn results(outcome: peer::RenewOutcome) -> (Vec<v1::RenewResult>, Option<prost_types::Duration>) {
    let mut lost = outcome.lost.into_iter();
    let shortest = outcome.durations_ms.iter().filter(|ms| **ms > 0).min().copied();
    let result = |ms: u32| match ms {
        0 => Renewed::Lost(lost.next().unwrap_or_default()),
        ms => Renewed::Renewed(v1::Renewed { duration: Some(duration_to_wire(ms.into())) }),
    };
    let results = outcome.durations_ms.into_iter().map(result).map(|result| v1::RenewResult { result: Some(result) }).collect();
    (results, shortest.map(|ms| duration_to_wire(u64::from(ms) / 3)))
}

/// Messages in, answers out. A renewal is so little work that this would be much of it, so a message costs no allocation, timer or waker here.
struct Pipeline<S, F, R> {
    /// `None`: nothing more is read.
    messages: Option<S>,
    begin: F,
    due: VecDeque<Due<R>>,
    /// After the last answer.
    error: Option<Status>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Of the patience for each message.
    quarter: Duration,
    /// Runs for a quarter; `None`: nothing has been waiting for so long.
    timer: Option<Pin<Box<Sleep>>>,
    /// How many have passed.
    quarters: u64,
    /// Who hears of `stopping` and `timer`.
    told: Option<Waker>,
    not_looked: u8,
}

/// An answer that is owed.
struct Due<R> {
    reply: R,
    /// It came before its turn.
    answer: Option<Answer>,
    /// After so many quarters it has taken too long.
    until: u64,
}

impl<S, F, R> Pipeline<S, F, R>
where
    S: Stream<Item = Result<v1::RenewRequest, Status>> + Unpin,
    F: Fn(v1::RenewRequest) -> R + Unpin,
    R: Reply,
{
    fn new(messages: S, begin: F, stopping: Pin<Box<WaitForCancellationFutureOwned>>, patience: Duration) -> Self {
        let (due, quarter) = (VecDeque::new(), patience / 4);
        Self { messages: Some(messages), begin, due, error: None, stopping, quarter, timer: None, quarters: 0, told: None, not_looked: 0 }
    }

    /// Whether there was anything.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.due.len();
        while self.due.len() < IN_FLIGHT
            && let Some(messages) = &mut self.messages
        {
            match messages.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    // Some of the present quarter is over.
                    let until = self.quarters + if self.timer.is_some() { 5 } else { 4 };
                    self.due.push_back(Due { reply: (self.begin)(message), answer: None, until });
                }
                Poll::Ready(Some(Err(error))) => self.end(error),
                Poll::Ready(None) => self.messages = None,
                Poll::Pending => break,
            }
        }
        self.due.len() > before
    }

    /// After the answers that are on their way.
    fn end(&mut self, error: Status) {
        self.messages = None;
        self.error = Some(error);
    }

    /// The next answer, if it is there.
    fn answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let Some(next) = self.due.front_mut() else {
            return match self.error.take() {
                Some(error) => Poll::Ready(Some(Err(error))),
                None if self.messages.is_none() => Poll::Ready(None),
                // Woken by the messages.
                None => Poll::Pending,
            };
        };
        let answer = match next.poll(cx) {
            Poll::Ready(answer) => answer,
            Poll::Pending if next.until <= self.quarters => Err(next.reply.given_up()),
            Poll::Pending => {
                if next.reply.needs_polling() {
                    // Those behind it look for the raft leader beside it, not after it.
                    for due in self.due.iter_mut().skip(1) {
                        if let Poll::Ready(answer) = due.poll(cx) {
                            due.answer = Some(answer);
                        }
                    }
                }
                return Poll::Pending;
            }
        };
        self.due.pop_front();
        if answer.is_err() {
            self.messages = None;
            self.due.clear();
            self.error = None;
        }
        Poll::Ready(Some(answer))
    }

    /// Whether the replica goes down, and what time it is; `true`: something has changed.
    fn look_up(&mut self, cx: &mut Context<'_>) -> bool {
        self.told = Some(cx.waker().clone());
        if self.messages.is_some() && self.stopping.as_mut().poll(cx).is_ready() {
            self.end(status::shutting_down());
            return true;
        }
        if self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
            self.quarters += 1;
            self.timer = None;
            return true;
        }
        false
    }
}

impl<R: Reply> Due<R> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => self.reply.poll_unpin(cx),
        }
    }
}

impl<S, F, R> Stream for Pipeline<S, F, R>
where
    S: Stream<Item = Result<v1::RenewRequest, Status>> + Unpin,
    F: Fn(v1::RenewRequest) -> R + Unpin,
    R: Reply,
{
    type Item = Answer;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let this = self.get_mut();
        loop {
            let mut progress = this.read(cx);
            if let Poll::Ready(answer) = this.answer(cx) {
                return Poll::Ready(answer);
            }
            if this.timer.is_none() && !this.due.is_empty() {
                this.timer = Some(Box::pin(tokio::time::sleep(this.quarter)));
                progress = false;
            }
            // Who was woken by a message and is known to what else can wake it need not ask that, or not each time.
            this.not_looked = this.not_looked.wrapping_add(1);
            if progress && this.not_looked != 0 && this.told.as_ref().is_some_and(|told| told.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            if !this.look_up(cx) {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::BoxFuture;
    use tokio::sync::{mpsc, oneshot};
    use tokio_util::sync::CancellationToken;

    type Answering = oneshot::Sender<Answer>;

    struct Told(BoxFuture<'static, Answer>);

    impl Future for Told {
        type Output = Answer;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
            self.0.poll_unpin(cx)
        }
    }

    impl Reply for Told {
        fn needs_polling(&self) -> bool {
            true
        }

        fn given_up(&self) -> Status {
            Status::deadline_exceeded("too long")
        }
    }

    /// A pipeline whose answers come when the test says so.
    fn pipeline(
        stopping: &CancellationToken,
    ) -> (futures::channel::mpsc::UnboundedSender<Result<v1::RenewRequest, Status>>, mpsc::UnboundedReceiver<Answering>, BoxStream<'static, Answer>) {
        // Not tokio's: its cooperative budget would interrupt a long read.
        let (send, messages) = futures::channel::mpsc::unbounded();
        let (asked, replies) = mpsc::unbounded_channel();
        let answer = move |_message| {
            let (reply, replied) = oneshot::channel::<Answer>();
            let asked = asked.clone();
            asked.send(reply).expect("the test listens");
            Told(async move { replied.await.expect("the test answers") }.boxed())
        };
        let stopping = Box::pin(stopping.clone().cancelled_owned());
        (send, replies, Pipeline::new(messages, answer, stopping, PATIENCE).boxed())
    }

    const PATIENCE: Duration = Duration::from_secs(4);

    fn numbered(n: u64) -> Answer {
        Ok(v1::RenewResponse { header: Some(v1::ResponseHeader { revision: n, ..Default::default() }), ..Default::default() })
    }

    fn number(answer: Option<Answer>) -> u64 {
        answer.expect("not at its end").expect("an answer").header.expect("a header").revision
    }

    #[tokio::test]
    async fn messages_are_sent_on_before_earlier_ones_are_answered_and_answers_keep_their_order() {
        let (send, mut asked, mut answers) = pipeline(&CancellationToken::new());
        for _ in 0..3 {
            send.unbounded_send(Ok(v1::RenewRequest::default())).unwrap();
        }
        drop(send);
        let collected =
            tokio::spawn(
                async move { (number(answers.next().await), number(answers.next().await), number(answers.next().await), answers.next().await.is_none()) },
            );
        let replies = [asked.recv().await.unwrap(), asked.recv().await.unwrap(), asked.recv().await.unwrap()];
        for (n, reply) in replies.into_iter().enumerate().rev() {
            reply.send(numbered(n as u64)).unwrap();
        }
        assert_eq!(collected.await.unwrap(), (0, 1, 2, true), "a half-closed stream gets all its answers");
    }

    #[tokio::test]
    async fn reading_pauses_when_too_much_is_in_flight() {
        let (send, mut asked, mut answers) = pipeline(&CancellationToken::new());
        for _ in 0..IN_FLIGHT + 10 {
            send.unbounded_send(Ok(v1::RenewRequest::default())).unwrap();
        }
        assert!(futures::poll!(answers.next()).is_pending());
        assert_eq!(asked.len(), IN_FLIGHT);
        asked.recv().await.unwrap().send(numbered(0)).unwrap();
        assert_eq!(number(answers.next().await), 0);
        assert!(futures::poll!(answers.next()).is_pending());
        assert_eq!(asked.len(), IN_FLIGHT, "one answered, one more read");
    }

    #[tokio::test]
    async fn error_comes_after_the_answers_before_it_and_ends_the_stream() {
        let (send, mut asked, mut answers) = pipeline(&CancellationToken::new());
        send.unbounded_send(Ok(v1::RenewRequest::default())).unwrap();
        send.unbounded_send(Err(Status::out_of_range("too large"))).unwrap();
        assert!(futures::poll!(answers.next()).is_pending());
        asked.recv().await.unwrap().send(numbered(1)).unwrap();
        assert_eq!(number(answers.next().await), 1);
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), tonic::Code::OutOfRange);
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn going_down_ends_the_stream_after_what_is_in_flight() {
        let stopping = CancellationToken::new();
        let (send, mut asked, mut answers) = pipeline(&stopping);
        send.unbounded_send(Ok(v1::RenewRequest::default())).unwrap();
        assert!(futures::poll!(answers.next()).is_pending());
        stopping.cancel();
        assert!(futures::poll!(answers.next()).is_pending());
        asked.recv().await.unwrap().send(numbered(1)).unwrap();
        assert_eq!(number(answers.next().await), 1);
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
        assert!(answers.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn answer_that_takes_too_long_ends_the_stream() {
        let (send, mut asked, mut answers) = pipeline(&CancellationToken::new());
        let began = tokio::time::Instant::now();
        send.unbounded_send(Ok(v1::RenewRequest::default())).unwrap();
        let _never = asked.recv();
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), tonic::Code::DeadlineExceeded);
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
        assert!(answers.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn each_message_has_its_own_patience() {
        let (send, mut asked, mut answers) = pipeline(&CancellationToken::new());
        let began = tokio::time::Instant::now();
        for second in 0..10 {
            send.unbounded_send(Ok(v1::RenewRequest::default())).unwrap();
            assert!(futures::poll!(answers.next()).is_pending());
            tokio::time::sleep(Duration::from_secs(1)).await;
            asked.recv().await.unwrap().send(numbered(second)).unwrap();
            assert_eq!(number(answers.next().await), second);
        }
        send.unbounded_send(Ok(v1::RenewRequest::default())).unwrap();
        assert!(futures::poll!(answers.next()).is_pending());
        let _never = asked.recv().await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), tonic::Code::DeadlineExceeded);
        let waited = began.elapsed() - Duration::from_secs(10);
        assert!(PATIENCE <= waited && waited <= PATIENCE * 5 / 4, "{waited:?}");
    }

    #[test]
    fn results_keep_their_order_and_the_shortest_duration_sets_the_pace() {
        let lost = v1::Lost { reason: v1::EndReason::Expired.into(), holder: "b".into(), token: 2 };
        let (results, within) = results(peer::RenewOutcome { durations_ms: vec![9_000, 0, 3_000], lost: vec![lost.clone()] });
        assert_eq!(results[1].result, Some(Renewed::Lost(lost)));
        assert!(matches!(&results[2].result, Some(Renewed::Renewed(renewed)) if renewed.duration == Some(duration_to_wire(3_000))));
        assert_eq!(within, Some(duration_to_wire(1_000)));
    }
}
