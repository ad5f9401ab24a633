//! What the command has started and left behind: the kernel gives it to us, and we can tell of it.

use std::fs;

use nix::sys::prctl;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::terminal::Stat;

/// Processes whose parents have ended, and that are ours now.
#[derive(Debug)]
pub(super) struct Offspring {
    /// Children that we have started ourselves.
    own: Vec<u32>,
}

impl Offspring {
    /// From now on, whoever is left behind by what we start comes to us, except `own`, which we see to elsewhere.
    pub(super) fn adopt(own: Vec<u32>) -> Self {
        // Linux has had it since 3.4. Without it they go to the first process, and we cannot tell of them.
        let _ = prctl::set_child_subreaper(true);
        Self { own }
    }

    /// Lets those go that have ended: nobody else would.
    pub(super) fn reap(&self) {
        for child in self.children() {
            let _ = waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
        }
    }

    /// Those that still run, and are not in this group.
    pub(super) fn outside(&self, group: Pid) -> Vec<Pid> {
        let is_outside = |stat: Stat| !stat.has_ended() && stat.group != group.as_raw();
        self.children().filter(|child| Stat::of(child.as_raw()).is_some_and(is_outside)).collect()
    }

    /// Whether some still run that are in this group.
    pub(super) fn is_within(&self, group: Pid) -> bool {
        let is_inside = |stat: Stat| !stat.has_ended() && stat.group == group.as_raw();
        self.children().any(|child| Stat::of(child.as_raw()).is_some_and(is_inside))
    }

    /// Those that still run.
    pub(super) fn running(&self) -> Vec<Pid> {
        let runs = |stat: Stat| !stat.has_ended();
        self.children().filter(|child| Stat::of(child.as_raw()).is_some_and(runs)).collect()
    }

    fn children(&self) -> impl Iterator<Item = Pid> {
        let id = std::process::id();
        // Each is listed by the thread that started it; those that came to us, by the first.
        let listed = fs::read_to_string(format!("/proc/self/task/{id}/children")).unwrap_or_default();
        let ids = listed.split_whitespace().filter_map(|child| child.parse::<u32>().ok());
        let children = ids.filter(|child| !self.own.contains(child));
        let pids = children.filter_map(|child| i32::try_from(child).ok()).map(Pid::from_raw);
        pids.collect::<Vec<_>>().into_iter()
    }
}
