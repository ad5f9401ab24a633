//! Which characters a name may not have: control characters, format characters, and others that leave no mark. Which ones are
//! spaces, and how a message quotes what may have any of them.
//!
//! A terminal obeys some of them, and a reader does not see the rest, so that two different names look alike. The
//! ranges stand here, and are not asked of the standard library, whose tables follow Unicode from release to
//! release: replicas of different builds must decide alike, and record the same messages (I9). Invariant: a range is only
//! ever added together with a new state version, for the state decides by these lists.

use std::fmt;

/// First and last of each range, rising: the categories Cc, Cf, Zl and Zp, and the letters that are blank.
const UNPRINTABLE: [(u32, u32); 26] = [
    (0x0000, 0x001f),   // control characters, the escape among them
    (0x007f, 0x009f),   // delete, and the second set of control characters
    (0x00ad, 0x00ad),   // soft hyphen
    (0x034f, 0x034f),   // combining grapheme joiner
    (0x0600, 0x0605),   // Arabic signs that enclose what follows
    (0x061c, 0x061c),   // Arabic letter mark
    (0x06dd, 0x06dd),   // Arabic end of ayah
    (0x070f, 0x070f),   // Syriac abbreviation mark
    (0x0890, 0x0891),   // Arabic pound and piastre marks
    (0x08e2, 0x08e2),   // Arabic disputed end of ayah
    (0x115f, 0x1160),   // Hangul fillers
    (0x17b4, 0x17b5),   // Khmer inherent vowels
    (0x180e, 0x180e),   // Mongolian vowel separator
    (0x200b, 0x200f),   // zero-width space and joiners, directional marks
    (0x2028, 0x202e),   // line and paragraph separators, directional embeddings and overrides
    (0x2060, 0x206f),   // word joiner, invisible operators, directional isolates
    (0x3164, 0x3164),   // Hangul filler
    (0xfeff, 0xfeff),   // byte order mark
    (0xffa0, 0xffa0),   // half-width Hangul filler
    (0xfff0, 0xfffb),   // interlinear annotation, and what is kept for its like
    (0x110bd, 0x110bd), // Kaithi number sign
    (0x110cd, 0x110cd), // Kaithi number sign above
    (0x13430, 0x1343f), // Egyptian hieroglyph controls
    (0x1bca0, 0x1bca3), // shorthand controls
    (0x1d173, 0x1d17a), // musical beams, ties, slurs and phrases
    (0xe0000, 0xe0fff), // tags and variation selectors
];

/// Whether a name may not have this character.
#[must_use]
pub fn is_unprintable(character: char) -> bool {
    let number = u32::from(character);
    // Most names are ASCII.
    if (0x20..0x7f).contains(&number) {
        return false;
    }
    UNPRINTABLE.iter().any(|&(first, last)| (first..=last).contains(&number))
}

/// The first character of a text that a name may not have.
#[must_use]
pub fn first_unprintable(text: &str) -> Option<Codepoint> {
    text.chars().find(|character| is_unprintable(*character)).map(Codepoint)
}

/// First and last of each range of spaces, rising: the property White_Space.
const SPACES: [(u32, u32); 10] = [
    (0x0009, 0x000d), // tab and what ends lines
    (0x0020, 0x0020), // space
    (0x0085, 0x0085), // next line
    (0x00a0, 0x00a0), // no-break space
    (0x1680, 0x1680), // Ogham space mark
    (0x2000, 0x200a), // quads and spaces of other widths
    (0x2028, 0x2029), // line and paragraph separators
    (0x202f, 0x202f), // narrow no-break space
    (0x205f, 0x205f), // medium mathematical space
    (0x3000, 0x3000), // ideographic space
];

/// Whether a character is a space.
#[must_use]
pub fn is_space(character: char) -> bool {
    let number = u32::from(character);
    SPACES.iter().any(|&(first, last)| (first..=last).contains(&number))
}

/// A text as a message quotes it: between quotation marks, with a backslash before those that are in it and before
/// backslashes, and with each character that is not seen by its number, as `\u{202e}`.
///
/// The standard library's way of writing that (`{:?}`) is not used where replicas record the message: which characters it
/// shows changes from one of its releases to the next.
#[must_use]
pub fn quoted(text: &str) -> String {
    use fmt::Write as _;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ if is_unprintable(character) || is_space(character) && character != ' ' => {
                write!(quoted, "\\u{{{:x}}}", u32::from(character)).expect("a string takes everything");
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// A character by its number, as people look it up: `U+202E`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codepoint(pub char);

impl fmt::Display for Codepoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "U+{:04X}", u32::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_format_characters_are_unprintable_and_letters_are_not() {
        for character in
            "\0\u{1b}\u{7f}\u{85}\u{ad}\u{200b}\u{200d}\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}\u{e0041}"
                .chars()
        {
            assert!(is_unprintable(character), "{}", Codepoint(character));
        }
        for character in " ~azAZ09/-_@\u{a0}\u{e9}\u{df}\u{5d0}\u{627}\u{4e2d}\u{1f512}".chars() {
            assert!(!is_unprintable(character), "{}", Codepoint(character));
        }
    }

    #[test]
    fn a_character_is_named_by_its_number() {
        assert_eq!(first_unprintable("a\u{202e}b").unwrap().to_string(), "U+202E");
        assert_eq!(first_unprintable("\u{e0041}").unwrap().to_string(), "U+E0041");
        assert_eq!(first_unprintable("caf\u{e9}"), None);
    }

    #[test]
    fn a_quoted_text_shows_what_would_not_be_seen() {
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a b/\u{e9}\u{4e2d}\u{1f512}'"), "\"a b/\u{e9}\u{4e2d}\u{1f512}'\"");
        assert_eq!(quoted("\"\\\n\r\t"), r#""\"\\\n\r\t""#);
        assert_eq!(quoted("\0\u{1b}[2J\u{7f}\u{85}"), r#""\u{0}\u{1b}[2J\u{7f}\u{85}""#);
        assert_eq!(
            quoted("\u{202e}\u{200b}\u{a0}\u{2003}\u{e0041}"),
            r#""\u{202e}\u{200b}\u{a0}\u{2003}\u{e0041}""#
        );
        // Unicode may yet give these a meaning; the standard library escapes them until then, or while a letter is missing
        // before them.
        for character in ["\u{378}", "\u{e000}", "\u{301}", "\u{10ffff}"] {
            assert_eq!(quoted(character), format!("\"{character}\""));
        }
    }

    #[test]
    fn spaces_are_those_of_the_standard_library_at_the_time_of_writing() {
        assert!(('\0'..=char::MAX).all(|c| c.is_whitespace() == is_space(c)));
    }

    #[test]
    fn what_the_standard_library_calls_control_is_unprintable() {
        assert!(('\0'..=char::MAX).filter(|c| c.is_control()).all(is_unprintable));
    }
}
