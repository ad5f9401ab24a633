//! What a process has consumed, as `/proc` tells it: for the replicas and for the load alike.

use std::fs;
use std::ops::Sub;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The unit of processor time in `/proc`: USER_HZ, which is part of the kernel's interface and 100 wherever it matters.
const TICK: Duration = Duration::from_millis(10);

/// Processor time and context switches of all threads of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// How often its threads waited for something.
    pub(crate) waits: u64,
}

impl Usage {
    /// Of a process, up to now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let read = |path: String| fs::read_to_string(&path).with_context(|| format!("cannot read {path}"));
        let ticks = ticks(&read(format!("/proc/{pid}/stat"))?).context("/proc has another form")?;
        let mut waits_sum = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task")).context("cannot list threads")? {
            // A thread that ends just now is of no consequence.
            let Ok(status) = read(format!("{}/status", task?.path().display())) else { continue };
            waits_sum += waits(&status).unwrap_or(0);
        }
        Ok(Self { cpu: TICK * ticks, waits: waits_sum })
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let waits = self.waits.saturating_sub(earlier.waits);
        Self { cpu: self.cpu.saturating_sub(earlier.cpu), waits }
    }
}

/// User and system time in a `stat` file: its 14th and 15th fields. The 2nd is a name that may hold anything.
fn ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    Some(fields.next()?.parse::<u32>().ok()? + fields.next()?.parse::<u32>().ok()?)
}

/// Voluntary context switches in a thread's `status` file.
fn waits(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_of_any_form() {
        let stat = "77 (a b) c) S 1 2 3 4 5 6 7 8 9 10 120 34 0 0 20 0 5 0 999";
        assert_eq!(ticks(stat), Some(154));
        assert_eq!(
            waits("Name:\tx\nvoluntary_ctxt_switches:\t42\nnonvoluntary_ctxt_switches:\t7\n"),
            Some(42)
        );
    }

    #[test]
    fn this_process_has_consumed_something_and_later_not_less() {
        let earlier = Usage::of(std::process::id()).unwrap();
        let later = Usage::of(std::process::id()).unwrap();
        assert!(later.cpu >= earlier.cpu && later.waits >= earlier.waits);
        assert!((later - earlier).cpu < Duration::from_secs(10));
    }
}
