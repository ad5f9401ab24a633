//! The three sources of a configuration, laid over each other.
//!
//! Values stay as they were given; each remembers where it came from, so that whoever finds it wrong can say so.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use holdfast_io::small_file;
use holdfast_types::variables::{PREFIX, is_of_service, is_of_tests};
use toml::Value;

use super::flags::{ConfigFlags, KEYS};
use super::passed_over::PassedOver;
use super::{ConfigError, value::Given};

/// The variable that names the file.
const CONFIG: &str = "HOLDFAST_CONFIG";

/// Variables that begin like ours and are the command-line client's.
const FOREIGN: [&str; 6] = [
    "HOLDFAST_ADDRESSES",
    "HOLDFAST_CA",
    "HOLDFAST_CERT",
    "HOLDFAST_KEY",
    "HOLDFAST_SEQUENCER",
    "HOLDFAST_SERVER_NAME",
];

/// The table of the keys that are about TLS.
const TLS: &str = "tls";

/// What was given, by key: of several sources, the one that weighs most.
#[derive(Debug, Default)]
pub(super) struct Sources {
    given: BTreeMap<&'static str, Given>,
    passed_over: Vec<PassedOver>,
}

impl Sources {
    pub(super) fn read(
        flags: &ConfigFlags,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut file = flags.config.clone();
        let mut sources = Self::default();
        let mut from_variables = Self::default();
        for (variable, value) in own_variables(variables) {
            // What is set to nothing is not set, as for the command-line client.
            if value.is_empty() {
                continue;
            }
            if variable == CONFIG {
                file = file.or_else(|| Some(PathBuf::from(value)));
                continue;
            }
            let key = match known_key(&variable, variable_name) {
                Ok(key) => key,
                Err(nearest) => {
                    let of_service = is_of_service(&variable, &value.to_string_lossy());
                    let nearest = (!of_service).then_some(nearest);
                    from_variables.passed_over.push(PassedOver { variable, nearest });
                    continue;
                }
            };
            let text = value.into_string().map_err(|_| ConfigError::Wrong {
                place: variable.clone(),
                what: "the value is not UTF-8; every value is text".to_owned(),
            })?;
            from_variables.insert(key, Given { place: variable, value: Value::String(text), is_text: true });
        }
        if let Some(file) = file {
            sources = Self::read_file(&file)?;
        }
        sources.given.append(&mut from_variables.given);
        sources.passed_over = from_variables.passed_over;
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
        let key = known_key(name, file_name);
        let key = key.map_err(|nearest| ConfigError::UnknownKey { place: place.clone(), nearest })?;
        self.insert(key, Given { place, value, is_text: false });
        Ok(())
    }

    fn insert(&mut self, key: &'static str, given: Given) {
        self.given.insert(key, given);
    }

    /// Takes a value out, if it was given.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Given> {
        debug_assert!(KEYS.contains(&key), "{key} is one of the keys");
        self.given.remove(key)
    }

    /// Whether a value was given.
    pub(super) fn has(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// Takes a value out that must have been given.
    pub(super) fn need(&mut self, key: &'static str, meaning: &'static str) -> Result<Given, ConfigError> {
        self.take(key).ok_or_else(|| self.missing(key, meaning))
    }

    /// The error that a key is given nowhere. It names a variable that was passed over and may have meant it.
    pub(super) fn missing(&self, key: &str, meaning: &'static str) -> ConfigError {
        let variable = variable_name(key);
        let misspelt = self.passed_over.iter().find(|it| it.nearest.as_ref() == Some(&variable));
        let hint =
            misspelt.map_or_else(String::new, |it| format!(". {} is set, and sets nothing", it.variable));
        ConfigError::Missing { key: file_name(key), variable, flag: flag_name(key), meaning, hint }
    }

    /// The variables that set nothing.
    pub(super) fn passed_over(&mut self) -> Vec<PassedOver> {
        std::mem::take(&mut self.passed_over)
    }
}

/// Every variable that a replica reads.
pub fn variables() -> impl Iterator<Item = String> {
    KEYS.into_iter().map(variable_name).chain([CONFIG.to_owned()])
}

/// The variables that may be meant for a server.
fn own_variables(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(String, OsString)> {
    let own = variables.into_iter().filter_map(|(name, value)| Some((own_name(&name)?, value)));
    let mut own: Vec<_> = own.collect();
    own.sort();
    own
}

pub(super) fn own_name(name: &OsStr) -> Option<String> {
    let name = name.to_str()?;
    let foreign = FOREIGN.contains(&name) || is_of_tests(name);
    (name.starts_with(PREFIX) && !foreign).then(|| name.to_owned())
}

/// The key that a source calls `name`; if there is none, the nearest one, as the source would call it.
fn known_key(name: &str, spelling: impl Fn(&str) -> String) -> Result<&'static str, String> {
    if let Some(key) = KEYS.into_iter().find(|key| spelling(key) == name) {
        return Ok(key);
    }
    let spellings: Vec<String> = KEYS.iter().map(|key| spelling(key)).collect();
    Err(super::value::nearest(name, spellings.iter().map(String::as_str)).to_owned())
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
