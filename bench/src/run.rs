//! One measurement after the other, and a line for each as soon as it is there.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Run;
use crate::cell::{LocalCell, Target};
use crate::report::Report;
use crate::work::{Work, fairness};

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
    let mut report = Report::new(run);
    let mut unclean = Vec::new();
    let mut shared = None;
    for (work, clients) in plan {
        if work == Work::Fairness {
            unclean.extend(measure_fairness(run, &progress, &report).await?);
            continue;
        }
        let target = match &mut shared {
            Some(target) => target,
            none => {
                progress.set_message("the cell starts");
                none.insert(target(run).await?)
            }
        };
        progress.set_message(format!("{work}, {clients} clients"));
        let line = work.measure(target, run, clients).await?;
        progress.suspend(|| report.print(&line))?;
    }
    progress.finish_and_clear();
    ensure!(unclean.is_empty(), "not clean: {}", unclean.join("\n"));
    Ok(())
}

/// The cell that all works share which do not need one of their own.
async fn target(run: &Run) -> Result<Target> {
    Ok(match &run.addresses {
        Some(addresses) => Target::Foreign(addresses.clone()),
        None => Target::Local(LocalCell::start().await?),
    })
}

/// Measures one kind of greedy client after the other, and tells what was not clean.
async fn measure_fairness(run: &Run, progress: &ProgressBar, report: &Report) -> Result<Vec<String>> {
    ensure!(run.addresses.is_none(), "a cell at --addresses is not ours to attack: leave --addresses out");
    let mut unclean = Vec::new();
    for kind in run.greedy_kinds() {
        progress.set_message(format!("fairness beside {}", kind.name()));
        // What was not possible beside one kind says nothing of the others.
        match fairness::measure(run, kind).await {
            Ok(line) => {
                progress.suspend(|| report.print_fairness(&line))?;
                unclean.extend(line.unclean());
            }
            Err(error) => unclean.push(format!("{error:#}")),
        }
    }
    Ok(unclean)
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
