//! What only a master knows.
mod interface;
pub use interface::{CallAnswer, CallId, CallRequest, Input, Output, RoundId};

/// How a master is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// How much the rates of two clocks may differ, in thousandths. Default 10.
    pub drift_per_mille: u32,
    /// The shortest lease that a new master starts a session with, in milliseconds. Default 5,000.
    pub lease_floor_ms: u32,
    /// A master that was not scheduled for longer than this extends every lease by the gap before it decides an
    /// expiry. In milliseconds; default 200.
    pub gap_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { drift_per_mille: 10, lease_floor_ms: 5_000, gap_ms: 200 }
    }
}
