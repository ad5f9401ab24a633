//! The text of an access control list, as its file has it.
//!
//! Reads, and never judges: the cell refuses a malformed list when it is written, and is the only one who decides by
//! it. A line that this program does not understand is shown as it stands, so that a later version's list is not
//! hidden.

/// A line that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// `*`.
    Everyone,
    /// `@name`: everybody whom that list has.
    Group(String),
    /// A principal.
    Principal(String),
}

impl Entry {
    /// The line as it stands in the file.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Everyone => "*".to_owned(),
            Self::Group(name) => format!("@{name}"),
            Self::Principal(name) => name.clone(),
        }
    }
}

/// The entries of a list, in order.
pub(super) fn parse(contents: &[u8]) -> Vec<Entry> {
    let text = String::from_utf8_lossy(contents);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entry = |line: &str| match (line, line.strip_prefix('@')) {
        ("*", _) => Entry::Everyone,
        (_, Some(group)) => Entry::Group(group.to_owned()),
        (principal, None) => Entry::Principal(principal.to_owned()),
    };
    lines.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_and_comments_do_not_count() {
        let entries = parse(b"# the team\nalice\n\n  @ops \r\n*\n");
        assert_eq!(entries, [Entry::Principal("alice".into()), Entry::Group("ops".into()), Entry::Everyone]);
        assert_eq!(entries.iter().map(Entry::text).collect::<Vec<_>>(), ["alice", "@ops", "*"]);
        assert!(parse(b"").is_empty());
    }
}
