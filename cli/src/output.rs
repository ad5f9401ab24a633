//! What goes to standard output: tables for people, one JSON document for programs.
//!
//! Whatever comes from the cell is escaped on its way out: a name that somebody else chose must not command a terminal.
//! Failures are `failure.rs`'s; what is said beside the output goes to standard error by [`tell`]. A closed pipe (`holdfast ls / | head -1`) is no
//! failure of ours, so it ends the output quietly.

use std::io::{ErrorKind, IsTerminal as _, Write};

use anyhow::{Context as _, Result};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use holdfast_types::{escaped, escaped_json, escaped_lines};
use serde::Serialize;

/// The form of the output, as `--json` chose it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// JSON, or text for people.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints `document` as JSON, or what `text` makes of it.
    ///
    /// # Errors
    ///
    /// If standard output cannot be written, other than because nobody reads it any more.
    pub(crate) fn print<T: Serialize>(self, document: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        let printed = match self.json {
            true => escaped_json(&serde_json::to_string_pretty(document)?).into_owned(),
            false => escaped_lines(&text(document)).into_owned(),
        };
        if printed.is_empty() { Ok(()) } else { raw(format!("{}\n", printed.trim_end()).as_bytes()) }
    }

    /// Prints one of many: `document` as JSON in a single line, or what `text` makes of it. Whoever reads has it at
    /// once. Tells whether anybody still reads.
    ///
    /// # Errors
    ///
    /// If standard output cannot be written, other than because nobody reads it any more.
    pub(crate) fn print_line<T: Serialize>(
        self,
        document: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<bool> {
        let line = match self.json {
            true => escaped_json(&serde_json::to_string(document)?).into_owned(),
            false => escaped(&text(document)).into_owned(),
        };
        write(format!("{line}\n").as_bytes())
    }

    /// Whether programs read it.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }
}

/// Writes a file's contents: as they are for programs; for a terminal escaped, and with an end to the last line.
///
/// # Errors
///
/// If standard output cannot be written, other than because nobody reads it any more.
pub(crate) fn contents(bytes: &[u8]) -> Result<()> {
    if std::io::stdout().is_terminal() { raw(for_terminal(bytes).as_bytes()) } else { raw(bytes) }
}

/// Bytes as a terminal may have them.
fn for_terminal(bytes: &[u8]) -> String {
    let mut text = escaped_lines(&String::from_utf8_lossy(bytes)).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Says something beside the output, in a line on standard error. If that cannot be written, there is nobody to tell.
pub(crate) fn tell(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "holdfast: {}", escaped(sentence));
}

/// Writes bytes as they are.
///
/// # Errors
///
/// If standard output cannot be written, other than because nobody reads it any more.
pub(crate) fn raw(bytes: &[u8]) -> Result<()> {
    write(bytes).map(|_| ())
}

/// Writes bytes, and tells whether anybody still reads.
fn write(bytes: &[u8]) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// A table with a heading and neither borders nor trailing blanks; the columns in `numbers` are aligned right.
pub(crate) fn table(heading: &[&str], numbers: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = borderless();
    table.set_header(heading.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| escaped(cell).into_owned()));
    }
    for &number in numbers {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    without_trailing_blanks(&table)
}

/// Lines of a name and a value.
pub(crate) fn fields(rows: Vec<(&str, String)>) -> String {
    let mut table = borderless();
    for (name, value) in rows {
        table.add_row(vec![Cell::new(name), Cell::new(escaped(&value))]);
    }
    without_trailing_blanks(&table)
}

fn borderless() -> Table {
    let mut table = Table::new();
    // Lines are never wrapped: they are also read by grep.
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn without_trailing_blanks(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        // Every cell is padded by one blank on both sides; the first would indent everything.
        text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_have_no_borders() {
        let rows = vec![vec!["a".to_owned(), "5".to_owned()], vec!["long".to_owned(), "12345".to_owned()]];
        let text = table(&["NAME", "SIZE"], &[1], rows);
        assert_eq!(text, "NAME   SIZE\na         5\nlong  12345\n");
    }

    #[test]
    fn what_somebody_else_chose_stays_in_its_cell() {
        let rows = vec![vec!["a\u{1b}[2J\nb".to_owned(), "\u{202e}".to_owned()]];
        assert_eq!(
            table(&["NAME", "X"], &[], rows),
            "NAME                   X\na<U+001B>[2J<U+000A>b  <U+202E>\n"
        );
        assert_eq!(fields(vec![("k", "\u{9b}1m\r".to_owned())]), "k  <U+009B>1m<U+000D>\n");
    }

    #[test]
    fn contents_for_a_terminal_keep_their_lines_and_lose_what_it_would_obey() {
        assert_eq!(for_terminal(b"no end"), "no end\n");
        assert_eq!(for_terminal(b""), "");
        assert_eq!(for_terminal(b"a\tb\n\x1b]0;x\x07\xff\n"), "a\tb\n<U+001B>]0;x<U+0007>\u{fffd}\n");
    }

    #[test]
    fn fields_are_aligned_under_each_other() {
        let text = fields(vec![("kind", "file".to_owned()), ("generation", "7".to_owned())]);
        assert_eq!(text, "kind        file\ngeneration  7\n");
    }
}
