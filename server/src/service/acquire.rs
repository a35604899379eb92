//! Acquire: one command; then, for who waits, positions until the wait is over one way or another.
//!
//! Whoever goes away must not leave a lease held or a place kept: a call that is dropped before its answer was taken gives back what it got
//! ([`GiveBack`]). Nothing here decides about leases; what another attempt of the same request may have renewed is left alone.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use tenure_lease::{Lease, NoticeKind, WaiterId};
use tenure_proto::{
    peer::v1::{self as peer, Outcome, command::Kind as Ask, outcome::Kind},
    v1::{self, acquire_response::Result as Answer},
};
use tonic::{Request, Status};

use super::{PATIENCE, Service, named, patience, status, validate};
use crate::{
    clock::Readings,
    waiting::{Heard, News, Place},
    write::{
        SubmitError,
        codec::{lease_to_wire, reason_to_wire},
    },
};

type Answers = BoxStream<'static, Result<v1::AcquireResponse, Status>>;

pub(super) async fn acquire(service: &Arc<Service>, request: Request<v1::AcquireRequest>) -> Result<Answers, Status> {
    let patience = patience(request.metadata());
    let mut acquire = validate::acquire(request.into_inner(), &service.parts.config.limits)?;
    let minted = acquire.request_id.is_empty();
    if minted {
        acquire.request_id = service.mint_request_id();
    }
    let place = (acquire.wait_ms > 0).then(|| service.parts.waiting.place());
    if place.is_some() {
        acquire.session = service.parts.waiting.session().0;
    }
    let asked = service.parts.clock.readings();
    let give_back = GiveBack { service: service.clone(), key: acquire.key.clone() };
    let request_id = acquire.request_id.clone();
    let outcome = Sending::new(&give_back, &acquire, minted, patience).await.map_err(|error| status::acquire(&error, request_id, minted))?;
    let call = Call { service: service.clone(), acquire, asked };
    match (call.read(outcome)?, place) {
        (Read::Queued { waiter, position, lease }, Some(place)) => Ok(Waits::begin(call, give_back, place, waiter, position, lease)),
        (Read::Queued { .. }, None) => Err(status::unknown_answer()),
        (Read::Final(answer), _) => {
            let what = match &answer {
                Answer::Granted(v1::Granted { lease: Some(lease), must_renew: false }) => Some(What::Grant(lease.token)),
                _ => None,
            };
            Ok(once(call.response(answer), Untaken { give_back, what }))
        }
    }
}

/// A request and what belongs to it for as long as it lasts.
struct Call {
    service: Arc<Service>,
    acquire: peer::Acquire,
    asked: Readings,
}

/// An outcome, as far as it is not an error.
enum Read {
    Final(Answer),
    Queued { waiter: u64, position: u32, lease: Option<v1::Lease> },
}

impl Call {
    fn read(&self, outcome: Outcome) -> Result<Read, Status> {
        Ok(match outcome.kind {
            Some(Kind::Granted(peer::LeaseOutcome { lease, must_renew })) => Read::Final(Answer::Granted(v1::Granted { lease, must_renew })),
            Some(Kind::Queued(peer::QueuedOutcome { position, waiter, lease })) => Read::Queued { waiter, position, lease },
            Some(Kind::Denied(lease)) => Read::Final(Answer::Denied(v1::Denied { lease: Some(lease) })),
            Some(Kind::Ended(ended)) => Read::Final(Answer::Ended(ended)),
            Some(Kind::Refused(refusal)) => return Err(status::refused(refusal, &named(self.acquire.key.as_ref()))),
            _ => return Err(status::unknown_answer()),
        })
    }

    fn response(&self, answer: Answer) -> v1::AcquireResponse {
        let lease = match &answer {
            Answer::Granted(granted) => granted.lease.as_ref(),
            Answer::Queued(queued) => queued.lease.as_ref(),
            Answer::Denied(denied) => denied.lease.as_ref(),
            Answer::Ended(_) => None,
        };
        v1::AcquireResponse { header: self.service.header_showing(lease), request_id: self.acquire.request_id.clone(), result: Some(answer) }
    }

    /// What is left of the wait, for asking again.
    fn wait_left_ms(&self) -> u64 {
        let waited_ms = self.service.parts.clock.readings().surely_since(self.asked) / 1_000_000;
        self.acquire.wait_ms.saturating_sub(waited_ms).max(1)
    }

    /// With the time that its holder has left.
    fn shown(&self, lease: &Lease) -> v1::Lease {
        lease_to_wire(lease, Some(self.service.parts.applications.progress().clock))
    }
}

/// An acquire on its way. If the caller goes away before the outcome is there, the outcome is awaited all the same, and given back. If the outcome
/// stays unknown, the caller can repeat a request whose id it chose. A request whose id was minted here is barred, or its grant released.
struct Sending {
    outcome: Option<BoxFuture<'static, Result<Outcome, SubmitError>>>,
    give_back: GiveBack,
    /// Holder and request id of a request that nobody but this call can repeat.
    unrepeatable: Option<(String, String)>,
}

impl Sending {
    fn new(give_back: &GiveBack, acquire: &peer::Acquire, minted: bool, patience: Duration) -> Self {
        let router = give_back.service.parts.router.clone();
        let command = validate::command(Ask::Acquire(acquire.clone()));
        let unrepeatable = minted.then(|| (acquire.holder.clone(), acquire.request_id.clone()));
        Self { outcome: Some(Box::pin(async move { router.submit(command, patience).await })), give_back: give_back.clone(), unrepeatable }
    }
}

impl Future for Sending {
    type Output = Result<Outcome, SubmitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.outcome.as_mut().expect("is not polled after its end").as_mut().poll(cx);
        if polled.is_ready() {
            self.outcome = None;
        }
        if matches!(polled, Poll::Ready(Err(SubmitError::Unknown)))
            && let Some((holder, request_id)) = self.unrepeatable.take()
        {
            in_background(self.give_back.clone().request(holder, request_id));
        }
        polled
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            let (give_back, unrepeatable) = (self.give_back.clone(), self.unrepeatable.take());
            in_background(async move {
                match (outcome.await.map(|outcome| outcome.kind), unrepeatable) {
                    (Ok(Some(Kind::Granted(peer::LeaseOutcome { lease: Some(lease), must_renew: false }))), _) => give_back.grant(lease.token).await,
                    (Ok(Some(Kind::Queued(queued))), _) => give_back.place(WaiterId(queued.waiter)).await,
                    (Err(SubmitError::Unknown), Some((holder, request_id))) => give_back.request(holder, request_id).await,
                    _ => {}
                }
            });
        }
    }
}

/// What nobody will hear of goes back.
#[derive(Clone)]
struct GiveBack {
    service: Arc<Service>,
    key: Option<peer::Key>,
}

impl GiveBack {
    /// A grant whose answer was not taken. Apply leaves it alone if it was renewed: then another attempt of the same request has brought it to
    /// its holder. (Asking the table here would race with that renewal.)
    async fn grant(self, token: u64) {
        self.send(Ask::Release(peer::Release { key: self.key.clone(), token, undelivered: true, ..Default::default() })).await;
    }

    /// Whatever the request got or may yet get. It is applied before or after the request, which comes to the same.
    async fn request(self, holder: String, request_id: String) {
        self.send(Ask::Release(peer::Release { key: self.key.clone(), holder, request_id, ..Default::default() })).await;
    }

    /// A place in the queue; if it was granted meanwhile, the grant goes to the next.
    async fn place(self, waiter: WaiterId) {
        let session = self.service.parts.waiting.session().0;
        self.send(Ask::Detach(peer::Detach { key: self.key.clone(), session, waiter: waiter.0 })).await;
    }

    async fn send(&self, ask: Ask) {
        if let Err(error) = self.service.parts.router.submit(validate::command(ask), PATIENCE).await {
            tracing::debug!(%error, lease = named(self.key.as_ref()), "what a caller left behind was not given back: it runs out by itself");
        }
    }
}

fn in_background(work: impl Future<Output = ()> + Send + 'static) {
    // Without a runtime the process is ending, and what is left behind runs out.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(work);
    }
}

/// What goes back unless its answer is taken.
struct Untaken {
    give_back: GiveBack,
    /// `None`: it was taken, or is somebody else's to care for.
    what: Option<What>,
}

enum What {
    Grant(u64),
    Place(WaiterId),
}

impl Drop for Untaken {
    fn drop(&mut self) {
        let give_back = self.give_back.clone();
        match self.what.take() {
            Some(What::Grant(token)) => in_background(give_back.grant(token)),
            Some(What::Place(waiter)) => in_background(give_back.place(waiter)),
            None => {}
        }
    }
}

/// The stream after its last answer. tonic asks for more while it fills a frame, so being asked again means nothing; hyper asks for another frame
/// only when the client has made room for the one before.
async fn taken(mut untaken: Untaken) {
    tokio::task::yield_now().await;
    untaken.what = None;
}

/// One answer.
fn once(answer: v1::AcquireResponse, untaken: Untaken) -> Answers {
    stream::unfold((Some(answer), untaken), |(answer, untaken)| async move {
        match answer {
            Some(answer) => Some((Ok(answer), (None, untaken))),
            None => {
                taken(untaken).await;
                None
            }
        }
    })
    .boxed()
}

/// A stream that waits in the queue.
struct Waits {
    call: Call,
    /// The position to tell first.
    first: Option<Answer>,
    /// Before the place: it is given up first.
    news: News,
    place: Place,
    /// Its place, or the grant that came of it.
    untaken: Untaken,
}

/// What a waiting stream does next.
enum Turn {
    Wait(Box<Waits>),
    Told(Untaken),
}

impl Waits {
    fn begin(call: Call, give_back: GiveBack, mut place: Place, waiter: u64, position: u32, lease: Option<v1::Lease>) -> Answers {
        let waiter = WaiterId(waiter);
        let key = validate::trusted(call.acquire.key.clone().unwrap_or_default());
        let news = place.subscribe(key, waiter, position);
        let first = Some(Answer::Queued(v1::Queued { position, lease }));
        let untaken = Untaken { give_back, what: Some(What::Place(waiter)) };
        let turn = Turn::Wait(Box::new(Self { call, first, news, place, untaken }));
        stream::unfold(Some(turn), |turn| async move {
            match turn? {
                Turn::Wait(waits) => match waits.next().await {
                    Ok((response, turn)) => Some((Ok(response), Some(turn))),
                    Err(error) => Some((Err(error), None)),
                },
                Turn::Told(untaken) => {
                    taken(untaken).await;
                    None
                }
            }
        })
        .boxed()
    }

    /// The next answer, and what comes after it.
    async fn next(mut self: Box<Self>) -> Result<(v1::AcquireResponse, Turn), Status> {
        if let Some(first) = self.first.take() {
            return Ok((self.call.response(first), Turn::Wait(self)));
        }
        let heard = {
            let service = self.call.service.clone();
            tokio::select! {
                biased;
                heard = self.news.next() => heard,
                () = service.parts.stopping.cancelled() => {
                    // Closing the session detaches all waiters at once.
                    self.untaken.what = None;
                    return Err(status::shutting_down());
                }
            }
        };
        let answer = match heard {
            Some(Heard::Position(position)) => return Ok((self.queued(position), Turn::Wait(self))),
            Some(Heard::AskAgain) => return self.ask_again().await,
            Some(Heard::Notice(NoticeKind::Granted(lease))) => Answer::Granted(v1::Granted { lease: Some(lease_to_wire(&lease, None)), must_renew: true }),
            Some(Heard::Notice(NoticeKind::Denied(lease))) => Answer::Denied(v1::Denied { lease: Some(self.call.shown(&lease)) }),
            Some(Heard::Notice(NoticeKind::Ended(reason))) => Answer::Ended(v1::Ended { token: 0, reason: reason_to_wire(reason) }),
            Some(Heard::Notice(NoticeKind::Moved)) | None => {
                self.untaken.what = None;
                return Err(status::WAIT_MOVED.status("the same request waits through another stream now"));
            }
        };
        Ok(self.last(answer))
    }

    fn last(mut self: Box<Self>, answer: Answer) -> (v1::AcquireResponse, Turn) {
        if !matches!(answer, Answer::Granted(_)) {
            self.untaken.what = None;
        }
        (self.call.response(answer), Turn::Told(self.untaken))
    }

    fn queued(&self, position: u32) -> v1::AcquireResponse {
        let key = self.call.acquire.key.clone().unwrap_or_default();
        let lease = self.call.service.parts.applications.table.read().get(&validate::trusted(key));
        self.call.response(Answer::Queued(v1::Queued { position, lease: lease.map(|lease| self.call.shown(&lease)) }))
    }

    /// Notices may have been missed; the request id makes asking again harmless.
    async fn ask_again(mut self: Box<Self>) -> Result<(v1::AcquireResponse, Turn), Status> {
        let again = peer::Acquire { wait_ms: self.call.wait_left_ms(), ..self.call.acquire.clone() };
        let outcome = self.call.service.submit(validate::command(Ask::Acquire(again)), PATIENCE).await?;
        match self.call.read(outcome)? {
            Read::Final(answer) => Ok(self.last(answer)),
            Read::Queued { waiter, position, lease } => {
                let key = validate::trusted(self.call.acquire.key.clone().unwrap_or_default());
                self.untaken.what = Some(What::Place(WaiterId(waiter)));
                self.news = self.place.subscribe(key, WaiterId(waiter), position);
                Ok((self.call.response(Answer::Queued(v1::Queued { position, lease })), Turn::Wait(self)))
            }
        }
    }
}
