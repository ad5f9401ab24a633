//! What a port says to those who mean another one.
//!
//! A replica has a port for the replicas and one for clients, and people mix them up. Each port knows the calls of the
//! other by name, takes none of them, and says where they belong.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// The service `S` where it is not served.
pub(crate) struct WrongPort<S> {
    advice: Arc<dyn Fn() -> String + Send + Sync>,
    service: PhantomData<fn() -> S>,
}

impl<S> WrongPort<S> {
    /// `advice` says what to do instead, when somebody asks.
    pub(crate) fn new(advice: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { advice: Arc::new(advice), service: PhantomData }
    }
}

impl<S> Clone for WrongPort<S> {
    fn clone(&self) -> Self {
        Self { advice: Arc::clone(&self.advice), service: PhantomData }
    }
}

impl<S: NamedService> NamedService for WrongPort<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for WrongPort<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Status::unimplemented((self.advice)()).into_http()))
    }
}
