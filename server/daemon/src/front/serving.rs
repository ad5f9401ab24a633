//! Serves the connections of clients: HTTP/2, with each stream in a task of its own that can be ended by itself.
//!
//! gRPC's library would serve them too. But a stream whose client takes nothing is one that it cannot end without the
//! connection, and with that the streams of whoever shares it. A request's way goes from here through [`intake`](super::intake)
//! to its handler; who has made it ([`Caller`](crate::socket::Caller)) and what ends its stream ([`StreamEnd`]) are among its
//! extensions. Invariant: whatever one stream does, or leaves undone, its connection lives on, unless it breaks HTTP/2 itself.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Notify, watch};
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::server::Connected as _;
use tower::{Service, ServiceExt as _};

use super::{
    BROKEN_STREAMS_MAX, CANCELLED_MAX, CONNECTION_WINDOW_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
    STREAM_WINDOW_BYTES, STREAMS_PER_CONNECTION_MAX,
};
use crate::socket::Socket;

/// Ends one stream, with whatever HTTP/2 holds for it: an extension of its request. Clones end the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamEnd(Arc<Notify>);

impl StreamEnd {
    /// Ends the stream. Its client is told that it is cancelled.
    pub(crate) fn end(&self) {
        self.0.notify_one();
    }

    /// Waits until the stream has to end. For the one task that serves it.
    pub(crate) async fn ended(&self) {
        self.0.notified().await;
    }
}

tokio::task_local! {
    /// Of the stream that the task serves.
    static STREAM_END: StreamEnd;
}

/// Runs each stream in a task.
#[derive(Clone, Copy, Debug)]
struct Streams;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let end = StreamEnd::default();
        tokio::spawn(STREAM_END.scope(end.clone(), async move {
            tokio::select! {
                biased;
                () = end.ended() => {}
                () = stream => {}
            }
        }));
    }
}

/// Serves `connections` until `stop`, and then until their clients have read what they were answered. Dropping the future
/// stops it too.
pub(super) async fn serve<S>(
    service: S,
    connections: impl Stream<Item = io::Result<Socket>>,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (stopping, stopped) = watch::channel(());
    {
        let (mut connections, mut stop) = (pin!(connections), pin!(stop));
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                next = connections.next() => match next {
                    Some(Ok(socket)) => drop(tokio::spawn(connection(socket, service.clone(), stopped.clone()))),
                    Some(Err(_)) => {}
                    None => break,
                },
            }
        }
        // Nobody comes in any more.
    }
    stopping.send_replace(());
    drop(stopped);
    stopping.closed().await;
}

async fn connection<S>(socket: Socket, service: S, mut stopped: watch::Receiver<()>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let caller = socket.connect_info();
    let answer = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (service, caller) = (service.clone(), caller.clone());
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(caller);
            // This is polled by the stream's task, which always has one.
            request.extensions_mut().insert(STREAM_END.try_with(Clone::clone).unwrap_or_default());
            service.oneshot(request).await
        }
    });
    let mut http = http2::Builder::new(Streams);
    http.timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_pending_accept_reset_streams(CANCELLED_MAX)
        .max_local_error_reset_streams(BROKEN_STREAMS_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
    let mut connection = pin!(http.serve_connection(TokioIo::new(socket), answer));
    // How a connection ends is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
