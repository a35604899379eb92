//! Release, Put, Delete: one command, one answer.

use tenure_proto::{
    peer::v1::{Outcome, command::Kind as Ask, outcome::Kind},
    v1,
};
use tonic::{Request, Status};

use super::{Service, named, patience, status, validate};

pub(super) async fn release(service: &Service, request: Request<v1::ReleaseRequest>) -> Result<v1::ReleaseResponse, Status> {
    let patience = patience(request.metadata());
    let release = validate::release(request.into_inner())?;
    let lease = named(release.key.as_ref());
    let Outcome { kind } = service.submit(validate::command(Ask::Release(release)), patience).await?;
    match kind {
        Some(Kind::Released(released)) => {
            Ok(v1::ReleaseResponse { header: service.header_showing(released.lease.as_ref()), outcome: released.outcome, lease: released.lease })
        }
        Some(Kind::Refused(refusal)) => Err(status::refused(refusal, &lease)),
        _ => Err(status::unknown_answer()),
    }
}

pub(super) async fn put(service: &Service, request: Request<v1::PutRequest>) -> Result<v1::PutResponse, Status> {
    let patience = patience(request.metadata());
    let request = request.into_inner();
    let validate_only = request.validate_only;
    let mut put = validate::put(request, &service.parts.config.limits)?;
    if validate_only {
        return Ok(v1::PutResponse { header: service.header(), lease: None });
    }
    if let Some(hold) = put.hold.as_mut().filter(|hold| hold.request_id.is_empty()) {
        hold.request_id = service.mint_request_id();
    }
    let lease = named(put.key.as_ref());
    let Outcome { kind } = service.submit(validate::command(Ask::Put(put)), patience).await?;
    match kind {
        Some(Kind::Ended(ended)) => Err(status::hold_ended(&ended, &lease)),
        Some(Kind::Put(lease)) => Ok(v1::PutResponse { header: service.header_showing(Some(&lease)), lease: Some(lease) }),
        Some(Kind::Refused(refusal)) => Err(status::refused(refusal, &lease)),
        _ => Err(status::unknown_answer()),
    }
}

pub(super) async fn delete(service: &Service, request: Request<v1::DeleteRequest>) -> Result<v1::DeleteResponse, Status> {
    let patience = patience(request.metadata());
    let delete = validate::delete(request.into_inner())?;
    let lease = named(delete.key.as_ref());
    let Outcome { kind } = service.submit(validate::command(Ask::Delete(delete)), patience).await?;
    match kind {
        Some(Kind::Deleted(lease)) => Ok(v1::DeleteResponse { header: service.header(), lease: Some(lease) }),
        Some(Kind::Refused(refusal)) => Err(status::refused(refusal, &lease)),
        _ => Err(status::unknown_answer()),
    }
}
