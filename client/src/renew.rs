//! Renewals: one answer at a time, or many on one stream that outlives the replica it was opened on.
//!
//! An unanswered message is sent again on the next connection: renewing twice is renewing.

use std::{
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task,
    time::Duration,
};

use tenure_proto::v1::{RenewItem, RenewRequest, RenewResponse};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{
    client::{Client, leases, timed},
    clock::Readings,
    error::{Conclusion, Error, Failure},
    retry::{Call, Effect, Retry},
};

/// Messages that may be on their way at once; more wait in [`RenewStream::send`].
const IN_FLIGHT: usize = 256;

const SHORTEST_PATIENCE: Duration = Duration::from_millis(20);

const CALL: Call<'static> = Call { verb: "renew", namespace: "", name: "", effect: Effect::Idempotent };

impl Client {
    /// Renews once, on a stream of its own: right for a command line, wasteful for a heartbeat ([`Client::renew_stream`]).
    ///
    /// # Errors
    /// As every idempotent call. A lost lease is no error but a result.
    pub async fn renew(&self, items: Vec<RenewItem>) -> Result<RenewResponse, Error> {
        let request = RenewRequest { items };
        let mut retry = Retry::new(self.inner().clone(), Effect::Idempotent, self.inner().request_timeout);
        loop {
            let (index, channel, timeout) = retry.attempt();
            let request = timed(tokio_stream::once(request.clone()), timeout);
            let answer = async { leases(channel).renew(request).await?.into_inner().message().await };
            let failure = match tokio::time::timeout(timeout, answer).await {
                Ok(Ok(Some(answer))) => return Ok(answer),
                Ok(Ok(None)) => retry.failure(&CALL.text(), index, &Status::unknown("the stream ended without an answer")),
                Ok(Err(status)) => retry.failure(&CALL.text(), index, &status),
                Err(_) => retry.silence(&CALL.text(), index, timeout),
            };
            retry.after(index, failure).await?;
        }
    }

    /// A stream for many renewals, pipelined. Must be called on a tokio runtime; ends when the last handle is dropped and all is answered.
    #[must_use]
    pub fn renew_stream(&self) -> RenewStream {
        let (sender, asked) = mpsc::channel(IN_FLIGHT);
        let (client, trouble) = (self.clone(), Trouble::default());
        let retry = Retry::new(client.inner().clone(), Effect::Idempotent, Duration::MAX);
        tokio::spawn(Pipeline { client, asked, unanswered: VecDeque::new(), retry, closing: false, trouble: Arc::clone(&trouble) }.run());
        RenewStream { client: self.clone(), sender, trouble }
    }
}

/// Handle to a renewal stream; cheap to clone.
#[derive(Clone, Debug)]
pub struct RenewStream {
    client: Client,
    sender: mpsc::Sender<Asked>,
    trouble: Trouble,
}

/// How the stream failed last, if nothing was answered since.
type Trouble = Arc<Mutex<Option<Failure>>>;

impl RenewStream {
    /// Puts one message on its way, in order, and returns what will be its answer. Waits only while too many are on their way.
    ///
    /// # Errors
    /// [`Error::NotApplied`] when the runtime that carries the stream is shutting down.
    pub async fn send(&self, items: Vec<RenewItem>) -> Result<Renewal, Error> {
        let inner = self.client.inner();
        self.send_within(items, inner.request_timeout).await
    }

    /// As [`RenewStream::send`], with how long the answer is of use.
    pub(crate) async fn send_within(&self, items: Vec<RenewItem>, limit: Duration) -> Result<Renewal, Error> {
        let sent = self.client.inner().clock.readings();
        let (reply, answer) = oneshot::channel();
        let asked = Asked { request: RenewRequest { items }, sent, limit, tried: false, reply };
        self.sender.send(asked).await.map_err(|_| gone())?;
        Ok(Renewal { sent, answer })
    }

    /// Why what is on its way was not answered yet, as far as is known.
    pub(crate) fn trouble(&self) -> Error {
        let known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let silent = || Failure::new(CALL.text(), self.client.endpoint(), Code::DeadlineExceeded, "no answer in time".into());
        Error::OutcomeUnknown(Box::new(known.unwrap_or_else(silent)))
    }
}

fn gone() -> Error {
    Error::NotApplied(Box::new(Failure::new(CALL.text(), String::new(), Code::Cancelled, "the runtime that carries the stream is gone".into())))
}

/// The answer to one message, to be awaited.
#[derive(Debug)]
pub struct Renewal {
    sent: Readings,
    answer: oneshot::Receiver<Result<RenewResponse, Error>>,
}

impl Renewal {
    /// Before it was enqueued: renewed durations count from here.
    #[must_use]
    pub fn sent(&self) -> Readings {
        self.sent
    }
}

impl Future for Renewal {
    type Output = Result<RenewResponse, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| answer.unwrap_or_else(|_| Err(gone())))
    }
}

#[derive(Debug)]
struct Asked {
    request: RenewRequest,
    sent: Readings,
    /// How long the answer is of use.
    limit: Duration,
    /// It has been on a stream, so a server may have seen it.
    tried: bool,
    reply: oneshot::Sender<Result<RenewResponse, Error>>,
}

impl Asked {
    /// How long to wait for one endpoint: most of the time that is left, but so that another one can still be asked.
    fn patience(&self, now: Readings) -> Duration {
        (self.limit.saturating_sub(now.possibly_since(self.sent)) * 2 / 3).max(SHORTEST_PATIENCE)
    }
}

/// The task behind the handles.
struct Pipeline {
    client: Client,
    asked: mpsc::Receiver<Asked>,
    /// In the order sent, which is the order of the answers.
    unanswered: VecDeque<Asked>,
    retry: Retry,
    closing: bool,
    trouble: Trouble,
}

impl Pipeline {
    async fn run(mut self) {
        loop {
            self.forget_what_is_late();
            // No connection for nobody: a stream that is idle when its replica dies is opened again with the next renewal.
            if self.unanswered.is_empty() && !self.receive().await {
                return;
            }
            let (index, failure) = match self.serve().await {
                Ok(()) => continue,
                Err(failed) => failed,
            };
            if matches!(failure.conclusion(), Conclusion::Refused | Conclusion::Misuse) {
                // Answers come in order, so the complaint is about the oldest.
                if let Some(asked) = self.unanswered.pop_front() {
                    let failure = Box::new(failure);
                    let misuse = failure.conclusion() == Conclusion::Misuse;
                    let _ = asked.reply.send(Err(if misuse { Error::Misuse(failure) } else { Error::Refused(failure) }));
                }
                continue;
            }
            self.expire(&failure);
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.clone());
            if self.retry.after(index, failure).await.is_err() {
                self.retry.succeeded();
            }
        }
    }

    async fn receive(&mut self) -> bool {
        match self.asked.recv().await {
            Some(asked) => self.unanswered.push_back(asked),
            None => self.closing = true,
        }
        !self.closing
    }

    /// Carries messages on one stream until it fails, or there is nothing left to do.
    async fn serve(&mut self) -> Result<(), (usize, Failure)> {
        let (index, channel, timeout) = self.retry.attempt();
        let elsewhere = self.client.inner().endpoints.len() > 1;
        let now = self.client.inner().clock.readings();
        let timeout = self.unanswered.iter().map(|asked| asked.patience(now)).filter(|_| elsewhere).fold(timeout, Duration::min);
        let (outbound, messages) = mpsc::channel(IN_FLIGHT * 2);
        for asked in &self.unanswered {
            // There is room for all: no more than IN_FLIGHT are ever unanswered.
            let _ = outbound.try_send(asked.request.clone());
        }
        let mut client = leases(channel);
        let opened = match tokio::time::timeout(timeout, client.renew(ReceiverStream::new(messages))).await {
            Ok(Ok(answers)) => Ok(answers.into_inner()),
            Ok(Err(status)) => Err(self.retry.failure(&CALL.text(), index, &status)),
            Err(_) => Err(self.retry.silence(&CALL.text(), index, timeout)),
        };
        if !opened.as_ref().is_err_and(|failure| failure.unsent) {
            self.unanswered.iter_mut().for_each(|asked| asked.tried = true);
        }
        let mut answers: Streaming<RenewResponse> = opened.map_err(|failure| (index, failure))?;
        let mut patience = timeout;
        let mut silence = pin!(tokio::time::sleep(patience));
        loop {
            let waiting = !self.unanswered.is_empty();
            if self.closing && !waiting {
                return Ok(());
            }
            let failure = tokio::select! {
                asked = self.asked.recv(), if !self.closing && self.unanswered.len() < IN_FLIGHT => {
                    let Some(mut asked) = asked else {
                        self.closing = true;
                        continue;
                    };
                    if elsewhere {
                        patience = patience.min(asked.patience(asked.sent));
                    }
                    if !waiting {
                        silence.set(tokio::time::sleep(patience));
                    }
                    asked.tried = true;
                    let _ = outbound.try_send(asked.request.clone());
                    self.unanswered.push_back(asked);
                    continue;
                }
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        self.retry.succeeded();
                        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
                        silence.set(tokio::time::sleep(patience));
                        if let Some(asked) = self.unanswered.pop_front() {
                            let _ = asked.reply.send(Ok(answer));
                        }
                        continue;
                    }
                    // A stream that ends while nothing is asked of it is no failure; the next renewal opens another.
                    Ok(None) | Err(_) if !waiting => return Ok(()),
                    Ok(None) => self.retry.failure(&CALL.text(), index, &Status::unknown("the stream ended")),
                    Err(status) => self.retry.failure(&CALL.text(), index, &status),
                },
                () = &mut silence, if waiting => self.retry.silence(&CALL.text(), index, patience),
            };
            return Err((index, failure));
        }
    }

    /// Tells those whose time is up.
    fn expire(&mut self, failure: &Failure) {
        let inner = self.client.inner();
        let now = inner.clock.readings();
        for asked in std::mem::take(&mut self.unanswered) {
            if now.possibly_since(asked.sent) < asked.limit {
                self.unanswered.push_back(asked);
            } else {
                let failure = Box::new(failure.clone());
                let _ = asked.reply.send(Err(if asked.tried { Error::OutcomeUnknown(failure) } else { Error::NotApplied(failure) }));
            }
        }
    }

    /// A renewal that comes too late for its holder would only keep the next one waiting.
    fn forget_what_is_late(&mut self) {
        if !self.unanswered.is_empty() {
            let failure = Failure::new(CALL.text(), String::new(), Code::DeadlineExceeded, "no answer in time".into());
            self.expire(&failure);
        }
    }
}
