//! Request bodies: each message has a length that its call may have and a time to arrive, and what has arrived of unfinished ones is counted.
//!
//! gRPC frames its messages (a byte of flags, four of length), so what is finished can be told without decoding. A message that came whole in one
//! piece, as renewals do, is never counted: those that send many large ones slowly cannot take the room of those that send small ones.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::{Status, body::Body};

use super::Caller;
use crate::service::status::{INVALID_REQUEST, REQUEST_TOO_SLOW, TOO_MUCH_UNFINISHED};

const PREFIX: usize = 5;

/// What holds for the requests of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyRule {
    /// Many messages, whenever they come; otherwise one, at once.
    pub(crate) stream: bool,
    /// Of one message.
    pub(crate) most: usize,
    /// For a message from its first byte to its last; without `stream`, from the beginning of the call to the end of the request.
    pub(crate) within: Duration,
}

/// A body that is held to its rule.
pub(super) struct Metered {
    body: Body,
    rule: BodyRule,
    caller: Option<Caller>,
    framing: Framing,
    /// Bytes of the unfinished message that are counted.
    counted: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

/// Where in a message the body is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Framing {
    prefix: [u8; PREFIX],
    prefix_bytes: usize,
    /// Of the message whose prefix is complete.
    missing: usize,
    finished: u64,
}

impl Framing {
    /// Follows what arrived. Returns how many of these bytes are of a message that is still unfinished, and whether that message began with them.
    fn follow(&mut self, mut data: &[u8], rule: BodyRule) -> Result<(usize, bool), Status> {
        let (mut unfinished, mut began) = (0, self.prefix_bytes == 0);
        while !data.is_empty() {
            if self.prefix_bytes == 0 && self.finished > 0 && !rule.stream {
                return Err(INVALID_REQUEST.status("a second request message in a call that has one"));
            }
            let taken = if self.prefix_bytes < PREFIX {
                let taken = data.len().min(PREFIX - self.prefix_bytes);
                self.prefix[self.prefix_bytes..self.prefix_bytes + taken].copy_from_slice(&data[..taken]);
                self.prefix_bytes += taken;
                if self.prefix_bytes == PREFIX {
                    let [_, length @ ..] = self.prefix;
                    self.missing = u32::from_be_bytes(length) as usize;
                    if self.missing > rule.most {
                        return Err(INVALID_REQUEST.status(format!("a request message of {} bytes; at most {} are taken", self.missing, rule.most)));
                    }
                }
                taken
            } else {
                let taken = data.len().min(self.missing);
                self.missing -= taken;
                taken
            };
            unfinished += taken;
            data = &data[taken..];
            if self.prefix_bytes == PREFIX && self.missing == 0 {
                self.prefix_bytes = 0;
                self.finished += 1;
                (unfinished, began) = (0, true);
            }
        }
        Ok((unfinished, began))
    }

    fn is_within_a_message(&self) -> bool {
        self.prefix_bytes > 0
    }
}

impl Metered {
    pub(super) fn new(body: Body, rule: BodyRule, caller: Option<Caller>) -> Self {
        Self { body, rule, caller, framing: Framing::default(), counted: 0, deadline: None, ended: false }
    }

    fn arrived(&mut self, data: &[u8]) -> Result<(), Status> {
        let (unfinished, began) = self.framing.follow(data, self.rule)?;
        if began {
            self.give_back();
            if self.rule.stream {
                self.deadline = None;
            }
        }
        if let Some(caller) = self.caller.as_ref().filter(|_| unfinished > 0) {
            caller.take_bytes(unfinished).map_err(|full| {
                TOO_MUCH_UNFINISHED
                    .status(format!("not applied: unfinished requests of this {full} hold as many bytes as they may; send fewer large requests at a time"))
            })?;
            self.counted += unfinished;
        }
        Ok(())
    }

    fn give_back(&mut self) {
        if let Some(caller) = &self.caller {
            caller.give_bytes_back(std::mem::take(&mut self.counted));
        }
    }

    /// Nothing has arrived: whether it should have.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        if self.rule.stream && !self.framing.is_within_a_message() {
            return false;
        }
        let within = self.rule.within;
        self.deadline.get_or_insert_with(|| Box::pin(sleep(within))).as_mut().poll(cx).is_ready()
    }

    fn fail(&mut self, status: Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ended = true;
        self.give_back();
        // What arrived of it is not kept until the call has ended.
        self.body = Body::empty();
        Poll::Ready(Some(Err(status)))
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let arrived = frame.data_ref().map_or(Ok(()), |data| self.arrived(data));
                arrived.map_or_else(|status| self.fail(status), |()| Poll::Ready(Some(Ok(frame))))
            }
            Poll::Ready(ended) => {
                self.ended = true;
                self.give_back();
                Poll::Ready(ended)
            }
            Poll::Pending if self.is_late(cx) => {
                let within = self.rule.within;
                self.fail(REQUEST_TOO_SLOW.status(format!("not applied: the request did not arrive whole within {within:?}")))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::channel::mpsc::{self, UnboundedSender};
    use http_body_util::BodyExt as _;
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{
        admission::{Admitted, Budget, Busy, Port, Rules},
        net::Conn,
    };

    const ONE: BodyRule = BodyRule { stream: false, most: 100, within: Duration::from_secs(10) };
    const MANY: BodyRule = BodyRule { stream: true, ..ONE };

    fn port(bytes: Budget) -> Arc<Port> {
        let first_bytes = (1, Duration::from_secs(1));
        let rules = Rules {
            port: "test",
            connections: 9,
            per_source: 9,
            first_bytes,
            write_within: Duration::from_secs(1),
            idle: None,
            busy: Busy::WithCalls,
            unfinished: bytes,
        };
        Port::new(rules)
    }

    /// A connection, for as long as it is kept, and what its calls know of it.
    async fn caller(port: &Arc<Port>, from: &str) -> (Admitted, Caller) {
        let conn = port.admit(Conn::new(tokio::io::duplex(1).1, from)).await.expect("room");
        let caller = tonic::transport::server::Connected::connect_info(&conn);
        (conn, caller)
    }

    /// As much as one likes.
    const AMPLE: Budget = Budget { connection: 1 << 20, source: 1 << 20, port: 1 << 20 };

    fn body(rule: BodyRule, caller: Option<&Caller>) -> (UnboundedSender<Result<Frame<Bytes>, Status>>, Metered) {
        let (send, frames) = mpsc::unbounded();
        (send, Metered::new(Body::new(http_body_util::StreamBody::new(frames)), rule, caller.cloned()))
    }

    fn message(length: u32) -> Vec<u8> {
        [&[0][..], &length.to_be_bytes(), &vec![b'x'; length as usize]].concat()
    }

    fn send(sender: &UnboundedSender<Result<Frame<Bytes>, Status>>, data: &[u8]) {
        sender.unbounded_send(Ok(Frame::data(Bytes::copy_from_slice(data)))).expect("read");
    }

    fn reason(status: &Status) -> String {
        status.get_details_error_info().expect("a reason").reason
    }

    #[tokio::test(start_paused = true)]
    async fn unary_request_that_does_not_end_is_refused_after_its_time() {
        for sent in [&b""[..], &message(50)[..20], &message(50)] {
            let (sender, mut body) = body(ONE, None);
            send(&sender, sent);
            body.frame().await.expect("a frame").expect("good");
            let late = body.frame().await.expect("an end").expect_err("late");
            assert_eq!((late.code(), reason(&late)), (Code::ResourceExhausted, "REQUEST_TOO_SLOW".into()));
            assert!(body.frame().await.is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stream_may_be_silent_between_messages_and_not_within_one() {
        let (sender, mut body) = body(MANY, None);
        for _ in 0..3 {
            send(&sender, &message(50));
            body.frame().await.expect("a frame").expect("good");
            assert!(tokio::time::timeout(Duration::from_secs(3_600), body.frame()).await.is_err(), "nothing is due");
        }
        send(&sender, &message(50)[..3]);
        body.frame().await.expect("a frame").expect("good");
        assert_eq!(reason(&body.frame().await.expect("an end").expect_err("late")), "REQUEST_TOO_SLOW");
    }

    #[tokio::test]
    async fn message_longer_than_its_call_takes_is_refused_by_its_length() {
        let (sender, mut body) = body(MANY, None);
        send(&sender, &[message(100), message(101)].concat()[..111]);
        let refused = body.frame().await.expect("an end").expect_err("too long");
        assert_eq!((refused.code(), reason(&refused)), (Code::InvalidArgument, "INVALID_REQUEST".into()));
        assert!(refused.message().contains("101 bytes") && refused.message().contains("100"), "{refused}");
    }

    #[tokio::test]
    async fn unfinished_bytes_are_counted_until_their_message_is_whole() {
        let port = port(Budget { connection: 60, source: 100, port: 150 });
        let (_conn, caller) = caller(&port, "10.0.0.1:1").await;
        let (first, mut first_body) = body(MANY, Some(&caller));
        let (second, mut second_body) = body(MANY, Some(&caller));
        send(&first, &message(90)[..50]);
        first_body.frame().await.expect("a frame").expect("fits");
        // What comes whole is not counted, however much there is already.
        send(&second, &message(90));
        second_body.frame().await.expect("a frame").expect("whole");
        send(&second, &message(90)[..50]);
        let full = second_body.frame().await.expect("an end").expect_err("more than a connection may");
        assert_eq!((full.code(), reason(&full)), (Code::ResourceExhausted, "TOO_MUCH_UNFINISHED".into()));
        // The first goes on, and gives its bytes back at its end.
        send(&first, &[&message(90)[50..], &message(90)[..60]].concat());
        first_body.frame().await.expect("a frame").expect("its own bytes were given back");
        drop(first_body);
        assert_eq!(port.unfinished(), 0);
    }

    #[tokio::test]
    async fn one_source_cannot_take_the_room_of_others() {
        let port = port(Budget { connection: 60, source: 100, port: 150 });
        let mut held = Vec::new();
        for (from, fits) in [("10.0.0.1:1", true), ("10.0.0.1:2", false), ("10.0.0.2:1", true), ("10.0.0.3:1", false)] {
            let (conn, caller) = caller(&port, from).await;
            let (sender, mut body) = body(MANY, Some(&caller));
            send(&sender, &message(90)[..60]);
            assert_eq!(body.frame().await.expect("a frame").is_ok(), fits, "{from}");
            held.push((conn, sender, body));
        }
    }

    #[tokio::test]
    async fn second_message_of_a_unary_call_is_refused() {
        let (sender, mut body) = body(ONE, None);
        send(&sender, &[message(0), message(1)].concat());
        assert_eq!(reason(&body.frame().await.expect("an end").expect_err("one is enough")), "INVALID_REQUEST");
        let (_conn, ample) = caller(&port(AMPLE), "a:1").await;
        let (sender, mut body) = self::body(ONE, Some(&ample));
        send(&sender, &message(100));
        drop(sender);
        body.frame().await.expect("a frame").expect("good");
        assert!(body.frame().await.is_none());
    }
}
