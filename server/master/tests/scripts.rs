//! Golden transcripts of a master: frames and time in, decisions and frames out.
//!
//! The runner stands in for the replica: `commit` applies what the master has proposed, `confirm` confirms the
//! rounds it has asked for, `time` moves the clock. Each command prints everything that the master then wants
//! done. `UPDATE_GOLDENFILES=1 cargo test -p holdfast-master` writes the outputs anew, to be read before they
//! are believed.

mod transcript;

use transcript::Runner;

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/", stringify!($name));
            goldenscript::run(&mut Runner::new(), path).expect("the transcript runs");
        }
    )*};
}

scripts!(
    leases,
    misuse,
    keep_alives,
    attachments,
    rounds,
    reaping,
    requests,
    timers,
    fail_over,
    calls,
    caching,
    caching_directories,
    caching_fail_over,
    caching_opens,
    caching_crossings,
    caching_lists,
    caching_refusals,
    held_calls,
    held,
    events,
    endings,
    idle,
    long_leases,
    late_clients,
    turns,
);
