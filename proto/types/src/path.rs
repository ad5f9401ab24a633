//! The grammar of names (P§2.3): `/ls/<cell>/<path>` from anywhere, or `/<path>` within a cell.
//!
//! A [`NodePath`] is always canonical: it begins with `/`, has no empty component, no `.` and no `..`, and no
//! control character. Because `/ls/` begins a cell's name, no node at the top of a cell may be called `ls`.

use std::fmt;
use std::sync::Arc;

use crate::characters::quoted;

/// The cell name that means "the client's own cell".
pub const CELL_LOCAL: &str = "local";

/// How long names may be. Part of the cell's replicated settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameLimits {
    /// The most bytes of a component.
    pub name_bytes_max: usize,
    /// The most bytes of a path within the cell.
    pub path_bytes_max: usize,
}

impl Default for NameLimits {
    fn default() -> Self {
        Self { name_bytes_max: 255, path_bytes_max: 4096 }
    }
}

/// Why a text is not the name of a node here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathError {
    /// The text does not begin with `/`.
    NotAbsolute(String),
    /// Two slashes meet, or one ends the path.
    EmptyComponent(String),
    /// A component is `.` or `..`.
    DotComponent(String, String),
    /// A control character.
    ControlCharacter(String),
    /// A component is too long.
    NameTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
        /// How it begins.
        start: String,
    },
    /// The path is too long.
    PathTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The name is of another cell.
    ForeignCell {
        /// The text.
        path: String,
        /// The cell that it names.
        named: String,
        /// The cell that was asked.
        here: String,
    },
    /// A node at the top would be called `ls`.
    Reserved,
}

impl PathError {
    /// The error as a sentence in which texts are quoted by `quote`; `Display` takes [`quoted`].
    #[must_use]
    pub fn message(&self, quote: impl Fn(&str) -> String) -> String {
        match self {
            Self::NotAbsolute(path) => {
                let path = quote(path);
                format!(
                    "path {path} does not begin with '/': write /ls/<cell>/<path>, or /<path> within the cell"
                )
            }
            Self::EmptyComponent(path) => {
                let path = quote(path);
                format!("path {path} has an empty component: write single slashes, and none at the end")
            }
            Self::DotComponent(path, component) => {
                let (path, component) = (quote(path), quote(component));
                format!(
                    "path {path} has the component {component}: a name has one path only, without '.' and '..'"
                )
            }
            Self::ControlCharacter(path) => {
                format!("path {} has a control character: names are printable text", quote(path))
            }
            Self::NameTooLong { bytes, bytes_max, start } => {
                let start = quote(start);
                format!("a component of the path has {bytes} bytes, and {bytes_max} is the most: {start}...")
            }
            Self::PathTooLong { bytes, bytes_max } => {
                format!("the path has {bytes} bytes, and {bytes_max} is the most")
            }
            Self::ForeignCell { path, named, here } => {
                let (path, named, here) = (quote(path), quote(named), quote(here));
                format!("path {path} names the cell {named}, and this is the cell {here}")
            }
            Self::Reserved => {
                "the name 'ls' is reserved at the top of a cell: /ls/<cell>/... names a cell".to_owned()
            }
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message(quoted))
    }
}

impl std::error::Error for PathError {}

/// The canonical path of a node within its cell: `/` or `/a/b`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePath(Arc<str>);

impl NodePath {
    /// The root.
    #[must_use]
    pub fn root() -> Self {
        Self(Arc::from("/"))
    }

    /// Parses a name as clients write it, for the cell called `cell`.
    ///
    /// # Errors
    ///
    /// A [`PathError`] that says what is wrong with `text`, and with which part of it.
    pub fn parse(text: &str, cell: &str, limits: NameLimits) -> Result<Self, PathError> {
        if !text.starts_with('/') {
            return Err(PathError::NotAbsolute(clip(text)));
        }
        if text.len() > limits.path_bytes_max + "/ls/".len() + cell.len().max(CELL_LOCAL.len()) {
            return Err(PathError::PathTooLong { bytes: text.len(), bytes_max: limits.path_bytes_max });
        }
        let path = within_cell(text, cell)?;
        if path == "/" {
            return Ok(Self::root());
        }
        if path.len() > limits.path_bytes_max {
            return Err(PathError::PathTooLong { bytes: path.len(), bytes_max: limits.path_bytes_max });
        }
        for component in path[1..].split('/') {
            check_component(component, path, limits)?;
        }
        Ok(Self(Arc::from(path)))
    }

    /// Takes a path that is known to be canonical, such as one out of the log or a snapshot.
    ///
    /// # Errors
    ///
    /// A [`PathError`] if it is not canonical after all. Lengths are not checked: limits may have changed.
    pub fn from_canonical(text: &str) -> Result<Self, PathError> {
        let limits = NameLimits { name_bytes_max: usize::MAX, path_bytes_max: usize::MAX / 2 };
        if text == "/ls" || text.starts_with("/ls/") {
            return Err(PathError::Reserved);
        }
        Self::parse(text, CELL_LOCAL, limits)
    }

    /// The path as text: `/` or `/a/b`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The directory that this node is in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.split()?;
        Some(if parent.is_empty() { Self::root() } else { Self(Arc::from(parent)) })
    }

    /// The last component; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.split().map(|(_, name)| name)
    }

    /// The path of the child called `name`, which the caller has checked to be a component.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let parent = if self.is_root() { "" } else { self.as_str() };
        Self(Arc::from(format!("{parent}/{name}")))
    }

    /// The name that means this node from anywhere: `/ls/<cell>/<path>`.
    #[must_use]
    pub fn full_name(&self, cell: &str) -> String {
        format!("/ls/{cell}{}", self.0)
    }

    /// What is before the last slash, and what is after it.
    fn split(&self) -> Option<(&str, &str)> {
        if self.is_root() { None } else { self.0.rsplit_once('/') }
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks the name of a cell: 1 to 63 of `a-z`, `0-9` and `-`, beginning with a letter, and not `local`.
///
/// # Errors
///
/// A sentence that says what is wrong and what would be right.
pub fn check_cell_name(name: &str) -> Result<(), String> {
    let well_formed = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !well_formed {
        return Err(format!(
            "cell name {} is not well-formed: 1 to 63 of a-z, 0-9 and '-', beginning with a letter",
            quoted(&clip(name))
        ));
    }
    if name == CELL_LOCAL {
        return Err("a cell cannot be called 'local': that name means the client's own cell".to_owned());
    }
    Ok(())
}

/// Takes the cell off a name: `/ls/<cell>/a` and `/a` give `/a`.
fn within_cell<'t>(text: &'t str, cell: &str) -> Result<&'t str, PathError> {
    if text == "/ls" {
        return Err(PathError::Reserved);
    }
    let Some(rest) = text.strip_prefix("/ls/") else { return Ok(text) };
    let (named, path) = match rest.find('/') {
        Some(slash) => (&rest[..slash], &rest[slash..]),
        None => (rest, "/"),
    };
    if named != cell && named != CELL_LOCAL {
        return Err(PathError::ForeignCell { path: clip(text), named: clip(named), here: cell.to_owned() });
    }
    if path == "/ls" || path.starts_with("/ls/") {
        return Err(PathError::Reserved);
    }
    Ok(path)
}

fn check_component(component: &str, path: &str, limits: NameLimits) -> Result<(), PathError> {
    if component.is_empty() {
        return Err(PathError::EmptyComponent(clip(path)));
    }
    if component == "." || component == ".." {
        return Err(PathError::DotComponent(clip(path), component.to_owned()));
    }
    if component.chars().any(char::is_control) {
        return Err(PathError::ControlCharacter(clip(path)));
    }
    if component.len() > limits.name_bytes_max {
        return Err(PathError::NameTooLong {
            bytes: component.len(),
            bytes_max: limits.name_bytes_max,
            start: component.chars().take(32).collect(),
        });
    }
    Ok(())
}

/// Enough of a text to recognize it in a message.
fn clip(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CHARS_MAX).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<NodePath, PathError> {
        NodePath::parse(text, "dev", NameLimits::default())
    }

    #[test]
    fn the_three_spellings_of_a_name_are_one_path() {
        for text in ["/a/b", "/ls/dev/a/b", "/ls/local/a/b"] {
            assert_eq!(parse(text).unwrap().as_str(), "/a/b", "{text}");
        }
        for text in ["/", "/ls/dev", "/ls/dev/", "/ls/local"] {
            assert!(parse(text).unwrap().is_root(), "{text}");
        }
    }

    #[test]
    fn parent_name_and_child_agree() {
        let path = parse("/a/b").unwrap();
        assert_eq!(path.parent().unwrap().child("b"), path);
        assert_eq!(path.name(), Some("b"));
        assert_eq!(parse("/a").unwrap().parent().unwrap(), NodePath::root());
        assert_eq!(NodePath::root().parent(), None);
        assert_eq!(NodePath::root().child("a").as_str(), "/a");
        assert_eq!(path.full_name("dev"), "/ls/dev/a/b");
    }

    #[test]
    fn each_fault_has_its_own_error() {
        use PathError as E;
        assert!(matches!(parse("a"), Err(E::NotAbsolute(_))));
        assert!(matches!(parse(""), Err(E::NotAbsolute(_))));
        assert!(matches!(parse("//a"), Err(E::EmptyComponent(_))));
        assert!(matches!(parse("/a/"), Err(E::EmptyComponent(_))));
        assert!(matches!(parse("/a/../b"), Err(E::DotComponent(..))));
        assert!(matches!(parse("/a\n"), Err(E::ControlCharacter(_))));
        assert!(matches!(parse("/ls/other/a"), Err(E::ForeignCell { .. })));
        assert!(matches!(parse("/ls/dev/ls/x"), Err(E::Reserved)));
        assert!(matches!(parse("/ls"), Err(E::Reserved)));
        assert!(matches!(parse(&format!("/{}", "n".repeat(256))), Err(E::NameTooLong { bytes: 256, .. })));
        assert!(parse(&format!("/{}", "n".repeat(255))).is_ok());
        let long = "/n".repeat(2048);
        assert_eq!(long.len(), 4096);
        assert!(parse(&long).is_ok());
        assert!(parse(&format!("/ls/local{long}")).is_ok());
        assert!(matches!(parse(&format!("{long}n")), Err(E::PathTooLong { bytes: 4097, .. })));
    }

    #[test]
    fn cell_names_are_checked() {
        assert!(check_cell_name("dev-1").is_ok());
        for name in ["", "1a", "Dev", "a/b", "local", &"a".repeat(64)] {
            assert!(check_cell_name(name).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_is_canonical_and_parses_to_itself(text in "[/a-c.l s\u{e9}\n]{0,24}") {
            if let Ok(path) = parse(&text) {
                prop_assert_eq!(parse(path.as_str()).unwrap(), path.clone());
                prop_assert_eq!(NodePath::from_canonical(path.as_str()).unwrap(), path);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,64}") {
            let _ = parse(&text);
            let _ = NodePath::from_canonical(&text);
        }
    }
}
