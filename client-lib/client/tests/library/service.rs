//! The service of the replica of which the test says every word: streams and calls as they come in.

use crate::fake::Stream;
use holdfast_proto::client::STREAM_KEY;
use holdfast_proto::client::v1 as wire;
use holdfast_proto::client::v1::cell_server::Cell as CellService;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The calls that clients make.
pub(crate) struct Service {
    pub(crate) streams: mpsc::Sender<Stream>,
    pub(crate) writes: Mutex<mpsc::Receiver<Result<wire::SetContentsResponse, Status>>>,
    pub(crate) extensions: mpsc::Sender<wire::ExtendLeaseRequest>,
    /// The lease that is granted past a stream.
    pub(crate) extension_ms: Arc<AtomicU32>,
}

impl Service {
    /// Of a master that is asked for nothing but its status.
    pub(crate) fn idle() -> Self {
        Self {
            streams: mpsc::channel(1).0,
            writes: Mutex::new(mpsc::channel(1).1),
            extensions: mpsc::channel(1).0,
            extension_ms: Arc::default(),
        }
    }
}

#[tonic::async_trait]
impl CellService for Service {
    type SessionStream = ReceiverStream<Result<wire::ServerFrame, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::ClientFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (outbound, frames) = mpsc::channel(64);
        let name = request.metadata().get(STREAM_KEY).expect("the library names its streams");
        let stream = Stream {
            name: name.to_str().expect("it is text").to_owned(),
            inbound: request.into_inner(),
            outbound,
            lease_ms: None,
            cacheable: false,
            notices_through: 0,
        };
        self.streams.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(frames)))
    }

    async fn set_contents(
        &self,
        _: Request<wire::SetContentsRequest>,
    ) -> Result<Response<wire::SetContentsResponse>, Status> {
        let answer = self.writes.lock().await.try_recv();
        answer.unwrap_or_else(|_| panic!("a write that the test did not expect")).map(Response::new)
    }

    async fn extend_lease(
        &self,
        request: Request<wire::ExtendLeaseRequest>,
    ) -> Result<Response<wire::LeaseGranted>, Status> {
        let request = request.into_inner();
        let number = request.keep_alive.map_or(0, |keep_alive| keep_alive.number);
        // Whether the test looks at it is its own affair.
        let _ = self.extensions.try_send(request);
        let lease_ms = self.extension_ms.load(Ordering::Relaxed);
        Ok(Response::new(wire::LeaseGranted { number, lease_ms }))
    }

    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let role = wire::Role::Master.into();
        Ok(Response::new(wire::StatusResponse { role, ..wire::StatusResponse::default() }))
    }

    async fn get_contents(
        &self,
        _: Request<wire::GetContentsRequest>,
    ) -> Result<Response<wire::GetContentsResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn get_stat(
        &self,
        _: Request<wire::GetStatRequest>,
    ) -> Result<Response<wire::GetStatResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn read_dir(
        &self,
        _: Request<wire::ReadDirRequest>,
    ) -> Result<Response<wire::ReadDirResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn delete(
        &self,
        _: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn set_acl(
        &self,
        _: Request<wire::SetAclRequest>,
    ) -> Result<Response<wire::SetAclResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn check_sequencer(
        &self,
        _: Request<wire::CheckSequencerRequest>,
    ) -> Result<Response<wire::CheckSequencerResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }
}
