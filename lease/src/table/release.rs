//! Releases: by token, or by the request whose token never arrived. Idempotent; hand over in the same change.

use super::{
    LeaseTable, Step,
    requests::{ANY_FINGERPRINT, Ended, RequestKey},
};
use crate::{EndReason, LeaseKey, NoticeKind, Outcome, Refusal, Release, ReleaseBy, ReleaseOutcome};

impl LeaseTable {
    pub(super) fn release(&mut self, release: &Release, step: &mut Step) -> Outcome {
        let outcome = match &release.by {
            ReleaseBy::Token(token) => self.release_token(&release.key, *token, step),
            // bug_gives_back_renewed: a grant whose stream broke is given back though its holder, asking anew, has renewed it (etcd#17470's kind).
            ReleaseBy::Undelivered(token) if self.was_renewed(*token) && !crate::bug!("bug_gives_back_renewed") => ReleaseOutcome::NotHolder,
            ReleaseBy::Undelivered(token) => self.release_token(&release.key, *token, step),
            ReleaseBy::Request { holder, request_id } => match self.release_request(&release.key, holder, request_id, step) {
                Ok(outcome) => outcome,
                Err(refusal) => return Outcome::Refused(refusal),
            },
        };
        Outcome::Released { outcome, lease: self.get(&release.key) }
    }

    /// A live hold whose holder has shown itself since it was granted.
    fn was_renewed(&self, token: u64) -> bool {
        self.tokens.get(token, &self.slots).is_some_and(|slot| self.slots.hot(slot).renew_revision > token)
    }

    fn release_token(&mut self, key: &LeaseKey, token: u64, step: &mut Step) -> ReleaseOutcome {
        let Some(slot) = self.slot(key) else { return ReleaseOutcome::NotHolder };
        let hot = self.slots.hot(slot);
        // bug_stale_release: whoever once held it ends whoever holds it now (a lock deleted by its name; Redis' DEL without a comparison).
        if token == 0 || (hot.token != token && !crate::bug!("bug_stale_release")) {
            ReleaseOutcome::NotHolder
        } else if hot.held {
            self.end_hold(slot, EndReason::Released, false, step);
            ReleaseOutcome::Released
        } else {
            ReleaseOutcome::AlreadyReleased
        }
    }

    fn release_request(&mut self, key: &LeaseKey, holder: &str, request_id: &str, step: &mut Step) -> Result<ReleaseOutcome, Refusal> {
        let request = RequestKey::of(key, holder, request_id);
        if let Some(slot) = self.slot(key)
            && self.slots.hot(slot).held
            && self.slots.cold(slot).request == request
        {
            self.end_hold(slot, EndReason::Released, false, step);
            return Ok(ReleaseOutcome::Released);
        }
        if let Some((id, slot)) = self.requests.get(&request).copied() {
            let waiter = self.drop_waiter(slot, id);
            step.notify(waiter.session, id, NoticeKind::Ended(EndReason::Released));
            // A copy of that request that is still on its way must not queue again.
            self.bar(request, EndReason::Released, waiter.fingerprint);
            return Ok(ReleaseOutcome::Released);
        }
        if let Some(ended) = self.ended.by_request(request) {
            // The answer to a repeated release is that to the first.
            let barred = ended.reason == EndReason::Barred;
            return Ok(if barred { ReleaseOutcome::Barred } else { ReleaseOutcome::AlreadyReleased });
        }
        if self.ended.is_full() {
            return Err(self.too_many_ended());
        }
        self.bar(request, EndReason::Barred, ANY_FINGERPRINT);
        Ok(ReleaseOutcome::Barred)
    }

    fn bar(&mut self, request: RequestKey, reason: EndReason, fingerprint: u64) {
        let new = self.ended.remember(Ended { request, token: 0, reason, fingerprint, ended_at: self.clock });
        assert!(new, "a request ends once");
    }
}
