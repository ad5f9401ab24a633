//! The names of nodes as they stand on the command line.
//!
//! Arguments are bytes and names are UTF-8, so this is where the two meet: an argument that is no UTF-8 gets an
//! error of its own here. The grammar is checked here too, so that a mistake costs no round trip; the cell
//! checks it again, with its own limits.

use std::ffi::OsStr;

use clap::builder::{TypedValueParser, ValueParserFactory};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use holdfast_types::{NameLimits, NodePath, PathError, escaped};

/// A well-formed name: `/a/b`, `/ls/local/a/b` or `/ls/<cell>/a/b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    /// The file of the access control list `name`, which [`parse_acl_name`] has accepted.
    pub(crate) fn of_acl(name: &str) -> Self {
        Self(format!("/acl/{name}"))
    }

    /// The access control list that the node is, or would be.
    pub(crate) fn acl(&self) -> Option<&str> {
        let path = match self.0.strip_prefix("/ls/") {
            Some(rest) => &rest[rest.find('/')?..],
            None => &self.0,
        };
        path.strip_prefix("/acl/").filter(|name| !name.contains('/'))
    }

    /// The name as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks an argument.
    fn parse(argument: &OsStr) -> Result<Self, String> {
        let Some(text) = argument.to_str() else {
            return Err(format!("it is not UTF-8 ({argument:?}), and names of nodes are"));
        };
        // Which cell is asked is known only later. Limits are the cell's to know.
        let limits = NameLimits { name_bytes_max: usize::MAX, path_bytes_max: usize::MAX / 2 };
        let cell = text.strip_prefix("/ls/").and_then(|rest| rest.split('/').next()).unwrap_or("local");
        match NodePath::parse(text, cell, limits) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(PathError::NotAbsolute(_)) => Err("it does not begin with '/'".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Checks the name of an access control list: `*`, or that of a file directly under `/acl`.
///
/// # Errors
///
/// A sentence that says what would be right.
pub(crate) fn parse_acl_name(text: &str) -> Result<String, String> {
    let advice = "write the name of a file in the directory /acl, without the directory, or '*' for everyone";
    if text.contains('/') {
        return Err(format!("it has a '/'; {advice}"));
    }
    if text != "*" {
        Name::parse(OsStr::new(&format!("/acl/{text}"))).map_err(|reason| format!("{reason}; {advice}"))?;
    }
    Ok(text.to_owned())
}

impl ValueParserFactory for Name {
    type Parser = NameParser;

    fn value_parser() -> NameParser {
        NameParser
    }
}

/// Makes [`Name`]s for clap. Not a plain function, because clap hands those UTF-8 only, and refuses the rest
/// without a word on what is expected.
#[derive(Clone, Debug)]
pub(crate) struct NameParser;

impl TypedValueParser for NameParser {
    type Value = Name;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Name, clap::Error> {
        Name::parse(value).map_err(|reason| {
            let mut error = clap::Error::new(ErrorKind::ValueValidation).with_cmd(command);
            let argument = argument.map_or_else(|| "PATH".to_owned(), ToString::to_string);
            error.insert(ContextKind::InvalidArg, ContextValue::String(argument));
            error.insert(
                ContextKind::InvalidValue,
                ContextValue::String(escaped(&value.display().to_string()).into_owned()),
            );
            let hint = format!("{}; write /<path>, or /ls/<cell>/<path>", escaped(&reason));
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
            error
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn the_three_spellings_are_taken_as_they_are() {
        for text in ["/", "/a/b", "/ls/local/a", "/ls/dev/a", "/ls/dev"] {
            assert_eq!(Name::parse(OsStr::new(text)).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_list_is_a_file_directly_under_acl() {
        for (text, list) in [
            ("/acl/team", Some("team")),
            ("/ls/dev/acl/team", Some("team")),
            ("/ls/local/acl/team", Some("team")),
            ("/acl", None),
            ("/acl/team/x", None),
            ("/a/acl/team", None),
            ("/ls/acl", None),
        ] {
            assert_eq!(Name::parse(OsStr::new(text)).unwrap().acl(), list, "{text}");
        }
    }

    #[test]
    fn each_fault_of_a_name_is_named() {
        for (bytes, reason) in [
            (&b"\xff\xfe"[..], "not UTF-8"),
            (b"/a/\xff", "not UTF-8"),
            (b"a", "begin with '/'"),
            (b"", "begin with '/'"),
            (b"/a//b", "empty component"),
            (b"/a/", "empty component"),
            (b"/a/..", "component \"..\""),
            (b"/a\x07", "control character"),
            (b"/ls", "reserved"),
        ] {
            let error = Name::parse(OsStr::from_bytes(bytes)).unwrap_err();
            assert!(error.contains(reason), "{bytes:?}: {error}");
        }
    }

    #[test]
    fn a_list_has_the_name_of_a_file_or_is_everyone() {
        for text in ["*", "admin", "team.eu-1"] {
            assert_eq!(parse_acl_name(text).unwrap(), text);
        }
        for text in ["", "/acl/admin", "a/b", "..", "a\u{7}"] {
            assert!(parse_acl_name(text).unwrap_err().contains("directory /acl"), "{text:?}");
        }
    }
}
