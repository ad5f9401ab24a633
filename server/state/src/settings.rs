//! The cell's limits: which values they can have, and how a change is put together.
//!
//! Replicated, so that all replicas refuse alike. Lowering a limit takes nothing away from what exists.

use holdfast_proto::client::v1::{Refusal, Settings};
use holdfast_types::{LEASE_MS, NameLimits, Principal};

use crate::{VERSION_MAX, refusal};

/// What the limits of names can be at the most: nothing in a cell ever had a longer one.
pub(crate) const NAME_LIMITS_MAX: NameLimits = NameLimits { name_bytes_max: 1024, path_bytes_max: 16 * 1024 };

/// After how long a notice that is not acknowledged is overdue, in milliseconds, for a cell that has no such setting yet.
const NOTICE_OVERDUE_MS: u32 = 3_000;
/// The longest lease with which a session may cache, in milliseconds, likewise.
const CACHING_LEASE_MS_MAX: u32 = 12_000;

/// The settings of a cell for which nothing else was asked.
#[must_use]
pub fn defaults() -> Settings {
    Settings {
        contents_bytes_max: 256 * 1024,
        name_bytes_max: 255,
        path_bytes_max: 4096,
        sessions_max: 200_000,
        handles_per_session_max: 16_384,
        nodes_max: 4_000_000,
        requests_in_flight_max: 4096,
        lease_ms_max: *LEASE_MS.start(),
        bootstrap_principal: Principal::ANONYMOUS.to_owned(),
        notice_overdue_ms: NOTICE_OVERDUE_MS,
        caching_lease_ms_max: CACHING_LEASE_MS_MAX,
        total_bytes_max: 1 << 30,
        reserve_percent: 5,
    }
}

/// After how long a notice that is not acknowledged is overdue. Settings of an older cell have 0.
#[must_use]
pub fn notice_overdue_ms(settings: &Settings) -> u32 {
    if settings.notice_overdue_ms == 0 { NOTICE_OVERDUE_MS } else { settings.notice_overdue_ms }
}

/// The longest lease with which a session may cache. Settings of an older cell have 0.
#[must_use]
pub fn caching_lease_ms_max(settings: &Settings) -> u32 {
    if settings.caching_lease_ms_max == 0 { CACHING_LEASE_MS_MAX } else { settings.caching_lease_ms_max }
}

/// Settings without those that a state version does not have yet: there they are 0, and 0 stays as it is.
fn of_version(version: u32, settings: Settings) -> Settings {
    if version >= 2 {
        return settings;
    }
    Settings {
        total_bytes_max: 0,
        notice_overdue_ms: 0,
        caching_lease_ms_max: 0,
        reserve_percent: 0,
        ..settings
    }
}

/// The settings of a cell that is to be made: fields that are 0 or empty take their default.
///
/// # Errors
///
/// A refusal that names the first field beyond its range.
pub fn complete(given: Settings) -> Result<Settings, Refusal> {
    complete_at(VERSION_MAX, given)
}

/// Like [`complete`], for a cell of the state version `version`.
///
/// # Errors
///
/// A refusal that names the first field beyond its range.
pub fn complete_at(version: u32, given: Settings) -> Result<Settings, Refusal> {
    changed_at(version, &of_version(version, defaults()), given)
}

/// The settings after a change: fields that are 0 or empty stay as they are. `version` is the state's.
///
/// # Errors
///
/// A refusal that names the first field beyond its range.
pub(crate) fn changed_at(version: u32, present: &Settings, change: Settings) -> Result<Settings, Refusal> {
    let change = of_version(version, change);
    let or = |new: u64, old: u64| if new == 0 { old } else { new };
    let or_small = |new: u32, old: u32| if new == 0 { old } else { new };
    let settings = Settings {
        contents_bytes_max: or(change.contents_bytes_max, present.contents_bytes_max),
        name_bytes_max: or_small(change.name_bytes_max, present.name_bytes_max),
        path_bytes_max: or_small(change.path_bytes_max, present.path_bytes_max),
        sessions_max: or(change.sessions_max, present.sessions_max),
        handles_per_session_max: or(change.handles_per_session_max, present.handles_per_session_max),
        nodes_max: or(change.nodes_max, present.nodes_max),
        requests_in_flight_max: or_small(change.requests_in_flight_max, present.requests_in_flight_max),
        lease_ms_max: or_small(change.lease_ms_max, present.lease_ms_max),
        bootstrap_principal: if change.bootstrap_principal.is_empty() {
            present.bootstrap_principal.clone()
        } else {
            change.bootstrap_principal
        },
        notice_overdue_ms: or_small(change.notice_overdue_ms, present.notice_overdue_ms),
        caching_lease_ms_max: or_small(change.caching_lease_ms_max, present.caching_lease_ms_max),
        total_bytes_max: or(change.total_bytes_max, present.total_bytes_max),
        reserve_percent: or_small(change.reserve_percent, present.reserve_percent),
    };
    check(version, &settings)?;
    Ok(settings)
}

/// Checks that every field is within its range. Those that an older cell's settings do not have may be 0.
fn check(version: u32, settings: &Settings) -> Result<(), Refusal> {
    let ranges = [
        ("contents_bytes_max", settings.contents_bytes_max, 1..=1024 * 1024),
        ("name_bytes_max", settings.name_bytes_max.into(), 1..=NAME_LIMITS_MAX.name_bytes_max as u64),
        ("path_bytes_max", settings.path_bytes_max.into(), 1..=NAME_LIMITS_MAX.path_bytes_max as u64),
        ("sessions_max", settings.sessions_max, 1..=u64::MAX),
        ("handles_per_session_max", settings.handles_per_session_max, 1..=u64::MAX),
        ("nodes_max", settings.nodes_max, 1..=u64::MAX),
        ("requests_in_flight_max", settings.requests_in_flight_max.into(), 1..=64 * 1024),
        (
            "lease_ms_max",
            settings.lease_ms_max.into(),
            u64::from(*LEASE_MS.start())..=u64::from(*LEASE_MS.end()),
        ),
        ("notice_overdue_ms", notice_overdue_ms(settings).into(), 100..=60_000),
        (
            "caching_lease_ms_max",
            caching_lease_ms_max(settings).into(),
            u64::from(*LEASE_MS.start())..=u64::from(*LEASE_MS.end()),
        ),
    ];
    let of_version_2 = [
        ("total_bytes_max", settings.total_bytes_max, 1..=u64::MAX),
        ("reserve_percent", settings.reserve_percent.into(), 1..=50),
    ];
    let of_version_2 = of_version_2.into_iter().filter(|_| version >= 2);
    for (name, value, range) in ranges.into_iter().chain(of_version_2) {
        if !range.contains(&value) {
            let (least, most) = (range.start(), range.end());
            return Err(refusal::invalid(format!(
                "setting {name} cannot be {value}: it is from {least} to {most}"
            )));
        }
    }
    Principal::parse(&settings.bootstrap_principal).map_err(|error| {
        let name = refusal::quoting(version)(&settings.bootstrap_principal);
        refusal::invalid(format!("setting bootstrap_principal cannot be {name}: {error}"))
    })?;
    Ok(())
}

/// How long the names of new nodes may be.
pub(crate) fn name_limits(settings: &Settings) -> NameLimits {
    NameLimits {
        name_bytes_max: settings.name_bytes_max as usize,
        path_bytes_max: settings.path_bytes_max as usize,
    }
}
