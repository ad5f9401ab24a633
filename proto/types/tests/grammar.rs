//! The grammar in `operation.proto` and the parsers agree: what one takes, the other does.
//!
//! The test reads the grammar from the proto's comment, which is in the notation of RFC 5234 (ABNF, with the case-sensitive
//! strings of RFC 7405), and matches texts with it.

use std::collections::BTreeMap;

use holdfast_types::{NameLimits, NodePath, PathError, Sequencer, check_cell_name};
use proptest::prelude::*;

const CELL: &str = "dev";

/// A part of a rule.
#[derive(Clone, Debug)]
enum Part {
    /// Itself.
    Text(String),
    /// One character out of a range.
    Range(char, char),
    /// What another rule matches.
    Rule(String),
    /// One after the other.
    All(Vec<Part>),
    /// One of them.
    Any(Vec<Part>),
    /// So often, at least and at most.
    Times(usize, usize, Box<Part>),
}

/// The rules, by name.
type Grammar = BTreeMap<String, Part>;

/// The grammar that stands in the proto between two marks.
fn grammar() -> Grammar {
    let proto = include_str!("../../proto/holdfast/client/v1/operation.proto");
    let lines = proto.lines().map(|line| line.trim().trim_start_matches("//"));
    let rules = lines
        .skip_while(|line| line.trim() != "ABNF:")
        .skip(1)
        .take_while(|line| line.trim() != "End of ABNF.");
    let mut texts: Vec<String> = Vec::new();
    for line in
        rules.map(|line| line.split(';').next().unwrap_or_default()).filter(|line| !line.trim().is_empty())
    {
        match texts.last_mut() {
            Some(last) if !line.contains('=') => last.push_str(line),
            _ => texts.push(line.to_owned()),
        }
    }
    assert!(texts.len() > 5, "the grammar is in the proto");
    let rule = |text: &String| {
        let (name, parts) = text.split_once('=').expect("a rule has a name");
        (name.trim().to_owned(), Reader { text: parts.trim() }.alternatives())
    };
    texts.iter().map(rule).collect()
}

/// Reads a rule.
struct Reader<'t> {
    text: &'t str,
}

impl Reader<'_> {
    fn alternatives(&mut self) -> Part {
        let mut any = vec![self.concatenation()];
        while self.take("/") {
            any.push(self.concatenation());
        }
        Part::Any(any)
    }

    fn concatenation(&mut self) -> Part {
        let mut all = Vec::new();
        while !self.text.is_empty() && !self.text.starts_with(['/', ')', ']']) {
            all.push(self.repetition());
        }
        Part::All(all)
    }

    fn repetition(&mut self) -> Part {
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (least, rest) = self.text.split_at(digits(self.text));
        let Some(rest) = rest.strip_prefix('*') else { return self.element() };
        let (most, rest) = rest.split_at(digits(rest));
        self.text = rest;
        let (least, most) = (least.parse().unwrap_or(0), most.parse().unwrap_or(usize::MAX));
        Part::Times(least, most, Box::new(self.element()))
    }

    fn element(&mut self) -> Part {
        let part = if self.take("(") {
            let part = self.alternatives();
            assert!(self.take(")"));
            part
        } else if self.take("[") {
            let part = self.alternatives();
            assert!(self.take("]"));
            Part::Times(0, 1, Box::new(part))
        } else if self.take("%s\"") {
            let (text, rest) = self.text.split_once('"').expect("a string ends");
            self.text = rest;
            Part::Text(text.to_owned())
        } else if self.take("%x") {
            let end = self.text.find([' ', ')', ']']).unwrap_or(self.text.len());
            let (first, last) = self.text[..end].split_once('-').expect("a range has two ends");
            let code = |hex| char::from_u32(u32::from_str_radix(hex, 16).unwrap()).unwrap();
            self.text = &self.text[end..];
            Part::Range(code(first), code(last))
        } else {
            let end =
                self.text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(self.text.len());
            assert!(end > 0, "{:?} is no element", self.text);
            let name = self.text[..end].to_owned();
            self.text = &self.text[end..];
            Part::Rule(name)
        };
        self.text = self.text.trim_start();
        part
    }

    fn take(&mut self, start: &str) -> bool {
        let rest = self.text.strip_prefix(start);
        if let Some(rest) = rest {
            self.text = if start.contains('"') { rest } else { rest.trim_start() };
        }
        rest.is_some()
    }
}

/// Where a part can end that begins at each of these places.
fn ends(grammar: &Grammar, part: &Part, text: &[char], starts: &[usize]) -> Vec<usize> {
    let mut found: Vec<usize> = match part {
        Part::Text(wanted) => {
            let wanted: Vec<char> = wanted.chars().collect();
            starts.iter().filter(|at| text[**at..].starts_with(&wanted)).map(|at| at + wanted.len()).collect()
        }
        Part::Range(first, last) => {
            let is_in = |at: &&usize| text.get(**at).is_some_and(|c| (*first..=*last).contains(c));
            starts.iter().filter(is_in).map(|at| at + 1).collect()
        }
        Part::Rule(name) => {
            let rule = grammar.get(name).unwrap_or_else(|| panic!("there is no rule {name}"));
            ends(grammar, rule, text, starts)
        }
        Part::All(parts) => {
            parts.iter().fold(starts.to_vec(), |starts, part| ends(grammar, part, text, &starts))
        }
        Part::Any(parts) => parts.iter().flat_map(|part| ends(grammar, part, text, starts)).collect(),
        Part::Times(least, most, part) => {
            let (mut found, mut now) = (Vec::new(), starts.to_vec());
            for times in 0..=*most {
                if times >= *least {
                    found.extend(&now);
                }
                now = ends(grammar, part, text, &now);
                if now.is_empty() {
                    break;
                }
            }
            found
        }
    };
    found.sort_unstable();
    found.dedup();
    found
}

fn matches(grammar: &Grammar, rule: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    ends(grammar, &Part::Rule(rule.to_owned()), &text, &[0]).contains(&text.len())
}

/// Whether a cell of the right name takes it.
fn is_name(text: &str) -> bool {
    match NodePath::parse(text, CELL, NameLimits::default()) {
        Err(PathError::ForeignCell { named, .. }) => {
            check_cell_name(&named).is_ok() && NodePath::parse(text, &named, NameLimits::default()).is_ok()
        }
        parsed => parsed.is_ok(),
    }
}

fn is_sequencer(text: &str) -> bool {
    text.parse::<Sequencer>().is_ok_and(|sequencer| is_name(&sequencer.name))
}

/// Texts out of the pieces that matter.
fn text(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::collection::vec(prop::sample::select(pieces), 0..9).prop_map(|pieces| pieces.concat())
}

const NAME_PIECES: &[&str] = &[
    "/", "/", "/", "ls", "/ls/", "dev", "local", "a", "b c", ".", "..", "é", "\u{7f}", "\n", "\u{85}", "~",
    ":", "-",
];
const SEQUENCER_PIECES: &[&str] = &[
    "holdfast:1:exclusive:42:",
    "holdfast:1:shared:0:",
    "7:",
    "007:",
    ":",
    "-1:",
    "/ls/dev",
    "/ls/local/a",
    "/a",
    "//",
    "x",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn a_name_is_what_the_proto_says(text in text(NAME_PIECES)) {
        prop_assert_eq!(matches(&grammar(), "name", &text), is_name(&text), "{:?}", text);
    }

    #[test]
    fn a_sequencer_is_what_the_proto_says(text in text(SEQUENCER_PIECES)) {
        prop_assert_eq!(matches(&grammar(), "sequencer", &text), is_sequencer(&text), "{:?}", text);
    }
}

#[test]
fn the_examples_of_each_kind_are_told_apart() {
    let grammar = grammar();
    let right = ["/", "/a", "/a/b", "/ls/dev", "/ls/dev/", "/ls/local/a", "/a/ls", "/...", "/lsx"];
    let wrong = ["", "a", "//", "/a/", "/ls", "/ls/dev/ls", "/ls/dev//", "/a/../b", "/.", "/a\u{1}"];
    for (texts, is_right) in [(&right[..], true), (&wrong[..], false)] {
        for text in texts {
            assert_eq!((matches(&grammar, "name", text), is_name(text)), (is_right, is_right), "{text:?}");
        }
    }
    let sequencer = "holdfast:1:exclusive:42:17:/ls/dev/service:8080/leader";
    assert!(matches(&grammar, "sequencer", sequencer) && is_sequencer(sequencer));
}
