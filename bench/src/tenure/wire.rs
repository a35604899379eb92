//! Renewals as bytes, so that the generator takes little of the CPU that it shares with the replicas: a message is encoded once and sent again and
//! again, and an answer in which everything was renewed is counted where it lies.

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use tenure_proto::v1::{RenewItem, RenewRequest, RenewResponse};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Field 2 of `RenewResponse`, `results`; and field 1 of `RenewResult`, `renewed`. Both are messages.
const RESULTS: u8 = 2 << 3 | MESSAGE;
const RENEWED: u8 = 1 << 3 | MESSAGE;
const MESSAGE: u8 = 2;

/// A message that renews these for as long as before. Token and nothing else.
pub(super) fn message(tokens: &[u64]) -> Bytes {
    RenewRequest { items: tokens.iter().map(|token| RenewItem { token: *token, ..Default::default() }).collect() }.encode_to_vec().into()
}

/// To one message.
#[derive(Debug)]
pub(super) enum Answer {
    /// So many, all of them.
    AllRenewed(usize),
    Other(RenewResponse),
}

impl Answer {
    fn decode(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        match renewed(bytes) {
            Some(count) => Ok(Self::AllRenewed(count)),
            None => Ok(Self::Other(RenewResponse::decode(bytes)?)),
        }
    }
}

/// How many results there are; none if one of them is not `renewed`, or if this is no such message.
fn renewed(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    while let Some((&key, rest)) = bytes.split_first() {
        if key & 7 != MESSAGE {
            return None;
        }
        let (length, rest) = length(rest)?;
        let (field, rest) = rest.split_at_checked(length)?;
        if key == RESULTS {
            if field.first() != Some(&RENEWED) {
                return None;
            }
            count += 1;
        }
        bytes = rest;
    }
    Some(count)
}

fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((length, &bytes[at + 1..]));
        }
    }
    None
}

/// Between bytes and [`Answer`]s.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wire;

impl Codec for Wire {
    type Decode = Answer;
    type Decoder = Self;
    type Encode = Bytes;
    type Encoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Wire {
    type Error = Status;
    type Item = Bytes;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Wire {
    type Error = Status;
    type Item = Answer;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Answer>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Answer::decode(&bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use tenure_proto::v1::{Lost, RenewResult, Renewed, ResponseHeader, renew_result::Result as Is};

    use super::*;

    fn answer(results: Vec<Is>) -> Vec<u8> {
        let header = ResponseHeader { cluster_id: "c".repeat(200), revision: 7, ..Default::default() };
        let results = results.into_iter().map(|result| RenewResult { result: Some(result) }).collect();
        RenewResponse { header: Some(header), results, renew_within: Some(prost_types::Duration { seconds: 5, nanos: 1 }) }.encode_to_vec()
    }

    #[test]
    fn renewals_are_counted_and_whatever_else_there_is_is_decoded() {
        let renewed = Is::Renewed(Renewed { duration: Some(prost_types::Duration { seconds: 15, nanos: 0 }) });
        for count in [0, 1, 1000] {
            assert!(matches!(Answer::decode(&answer(vec![renewed.clone(); count])), Ok(Answer::AllRenewed(n)) if n == count));
        }
        let lost = Is::Lost(Lost { token: 3, ..Default::default() });
        match Answer::decode(&answer(vec![renewed, lost.clone()])) {
            Ok(Answer::Other(answer)) => assert_eq!(answer.results[1].result, Some(lost)),
            other => panic!("{other:?}"),
        }
        assert!(Answer::decode(&[0xff, 0xff, 0xff]).is_err());
    }

    #[test]
    fn a_message_is_what_the_replica_reads() {
        let read = RenewRequest::decode(message(&[5, 1 << 50])).expect("decodes");
        assert_eq!(read.items.iter().map(|item| item.token).collect::<Vec<_>>(), [5, 1 << 50]);
    }
}
