//! Golden transcripts: commands in, outcomes and effects out. Each file in `tests/scripts` is a story to be read.
//!
//! A command with a prefix is a request of the session of that name; its first number is the request's. All of
//! them travel as encoded batches, as they do in the log; the tag `[deposed]` puts one into a batch of an older
//! term than its entry's. After every block the invariants are checked, and the state goes through a snapshot.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p holdfast-state --test scripts` writes the output anew. Read it before
//! committing it.

mod transcript;

macro_rules! scripts {
    (version $version:literal: $($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() -> std::io::Result<()> {
                let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/", stringify!($name));
                goldenscript::run(&mut transcript::Cell::at($version), path)
            }
        )+
    };
}

scripts! {
    version 2: tree, by_name, locks, shared_locks, delays, exactly_once, cancel, ephemerals, sessions, settings, sequencers,
    void, handles, events, lock_events, missed_events, acl, acl_files, uses, relative, handle_sequencers, endings, caches, lists,
    full, characters, hidden, long_leases,
}

scripts! {
    version 1: version_1, version_1_leases,
}
