//! From what was given to a [`Config`] whose parts agree with each other.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use holdfast_proto::client::v1::Settings;
use holdfast_proto::peer::v1::FoundingMember;
use holdfast_state::settings;
use holdfast_types::{ReplicaId, check_cell_name};

use super::source::Sources;
use super::value::Given;
use super::{ClientCertificates, Config, ConfigError, LogFormat, LogLevel, TlsConfig};

/// An election time-out shorter than so many heartbeats would depose masters because of a few lost messages.
const HEARTBEATS_PER_ELECTION_MIN: u64 = 4;

/// Who looks after a cell that is founded with TLS, unless it is told otherwise.
pub(crate) const BOOTSTRAP_WITH_TLS: &str = "admin";

/// No log or snapshot interval beyond this: a replica would not come up again in a useful time.
const LOG_BYTES_MAX: u64 = 64 << 30;

pub(super) fn config(mut sources: Sources) -> Result<Config, ConfigError> {
    let cell = cell(&mut sources)?;
    let replica = ReplicaId(
        sources
            .need("replica", "the replica's id, from 1 upwards, never used twice in a cell")?
            .number(1..=ID_MAX)?,
    );
    let data_dir = sources.need("data_dir", "the directory where this replica keeps its data")?;
    let members = Members::read(&mut sources, replica)?;
    let peer = own_address(&mut sources, Side::PEER, members.own(replica).map(|own| &own.peer_address))?;
    let client =
        own_address(&mut sources, Side::CLIENT, members.own(replica).map(|own| &own.client_address))?;
    if peer.listen.text()? == client.listen.text()? {
        let what = "client_listen and peer_listen are one address: give each a port of its own";
        return Err(client.listen.wrong(what));
    }
    let timing = Timing::read(&mut sources)?;
    let tls = tls(&mut sources)?;
    let settings = settings(&mut sources, tls.is_some())?;
    let optional = |given: Option<Given>, read: fn(&Given) -> Result<u64, ConfigError>, default| {
        given.map_or(Ok(default), |given| read(&given))
    };
    Ok(Config {
        cell,
        replica,
        data_dir: data_dir.text()?.into(),
        peer_listen: peer.listen.address()?,
        client_listen: client.listen.address()?,
        peer_advertise: peer.advertise,
        client_advertise: client.advertise,
        join: members.join,
        members: members.list,
        peer_routes: BTreeMap::new(),
        settings,
        override_bootstrap_principal: None,
        tls,
        tick_ms: timing.tick_ms,
        heartbeat_ms: timing.heartbeat_ms,
        election_ms: timing.election_ms,
        lease_floor_ms: optional(sources.take("lease_floor_ms"), |given| given.number(0..=60_000), 5_000)?,
        snapshot_every_bytes: optional(
            sources.take("snapshot_every_bytes"),
            |given| given.bytes(4_096..=LOG_BYTES_MAX),
            64 << 20,
        )?,
        log_tail_bytes: optional(
            sources.take("log_tail_bytes"),
            |given| given.bytes(0..=LOG_BYTES_MAX),
            32 << 20,
        )?,
        client_connections_max: sources
            .take("client_connections_max")
            .map(|given| given.number(CLIENT_CONNECTIONS_MIN..=CLIENT_CONNECTIONS_MAX))
            .transpose()?,
        log_format: sources.take("log_format").map_or(Ok(LogFormat::Auto), |given| given.log_format())?,
        log_level: sources.take("log_level").map_or(Ok(LogLevel::Info), |given| given.log_level())?,
        passed_over: sources.passed_over(),
    })
}

/// Fewer connections than these nobody can work with; more no system has.
const CLIENT_CONNECTIONS_MIN: u64 = 8;
const CLIENT_CONNECTIONS_MAX: u64 = 1 << 20;

/// Ids are signed numbers in TOML.
const ID_MAX: u64 = i64::MAX as u64;

fn cell(sources: &mut Sources) -> Result<String, ConfigError> {
    let given = sources.need("cell", "the cell's name, the same for all its replicas")?;
    check_cell_name(given.text()?).map_err(|what| given.wrong(what))?;
    Ok(given.text()?.to_owned())
}

/// The TLS of the replica: all of it, or none.
fn tls(sources: &mut Sources) -> Result<Option<TlsConfig>, ConfigError> {
    const KEYS: [&str; 4] = ["tls_certificate", "tls_key", "tls_ca", "tls_client_certificates"];
    if !KEYS.iter().any(|key| sources.has(key)) {
        return Ok(None);
    }
    let mut file = |key, meaning| Ok(PathBuf::from(sources.need(key, meaning)?.text()?));
    let certificate = file("tls_certificate", "the file with the replica's certificate; TLS needs it")?;
    let key = file("tls_key", "the file with the certificate's key; TLS needs it")?;
    let ca = file("tls_ca", "the file with the CAs that are trusted; TLS needs it")?;
    let client_certificates = sources.take("tls_client_certificates");
    let client_certificates =
        client_certificates.map_or(Ok(ClientCertificates::Required), |given| given.client_certificates())?;
    Ok(Some(TlsConfig { certificate, key, ca, client_certificates }))
}

/// The settings that the cell begins with. Where nobody can prove who he is, everybody looks after the cell.
fn settings(sources: &mut Sources, tls: bool) -> Result<Settings, ConfigError> {
    let mut settings = match sources.take("settings") {
        Some(given) => given.settings()?,
        None => Settings::default(),
    };
    if tls && settings.bootstrap_principal.is_empty() {
        settings.bootstrap_principal = BOOTSTRAP_WITH_TLS.to_owned();
    }
    Ok(settings::complete(settings).expect("what is given was checked"))
}

/// How the replica comes to its cell.
struct Members {
    join: bool,
    list: Vec<FoundingMember>,
}

impl Members {
    fn read(sources: &mut Sources, replica: ReplicaId) -> Result<Self, ConfigError> {
        let join = sources.take("join").map_or(Ok(false), |given| given.boolean())?;
        let Some(given) = sources.take("members") else {
            if join {
                return Ok(Self { join, list: Vec::new() });
            }
            let meaning = "the replicas that found the cell; or give --join to join a cell that exists";
            return Err(sources.missing("members", meaning));
        };
        let mut list = given.members()?;
        list.sort_by_key(|member| member.id);
        check_distinct(&given, &list)?;
        if join {
            let what =
                "a replica that joins (join = true) takes its cell's members from the cell: leave them out";
            return Err(given.wrong(what));
        }
        if !list.iter().any(|member| member.id == replica.0) {
            let ids: Vec<String> = list.iter().map(|member| member.id.to_string()).collect();
            return Err(given.wrong(format!(
                "this replica's own id, {}, is not among the members ({}): add it, correct `replica`, or join the \
                 cell with --join",
                replica.0,
                ids.join(", ")
            )));
        }
        Ok(Self { join, list })
    }

    fn own(&self, replica: ReplicaId) -> Option<&FoundingMember> {
        self.list.iter().find(|member| member.id == replica.0)
    }
}

fn check_distinct(given: &Given, members: &[FoundingMember]) -> Result<(), ConfigError> {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for pair in members.windows(2) {
        if pair[0].id == pair[1].id {
            let what = format!("two members have the id {}: each replica has its own", pair[0].id);
            return Err(given.wrong(what));
        }
    }
    for member in members {
        for address in [&member.peer_address, &member.client_address] {
            if let Some(other) = seen.insert(address, member.id) {
                return Err(given.wrong(format!(
                    "the address {address} is there twice, for the members {other} and {}: each replica needs one \
                     address for its peers and another for clients, which nobody else has",
                    member.id
                )));
            }
        }
    }
    Ok(())
}

/// Which of a replica's two addresses.
struct Side {
    listen: &'static str,
    advertise: &'static str,
    who: &'static str,
}

impl Side {
    const PEER: Self = Self { listen: "peer_listen", advertise: "peer_advertise", who: "other replicas" };
    const CLIENT: Self = Self { listen: "client_listen", advertise: "client_advertise", who: "clients" };
}

struct OwnAddress {
    listen: Given,
    advertise: String,
}

/// Where the replica listens and what it tells others, checked against what `members` tells them.
fn own_address(
    sources: &mut Sources,
    side: Side,
    in_members: Option<&String>,
) -> Result<OwnAddress, ConfigError> {
    let listen = sources.need(side.listen, "where this replica listens, host:port")?;
    let listened = listen.address()?;
    let wildcard = is_wildcard(&listened);
    let given = sources.take(side.advertise);
    let advertise = match (&given, in_members) {
        (Some(given), _) => given.address()?,
        (None, Some(in_members)) if wildcard => in_members.clone(),
        (None, None) if wildcard => {
            return Err(listen.wrong(format!(
                "{listened} is every address of this machine and tells {who} nothing: set {advertise} to where \
                 {who} reach it",
                who = side.who,
                advertise = side.advertise,
            )));
        }
        (None, _) => listened,
    };
    if is_wildcard(&advertise) {
        let what = format!("{advertise} is no address that {} could connect to", side.who);
        return Err(given.as_ref().unwrap_or(&listen).wrong(what));
    }
    if host_ip(listen.text()?) == Some(Ipv4Addr::UNSPECIFIED.into())
        && host_ip(&advertise).is_some_and(|ip| ip.is_ipv6())
    {
        let port = listen.text()?.rsplit_once(':').map_or("PORT", |(_, port)| port);
        return Err(listen.wrong(format!(
            "0.0.0.0 is every IPv4 address of this machine and no other, and {who} would be told {advertise}: listen at \
             [::]:{port}, which is every address of both kinds",
            who = side.who,
        )));
    }
    if let Some(in_members) = in_members.filter(|in_members| **in_members != advertise) {
        return Err(given.as_ref().unwrap_or(&listen).wrong(format!(
            "{who} would be told {advertise}, but `members` says that this replica is at {in_members}. Is this \
             another replica's configuration? If not, set {key} to {in_members}, or correct `members`",
            who = side.who,
            key = side.advertise,
        )));
    }
    Ok(OwnAddress { listen, advertise })
}

fn is_wildcard(address: &str) -> bool {
    host_ip(address).is_some_and(|ip| ip.is_unspecified())
}

/// The host of an address, if it is no name.
fn host_ip(address: &str) -> Option<IpAddr> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

struct Timing {
    tick_ms: u64,
    heartbeat_ms: u64,
    election_ms: u64,
}

impl Timing {
    fn read(sources: &mut Sources) -> Result<Self, ConfigError> {
        let mut take = |key, default, most| match sources.take(key) {
            Some(given) => Ok((given.number(1..=most)?, given)),
            None => {
                let place = format!("{key} (its default)");
                Ok((default, Given { place, value: toml::Value::Integer(default as i64), is_text: false }))
            }
        };
        let (tick_ms, _) = take("tick_ms", 50, 1_000)?;
        let (heartbeat_ms, heartbeat) = take("heartbeat_ms", 100, 10_000)?;
        let (election_ms, election) = take("election_ms", 1_000, 60_000)?;
        if heartbeat_ms < tick_ms || heartbeat_ms % tick_ms != 0 {
            return Err(heartbeat.wrong(format!(
                "{heartbeat_ms} ms is no multiple of a tick of {tick_ms} ms: heartbeats are counted in ticks"
            )));
        }
        if election_ms % tick_ms != 0 {
            return Err(election.wrong(format!(
                "{election_ms} ms is no multiple of a tick of {tick_ms} ms: elections are counted in ticks"
            )));
        }
        let least = heartbeat_ms * HEARTBEATS_PER_ELECTION_MIN;
        if election_ms < least {
            return Err(election.wrong(format!(
                "{election_ms} ms is too short beside a heartbeat every {heartbeat_ms} ms: at least {least} ms, or \
                 a few lost messages depose a master that is well"
            )));
        }
        Ok(Self { tick_ms, heartbeat_ms, election_ms })
    }
}
