//! What the tests of the kit share: sessions, locks, and patience with a limit.

use std::time::Duration;

use holdfast::{Cell, Handle, OpenOptions, Session};

/// Nothing that is waited for takes so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// A lease that does not run out, however busy the machine is.
pub(crate) const LONG: Duration = Duration::from_secs(40);

/// Waits for what must come.
pub(crate) async fn soon<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, wanted).await {
        Ok(came) => came,
        Err(_) => panic!("{what} did not come"),
    }
}

/// A session that nothing ends by accident.
pub(crate) async fn session(client: &Cell) -> Session {
    client.session().lease(LONG).open().await.expect("a session")
}

/// A handle on the file that everybody wants.
pub(crate) async fn leader(session: &Session) -> Handle {
    session.open("/leader", OpenOptions::new().create()).await.expect("a handle")
}
