//! Owns the command line that runs a seed again exactly as it was run.

use std::fmt::Write as _;

use holdfast_types::Planted;

use crate::plan::Options;
use crate::verdict::Invariant;

/// How the program is built and run so that it can plant faults. The directory keeps the two builds apart.
pub const PLANTED_BUILD: &str =
    "RUSTFLAGS='--cfg holdfast_planted' cargo run --release -p holdfast-sim --target-dir target/planted";

/// The command that runs a seed again.
#[must_use]
pub fn replay(seed: u64, options: &Options) -> String {
    let mut command = match options.planted {
        Some(_) => format!("{PLANTED_BUILD} -- --seed {seed}"),
        None => format!("cargo run --release -p holdfast-sim -- --seed {seed}"),
    };
    let planted = Planted::ALL.iter().find(|(_, fault)| Some(*fault) == options.planted);
    option(&mut command, "planted", planted.map(|(name, _)| *name));
    option(&mut command, "replicas", options.replicas);
    option(&mut command, "clients", options.clients);
    option(
        &mut command,
        "seconds",
        Some(options.seconds).filter(|seconds| *seconds != Options::default().seconds),
    );
    option(&mut command, "only", options.only.as_ref().map(list));
    option(&mut command, "calm", (!options.calm.is_empty()).then(|| list(&options.calm)));
    option(&mut command, "pretend", options.pretend.map(Invariant::code));
    command
}

fn option(command: &mut String, name: &str, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        // Writing to a string does not fail.
        let _ = write!(command, " --{name} {value}");
    }
}

/// The words of a list, as the command line takes them.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(",") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::calm::Condition;

    #[test]
    fn a_run_like_any_other_is_its_seed() {
        assert_eq!(replay(7, &Options::default()), "cargo run --release -p holdfast-sim -- --seed 7");
    }

    #[test]
    fn all_that_makes_a_run_what_it_is_belongs_to_its_command() {
        let options = Options {
            replicas: Some(5),
            clients: Some(20),
            seconds: 9,
            only: Some(BTreeSet::from([12, 3, 7])),
            calm: BTreeSet::from([Condition::Late, Condition::Loss]),
            planted: Some(Planted::ALL[0].1),
            pretend: Some(Invariant::Durability),
            log: true,
        };
        let wanted = format!(
            "{PLANTED_BUILD} -- --seed 7 --planted {} --replicas 5 --clients 20 --seconds 9 --only 3,7,12 --calm \
             loss,late --pretend I7",
            Planted::ALL[0].0
        );
        assert_eq!(replay(7, &options), wanted);
    }

    #[test]
    fn a_run_without_any_fault_says_so() {
        let options = Options { only: Some(BTreeSet::new()), ..Options::default() };
        assert!(replay(7, &options).ends_with("--only none"));
    }
}
