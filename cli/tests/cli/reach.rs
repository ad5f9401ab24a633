//! A cell that is not there, or not where it is looked for: every command says the same of it, and soon.

use std::net::TcpListener;

use crate::harness::{Ran, TestCell, holdfast};

/// One command of each way to the cell: by name, for reading and for writing, and by a session; with the status that
/// each has where the cell cannot be reached.
const COMMANDS: [(&[&str], i32); 5] = [
    (&["ls", "/"], 5),
    (&["put", "/a", "b"], 5),
    (&["session", "ls"], 5),
    (&["watch", "/"], 5),
    (&["lock", "/l", "--", "true"], 115),
];

fn run_at(address: &str, arguments: &[&str]) -> Ran {
    let mut command = holdfast(arguments);
    command.env("HOLDFAST_ADDRESSES", address);
    Ran::of(command.output().unwrap())
}

#[test]
fn where_no_replica_runs_every_command_says_so_in_the_same_words() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    for (arguments, status) in COMMANDS {
        let ran = run_at(&address, &[&["--timeout", "60"], arguments].concat());
        let said = format!("holdfast: no replica of the cell was found ({address}: connection refused)\n");
        ran.assert_failed(status, &said);
    }
}

#[test]
fn a_port_that_is_for_replicas_says_so_and_where_clients_go() {
    let cell = TestCell::start();
    let status = cell.json(&["status"]);
    let member = &status["replicas"][0];
    let peer = member["peer_address"].as_str().unwrap();
    let client = member["client_address"].as_str().unwrap();
    for (arguments, status) in COMMANDS {
        let said = format!("{peer}: this port is for the replicas of the cell: clients use {client}");
        run_at(peer, arguments).assert_failed(status, &said);
    }
}
