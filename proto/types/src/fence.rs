//! The fence around a resource that only the holder of a lock may use (P§2.4; design.md, I2).
//!
//! Owns the greatest lock generation that the resource has seen, and never asks a cell: whoever can compare two
//! integers can keep an order of a former holder out. The invariant: once a generation was admitted, no smaller
//! one ever is, restarts included, provided that the resource stores the fence before it acts.

use crate::sequencer::{Sequencer, decimal};
use std::fmt;
use std::str::FromStr;

/// What a resource server keeps beside a resource, one for each lock: it admits sequencers of the greatest
/// generation that it has seen, or a greater one, and refuses all that are older.
///
/// An order is safe when the server does three things in this sequence, under one lock of its own: it asks
/// [`Fence::admit`]; if the answer says [`Admitted::must_store`], it stores the fence's text where it survives a
/// crash, and tells the fence by [`Fence::stored`]; only then it acts. A server that acts first and crashes before it
/// has stored would take orders of a former holder after its restart.
///
/// Generations of a lock rise for as long as its cell lives, also when the node is deleted and created anew. Only a
/// cell that is founded anew under the same name begins at small ones again; its resources need new fences.
///
/// # Examples
///
/// ```
/// use holdfast_types::{Fence, Sequencer};
///
/// # fn store(text: &str) -> std::io::Result<String> { Ok(text.to_owned()) }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut fence = Fence::new();
/// let order: Sequencer = "holdfast:1:exclusive:42:17:/ls/dev/leader".parse()?;
/// let admitted = fence.admit(&order)?;
/// if admitted.must_store() {
///     store(&fence.to_string())?; // Durable, and before anything is done.
///     fence.stored(admitted);
/// }
/// // Here the order is carried out. One of an earlier holder is not:
/// let late: Sequencer = "holdfast:1:exclusive:41:17:/ls/dev/leader".parse()?;
/// assert!(fence.admit(&late).is_err());
///
/// // After a restart of the server:
/// let fence: Fence = fence.to_string().parse()?;
/// assert_eq!(fence.generation(), 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// The lock's full name; `None` until the first sequencer binds it. Never changes afterwards.
    name: Option<String>,
    /// The greatest generation admitted; 0 before the first. Only rises.
    generation: u64,
    /// The greatest generation that the server has said is stored. Never greater than `generation`.
    stored: u64,
}

/// A fence lets an order pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "ask `must_store`: an order must not be carried out before its generation is stored"]
pub struct Admitted {
    generation: u64,
    must_store: bool,
}

/// A fence keeps an order out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FenceError {
    /// The lock has been held by somebody else since.
    #[error("the lock generation {offered} is over: {seen} has been seen")]
    #[non_exhaustive]
    Stale {
        /// The greatest generation seen.
        seen: u64,
        /// The one that came with the order.
        offered: u64,
    },
    /// The sequencer is of another lock than the one that guards this resource.
    #[error("the sequencer is of the lock {offered:?}, and {expected:?} guards this resource")]
    #[non_exhaustive]
    OtherLock {
        /// The lock that the fence is bound to.
        expected: String,
        /// The lock that the sequencer names.
        offered: String,
    },
    /// The sequencer has the generation 0: that lock was never held.
    #[error("the lock generation 0 is no held lock's")]
    NeverHeld,
}

/// Why a text is not a fence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what}; a fence reads holdfast-fence:1:<generation>:/ls/<cell>/<path>, or holdfast-fence:1:0: if it is new"
)]
pub struct FenceTextError {
    what: &'static str,
}

impl Fence {
    /// A fence that has seen nothing, and is bound to the lock of the first sequencer it is shown.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A fence that has seen nothing, for the lock of the node called `name`: its full name, `/ls/<cell>/<path>`, as
    /// sequencers have it.
    #[must_use]
    pub fn for_lock(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// Decides about an order that came with `sequencer`. From then on smaller generations are refused, whether the
    /// server stores the fence or not.
    ///
    /// # Errors
    ///
    /// [`FenceError::Stale`] if a greater generation was seen, [`FenceError::OtherLock`] if it is not this lock's,
    /// [`FenceError::NeverHeld`] for the generation 0. The fence stays as it was, and the order must be refused.
    pub fn admit(&mut self, sequencer: &Sequencer) -> Result<Admitted, FenceError> {
        if let Some(name) = self.name.as_ref().filter(|name| **name != sequencer.name) {
            return Err(FenceError::OtherLock { expected: name.clone(), offered: sequencer.name.clone() });
        }
        let offered = sequencer.generation;
        if offered == 0 {
            return Err(FenceError::NeverHeld);
        }
        if offered < self.generation {
            return Err(FenceError::Stale { seen: self.generation, offered });
        }
        self.name.get_or_insert_with(|| sequencer.name.clone());
        self.generation = offered;
        Ok(Admitted { generation: offered, must_store: offered > self.stored })
    }

    /// The fence's text is stored, as it was after this admission or later. Until then every further order of the
    /// same generation is told to store it too.
    pub fn stored(&mut self, admitted: Admitted) {
        self.stored = self.stored.max(admitted.generation.min(self.generation));
    }

    /// The full name of the lock; `None` before the first sequencer.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The greatest generation admitted; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl Admitted {
    /// Whether the fence has to be stored before the order is carried out.
    #[must_use]
    pub fn must_store(self) -> bool {
        self.must_store
    }

    /// The generation that was admitted.
    #[must_use]
    pub fn generation(self) -> u64 {
        self.generation
    }
}

impl fmt::Display for Fence {
    /// The text that the server stores.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "holdfast-fence:1:{}:{}", self.generation, self.name().unwrap_or_default())
    }
}

impl FromStr for Fence {
    type Err = FenceTextError;

    /// Restores a fence that was stored.
    fn from_str(text: &str) -> Result<Self, FenceTextError> {
        let error = |what| FenceTextError { what };
        let mut fields = text.splitn(4, ':');
        if fields.next() != Some("holdfast-fence") {
            return Err(error("the text does not begin with 'holdfast-fence:'"));
        }
        if fields.next() != Some("1") {
            return Err(error("the fence's version is not 1"));
        }
        let generation = fields.next().and_then(decimal);
        let generation = generation.ok_or_else(|| error("the generation is not a decimal number"))?;
        let name = match fields.next() {
            Some("") if generation == 0 => None,
            Some("") => return Err(error("the name is missing")),
            Some(name) => Some(name.to_owned()),
            None => return Err(error("the text is cut off after the generation")),
        };
        Ok(Self { name, generation, stored: generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;
    use proptest::prelude::*;

    fn sequencer(name: &str, generation: u64) -> Sequencer {
        Sequencer { name: name.to_owned(), mode: Mode::Exclusive, generation, instance: 1 }
    }

    #[test]
    fn an_older_generation_and_another_lock_are_refused() {
        let mut fence = Fence::new();
        assert!(fence.admit(&sequencer("/ls/dev/a", 5)).unwrap().must_store());
        let stale = fence.admit(&sequencer("/ls/dev/a", 4)).unwrap_err();
        assert_eq!(stale, FenceError::Stale { seen: 5, offered: 4 });
        let other = fence.admit(&sequencer("/ls/dev/b", 9)).unwrap_err();
        assert!(other.to_string().contains("\"/ls/dev/a\" guards"), "{other}");
        assert_eq!(fence.admit(&sequencer("/ls/dev/a", 0)), Err(FenceError::NeverHeld));
        assert_eq!((fence.name(), fence.generation()), (Some("/ls/dev/a"), 5));
        assert!(Fence::for_lock("/ls/dev/a").admit(&sequencer("/ls/dev/b", 1)).is_err());
    }

    #[test]
    fn a_generation_is_to_be_stored_until_the_server_says_that_it_is() {
        let mut fence = Fence::for_lock("/ls/dev/a");
        // Storing it failed the first time.
        let _ = fence.admit(&sequencer("/ls/dev/a", 5)).unwrap();
        let again = fence.admit(&sequencer("/ls/dev/a", 5)).unwrap();
        assert!(again.must_store());
        fence.stored(again);
        assert!(!fence.admit(&sequencer("/ls/dev/a", 5)).unwrap().must_store());
        // What is stored says nothing of what came after it.
        let newer = fence.admit(&sequencer("/ls/dev/a", 6)).unwrap();
        fence.stored(again);
        assert!(newer.must_store() && fence.admit(&sequencer("/ls/dev/a", 6)).unwrap().must_store());
    }

    #[test]
    fn what_is_no_fence_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "begin with"),
            ("holdfast:1:exclusive:42:17:/ls/dev/a", "begin with"),
            ("holdfast-fence:2:1:/ls/dev/a", "version"),
            ("holdfast-fence:1:01:/ls/dev/a", "decimal"),
            ("holdfast-fence:1:", "decimal"),
            ("holdfast-fence:1:7", "cut off"),
            ("holdfast-fence:1:7:", "name is missing"),
        ] {
            let error = text.parse::<Fence>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        /// I2, and through restarts: what is admitted after a generation was admitted is never smaller, if the server
        /// restores what it stored before it acted.
        #[test]
        fn admitted_generations_never_fall_also_through_restarts(
            orders in prop::collection::vec((1_u64..20, any::<bool>()), 1..60)
        ) {
            let mut fence = Fence::new();
            let mut disk = fence.to_string();
            let mut acted = 0;
            for (generation, restarts) in orders {
                if restarts {
                    fence = disk.parse().unwrap();
                }
                match fence.admit(&sequencer("/ls/dev/a:b", generation)) {
                    Ok(admitted) => {
                        if admitted.must_store() {
                            disk = fence.to_string();
                            fence.stored(admitted);
                        }
                        prop_assert!(generation >= acted);
                        acted = generation;
                    }
                    Err(FenceError::Stale { seen, offered }) => {
                        prop_assert_eq!((seen, offered), (acted, generation));
                        prop_assert!(offered < seen);
                    }
                    Err(other) => prop_assert!(false, "{other}"),
                }
            }
        }

        #[test]
        fn the_text_form_goes_out_and_in(name in "/ls/[a-z]{1,5}/[ -~]{1,20}", generation in 1_u64..) {
            let mut fence = Fence::new();
            prop_assert_eq!(fence.to_string().parse::<Fence>().unwrap(), fence.clone());
            let admitted = fence.admit(&sequencer(&name, generation)).unwrap();
            fence.stored(admitted);
            prop_assert_eq!(fence.to_string().parse::<Fence>().unwrap(), fence);
        }
    }
}
