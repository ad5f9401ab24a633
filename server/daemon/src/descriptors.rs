//! File descriptors: as many as there are to be had, and some that clients cannot use up.
//!
//! Invariant: the log always finds a descriptor for its next file, however many clients come.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use slog::{Logger, warn};

use crate::guests::Places;

/// Clients leave so many file descriptors to the log, the snapshots, the other replicas and the program itself.
const DESCRIPTORS_RESERVED: u64 = 320;
/// And so many clients are let in however few descriptors there are.
const CLIENT_SOCKETS_MIN: u64 = 32;
/// Of all connections, one in so many may be one that arrives, up to the greatest number of those.
const ARRIVING_ONE_IN: usize = 4;
const ARRIVING_MAX: usize = 1_024;
/// Replicas need a few connections each; and those that arrive may be anybody's.
pub(crate) const PEER_PLACES: Places = Places { arriving: 64, settled: 96 };

/// Takes as many file descriptors as the system allows. By habit it allows 1,024 until asked, which some hundred
/// clients use up, and then the log cannot begin its next file, which ends the process.
pub(crate) fn allow_many_files(logger: &Logger) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        warn!(logger, "cannot raise the limit of open files: {error}");
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Some(why) = too_few(soft)
    {
        warn!(logger, "{why}");
    }
}

/// What to say of so small a limit of open files; `None` if it is large enough.
fn too_few(limit: u64) -> Option<String> {
    let least = DESCRIPTORS_RESERVED + CLIENT_SOCKETS_MIN;
    (limit < least).then(|| {
        format!(
            "the limit of open files is {limit}, and a replica needs {least} at the least, {DESCRIPTORS_RESERVED} for itself and \
             the others for clients: without them it ends when the log needs its next file. Raise it (`ulimit -n`, or \
             LimitNOFILE= of systemd)"
        )
    })
}

/// How many connections of clients may be open at a time: as many as there are file descriptors, but for those that
/// the replica itself needs; or fewer, if `wanted` says so.
pub(crate) fn client_places(wanted: Option<u64>) -> Places {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
    let possible = descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(CLIENT_SOCKETS_MIN);
    let all = usize::try_from(wanted.unwrap_or(u64::MAX).min(possible)).unwrap_or(usize::MAX);
    let arriving = (all / ARRIVING_ONE_IN).clamp(1, ARRIVING_MAX);
    Places { arriving, settled: all - arriving }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_said() {
        assert_eq!(too_few(1_024), None);
        assert_eq!(too_few(DESCRIPTORS_RESERVED + CLIENT_SOCKETS_MIN), None);
        let said = too_few(256).expect("it is low");
        assert!(said.contains("is 256") && said.contains("352") && said.contains("ulimit -n"), "{said}");
    }

    #[test]
    fn clients_leave_descriptors_to_the_replica() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let Places { arriving, settled } = client_places(None);
        let all = (arriving + settled) as u64;
        assert!(all >= CLIENT_SOCKETS_MIN);
        assert!(all <= soft.saturating_sub(DESCRIPTORS_RESERVED).max(CLIENT_SOCKETS_MIN));
        let Places { arriving, settled } = client_places(Some(20));
        assert_eq!((arriving, settled), (5, 15));
    }
}
