//! P7: a request is granted once, however often it is sent and to whom.

use std::collections::{HashMap, HashSet};

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::{Call, Kind, Outcome},
};

pub(super) const PROPERTY: Property = Property { id: "P7", claim: "a repeated request is answered with the one grant that it got, never with a second", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let mut tokens: HashMap<(&str, &str, &str), u64> = HashMap::new();
    let mut asked: HashMap<(&str, &str), Asked<'_>> = HashMap::new();
    for op in &facts.ops {
        let Call::Acquire { lease, holder, request_id, .. } = &op.invoke.call else { continue };
        let asked = asked.entry((lease, holder)).or_default();
        if request_id.is_empty() {
            asked.unnamed += 1;
        } else {
            asked.requests.insert(request_id);
        }
        let token = match op.outcome {
            Some(Outcome::Granted { lease, .. }) => lease.token,
            Some(Outcome::Ended { token, .. }) if *token > 0 => *token,
            _ => continue,
        };
        if !request_id.is_empty() {
            let known = *tokens.entry((lease, holder, request_id)).or_insert(token);
            findings.check(known == token, op.to, lease, || format!("one request, tokens {known} and {token}: {}", op.text()));
        }
    }
    // Whoever asked is here, so all grants to this name come of these requests.
    let mut granted: HashMap<(&str, &str), (u64, u64)> = HashMap::new();
    for (at, committed) in facts.witness.changes.iter().filter(|(_, committed)| committed.change.kind == Kind::Acquired) {
        let count = granted.entry((&committed.change.lease, &committed.change.holder)).or_default();
        *count = (count.0 + 1, *at);
    }
    for ((lease, holder), (count, at)) in granted {
        let Some(asked) = asked.get(&(lease, holder)) else { continue };
        let requests = asked.requests.len() as u64 + asked.unnamed;
        findings.check(count <= requests, at, lease, || format!("{holder} asked with {requests} requests and was granted {count} times"));
    }
}

#[derive(Default)]
struct Asked<'h> {
    requests: HashSet<&'h str>,
    unnamed: u64,
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Call, EndReason, Kind, Outcome},
        story::{LEASE, Story, change, ended, state},
    };

    fn request(story: &mut Story, at: u64, id: &str, outcome: Outcome) {
        let call = Call::Acquire { lease: LEASE.into(), holder: "a".into(), request_id: id.into(), duration_ms: 1000, wait_ms: None, reclaim: false };
        story.op(at, at + 1, "a", call, outcome);
    }

    fn granted(token: u64) -> Outcome {
        Outcome::Granted { lease: state("a", token), must_renew: true, revision: token }
    }

    #[test]
    fn two_tokens_for_one_request_are_found() {
        let mut story = Story::default();
        request(&mut story, 0, "r", granted(1));
        request(&mut story, 2, "r", granted(1));
        request(&mut story, 4, "r", Outcome::Ended { token: 1, reason: EndReason::Expired });
        story.passes("P7");
        request(&mut story, 6, "s", granted(2));
        story.passes("P7");
        request(&mut story, 8, "r", granted(3));
        story.fails("P7");
    }

    #[test]
    fn second_grant_that_no_answer_showed_is_found_in_the_witness() {
        let mut story = Story::default();
        request(&mut story, 0, "r", Outcome::Unknown { error: String::new() });
        request(&mut story, 2, "r", granted(3));
        story.committed(1, change(Kind::Acquired, 3, "a", 3)).passes("P7");
        story.committed(0, change(Kind::Acquired, 1, "a", 1)).committed(0, ended(Kind::Released, 2, "", 1, "a", EndReason::Released)).fails("P7");
    }
}
