//! Who a client is, for the access control lists (P§2.3).
//!
//! Owns the grammar of principals' names and nothing of how a client proves who it is. Invariant: a `Principal` is
//! never `*` and never looks like a group, so that an access control list cannot mistake one for the other.

use std::fmt;
use std::sync::Arc;

use crate::characters::{first_unprintable, is_space};

/// A principal: the common name of a client certificate, or [`Principal::anonymous`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(Arc<str>);

/// Why a text cannot be a principal's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what}: a principal has 1 to 255 bytes without spaces or control characters, is not '*', and begins with neither '@' nor '#'"
)]
pub struct PrincipalError {
    what: &'static str,
}

impl Principal {
    /// The most bytes of a principal's name.
    pub const BYTES_MAX: usize = 255;
    /// What everyone is called who has proved nothing.
    pub const ANONYMOUS: &str = "anonymous";

    /// Whoever has proved nothing.
    #[must_use]
    pub fn anonymous() -> Self {
        Self(Arc::from(Self::ANONYMOUS))
    }

    /// Reads a name.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PrincipalError> {
        let error = |what| Err(PrincipalError { what });
        if text.is_empty() {
            return error("the name is empty");
        }
        if text.len() > Self::BYTES_MAX {
            return error("the name is too long");
        }
        if text == "*" {
            return error("the name means everyone");
        }
        if text.starts_with(['@', '#']) {
            return error("the name begins like a group or a comment");
        }
        // `is_control` is a category that Unicode has promised never to change.
        if text.chars().any(|c| is_space(c) || c.is_control()) {
            return error("the name has a space or a control character");
        }
        Ok(Self(Arc::from(text)))
    }

    /// Reads a name that is given to somebody now: as [`Principal::parse`], which also reads what was given before, and
    /// without characters that leave no mark, so that no two principals look alike.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse_printable(text: &str) -> Result<Self, PrincipalError> {
        let principal = Self::parse(text)?;
        match first_unprintable(text) {
            Some(_) => Err(PrincipalError {
                what: "the name has a character that is not seen, or turns others around",
            }),
            None => Ok(principal),
        }
    }

    /// Reads the common name of a certificate: as [`Principal::parse_printable`], and not the name of those who have proved
    /// nothing. Whoever has a certificate has proved something.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn of_certificate(text: &str) -> Result<Self, PrincipalError> {
        if text == Self::ANONYMOUS {
            return Err(PrincipalError { what: "the name is that of everybody who shows no certificate" });
        }
        Self::parse_printable(text)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_an_access_control_list_could_mistake_are_refused() {
        for (text, what) in [
            ("", "empty"),
            ("*", "everyone"),
            ("@ops", "group"),
            ("#ops", "comment"),
            ("a b", "space"),
            ("a\u{7}", "control"),
        ] {
            let error = Principal::parse(text).unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
        assert!(Principal::parse(&"x".repeat(256)).is_err());
    }

    #[test]
    fn a_certificate_names_nobody_who_looks_like_another_or_has_proved_nothing() {
        for text in ["ali\u{200b}ce", "\u{202e}ecila", "alice\u{feff}", "al\u{ad}ice"] {
            assert!(Principal::parse(text).is_ok(), "what stands in a log from before still counts");
            for error in [Principal::parse_printable(text), Principal::of_certificate(text)] {
                assert!(error.unwrap_err().to_string().contains("not seen"));
            }
        }
        let error = Principal::of_certificate("anonymous").unwrap_err().to_string();
        assert!(error.contains("shows no certificate"), "{error}");
        assert_eq!(Principal::parse_printable("anonymous"), Ok(Principal::anonymous()));
        assert_eq!(Principal::of_certificate("Ana\u{ef}s").unwrap().as_str(), "Ana\u{ef}s");
    }

    #[test]
    fn an_ordinary_name_is_taken_as_it_is() {
        assert_eq!(Principal::parse("worker-7@eu.example").unwrap().as_str(), "worker-7@eu.example");
    }
}
