//! Answers that the gRPC library gives other names than gRPC does, or none: the outermost layer but one of the services.
//!
//! A call whose deadline is over is DEADLINE_EXCEEDED; a message that is too long
//! is refused with LIMIT, like everything else that is too long. Everything else passes untouched. Invariant: what is
//! renamed here was answered by no handler.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use holdfast_proto::client::v1::{Refusal, RefusalCode};
use holdfast_state::refusal::limit_facts;
use holdfast_types::Duration;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::MESSAGE_BYTES_MAX;
use super::refusal::status_of;

/// The header in which a client says how long it waits.
const TIMEOUT_KEY: &str = "grpc-timeout";

/// Wraps services.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conform;

/// A service whose answers have the names that gRPC gives them.
#[derive(Clone, Debug)]
pub(crate) struct Conforming<S> {
    inner: S,
}

impl<S> Layer<S> for Conform {
    type Service = Conforming<S>;

    fn layer(&self, inner: S) -> Conforming<S> {
        Conforming { inner }
    }
}

impl<S, B> Service<Request<B>> for Conforming<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let waited = timeout(request.headers());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Some(waited) = waited else { return answer.await.map(renamed) };
            match tokio::time::timeout(waited, answer).await {
                Ok(answer) => answer.map(renamed),
                Err(_) => Ok(deadline_exceeded(waited).into_http()),
            }
        })
    }
}

fn deadline_exceeded(waited: Duration) -> Status {
    let message =
        format!("the call was not decided within its {} ms: it may yet take effect", waited.as_millis());
    Status::deadline_exceeded(message)
}

/// An answer under its right name. The library says OUT_OF_RANGE of messages that it does not take, and nothing here does.
fn renamed(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() == Code::OutOfRange => too_long(MESSAGE_BYTES_MAX).into_http(),
        _ => response,
    }
}

/// A message, or a frame, of more bytes than are taken at once.
pub(super) fn too_long_refusal(what: &str, max: usize) -> Refusal {
    Refusal {
        code: RefusalCode::Limit.into(),
        message: format!("{what} is longer than {max} bytes, the most that is taken at once"),
        facts: Some(limit_facts("message_bytes_max", max as u64, 0)),
    }
}

fn too_long(max: usize) -> Status {
    status_of(&too_long_refusal("the message", max), "")
}

/// An answer is sent so long before its caller's deadline.
const WAY_BACK: Duration = Duration::from_millis(200);

/// For how long a call may wait here, if its caller says how long it waits: a little less.
pub(super) fn patience(headers: &HeaderMap) -> Option<Duration> {
    timeout(headers).map(|waits| waits - WAY_BACK.min(waits / 4))
}

/// How long the caller waits: up to eight digits and a unit. Anything else is none.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT_KEY)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::client::REFUSAL_KEY;
    use std::convert::Infallible;

    fn request(timeout: &str) -> Request<()> {
        Request::builder().header(TIMEOUT_KEY, timeout).body(()).unwrap()
    }

    #[test]
    fn a_deadline_is_digits_and_a_unit() {
        let read = |text: &str| timeout(request(text).headers());
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(read("1500u"), Some(Duration::from_micros(1_500)));
        for wrong in ["", "S", "2", "2s", "-1S", "123456789S", "2 S"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_not_answered_in_time_has_exceeded_its_deadline() {
        let never =
            tower::service_fn(|_: Request<()>| std::future::pending::<Result<Response<Body>, Infallible>>());
        let began = tokio::time::Instant::now();
        let response = Conform.layer(never).call(request("250m")).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(began.elapsed(), Duration::from_millis(250));
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_refused_with_its_limit() {
        let library = |status: Status| {
            let service = tower::service_fn(move |_: Request<()>| {
                let response = status.clone().into_http();
                std::future::ready(Ok::<Response<Body>, Infallible>(response))
            });
            async move {
                let response = Conform.layer(service).call(Request::new(())).await.unwrap();
                Status::from_header_map(response.headers()).unwrap()
            }
        };
        let refused = library(Status::out_of_range("decoded message length too large")).await;
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.metadata().get(REFUSAL_KEY).unwrap(), "LIMIT");
        let other = library(Status::not_found("no such node")).await;
        assert_eq!((other.code(), other.message()), (Code::NotFound, "no such node"));
    }
}
