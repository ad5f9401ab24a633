//! How a cell begins: its name, its first members and their addresses, and the state that all of them share.
//!
//! Invariant: it follows from the plan alone, so that whoever founds a replica later finds the same.

use holdfast_proto::client::v1::Settings;
use holdfast_proto::log::v1::Member;
use holdfast_replica::StateAt;
use holdfast_state::{Genesis, State, settings};
use holdfast_types::Term;

use crate::client::principal;
use crate::member::CELL_ID;
use crate::plan::Plan;

/// The cell's name.
pub(crate) const CELL: &str = "sim";
/// Raft's index of the genesis.
pub(crate) const GENESIS_INDEX: u64 = 1;

/// What all replicas begin with.
pub(crate) fn genesis(plan: &Plan) -> StateAt {
    let member = |index: usize| Member {
        id: index as u64 + 1,
        data_id: data_id(index),
        peer_address: address(index),
        client_address: address(index),
        learner: false,
    };
    // Somebody must be able to write access control lists.
    let bootstrap_principal = principal(0).as_str().to_owned();
    let settings = Settings {
        bootstrap_principal,
        lease_ms_max: plan.lease_ms_max,
        requests_in_flight_max: plan.requests_in_flight_max,
        ..settings::defaults()
    };
    let settings = settings::complete_at(plan.founded_at, settings).expect("they are within their ranges");
    let (members, voters) = ((0..plan.replicas).map(member).collect(), (1..=plan.replicas as u64).collect());
    let state = State::genesis_at(
        plan.founded_at,
        Genesis { cell: CELL.to_owned(), cell_id: CELL_ID, members, settings },
    );
    StateAt { index: GENESIS_INDEX, term: Term(1), voters, learners: Vec::new(), state }
}

/// What names the data of a replica as it began.
pub(crate) fn data_id(index: usize) -> u64 {
    index as u64 + 101
}

/// Where a replica is found.
pub(crate) fn address(index: usize) -> String {
    format!("replica-{}", index + 1)
}

/// Which replica is found there.
pub(crate) fn replica_at(address: &str) -> Option<usize> {
    let id: usize = address.strip_prefix("replica-")?.parse().ok()?;
    id.checked_sub(1)
}
