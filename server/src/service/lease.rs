//! `LeaseService`: each call goes to the file that does it.

use std::sync::Arc;

use futures::stream::BoxStream;
use tenure_proto::v1::{self, lease_service_server::LeaseService};
use tonic::{Request, Response, Status, Streaming};

use super::{PATIENCE, Service, acquire, patience, read, renew, watch, write};

pub(super) struct Leases(pub(super) Arc<Service>);

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl LeaseService for Leases {
    type AcquireStream = Answers<v1::AcquireResponse>;
    type RenewStream = Answers<v1::RenewResponse>;
    type WatchStream = Answers<v1::WatchResponse>;

    async fn acquire(&self, request: Request<v1::AcquireRequest>) -> Result<Response<Self::AcquireStream>, Status> {
        acquire::acquire(&self.0, request).await.map(Response::new)
    }

    async fn renew(&self, request: Request<Streaming<v1::RenewRequest>>) -> Result<Response<Self::RenewStream>, Status> {
        let patience = patience(request.metadata()).min(PATIENCE);
        Ok(Response::new(renew::renew(&self.0, request.into_inner(), patience)))
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Result<Response<v1::ReleaseResponse>, Status> {
        write::release(&self.0, request).await.map(Response::new)
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        read::get(&self.0, request).await.map(Response::new)
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        read::list(&self.0, request).await.map(Response::new)
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        watch::watch(&self.0, request).await.map(Response::new)
    }

    async fn put(&self, request: Request<v1::PutRequest>) -> Result<Response<v1::PutResponse>, Status> {
        write::put(&self.0, request).await.map(Response::new)
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        write::delete(&self.0, request).await.map(Response::new)
    }

    async fn history(&self, request: Request<v1::HistoryRequest>) -> Result<Response<v1::HistoryResponse>, Status> {
        read::history(&self.0, request).await.map(Response::new)
    }
}
