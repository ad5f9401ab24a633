//! raft, the state and the master as one machine.
mod interface;

pub use holdfast_master::{CallAnswer, CallId, CallRequest};
pub use interface::{Boot, Config, Input, Output, Persist, StateAt};
/// raft's own messages, for whoever stores them. Nobody else need look inside.
pub use raft::eraftpb as raftpb;
