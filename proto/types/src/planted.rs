//! Faults planted on purpose, so that the simulator can show that it would find them.
//!
//! Owns the list of the faults and the switch. In every ordinary build `planted!(Name)` is the constant `false`, and
//! what it guards is not even compiled in. Only with `RUSTFLAGS="--cfg holdfast_planted"` does it ask which fault the
//! thread has chosen (the simulator: one thread is one world), or the process (the torture rig: whose parts are told by
//! their environment). Invariant: without that flag no fault can be chosen, whoever asks.
//!
//! To plant another: add it to `list`, and guard the wrong behaviour with the macro where the right one is.

mod list;

pub use list::Planted;

impl Planted {
    /// Whether this build can plant faults at all.
    pub const POSSIBLE: bool = cfg!(holdfast_planted);

    /// The fault of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, fault)| *fault)
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, fault)| *fault == self).map_or("", |(name, _)| *name)
    }
}

#[cfg(holdfast_planted)]
thread_local! {
    /// The fault that the machines of this thread have. One thread is one simulated world.
    static CHOSEN: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

/// The fault that the machines of all threads have. A process has it from its beginning.
#[cfg(holdfast_planted)]
static EVERYWHERE: std::sync::OnceLock<Planted> = std::sync::OnceLock::new();

/// Whether the machines of this thread have this fault.
#[cfg(holdfast_planted)]
#[must_use]
pub fn is_planted(fault: Planted) -> bool {
    CHOSEN.get().as_ref().or_else(|| EVERYWHERE.get()) == Some(&fault)
}

/// Whether the machines of this thread have this fault: never, in a build like this one.
#[cfg(not(holdfast_planted))]
#[must_use]
#[inline]
pub const fn is_planted(_fault: Planted) -> bool {
    false
}

/// From now on the machines of this thread have this fault, or none. Returns whether this build could do that.
pub fn plant(fault: Option<Planted>) -> bool {
    #[cfg(holdfast_planted)]
    CHOSEN.set(fault);
    fault.is_none() || Planted::POSSIBLE
}

/// From now on the machines of all threads have this fault, those excepted that have chosen another. Only the first
/// call counts. There is no such function in an ordinary build.
#[cfg(holdfast_planted)]
pub fn plant_everywhere(fault: Planted) {
    let _ = EVERYWHERE.set(fault);
}

/// `planted!(Name)`: whether the fault [`Planted::Name`](crate::Planted) is planted. A constant `false` unless the
/// whole program was compiled with `--cfg holdfast_planted`.
#[macro_export]
macro_rules! planted {
    ($name:ident) => {
        $crate::is_planted($crate::Planted::$name)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ordinary_build_can_plant_a_fault() {
        let possible = plant(Some(Planted::LeaseFromReply));
        assert_eq!(possible, Planted::POSSIBLE);
        assert_eq!(planted!(LeaseFromReply), Planted::POSSIBLE);
        assert!(!planted!(LeaseWithoutRound));
        assert!(plant(None));
        assert!(!planted!(LeaseFromReply));
    }

    #[test]
    fn every_fault_is_found_by_its_name() {
        for (name, fault) in Planted::ALL {
            assert_eq!(Planted::named(name), Some(*fault));
            assert_eq!(fault.name(), *name);
            assert!(fault.what().ends_with('.') && !fault.origin().is_empty(), "{name}");
        }
        assert_eq!(Planted::named("none"), None);
    }
}
