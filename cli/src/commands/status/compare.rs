//! Whether replicas that have applied the same entries have the same state.

use std::collections::BTreeMap;

use super::survey::Replica;

/// What the hashes of the replicas' states say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// All that gave one have applied the same, and have the same state.
    Same,
    /// Two have applied the same and have different states; who, for people.
    Differ(String),
    /// Not all can be compared; why.
    NotCompared(&'static str),
}

impl Comparison {
    /// As `--json` says it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differ(_) => "differ",
            Self::NotCompared(_) => "not_compared",
        }
    }

    /// Compares those that have applied the same entry and run the same version: other versions may hash otherwise.
    pub(super) fn of(replicas: &[Replica]) -> Self {
        let mut alike: BTreeMap<_, BTreeMap<&str, Vec<u64>>> = BTreeMap::new();
        for replica in replicas {
            if let Some(hash) = &replica.state_hash {
                let hashes = alike.entry((replica.applied, &replica.version)).or_default();
                hashes.entry(hash).or_default().push(replica.id);
            }
        }
        let hashed = alike.values().flat_map(BTreeMap::values).map(Vec::len).sum::<usize>();
        if let Some(((applied, _), hashes)) = alike.iter().find(|(_, hashes)| hashes.len() > 1) {
            return Self::Differ(differ(applied.unwrap_or_default(), hashes));
        }
        match (hashed, alike.len()) {
            (0 | 1, _) => Self::NotCompared("fewer than two replicas gave a hash"),
            (_, 1) => Self::Same,
            _ => Self::NotCompared(
                "they have applied different entries, or run different versions: ask again when the cell has less to do",
            ),
        }
    }
}

/// Says who differs from whom at an entry, and what to do.
fn differ(applied: u64, hashes: &BTreeMap<&str, Vec<u64>>) -> String {
    let most = hashes.values().map(Vec::len).max().unwrap_or_default();
    let rest = |ids: &&Vec<u64>| ids.len() < most;
    let odd: Vec<u64> = hashes.values().filter(rest).flatten().copied().collect();
    let parties: Vec<String> = hashes.values().map(|ids| names(ids)).collect();
    let parties = parties.join(" and that of ");
    let who = match odd.is_empty() {
        true => "which of them has gone astray cannot be told from this".to_owned(),
        false => format!("replace {} (holdfast member remove, then add one under a new id)", names(&odd)),
    };
    format!("after entry {applied} the state of {parties} differ, which must never be: {who}")
}

/// "replica 1" or "replicas 1, 2".
fn names(ids: &[u64]) -> String {
    let list: Vec<String> = ids.iter().map(u64::to_string).collect();
    format!("replica{} {}", if ids.len() == 1 { "" } else { "s" }, list.join(", "))
}
