//! An honest client beside a greedy one: how much later its answers come, whether its sessions come into jeopardy,
//! whether the master changes, and what it costs the replicas in memory.
//!
//! For each kind of greedy client there are two phases, each with a cell of its own. In the first the greedy client, a
//! process of its own, attacks while the honest client works; the processor time of that process is measured. In the
//! second, the baseline, a process burns as much processor time and sends nothing. So a ratio says what the requests
//! do, and not what it costs that somebody computes on the same machine. Order: the share of the burner follows from
//! the greedy client, and the bench would have to guess it if the baseline came first.

mod companion;
mod honest;
mod latencies;
mod line;
mod lost_lock;
mod memory;

use std::time::Duration;

use anyhow::{Context as _, Result};
use holdfast_greedy::{Kind, Status};

use crate::arguments::Run;
use crate::cell::LocalCell;
use companion::{Beside, Companion};
pub(crate) use companion::{COMMAND, CompanionFlags, be};
use honest::{Honest, Outcome, Window};
pub(crate) use line::Line;
use memory::Memory;

/// A phase that takes longer than this after its window is stuck.
const FINISH_MAX: Duration = Duration::from_secs(90);

/// What one phase has shown.
struct Phase {
    /// What the honest client saw.
    outcome: Outcome,
    /// By how many terms the cell's master is newer than at the beginning.
    masters_changed: u64,
    /// By how much a replica's memory rose at most, beyond what the greedy client has stored.
    memory_bytes: u64,
    /// The processor time of the process beside the honest client, of one core.
    cpu_share: f64,
    /// What the greedy client got.
    got: Status,
}

/// Measures one kind.
pub(crate) async fn measure(run: &Run, kind: Kind) -> Result<Line> {
    let beside = phase(run, Beside::Greedy(kind)).await;
    let beside = beside.with_context(|| format!("beside {}", kind.name()))?;
    let quiet = phase(run, Beside::Burner { share: beside.cpu_share }).await.context("beside the burner")?;
    Ok(Line::new(kind, &beside, &quiet))
}

async fn phase(run: &Run, beside: Beside) -> Result<Phase> {
    let mut cell = LocalCell::start().await?;
    let honest = Honest::open(&cell.addresses()).await?;
    let term = cell.term().await?;
    let mut memory = Memory::begin(cell.processes())?;
    let mut companion = Companion::start(beside, &cell.addresses(), run)?;
    while !companion.is_ready()? {
        memory.look(companion.stored_bytes());
        memory.pause().await;
    }
    let window = Window::opens_now(run.seconds);
    let work = honest.work(window);
    tokio::pin!(work);
    let cpu_before = companion.cpu()?;
    // Whatever the honest client does, the window closes.
    let mut early = None;
    while !window.is_over() {
        tokio::select! {
            outcome = &mut work, if early.is_none() => early = Some(outcome),
            () = memory.pause() => memory.look(companion.stored_bytes()),
        }
        companion.refresh()?;
    }
    let cpu_share = (companion.cpu()?.saturating_sub(cpu_before)).div_duration_f64(run.seconds);
    let got = companion.end()?;
    let outcome = match early {
        Some(outcome) => outcome,
        None => tokio::time::timeout(FINISH_MAX, work).await.context("the honest client waits for ever")?,
    };
    cell.check()?;
    let masters_changed = cell.term().await?.saturating_sub(term);
    Ok(Phase { outcome, masters_changed, memory_bytes: memory.excess_bytes(), cpu_share, got })
}
