//! Faults planted on purpose in a whole process, so that the torture rig can show what it would find.
//!
//! There is no such module in an ordinary build, which passes the variable over, with a warning. See
//! `proto/types/src/planted.rs`.

use std::ffi::OsString;

use holdfast_types::{Planted, plant_everywhere};

/// The variable that names the fault.
pub const VARIABLE: &str = "HOLDFAST_PLANTED";

/// Plants the fault that the variables name, if they name one, and gives back the others.
///
/// # Errors
///
/// If there is no fault of that name.
pub fn take(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> anyhow::Result<Vec<(OsString, OsString)>> {
    let (planted, others) = variables.into_iter().partition::<Vec<_>, _>(|(name, _)| name == VARIABLE);
    for (_, fault) in planted {
        let known = fault.to_str().and_then(Planted::named);
        plant_everywhere(known.ok_or_else(|| anyhow::anyhow!("{VARIABLE}: there is no fault {fault:?}"))?);
    }
    Ok(others)
}
