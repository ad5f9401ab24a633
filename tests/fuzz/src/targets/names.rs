//! Texts that people and programs write: names of nodes, and sequencers.

use holdfast_types::{NameLimits, NodePath, Sequencer};

use crate::{Source, messages};

const CELL: &str = "dev";
/// The longest of what is said about a text that is wrong: an excerpt of it, never all.
const ERROR_BYTES_MAX: usize = 4_096;

fn text(source: &mut Source<'_>) -> String {
    match source.byte() % 3 {
        0 => String::from_utf8_lossy(source.rest()).into_owned(),
        1 => messages::path(source),
        _ => {
            let mut text = String::new();
            while !source.is_empty() {
                text.push('/');
                let part = source.pick(&["a", "ls", "dev", "local", ".", "..", "", "n", "\u{7}", "\u{e9}"]);
                text.push_str(&part.repeat(1 + usize::from(source.byte() / 4)));
            }
            text
        }
    }
}

/// Names of nodes. What is taken is canonical, and is the same when it is read again in any of its spellings.
///
/// # Panics
///
/// If it is not.
pub fn paths(data: &[u8]) {
    let source = &mut Source::new(data);
    let limits = match source.byte() % 3 {
        0 => NameLimits::default(),
        1 => NameLimits { name_bytes_max: 1 + usize::from(source.byte()), path_bytes_max: 64 },
        _ => NameLimits { name_bytes_max: 65_535, path_bytes_max: 65_535 },
    };
    let text = text(source);
    let path = match NodePath::parse(&text, CELL, limits) {
        Ok(path) => path,
        Err(error) => {
            assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{} bytes of error", error.to_string().len());
            return;
        }
    };
    assert!(path.as_str().len() <= limits.path_bytes_max);
    assert_eq!(NodePath::from_canonical(path.as_str()).as_ref(), Ok(&path));
    assert_eq!(NodePath::parse(path.as_str(), CELL, limits).as_ref(), Ok(&path));
    assert_eq!(NodePath::parse(&path.full_name(CELL), CELL, limits).as_ref(), Ok(&path));
    let mut at = path;
    while let (Some(parent), Some(name)) = (at.parent(), at.name()) {
        assert!(name.len() <= limits.name_bytes_max && !name.contains('/') && !name.is_empty());
        assert_eq!(parent.child(name), at);
        at = parent;
    }
    assert!(at.is_root());
}

/// Sequencers. What is taken is the same when it is written and read again.
///
/// # Panics
///
/// If it is not.
pub fn sequencers(data: &[u8]) {
    let source = &mut Source::new(data);
    let text = match source.byte() % 3 {
        0 => String::from_utf8_lossy(source.rest()).into_owned(),
        1 => messages::sequencer(source),
        _ => {
            let mode = source.pick(&["exclusive", "shared", "", "Shared"]);
            let (lock, instance) = (source.number(), source.number());
            format!("holdfast:{}:{mode}:{lock}:{instance}:{}", source.byte() % 3, text(source))
        }
    };
    match text.parse::<Sequencer>() {
        Ok(sequencer) => assert_eq!(sequencer.to_string().parse::<Sequencer>().as_ref(), Ok(&sequencer)),
        Err(error) => {
            assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{} bytes of error", error.to_string().len());
        }
    }
}
