//! `holdfast settings`: the settings of the cell, shown and changed.

use anyhow::Result;
use clap::Args;
use holdfast::Settings as Values;
use holdfast_types::Principal;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::{output, units};

/// Show the cell's settings, or change some of them.
///
/// Settings are replicated: they are the cell's, not one replica's. To change them is for the bootstrap principal,
/// and for those that the access control list 'admin' lists.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast settings
  holdfast settings contents_bytes_max=512KiB
  holdfast settings lease_ms_max=60000            # a loaded master may lengthen leases to a minute
  holdfast settings bootstrap_principal=ops       # who may change every list; refused if you would not be let in any more")]
pub(crate) struct Settings {
    /// What to change. Sizes may be written with KiB or MiB.
    #[arg(value_name = "KEY=VALUE", value_parser = parse_change)]
    changes: Vec<Change>,
    /// Do it even if you do not administer the cell any more afterwards.
    #[arg(long)]
    force: bool,
}

/// One setting: its name, and the way to its value.
struct Key {
    name: &'static str,
    unit: Unit,
    get: fn(&Values) -> Value,
    /// Checks what can be checked without the cell, and says what would be right.
    set: fn(&mut Values, &str) -> Result<(), String>,
}

/// How people read a value.
#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Millis,
    None,
}

const KEYS: [Key; 13] = [
    Key {
        name: "contents_bytes_max",
        unit: Unit::Bytes,
        get: |values| values.contents_bytes_max.into(),
        set: |values, text| assign(&mut values.contents_bytes_max, text),
    },
    Key {
        name: "name_bytes_max",
        unit: Unit::Bytes,
        get: |values| values.name_bytes_max.into(),
        set: |values, text| assign(&mut values.name_bytes_max, text),
    },
    Key {
        name: "path_bytes_max",
        unit: Unit::Bytes,
        get: |values| values.path_bytes_max.into(),
        set: |values, text| assign(&mut values.path_bytes_max, text),
    },
    Key {
        name: "sessions_max",
        unit: Unit::None,
        get: |values| values.sessions_max.into(),
        set: |values, text| assign(&mut values.sessions_max, text),
    },
    Key {
        name: "handles_per_session_max",
        unit: Unit::None,
        get: |values| values.handles_per_session_max.into(),
        set: |values, text| assign(&mut values.handles_per_session_max, text),
    },
    Key {
        name: "nodes_max",
        unit: Unit::None,
        get: |values| values.nodes_max.into(),
        set: |values, text| assign(&mut values.nodes_max, text),
    },
    Key {
        name: "requests_in_flight_max",
        unit: Unit::None,
        get: |values| values.requests_in_flight_max.into(),
        set: |values, text| assign(&mut values.requests_in_flight_max, text),
    },
    Key {
        name: "lease_ms_max",
        unit: Unit::Millis,
        get: |values| values.lease_ms_max.into(),
        set: |values, text| assign(&mut values.lease_ms_max, text),
    },
    Key {
        name: "bootstrap_principal",
        unit: Unit::None,
        get: |values| values.bootstrap_principal.clone().into(),
        set: |values, text| {
            let principal = Principal::parse_printable(text).map_err(|error| error.to_string())?;
            principal.as_str().clone_into(&mut values.bootstrap_principal);
            Ok(())
        },
    },
    Key {
        name: "notice_overdue_ms",
        unit: Unit::Millis,
        get: |values| values.notice_overdue_ms.into(),
        set: |values, text| assign(&mut values.notice_overdue_ms, text),
    },
    Key {
        name: "caching_lease_ms_max",
        unit: Unit::Millis,
        get: |values| values.caching_lease_ms_max.into(),
        set: |values, text| assign(&mut values.caching_lease_ms_max, text),
    },
    Key {
        name: "total_bytes_max",
        unit: Unit::Bytes,
        get: |values| values.total_bytes_max.into(),
        set: |values, text| assign(&mut values.total_bytes_max, text),
    },
    Key {
        name: "reserve_percent",
        unit: Unit::None,
        get: |values| values.reserve_percent.into(),
        set: |values, text| assign(&mut values.reserve_percent, text),
    },
];

/// A change that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    /// Its place among [`KEYS`].
    key: usize,
    /// A value that its key takes.
    value: String,
}

impl Settings {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        client.check_cell().await?;
        let values = if self.changes.is_empty() {
            client.cell.settings().await?
        } else {
            // What is 0 or empty stays as it is.
            let mut values = Values::default();
            for Change { key, value } in &self.changes {
                (KEYS[*key].set)(&mut values, value).map_err(anyhow::Error::msg)?;
            }
            client.cell(self.force).change_settings(values).await?
        };
        client.output.print(&document(&values), |_| text(&values))
    }
}

fn document(values: &Values) -> Value {
    let fields = KEYS.iter().map(|key| (key.name.to_owned(), (key.get)(values)));
    Value::Object(fields.collect::<Map<String, Value>>())
}

fn text(values: &Values) -> String {
    let row = |key: &Key| {
        let value = (key.get)(values);
        let number = value.as_u64().unwrap_or_default();
        let readable = match key.unit {
            Unit::Bytes if number >= 1024 => units::size(number),
            Unit::Millis => units::span(std::time::Duration::from_millis(number)),
            Unit::Bytes | Unit::None => String::new(),
        };
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        vec![key.name.to_owned(), value, readable]
    };
    output::table(&["SETTING", "VALUE", ""], &[1], KEYS.iter().map(row).collect())
}

fn assign<T: TryFrom<u64>>(field: &mut T, text: &str) -> Result<(), String> {
    let number = units::parse_count(text)?;
    if number == 0 {
        return Err("no setting can be 0".to_owned());
    }
    *field = T::try_from(number).map_err(|_| format!("{number} is too large for this setting"))?;
    Ok(())
}

fn parse_change(text: &str) -> Result<Change, String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("write KEY=VALUE".to_owned());
    };
    let Some(key) = KEYS.iter().position(|key| key.name == name) else {
        let names = KEYS.map(|key| key.name).join(", ");
        return Err(format!("there is no setting {name:?}; there are {names}"));
    };
    (KEYS[key].set)(&mut Values::default(), value)?;
    Ok(Change { key, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_sets_what_it_gets_and_nothing_else() {
        for (place, key) in KEYS.iter().enumerate() {
            let mut values = Values::default();
            (key.set)(&mut values, "77").unwrap();
            for (other, seen) in KEYS.iter().map(|key| (key.get)(&values)).enumerate() {
                let is_set = seen == 77 || seen == "77";
                assert_eq!(is_set, other == place, "{}: {seen}", key.name);
            }
        }
    }

    #[test]
    fn a_change_that_cannot_be_is_refused_with_what_would_be_right() {
        let change = parse_change("contents_bytes_max=256KiB").unwrap();
        assert_eq!(change, Change { key: 0, value: "256KiB".to_owned() });
        for (text, reason) in [
            ("nodes_max", "KEY=VALUE"),
            ("nodes=1", "nodes_max"),
            ("nodes_max=many", "whole number"),
            ("nodes_max=0", "can be 0"),
            ("name_bytes_max=5000000000", "too large"),
            ("lease_ms_max=0", "can be 0"),
            ("bootstrap_principal=", "empty"),
            ("bootstrap_principal=*", "everyone"),
            ("bootstrap_principal=@ops", "group"),
        ] {
            let error = parse_change(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
