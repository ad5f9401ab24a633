//! `holdfast stat`: a node's metadata.

use anyhow::Result;
use clap::Args;
use holdfast::{LockStat, Mode, NodeKind, NodeStat};
use serde::Serialize;

use super::acl::AclDocument;
use crate::client::Client;
use crate::name::Name;
use crate::{output, units};

/// Show a node's metadata: generations, size, access control lists, lock.
#[derive(Debug, Args)]
pub(crate) struct Stat {
    /// The node.
    path: Name,
}

/// All about a node as `--json` prints it. The field names are promised in docs/cli.md.
#[derive(Debug, Serialize)]
pub(super) struct StatDocument {
    #[serde(flatten)]
    pub(super) meta: MetaDocument,
    lock_generation: u64,
    open_handles: u64,
    lock: LockDocument,
}

/// What does not change with the lock.
#[derive(Debug, Serialize)]
pub(super) struct MetaDocument {
    kind: &'static str,
    pub(super) ephemeral: bool,
    pub(super) length: u64,
    /// Hexadecimal: not every reader of JSON keeps 64 bits.
    checksum: String,
    pub(super) children: u64,
    instance: u64,
    pub(super) content_generation: u64,
    acl_generation: u64,
    pub(super) children_generation: u64,
    acl: AclDocument,
}

/// A lock's state.
#[derive(Debug, Serialize)]
struct LockDocument {
    /// `exclusive`, `shared`, or null for a free lock.
    mode: Option<String>,
    /// At most 16 of them.
    holders: Vec<HolderDocument>,
    holder_count: u64,
    waiting: u64,
    delayed: u64,
}

#[derive(Debug, Serialize)]
struct HolderDocument {
    session: u64,
    client: String,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    path: String,
    #[serde(flatten)]
    stat: StatDocument,
}

impl Stat {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        let NodeStat { stat, lock, .. } = client.cell.stat(&client.path(&self.path)).await?;
        let document = Document { path: self.path.as_str().to_owned(), stat: StatDocument::new(stat, lock) };
        client.output.print(&document, text)
    }
}

impl MetaDocument {
    /// What the node is.
    pub(super) fn kind(&self) -> NodeKind {
        if self.kind == "directory" { NodeKind::Directory } else { NodeKind::File }
    }
}

impl StatDocument {
    pub(super) fn new(stat: holdfast::Stat, lock: LockStat) -> Self {
        let holders = lock.holders.into_iter();
        Self {
            meta: stat.into(),
            lock_generation: lock.generation,
            open_handles: lock.open_handles,
            lock: LockDocument {
                mode: lock.mode.as_ref().map(Mode::to_string),
                holders: holders
                    .map(|holder| HolderDocument { session: holder.session, client: holder.client })
                    .collect(),
                holder_count: lock.holder_count,
                waiting: lock.waiting,
                delayed: lock.delayed,
            },
        }
    }
}

impl From<holdfast::Stat> for MetaDocument {
    fn from(stat: holdfast::Stat) -> Self {
        Self {
            kind: match stat.kind {
                NodeKind::File => "file",
                NodeKind::Directory => "directory",
            },
            ephemeral: stat.ephemeral,
            length: stat.length,
            checksum: format!("{:016x}", stat.checksum),
            children: stat.children,
            instance: stat.instance,
            content_generation: stat.content_generation,
            acl_generation: stat.acl_generation,
            children_generation: stat.children_generation,
            acl: stat.acl.into(),
        }
    }
}

fn text(Document { path, stat }: &Document) -> String {
    let meta = &stat.meta;
    let lifetime = if meta.ephemeral { ", ephemeral" } else { "" };
    let mut rows = vec![("path", path.clone()), ("kind", format!("{}{lifetime}", meta.kind))];
    match meta.kind() {
        NodeKind::File => {
            rows.push(("size", units::size(meta.length)));
            rows.push(("checksum", meta.checksum.clone()));
            rows.push(("content generation", meta.content_generation.to_string()));
        }
        NodeKind::Directory => {
            rows.push(("children", meta.children.to_string()));
            rows.push(("children generation", meta.children_generation.to_string()));
        }
    }
    rows.extend([
        ("instance", meta.instance.to_string()),
        ("lock generation", stat.lock_generation.to_string()),
        ("acl", meta.acl.sentence()),
        ("acl generation", meta.acl_generation.to_string()),
        ("open handles", stat.open_handles.to_string()),
        ("lock", lock_sentence(&stat.lock)),
    ]);
    output::fields(rows)
}

/// A lock in a word or two; nothing for one that is free and that nobody wants.
pub(super) fn lock_summary(stat: &StatDocument) -> String {
    let lock = &stat.lock;
    let mut parts = Vec::new();
    match (&lock.mode, lock.holder_count) {
        (Some(mode), count) if count > 1 => parts.push(format!("{mode} by {count}")),
        (Some(mode), _) => parts.push(mode.clone()),
        (None, _) if lock.delayed > 0 => parts.push("delayed".to_owned()),
        (None, _) => {}
    }
    if lock.waiting > 0 {
        parts.push(format!("{} waiting", lock.waiting));
    }
    parts.join(", ")
}

fn lock_sentence(lock: &LockDocument) -> String {
    let mut parts = Vec::new();
    match &lock.mode {
        Some(mode) => {
            let names =
                lock.holders.iter().map(|holder| format!("{} (session {})", holder.client, holder.session));
            let mut names: Vec<String> = names.collect();
            let unlisted = lock.holder_count.saturating_sub(names.len() as u64);
            if unlisted > 0 {
                names.push(format!("{unlisted} more"));
            }
            parts.push(format!("{mode}, held by {}", names.join(", ")));
        }
        None => parts.push("free".to_owned()),
    }
    if lock.waiting > 0 {
        parts.push(format!("{} waiting", lock.waiting));
    }
    if lock.delayed > 0 {
        parts.push(format!("{} lock-delay running", lock.delayed));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(
        mode: Option<&str>,
        holders: usize,
        holder_count: u64,
        waiting: u64,
        delayed: u64,
    ) -> LockDocument {
        let holders = (0..holders).map(|n| HolderDocument { session: n as u64, client: format!("c{n}") });
        LockDocument {
            mode: mode.map(str::to_owned),
            holders: holders.collect(),
            holder_count,
            waiting,
            delayed,
        }
    }

    #[test]
    fn a_locks_sentence_names_holders_waiters_and_delays() {
        assert_eq!(lock_sentence(&lock(None, 0, 0, 0, 0)), "free");
        assert_eq!(lock_sentence(&lock(None, 0, 0, 2, 1)), "free; 2 waiting; 1 lock-delay running");
        assert_eq!(lock_sentence(&lock(Some("exclusive"), 1, 1, 0, 0)), "exclusive, held by c0 (session 0)");
        assert_eq!(
            lock_sentence(&lock(Some("shared"), 2, 5, 0, 0)),
            "shared, held by c0 (session 0), c1 (session 1), 3 more"
        );
    }
}
