//! The three sources of a configuration, laid over each other.
//!
//! Values stay as they were given; each remembers where it came from, so that whoever finds it wrong can say so.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use holdfast_io::small_file;
use toml::Value;

use super::flags::{ConfigFlags, KEYS};
use super::{ConfigError, value::Given};

/// What every variable of Holdfast's begins with.
const PREFIX: &str = "HOLDFAST_";

/// Variables that begin like ours and are others' business: the command-line client's and the tests'.
const FOREIGN: [&str; 6] = [
    "HOLDFAST_ADDRESSES",
    "HOLDFAST_CA",
    "HOLDFAST_CERT",
    "HOLDFAST_KEY",
    "HOLDFAST_SEQUENCER",
    "HOLDFAST_SERVER_NAME",
];
const FOREIGN_PREFIXES: [&str; 3] = ["HOLDFAST_TEST_", "HOLDFAST_BENCH_", "HOLDFAST_EXAMPLE_"];

/// The table of the keys that are about TLS.
const TLS: &str = "tls";

/// What was given, by key: of several sources, the one that weighs most.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<&'static str, Given>);

impl Sources {
    pub(super) fn read(
        flags: &ConfigFlags,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut file = flags.config.clone();
        let variables = own_variables(variables)?;
        let mut sources = Self::default();
        let mut from_variables = Self::default();
        for (variable, text) in variables {
            if variable == "HOLDFAST_CONFIG" {
                file = file.or_else(|| Some(PathBuf::from(text)));
                continue;
            }
            let key = known_key(&variable, variable_name, &variable)?;
            from_variables.insert(key, Given { place: variable, value: Value::String(text), is_text: true });
        }
        if let Some(file) = file {
            sources = Self::read_file(&file)?;
        }
        sources.0.append(&mut from_variables.0);
        for (key, text) in KEYS.into_iter().zip(flags.given()) {
            if let Some(text) = text {
                let value = Value::String(text.clone());
                sources.insert(key, Given { place: flag_name(key), value, is_text: true });
            }
        }
        Ok(sources)
    }

    fn read_file(file: &Path) -> Result<Self, ConfigError> {
        let text = small_file::read_to_string(file)
            .map_err(|source| ConfigError::Unreadable { path: file.to_owned(), source })?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| ConfigError::Malformed {
            path: file.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        let mut sources = Self::default();
        for (name, value) in table {
            match value {
                Value::Table(tls) if name == TLS => {
                    for (name, value) in tls {
                        sources.insert_from(file, &format!("{TLS}.{name}"), value)?;
                    }
                }
                value => sources.insert_from(file, &name, value)?,
            }
        }
        Ok(sources)
    }

    fn insert_from(&mut self, file: &Path, name: &str, value: Value) -> Result<(), ConfigError> {
        let place = format!("{}, key {name}", file.display());
        let key = known_key(name, file_name, &place)?;
        self.insert(key, Given { place, value, is_text: false });
        Ok(())
    }

    fn insert(&mut self, key: &'static str, given: Given) {
        self.0.insert(key, given);
    }

    /// Takes a value out, if it was given.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Given> {
        debug_assert!(KEYS.contains(&key), "{key} is one of the keys");
        self.0.remove(key)
    }

    /// Whether a value was given.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Takes a value out that must have been given.
    pub(super) fn need(&mut self, key: &'static str, meaning: &'static str) -> Result<Given, ConfigError> {
        self.take(key).ok_or_else(|| ConfigError::Missing {
            key: file_name(key),
            variable: variable_name(key),
            flag: flag_name(key),
            meaning,
        })
    }
}

/// The variables that are meant for a server. A value that is not UTF-8 is an error; a foreign one's is not read.
fn own_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut own = Vec::new();
    for (name, value) in variables {
        let Some(name) = own_name(&name) else { continue };
        let value = value.into_string().map_err(|_| ConfigError::Wrong {
            place: name.clone(),
            what: "the value is not UTF-8; every value is text".to_owned(),
        })?;
        own.push((name, value));
    }
    own.sort();
    Ok(own)
}

pub(super) fn own_name(name: &OsStr) -> Option<String> {
    let name = name.to_str()?;
    let foreign = FOREIGN.contains(&name) || FOREIGN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    (name.starts_with(PREFIX) && !foreign).then(|| name.to_owned())
}

/// The key that a source calls `name`; an error that tells the nearest one if there is none.
fn known_key(
    name: &str,
    spelling: impl Fn(&str) -> String,
    place: &str,
) -> Result<&'static str, ConfigError> {
    if let Some(key) = KEYS.into_iter().find(|key| spelling(key) == name) {
        return Ok(key);
    }
    let spellings: Vec<String> = KEYS.iter().map(|key| spelling(key)).collect();
    let nearest = super::value::nearest(name, spellings.iter().map(String::as_str));
    Err(ConfigError::UnknownKey { place: place.to_owned(), nearest: nearest.to_owned() })
}

/// What a key is called in the file: those of TLS stand in a table of their own.
pub(super) fn file_name(key: &str) -> String {
    match key.strip_prefix("tls_") {
        Some(rest) => format!("{TLS}.{rest}"),
        None => key.to_owned(),
    }
}

pub(super) fn variable_name(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase())
}

pub(super) fn flag_name(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}
