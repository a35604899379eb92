//! Renew: every message is sent on at once, answers come in the order of the messages.
//!
//! The answer stream does the work while it is polled, so a client that does not take its answers is not read from either. A message that breaks a
//! rule ends the stream after everything before it was answered; it costs no lease, as its holder can renew through another stream.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{
    FutureExt, Stream, StreamExt,
    future::{self, BoxFuture},
    stream::{BoxStream, FuturesOrdered},
};
use tenure_proto::{
    peer::v1::{self as peer, Outcome, command::Kind as Ask, outcome::Kind},
    v1::{self, renew_result::Result as Renewed},
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use super::{Service, status, validate};
use crate::write::codec::duration_to_wire;

/// Messages of one stream that are being answered; reading pauses beyond.
const IN_FLIGHT: usize = 256;

type Answer = Result<v1::RenewResponse, Status>;

/// `patience`: for each message.
pub(super) fn renew<S>(service: &Arc<Service>, messages: S, patience: Duration) -> BoxStream<'static, Answer>
where
    S: Stream<Item = Result<v1::RenewRequest, Status>> + Send + Unpin + 'static,
{
    let stopping = Box::pin(service.parts.stopping.clone().cancelled_owned());
    let answer = {
        let service = service.clone();
        move |message| answer(&service, message, patience)
    };
    Pipeline { messages: Some(messages), answers: FuturesOrdered::new(), answer, stopping }.boxed()
}

fn answer(service: &Arc<Service>, message: v1::RenewRequest, patience: Duration) -> BoxFuture<'static, Answer> {
    let renew = match validate::renew(message, &service.parts.config.limits) {
        Ok(renew) => renew,
        Err(error) => return future::ready(Err(error)).boxed(),
    };
    let service = service.clone();
    async move {
        if renew.tokens.is_empty() {
            return Ok(v1::RenewResponse { header: service.header(), results: Vec::new(), renew_within: None });
        }
        let n = renew.tokens.len();
        let Outcome { kind } = service.submit(validate::command(Ask::Renew(renew)), patience).await?;
        let outcome = match kind {
            Some(Kind::Renewed(outcome)) if outcome.durations_ms.len() == n => outcome,
            Some(Kind::Refused(refusal)) => return Err(status::refused(refusal, "")),
            _ => return Err(status::unknown_answer()),
        };
        let (results, renew_within) = results(outcome);
        Ok(v1::RenewResponse { header: service.header(), results, renew_within })
    }
    .boxed()
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

/// Messages in, answers out.
struct Pipeline<S, F> {
    /// `None`: nothing more is read.
    messages: Option<S>,
    answers: FuturesOrdered<BoxFuture<'static, Answer>>,
    answer: F,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S, F> Stream for Pipeline<S, F>
where
    S: Stream<Item = Result<v1::RenewRequest, Status>> + Unpin,
    F: Fn(v1::RenewRequest) -> BoxFuture<'static, Answer> + Unpin,
{
    type Item = Answer;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let this = self.get_mut();
        if this.messages.is_some() && this.stopping.as_mut().poll(cx).is_ready() {
            // After the answers that are on their way.
            this.messages = None;
            this.answers.push_back(future::ready(Err(status::shutting_down())).boxed());
        }
        while this.answers.len() < IN_FLIGHT
            && let Some(messages) = &mut this.messages
        {
            match messages.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(message))) => this.answers.push_back((this.answer)(message)),
                Poll::Ready(Some(Err(error))) => {
                    this.messages = None;
                    this.answers.push_back(future::ready(Err(error)).boxed());
                }
                Poll::Ready(None) => this.messages = None,
                Poll::Pending => break,
            }
        }
        match ready!(this.answers.poll_next_unpin(cx)) {
            Some(Err(error)) => {
                this.messages = None;
                this.answers = FuturesOrdered::new();
                Poll::Ready(Some(Err(error)))
            }
            Some(answer) => Poll::Ready(Some(answer)),
            None if this.messages.is_none() => Poll::Ready(None),
            // Woken by the messages.
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{mpsc, oneshot};
    use tokio_util::sync::CancellationToken;

    type Reply = oneshot::Sender<Answer>;

    /// A pipeline whose answers come when the test says so.
    fn pipeline(
        stopping: &CancellationToken,
    ) -> (futures::channel::mpsc::UnboundedSender<Result<v1::RenewRequest, Status>>, mpsc::UnboundedReceiver<Reply>, BoxStream<'static, Answer>) {
        // Not tokio's: its cooperative budget would interrupt a long read.
        let (send, messages) = futures::channel::mpsc::unbounded();
        let (asked, replies) = mpsc::unbounded_channel();
        let answer = move |_message| {
            let (reply, replied) = oneshot::channel::<Answer>();
            let asked = asked.clone();
            async move {
                asked.send(reply).expect("the test listens");
                replied.await.expect("the test answers")
            }
            .boxed()
        };
        let messages = Some(messages);
        let stopping = Box::pin(stopping.clone().cancelled_owned());
        (send, replies, Pipeline { messages, answers: FuturesOrdered::new(), answer, stopping }.boxed())
    }

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

    #[test]
    fn results_keep_their_order_and_the_shortest_duration_sets_the_pace() {
        let lost = v1::Lost { reason: v1::EndReason::Expired.into(), holder: "b".into(), token: 2 };
        let (results, within) = results(peer::RenewOutcome { durations_ms: vec![9_000, 0, 3_000], lost: vec![lost.clone()] });
        assert_eq!(results[1].result, Some(Renewed::Lost(lost)));
        assert!(matches!(&results[2].result, Some(Renewed::Renewed(renewed)) if renewed.duration == Some(duration_to_wire(3_000))));
        assert_eq!(within, Some(duration_to_wire(1_000)));
    }
}
