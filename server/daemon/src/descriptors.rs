//! File descriptors: as many as there are to be had, and some that clients cannot use up.
//!
//! Invariant: the log always finds a descriptor for its next file, however many clients come.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use slog::{Logger, warn};
use tokio::sync::Semaphore;

/// Clients leave so many file descriptors to the log, the snapshots, the other replicas and the program itself.
const DESCRIPTORS_RESERVED: u64 = 128;
/// And so many clients are let in however few descriptors there are.
const CLIENT_SOCKETS_MIN: u64 = 16;

/// Takes as many file descriptors as the system allows. By habit it allows 1,024 until asked, which some hundred
/// clients use up, and then the log cannot begin its next file, which ends the process.
pub(crate) fn allow_many_files(logger: &Logger) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        warn!(logger, "cannot raise the limit of open files: {error}");
    }
}

/// How many connections of clients may be open at a time: as many as there are file descriptors, but for those that
/// the replica itself needs.
pub(crate) fn client_sockets_max() -> usize {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
    let sockets = descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(CLIENT_SOCKETS_MIN);
    usize::try_from(sockets).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_to_the_replica() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let sockets = client_sockets_max() as u64;
        assert!(sockets >= CLIENT_SOCKETS_MIN);
        assert!(sockets <= soft.saturating_sub(DESCRIPTORS_RESERVED).max(CLIENT_SOCKETS_MIN));
    }
}
