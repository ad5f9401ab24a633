//! `holdfast settings`: the limits of the cell, shown and changed.

use anyhow::Result;
use clap::Args;
use holdfast::Settings as Values;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::{output, units};

/// Show the cell's settings, or change some of them.
///
/// Settings are replicated: they are the cell's, not one replica's.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// What to change. Sizes may be written with KiB or MiB.
    #[arg(value_name = "KEY=VALUE", value_parser = parse_change)]
    changes: Vec<Change>,
}

/// One setting: its name, and the way to its value.
struct Key {
    name: &'static str,
    /// Read by people as a size.
    is_size: bool,
    get: fn(&Values) -> u64,
    /// False if the number is too large for the setting.
    set: fn(&mut Values, u64) -> bool,
}

const KEYS: [Key; 7] = [
    Key {
        name: "contents_bytes_max",
        is_size: true,
        get: |values| values.contents_bytes_max,
        set: |values, number| assign(&mut values.contents_bytes_max, number),
    },
    Key {
        name: "name_bytes_max",
        is_size: true,
        get: |values| values.name_bytes_max.into(),
        set: |values, number| assign(&mut values.name_bytes_max, number),
    },
    Key {
        name: "path_bytes_max",
        is_size: true,
        get: |values| values.path_bytes_max.into(),
        set: |values, number| assign(&mut values.path_bytes_max, number),
    },
    Key {
        name: "sessions_max",
        is_size: false,
        get: |values| values.sessions_max,
        set: |values, number| assign(&mut values.sessions_max, number),
    },
    Key {
        name: "handles_per_session_max",
        is_size: false,
        get: |values| values.handles_per_session_max,
        set: |values, number| assign(&mut values.handles_per_session_max, number),
    },
    Key {
        name: "nodes_max",
        is_size: false,
        get: |values| values.nodes_max,
        set: |values, number| assign(&mut values.nodes_max, number),
    },
    Key {
        name: "requests_in_flight_max",
        is_size: false,
        get: |values| values.requests_in_flight_max.into(),
        set: |values, number| assign(&mut values.requests_in_flight_max, number),
    },
];

/// A change that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    /// Its place among [`KEYS`].
    key: usize,
    number: u64,
}

impl Settings {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        client.check_cell().await?;
        let values = if self.changes.is_empty() {
            client.cell.settings().await?
        } else {
            // What is 0 stays as it is.
            let mut values = Values::default();
            for change in &self.changes {
                // `parse_change` has tried it.
                (KEYS[change.key].set)(&mut values, change.number);
            }
            client.cell.change_settings(values).await?
        };
        client.output.print(&document(&values), |_| text(&values))
    }
}

fn document(values: &Values) -> Value {
    let fields = KEYS.iter().map(|key| (key.name.to_owned(), (key.get)(values).into()));
    Value::Object(fields.collect::<Map<String, Value>>())
}

fn text(values: &Values) -> String {
    let row = |key: &Key| {
        let number = (key.get)(values);
        let readable = if key.is_size && number >= 1024 { units::size(number) } else { String::new() };
        vec![key.name.to_owned(), number.to_string(), readable]
    };
    output::table(&["SETTING", "VALUE", ""], &[1], KEYS.iter().map(row).collect())
}

fn assign<T: TryFrom<u64>>(field: &mut T, number: u64) -> bool {
    T::try_from(number).map(|number| *field = number).is_ok()
}

fn parse_change(text: &str) -> Result<Change, String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("write KEY=VALUE".to_owned());
    };
    let Some(key) = KEYS.iter().position(|key| key.name == name) else {
        let names = KEYS.map(|key| key.name).join(", ");
        return Err(format!("there is no setting {name:?}; there are {names}"));
    };
    let number = units::parse_count(value)?;
    if number == 0 {
        return Err("no setting can be 0".to_owned());
    }
    if !(KEYS[key].set)(&mut Values::default(), number) {
        return Err(format!("{number} is too large for {name}"));
    }
    Ok(Change { key, number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_sets_what_it_gets_and_nothing_else() {
        for (place, key) in KEYS.iter().enumerate() {
            let mut values = Values::default();
            assert!((key.set)(&mut values, 77));
            let seen: Vec<u64> = KEYS.iter().map(|key| (key.get)(&values)).collect();
            let mut expected = [0; KEYS.len()];
            expected[place] = 77;
            assert_eq!(seen, expected, "{}", key.name);
        }
    }

    #[test]
    fn a_change_that_cannot_be_is_refused_with_what_would_be_right() {
        assert_eq!(parse_change("contents_bytes_max=256KiB"), Ok(Change { key: 0, number: 262_144 }));
        for (text, reason) in [
            ("nodes_max", "KEY=VALUE"),
            ("nodes=1", "nodes_max"),
            ("nodes_max=many", "whole number"),
            ("nodes_max=0", "can be 0"),
            ("name_bytes_max=5000000000", "too large"),
        ] {
            let error = parse_change(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
