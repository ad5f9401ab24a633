//! One measurement after the other, and a line for each as soon as it is there.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Run;
use crate::cell::{LocalCell, Target};
use crate::report::Report;

/// How often the display of progress moves.
const PROGRESS_TICK: Duration = Duration::from_millis(200);

/// Measures everything that is asked for. An interrupt ends it like an error: processes and data are cleared away.
pub(crate) async fn run_until_interrupted(run: &Run) -> Result<()> {
    tokio::select! {
        done = measure_all(run) => done,
        interrupted = interrupted() => {
            interrupted?;
            bail!("interrupted")
        }
    }
}

/// Waits for SIGINT or SIGTERM.
async fn interrupted() -> Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn measure_all(run: &Run) -> Result<()> {
    let plan = run.plan();
    ensure!(!plan.is_empty(), "no work can be measured with so few clients: a handoff needs two");
    let progress = progress();
    progress.set_message("the cell starts");
    let mut target = match &run.addresses {
        Some(addresses) => Target::Foreign(addresses.clone()),
        None => Target::Local(LocalCell::start().await?),
    };
    let mut report = Report::new(run);
    for (work, clients) in plan {
        progress.set_message(format!("{work}, {clients} clients"));
        let line = work.measure(&mut target, run, clients).await?;
        progress.suspend(|| report.print(&line))?;
    }
    progress.finish_and_clear();
    Ok(())
}

/// Shown on a terminal only.
fn progress() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    progress.set_style(
        ProgressStyle::with_template("{spinner} {elapsed} {msg}").unwrap_or(ProgressStyle::default_spinner()),
    );
    progress.enable_steady_tick(PROGRESS_TICK);
    progress
}
