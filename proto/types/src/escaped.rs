//! Text that others chose, as it may be shown: on a terminal, in a log, in a message.
//!
//! A client's name, a file's contents or a refusal's message can carry what a terminal obeys (it moves the cursor, renames
//! the window, writes over what stands there) and what a reader does not see. All programs show such text by these
//! functions and by no others. They keep every letter of every script, and write a character of `characters` by its number.
//! Invariant: what comes out has no character that [`is_unprintable`], but for those that a function says it keeps.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::characters::{Codepoint, is_unprintable};

/// In one line: `a\u{1b}b` as `a<U+001B>b`.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, is_unprintable, |out, character| {
        let _ = write!(out, "<{}>", Codepoint(character));
    })
}

/// The same, in lines: a line's end and a tab stay.
#[must_use]
pub fn escaped_lines(text: &str) -> Cow<'_, str> {
    replaced(
        text,
        |character| is_unprintable(character) && !matches!(character, '\n' | '\t'),
        |out, character| {
            let _ = write!(out, "<{}>", Codepoint(character));
        },
    )
}

/// A JSON document that says the same, and that a terminal shows as it is: within its strings, by `\u` and numbers.
#[must_use]
pub fn escaped_json(document: &str) -> Cow<'_, str> {
    replaced(
        document,
        |character| is_unprintable(character) && character != '\n',
        |out, character| {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        },
    )
}

fn replaced(text: &str, is: impl Fn(char) -> bool, write: impl Fn(&mut String, char)) -> Cow<'_, str> {
    let Some(first) = text.find(&is) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for character in text[first..].chars() {
        if is(character) { write(&mut out, character) } else { out.push(character) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clears the screen, renames the window, and turns what follows around.
    const EVIL: &str = "a\u{1b}[2J\u{1b}]0;me\u{7}\u{202e}b\r\n\u{9b}c\u{e0041}";

    #[test]
    fn what_a_terminal_obeys_is_shown_by_its_number() {
        let shown = escaped(EVIL);
        assert_eq!(shown, "a<U+001B>[2J<U+001B>]0;me<U+0007><U+202E>b<U+000D><U+000A><U+009B>c<U+E0041>");
        assert_eq!(escaped_lines("a\tb\n\u{1b}c\r"), "a\tb\n<U+001B>c<U+000D>");
        assert!(!shown.chars().any(is_unprintable));
    }

    #[test]
    fn letters_of_every_script_stay_and_cost_nothing() {
        for text in ["", "/a/b", "caf\u{e9} \u{4e2d}\u{5d0}\u{1f512}"] {
            assert!(matches!(escaped(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn a_json_document_says_the_same_as_before() {
        let document = "{\n  \"a\": \"x\u{202e}y\u{7f}z\u{e0041}\"\n}";
        let shown = escaped_json(document);
        assert_eq!(shown, "{\n  \"a\": \"x\\u202ey\\u007fz\\udb40\\udc41\"\n}");
        assert!(!shown.chars().any(|character| is_unprintable(character) && character != '\n'));
    }
}
