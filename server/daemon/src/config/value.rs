//! From a value as it was given to a value that is right: one parser for each kind, and the error says what
//! would be right.

use std::ops::RangeInclusive;

use holdfast_proto::client::v1::Settings;
use holdfast_proto::peer::v1::FoundingMember;
use holdfast_state::settings;
use holdfast_types::Principal;
use toml::Value;

use super::{ClientCertificates, ConfigError, LogFormat, LogLevel};

/// A value, and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// The source and the key, as a message names them.
    pub(super) place: String,
    /// The value. Text, if it came from a variable or a flag.
    pub(super) value: Value,
    /// It came from a variable or a flag, where numbers and lists are text too.
    pub(super) is_text: bool,
}

impl Given {
    pub(super) fn wrong(&self, what: impl Into<String>) -> ConfigError {
        ConfigError::Wrong { place: self.place.clone(), what: what.into() }
    }

    pub(super) fn text(&self) -> Result<&str, ConfigError> {
        match &self.value {
            Value::String(text) if text.is_empty() => Err(self.wrong("the value is empty")),
            Value::String(text) => Ok(text),
            other => Err(self.wrong(format!("{other} is not a text: put it in quotation marks"))),
        }
    }

    /// A name that somebody is given now: nobody would see what is not printable in it.
    fn principal(&self) -> Result<String, ConfigError> {
        let principal = Principal::parse_printable(self.text()?);
        principal.map(|principal| principal.to_string()).map_err(|error| self.wrong(error.to_string()))
    }

    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        match &self.value {
            Value::Boolean(boolean) => Ok(*boolean),
            Value::String(text) if self.is_text && text == "true" => Ok(true),
            Value::String(text) if self.is_text && text == "false" => Ok(false),
            other => Err(self.wrong(format!("{other} is neither true nor false"))),
        }
    }

    pub(super) fn number(&self, allowed: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let number = match &self.value {
            Value::Integer(integer) => u64::try_from(*integer).ok(),
            Value::String(text) if self.is_text => text.replace('_', "").parse().ok(),
            _ => None,
        };
        self.within(number, "a whole number", allowed)
    }

    /// A number of bytes: a whole number, or one with KiB, MiB or GiB after it.
    pub(super) fn bytes(&self, allowed: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let bytes = match &self.value {
            Value::Integer(integer) => u64::try_from(*integer).ok(),
            Value::String(text) => parse_bytes(text),
            _ => None,
        };
        self.within(bytes, "a number of bytes, such as 1048576 or \"1MiB\"", allowed)
    }

    fn within(
        &self,
        number: Option<u64>,
        kind: &str,
        allowed: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let (least, most) = (allowed.start(), allowed.end());
        match number {
            Some(number) if allowed.contains(&number) => Ok(number),
            Some(number) => Err(self.wrong(format!("{number} is out of bounds: {least} to {most}"))),
            None => Err(self.wrong(format!("{} is not {kind} from {least} to {most}", self.value))),
        }
    }

    /// `host:port`. A port of 0 is refused: nobody would find the replica there.
    pub(super) fn address(&self) -> Result<String, ConfigError> {
        let text = self.text()?;
        check_address(text).map_err(|what| self.wrong(what))?;
        Ok(text.to_owned())
    }

    pub(super) fn client_certificates(&self) -> Result<ClientCertificates, ConfigError> {
        match self.text()? {
            "required" => Ok(ClientCertificates::Required),
            "optional" => Ok(ClientCertificates::Optional),
            other => Err(self.wrong(format!("{other:?} is neither required nor optional"))),
        }
    }

    pub(super) fn log_format(&self) -> Result<LogFormat, ConfigError> {
        match self.text()? {
            "auto" => Ok(LogFormat::Auto),
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(self.wrong(format!("{other:?} is no log format: auto, text or json"))),
        }
    }

    pub(super) fn log_level(&self) -> Result<LogLevel, ConfigError> {
        match self.text()? {
            "critical" => Ok(LogLevel::Critical),
            "error" => Ok(LogLevel::Error),
            "warning" => Ok(LogLevel::Warning),
            "info" => Ok(LogLevel::Info),
            "debug" => Ok(LogLevel::Debug),
            "trace" => Ok(LogLevel::Trace),
            other => Err(self
                .wrong(format!("{other:?} is no log level: critical, error, warning, info, debug or trace"))),
        }
    }

    /// The founding members, as `[[members]]` in the file or as `1=peer/client,2=peer/client` in text.
    pub(super) fn members(&self) -> Result<Vec<FoundingMember>, ConfigError> {
        match &self.value {
            Value::String(text) => {
                let members = text.split(',').map(|part| parse_member(part.trim()));
                members.collect::<Result<_, _>>().map_err(|what| self.wrong(what))
            }
            Value::Array(tables) => tables.iter().map(|table| self.member(table)).collect(),
            other => Err(self.wrong(format!("{other} is no list of members: write [[members]] tables"))),
        }
    }

    fn member(&self, value: &Value) -> Result<FoundingMember, ConfigError> {
        const KEYS: [&str; 3] = ["id", "peer", "client"];
        let Value::Table(table) = value else {
            return Err(self.wrong(format!("{value} is no member: id, peer and client are needed")));
        };
        if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(self.unknown(unknown, &KEYS));
        }
        let field = |key: &str| {
            let value = table.get(key).cloned();
            let value = value.ok_or_else(|| self.wrong(format!("a member has no {key}: {table:?}")))?;
            Ok(Given { place: format!("{}.{key}", self.place), value, is_text: false })
        };
        Ok(FoundingMember {
            id: field("id")?.number(1..=i64::MAX as u64)?,
            peer_address: field("peer")?.address()?,
            client_address: field("client")?.address()?,
        })
    }

    /// The settings, as a `[settings]` table or as `name=value,name=value` in text. What is not given is 0 or empty;
    /// what is given is within its range.
    pub(super) fn settings(&self) -> Result<Settings, ConfigError> {
        let mut given = Settings::default();
        match &self.value {
            Value::Table(table) => {
                for (name, value) in table {
                    let place = format!("{}.{name}", self.place);
                    self.set(&mut given, name, &Given { place, value: value.clone(), is_text: false })?;
                }
            }
            Value::String(text) => {
                for part in text.split(',').map(str::trim) {
                    let (name, number) = part
                        .split_once('=')
                        .ok_or_else(|| self.wrong(format!("{part:?} is no setting: NAME=VALUE")))?;
                    let place = format!("{}, {name}", self.place);
                    let value = Value::String(number.to_owned());
                    self.set(&mut given, name, &Given { place, value, is_text: true })?;
                }
            }
            other => return Err(self.wrong(format!("{other} is no table of settings: write [settings]"))),
        }
        settings::complete(given.clone()).map_err(|refusal| self.wrong(refusal.message))?;
        Ok(given)
    }

    fn set(&self, settings: &mut Settings, name: &str, given: &Given) -> Result<(), ConfigError> {
        let large = || given.number(1..=u64::MAX);
        let small = || given.number(1..=u32::MAX.into()).map(|number| number as u32);
        match name {
            "contents_bytes_max" => settings.contents_bytes_max = large()?,
            "name_bytes_max" => settings.name_bytes_max = small()?,
            "path_bytes_max" => settings.path_bytes_max = small()?,
            "sessions_max" => settings.sessions_max = large()?,
            "handles_per_session_max" => settings.handles_per_session_max = large()?,
            "nodes_max" => settings.nodes_max = large()?,
            "requests_in_flight_max" => settings.requests_in_flight_max = small()?,
            "lease_ms_max" => settings.lease_ms_max = small()?,
            "bootstrap_principal" => settings.bootstrap_principal = given.principal()?,
            "notice_overdue_ms" => settings.notice_overdue_ms = small()?,
            "caching_lease_ms_max" => settings.caching_lease_ms_max = small()?,
            "total_bytes_max" => settings.total_bytes_max = large()?,
            "reserve_percent" => settings.reserve_percent = small()?,
            unknown => return Err(self.unknown(unknown, &SETTINGS)),
        }
        Ok(())
    }

    fn unknown(&self, name: &str, known: &[&str]) -> ConfigError {
        ConfigError::UnknownKey {
            place: format!("{}.{name}", self.place),
            nearest: nearest(name, known.iter().copied()).to_owned(),
        }
    }
}

/// The names of the settings.
const SETTINGS: [&str; 13] = [
    "contents_bytes_max",
    "name_bytes_max",
    "path_bytes_max",
    "sessions_max",
    "handles_per_session_max",
    "nodes_max",
    "requests_in_flight_max",
    "lease_ms_max",
    "bootstrap_principal",
    "notice_overdue_ms",
    "caching_lease_ms_max",
    "total_bytes_max",
    "reserve_percent",
];

/// The one of `known`, which is not empty, that is spelt most like `name`.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> &'k str {
    known.min_by_key(|key| strsim::damerau_levenshtein(name, key)).expect("there is at least one key")
}

pub(super) fn check_address(text: &str) -> Result<(), String> {
    let right = "write host:port, such as 127.0.0.1:7101 or [::1]:7101";
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} has no port: {right}"))?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) || host.contains(['/', ' ', ',', '=']) {
        return Err(format!("{text:?} has no host that can be: {right}"));
    }
    match port.parse::<u16>() {
        Ok(0) => Err(format!("{text:?} has the port 0, where nobody would find it: choose 1 to 65535")),
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{text:?} has the port {port:?}: a port is a number from 1 to 65535")),
    }
}

fn parse_member(text: &str) -> Result<FoundingMember, String> {
    let right = "write ID=PEER_ADDRESS/CLIENT_ADDRESS, such as 1=10.0.0.1:7101/10.0.0.1:7001";
    let (id, addresses) = text.split_once('=').ok_or_else(|| format!("{text:?} has no id: {right}"))?;
    let (peer, client) =
        addresses.split_once('/').ok_or_else(|| format!("{text:?} has not two addresses: {right}"))?;
    let id = id.parse().ok().filter(|id| (1..=i64::MAX as u64).contains(id));
    let id = id.ok_or_else(|| format!("{text:?} has no id from 1 upwards: {right}"))?;
    check_address(peer)?;
    check_address(client)?;
    Ok(FoundingMember { id, peer_address: peer.to_owned(), client_address: client.to_owned() })
}

fn parse_bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 1_u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let unit = units.into_iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, bytes)));
    let (number, bytes) = unit.unwrap_or((text, 1));
    number.trim().replace('_', "").parse::<u64>().ok()?.checked_mul(bytes)
}
