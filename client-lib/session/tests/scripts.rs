//! Golden transcripts of a session: what happens to it goes in, what it wants done comes out.
//!
//! The runner stands in for the driver and for the cell. Each command prints every output that follows from it,
//! unless it has `hold=yes`. `UPDATE_GOLDENFILES=1 cargo test -p holdfast-session` writes the outputs anew, to be
//! read before they are believed.

mod transcript;

use transcript::Runner;

macro_rules! scripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let path = concat!("tests/scripts/", stringify!($name));
                goldenscript::run(&mut Runner::default(), path).expect("the script runs");
            }
        )*
    };
}

scripts! {
    opening
    keep_alives
    jeopardy
    retries
    queue
    cancel
    redirection
    closing
    cache
    eviction
    absence
    cached_opens
    kept_locks
    events
    endings
    flush
    lease_changes
    limits
    sequencers
}
