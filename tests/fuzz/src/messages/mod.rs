//! Messages out of a [`Source`]: each decodes, and need make no sense otherwise.

pub mod client;
pub mod log;
pub mod raft;
pub mod server;

use crate::Source;

const PATHS: [&str; 16] = [
    "/",
    "/a",
    "/b",
    "/a/b",
    "/a/c",
    "/ls/dev/a",
    "/ls/local/b",
    "/ls",
    "/ls/x/a",
    "/a/",
    "//",
    "/acl",
    "/acl/x",
    "/acl/*",
    "b",
    "",
];
const NAMES: [&str; 8] = ["", "", "*", "x", "y", "admin", "a/b", ".."];
const SEQUENCERS: [&str; 6] = [
    "",
    "holdfast:1:exclusive:3:2:/ls/dev/a",
    "holdfast:1:shared:4:2:/ls/dev/b",
    "holdfast:1:exclusive:18446744073709551615:0:/ls/dev/a",
    "holdfast:2:exclusive:1:1:/ls/dev/a",
    "holdfast:1:exclusive:1:1:/a",
];

/// A path, mostly one of a few.
pub fn path(source: &mut Source<'_>) -> String {
    if source.one_in(12) { source.text() } else { source.pick(&PATHS).to_owned() }
}

/// A name of an access control list.
pub fn name(source: &mut Source<'_>) -> String {
    if source.one_in(12) { source.text() } else { source.pick(&NAMES).to_owned() }
}

/// A sequencer, or something like one.
pub fn sequencer(source: &mut Source<'_>) -> String {
    if source.one_in(6) { source.text() } else { source.pick(&SEQUENCERS).to_owned() }
}
