//! When to send a call again, where, and after how long: the one loop that every call and every stream goes through.
//!
//! Never sends again what may have been done and is not safe to do twice.

use std::{sync::Arc, time::Duration};

use tonic::{Code, Status};

use crate::{
    client::Inner,
    clock::Readings,
    error::{Conclusion, Error, Failure},
    line::{Line, Sent},
};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Messages of earlier attempts that are kept for the error.
const REMEMBERED: usize = 4;

/// What happens when a call is sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It changes nothing.
    Read,
    /// The second time changes nothing more (a request id, a token, a declared state).
    Idempotent,
    /// Something else might happen the second time.
    Once,
}

/// What is asked, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) verb: &'static str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) effect: Effect,
}

impl<'a> Call<'a> {
    pub(crate) fn new(verb: &'static str, namespace: &'a str, name: &'a str, effect: Effect) -> Self {
        Self { verb, namespace, name, effect }
    }

    pub(crate) fn text(&self) -> String {
        let Self { verb, namespace, name, .. } = self;
        match (namespace.is_empty(), name.is_empty()) {
            (true, true) => (*verb).to_owned(),
            (false, true) => format!("{verb} {namespace}"),
            (true, false) => format!("{verb} {name}"),
            (false, false) => format!("{verb} {namespace}/{name}"),
        }
    }
}

/// One call's or stream's way through the endpoints.
#[derive(Debug)]
pub(crate) struct Retry {
    inner: Arc<Inner>,
    effect: Effect,
    started: Readings,
    limit: Duration,
    failures: u32,
    unknown: bool,
    earlier: Vec<(String, String)>,
    /// Tells whether the present attempt may have been sent.
    sent: Sent,
    sent_before: bool,
}

impl Retry {
    pub(crate) fn new(inner: Arc<Inner>, effect: Effect, limit: Duration) -> Self {
        let started = inner.clock.readings();
        Self { inner, effect, started, limit, failures: 0, unknown: false, earlier: Vec::new(), sent: Sent::default(), sent_before: false }
    }

    pub(crate) fn remaining(&self) -> Duration {
        let left = self.limit.saturating_sub(self.inner.clock.readings().possibly_since(self.started));
        // Nobody reads microseconds in a message.
        if left > Duration::from_secs(3_600) { left } else { Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)) }
    }

    /// How long one endpoint gets. What cannot be sent twice gets everything: giving up early would only lose its answer.
    pub(crate) fn attempt_timeout(&self) -> Duration {
        match self.effect {
            Effect::Once => self.remaining(),
            Effect::Read | Effect::Idempotent => self.remaining().min(self.inner.attempt_timeout),
        }
    }

    /// The endpoint in use, and the time it has.
    pub(crate) fn attempt(&mut self) -> (usize, Line, Duration) {
        self.inner.discovery.run(&self.inner);
        let (index, channel) = self.inner.endpoints.current();
        self.sent_before = self.may_be_sent();
        self.sent = Sent::default();
        (index, Line::new(channel, self.sent.clone()), self.attempt_timeout())
    }

    /// Whether any attempt may have reached a server. Those that met no connection have not.
    pub(crate) fn may_be_sent(&self) -> bool {
        self.sent_before || self.sent.may_be()
    }

    /// A stream works again: what failed before does not count.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.unknown = false;
        self.earlier.clear();
        self.started = self.inner.clock.readings();
    }

    /// From now on it all may take longer.
    pub(crate) fn extend(&mut self, by: Duration) {
        self.limit = self.limit.saturating_add(by);
    }

    /// An answer came, but the time it all may take runs on.
    pub(crate) fn answered(&mut self) {
        self.failures = 0;
        self.earlier.clear();
    }

    /// Something was done that the call has no answer to yet: whatever later attempts meet, it cannot end as not applied.
    pub(crate) fn in_doubt(&mut self) {
        self.unknown = true;
    }

    pub(crate) fn failure(&self, call: &str, index: usize, status: &Status) -> Failure {
        let mut failure = Failure::from_status(call.to_owned(), self.inner.endpoints.address(index), status);
        failure.unsent |= failure.local && !self.sent.may_be();
        failure
    }

    pub(crate) fn silence(&self, call: &str, index: usize, after: Duration) -> Failure {
        // Nobody reads nanoseconds in a message.
        let after = Duration::from_millis(after.as_millis().try_into().unwrap_or(u64::MAX));
        let unsent = !self.sent.may_be();
        let message = if unsent { format!("cannot connect within {after:?}") } else { format!("no answer within {after:?}") };
        let mut failure = Failure::new(call.to_owned(), self.inner.endpoints.address(index), Code::DeadlineExceeded, message);
        failure.unsent = unsent;
        failure
    }

    /// Judges a failed attempt: the call's error, or (after a pause) another attempt.
    pub(crate) async fn after(&mut self, index: usize, failure: Failure) -> Result<(), Error> {
        let conclusion = failure.conclusion();
        match conclusion {
            Conclusion::Refused => return Err(Error::Refused(self.sum_up(failure))),
            Conclusion::Misuse => return Err(Error::Misuse(self.sum_up(failure))),
            Conclusion::Unknown if self.effect == Effect::Once => return Err(Error::OutcomeUnknown(self.sum_up(failure))),
            Conclusion::Unknown => self.unknown = true,
            Conclusion::NotApplied => {}
        }
        // A replica that is only overloaded, or asks for patience, is a working one: its neighbours share the raft leader.
        let shared = matches!(failure.code, Code::ResourceExhausted | Code::Aborted) && failure.reason.as_deref() != Some("TOO_MANY_WATCHES");
        if !shared {
            self.inner.endpoints.failed(index);
        }
        self.failures += 1;
        let others = u32::try_from(self.inner.endpoints.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let pause = if failure.unsent && self.failures <= others { Duration::ZERO } else { self.pause(failure.retry_after) };
        if pause >= self.remaining() {
            return Err(self.give_up(failure));
        }
        tracing::debug!(error = %failure, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        // A busy machine oversleeps. An attempt with no time would only blur why the others have failed.
        if self.remaining().is_zero() {
            return Err(self.give_up(failure));
        }
        let tried = (failure.endpoint, failure.message);
        if self.earlier.len() < REMEMBERED && !self.earlier.contains(&tried) {
            self.earlier.push(tried);
        }
        Ok(())
    }

    fn pause(&self, asked: Option<Duration>) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10));
        self.inner.random.jitter(doubled.min(LONGEST_PAUSE)) + asked.unwrap_or_default()
    }

    fn give_up(&mut self, failure: Failure) -> Error {
        let unknown = self.unknown && self.effect != Effect::Read;
        let failure = self.sum_up(failure);
        if unknown { Error::OutcomeUnknown(failure) } else { Error::NotApplied(failure) }
    }

    fn sum_up(&mut self, mut failure: Failure) -> Box<Failure> {
        failure.earlier = std::mem::take(&mut self.earlier);
        failure.earlier.retain(|tried| *tried != (failure.endpoint.clone(), failure.message.clone()));
        Box::new(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;

    fn retry(effect: Effect, limit: Duration) -> Retry {
        let client = Client::builder().endpoints(["a:1", "b:1", "c:1"]).seed(1).build().unwrap();
        Retry::new(client.inner().clone(), effect, limit)
    }

    fn unknown() -> Failure {
        Failure::new("put default/a".into(), "a:1".into(), Code::Unknown, "connection reset".into())
    }

    #[test]
    fn a_call_names_the_lease() {
        assert_eq!(Call::new("get", "default", "a", Effect::Read).text(), "get default/a");
        assert_eq!(Call::new("list", "kube-system", "", Effect::Read).text(), "list kube-system");
        assert_eq!(Call::new("renew", "", "", Effect::Idempotent).text(), "renew");
    }

    #[tokio::test]
    async fn what_may_have_happened_is_not_sent_twice_unless_that_is_harmless() {
        let error = retry(Effect::Once, Duration::from_secs(10)).after(0, unknown()).await.unwrap_err();
        assert!(error.outcome_unknown(), "{error}");
        retry(Effect::Idempotent, Duration::from_secs(10)).after(0, unknown()).await.unwrap();
        retry(Effect::Read, Duration::from_secs(10)).after(0, unknown()).await.unwrap();
    }

    #[tokio::test]
    async fn out_of_time_one_unknown_attempt_makes_the_outcome_unknown_except_for_reads() {
        assert!(retry(Effect::Idempotent, Duration::ZERO).after(0, unknown()).await.unwrap_err().outcome_unknown());
        assert!(retry(Effect::Read, Duration::ZERO).after(0, unknown()).await.unwrap_err().is_retryable());
    }

    #[tokio::test]
    async fn an_attempt_that_met_no_connection_was_not_sent_and_is_safe_to_repeat() {
        let client = Client::builder().endpoints(["127.0.0.1:1", "127.0.0.1:2"]).seed(1).build().unwrap();
        let mut retry = Retry::new(client.inner().clone(), Effect::Once, Duration::from_secs(10));
        let (index, line, _) = retry.attempt();
        let mut client = crate::client::leases(line);
        {
            // Given up on before the connection is there.
            let mut never = std::pin::pin!(client.delete(tenure_proto::v1::DeleteRequest::default()));
            std::future::poll_fn(|context| std::task::Poll::Ready(never.as_mut().poll(context).is_ready())).await;
        }
        let silence = retry.silence("delete a", index, Duration::ZERO);
        assert!(silence.unsent && !retry.may_be_sent(), "{silence}");
        retry.after(index, silence).await.unwrap();
    }

    /// A machine so busy that every look at its clock comes 20 ms after the last one.
    #[derive(Debug, Default)]
    struct Busy(std::sync::Mutex<Readings>);

    impl crate::clock::Clock for Busy {
        fn readings(&self) -> Readings {
            let mut now = self.0.lock().unwrap();
            *now = now.plus(Duration::from_millis(20));
            *now
        }
    }

    #[tokio::test]
    async fn no_attempt_is_made_when_no_time_is_left() {
        let client = Client::builder().endpoints(["a:1", "b:1"]).clock(Arc::new(Busy::default())).seed(1).build().unwrap();
        let mut retry = Retry::new(client.inner().clone(), Effect::Idempotent, Duration::from_millis(30));
        let mut failure = Failure::new("acquire default/a".into(), "a:1".into(), Code::Unavailable, "cannot connect: refused".into());
        failure.unsent = true;
        let error = retry.after(0, failure).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn a_refused_connection_moves_on_at_once_and_is_reported() {
        let mut retry = retry(Effect::Once, Duration::from_secs(10));
        for index in [0, 1, 2] {
            let mut failure = Failure::new("put x".into(), format!("{index}:1"), Code::Unavailable, "cannot connect: refused".into());
            failure.unsent = true;
            retry.after(index, failure).await.unwrap();
        }
        let error = retry.after(0, unknown()).await.unwrap_err();
        assert_eq!(error.failure().earlier.len(), 3, "{error}");
    }
}
