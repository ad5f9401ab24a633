//! Sequencers (P§2.4): the proof of holding a lock that its holder hands to the servers it calls.
//!
//! The text form is `holdfast:1:<mode>:<generation>:<instance>:<name>`, for example
//! `holdfast:1:exclusive:42:17:/ls/dev/service/leader`. The generation is decimal. A server that keeps the
//! greatest generation it has seen for a name, and refuses smaller ones, is fenced (design.md, I2). Whoever
//! can compare two integers can do that, in any language: the fourth field is all it takes.

use std::fmt;
use std::str::FromStr;

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// By one handle alone.
    Exclusive,
    /// By any number of handles, all in this mode.
    Shared,
}

impl Mode {
    /// Whether a lock held in this mode keeps one who wants it in `other` out.
    #[must_use]
    pub fn conflicts_with(self, other: Self) -> bool {
        self == Self::Exclusive || other == Self::Exclusive
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        })
    }
}

/// A lock's name, mode and generation, as its holder saw them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sequencer {
    /// The node's full name: `/ls/<cell>/<path>`.
    pub name: String,
    /// How the lock is held.
    pub mode: Mode,
    /// The lock generation: rises whenever the lock goes from free to held. The fencing token.
    pub generation: u64,
    /// The instance of the node.
    pub instance: u64,
}

/// Why a text is not a sequencer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; a sequencer reads holdfast:1:<exclusive|shared>:<generation>:<instance>:/ls/<cell>/<path>")]
pub struct SequencerError {
    what: &'static str,
}

impl fmt::Display for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, mode, generation, instance } = self;
        write!(f, "holdfast:1:{mode}:{generation}:{instance}:{name}")
    }
}

impl FromStr for Sequencer {
    type Err = SequencerError;

    fn from_str(text: &str) -> Result<Self, SequencerError> {
        let error = |what| SequencerError { what };
        let mut fields = text.splitn(6, ':');
        if fields.next() != Some("holdfast") {
            return Err(error("the text does not begin with 'holdfast:'"));
        }
        if fields.next() != Some("1") {
            return Err(error("the sequencer's version is not 1"));
        }
        let mode = match fields.next() {
            Some("exclusive") => Mode::Exclusive,
            Some("shared") => Mode::Shared,
            _ => return Err(error("the mode is neither 'exclusive' nor 'shared'")),
        };
        let number = |field: Option<&str>| field.and_then(decimal);
        let generation =
            number(fields.next()).ok_or_else(|| error("the generation is not a decimal number"))?;
        let instance = number(fields.next()).ok_or_else(|| error("the instance is not a decimal number"))?;
        let name = fields.next().unwrap_or_default();
        if !name.starts_with("/ls/") {
            return Err(error("the name does not begin with '/ls/'"));
        }
        Ok(Self { name: name.to_owned(), mode, generation, instance })
    }
}

/// A number in its one spelling: no sign, no leading zero.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || text.starts_with(|c: char| ('1'..='9').contains(&c));
    if canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_goes_out_and_in() {
        let text = "holdfast:1:exclusive:42:17:/ls/dev/service:8080/leader";
        let sequencer: Sequencer = text.parse().unwrap();
        assert_eq!(sequencer.generation, 42);
        assert_eq!(sequencer.name, "/ls/dev/service:8080/leader");
        assert_eq!(sequencer.to_string(), text);
    }

    #[test]
    fn what_is_no_sequencer_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "begin with"),
            ("holdfast:2:shared:1:1:/ls/a/b", "version"),
            ("holdfast:1:both:1:1:/ls/a/b", "mode"),
            ("holdfast:1:shared:+1:1:/ls/a/b", "generation"),
            ("holdfast:1:shared:01:1:/ls/a/b", "generation"),
            ("holdfast:1:shared:1:x:/ls/a/b", "instance"),
            ("holdfast:1:shared:1:1:/a/b", "/ls/"),
            ("holdfast:1:shared:1:1", "/ls/"),
        ] {
            let error = text.parse::<Sequencer>().unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn only_two_shared_modes_agree() {
        assert!(!Mode::Shared.conflicts_with(Mode::Shared));
        assert!(Mode::Shared.conflicts_with(Mode::Exclusive));
        assert!(Mode::Exclusive.conflicts_with(Mode::Shared));
    }
}
