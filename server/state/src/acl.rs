//! Access control (P§2.3): which principal may do what, decided by files of the cell itself.
//!
//! A node names three lists: for reading, for writing, for changing these names. A list is a file directly under
//! `/acl`, or `*` for everyone; a list that does not exist lets nobody in. What is written there is checked when it is
//! written, so that evaluating a list meets neither nonsense nor a cycle. All of it is decided in apply, so a change
//! is in force for the next open on every replica alike. Who a client is, is proved elsewhere.
//!
//! Invariant: following groups from any file of `/acl` never leads back to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use holdfast_proto::client::v1::{AclNames, Refusal, RefusalCode, Uses};
use holdfast_types::characters::is_space;
use holdfast_types::{NodePath, Principal};

use crate::node::Kind;
use crate::tree::Place;
use crate::{State, refusal, settings};

/// The directory of the lists.
pub(crate) const DIRECTORY: &str = "/acl";
/// The name that means everyone, and is no file's.
pub(crate) const EVERYONE: &str = "*";
/// The list of those who administer the cell.
pub(crate) const ADMIN: &str = "admin";

/// What a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    Read,
    Write,
    ChangeAcl,
}

impl Permission {
    fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ChangeAcl => "change the access control names of",
        }
    }

    fn list(self, acl: &AclNames) -> &str {
        match self {
            Self::Read => &acl.read,
            Self::Write => &acl.write,
            Self::ChangeAcl => &acl.change,
        }
    }
}

/// A line of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry<'t> {
    Everyone,
    Principal(&'t str),
    /// Everybody whom another list names.
    Group(&'t str),
}

/// The names of a new cell's root.
pub(crate) fn of_root() -> Arc<AclNames> {
    Arc::new(AclNames { read: EVERYONE.into(), write: EVERYONE.into(), change: ADMIN.into() })
}

/// The names of a new cell's directory of lists.
pub(crate) fn of_directory() -> Arc<AclNames> {
    Arc::new(AclNames { read: EVERYONE.into(), write: ADMIN.into(), change: ADMIN.into() })
}

/// The list that a path is, or would be.
pub(crate) fn list_name(path: &NodePath) -> Option<&str> {
    path.as_str().strip_prefix(DIRECTORY)?.strip_prefix('/')
}

/// Whether a path is the directory of lists, or below it.
fn is_of_lists(path: &NodePath) -> bool {
    path.as_str() == DIRECTORY || list_name(path).is_some()
}

/// The entries of a list, with the numbers of their lines.
pub(crate) fn entries(text: &str) -> impl Iterator<Item = (usize, Entry<'_>)> {
    let lines = text.lines().map(|line| line.trim_matches(is_space)).enumerate();
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(at, line)| {
        let entry = match line.strip_prefix('@') {
            Some(group) => Entry::Group(group),
            None if line == EVERYONE => Entry::Everyone,
            None => Entry::Principal(line),
        };
        (at + 1, entry)
    })
}

/// The lists that are asked when a node with these names is opened for these uses.
pub(crate) fn lists_asked(acl: &AclNames, uses: Uses) -> impl Iterator<Item = &str> {
    let asked = [(uses.read, &acl.read), (uses.write, &acl.write), (uses.change_acl, &acl.change)];
    asked.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, list)| list.as_str())
}

/// What a list says, read once when it is written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct AccessList {
    /// It lets everybody in.
    pub(crate) everyone: bool,
    /// Whom it lets in by name.
    pub(crate) principals: BTreeSet<Box<str>>,
    /// The lists whose principals it lets in, too.
    pub(crate) groups: BTreeSet<Box<str>>,
}

/// What the contents of a file say, if its path is that of a list.
pub(crate) fn parsed(path: &NodePath, contents: &[u8]) -> Option<Arc<AccessList>> {
    list_name(path)?;
    Some(Arc::new(AccessList::parse(std::str::from_utf8(contents).ok()?)))
}

impl AccessList {
    /// Reads the text of a list, which need not be well-formed.
    pub(crate) fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for (_, entry) in entries(text) {
            match entry {
                Entry::Everyone => list.everyone = true,
                Entry::Principal(name) => _ = list.principals.insert(name.into()),
                Entry::Group(group) => _ = list.groups.insert(group.into()),
            }
        }
        list
    }
}

/// What a name becomes: given anew, or as it was.
fn or_old(new: &str, old: &str) -> String {
    if new.is_empty() { old.to_owned() } else { new.to_owned() }
}

/// A node's names after a change: what is empty stays.
pub(crate) fn changed(old: &Arc<AclNames>, change: &AclNames) -> Arc<AclNames> {
    if change.read.is_empty() && change.write.is_empty() && change.change.is_empty() {
        return old.clone();
    }
    Arc::new(AclNames {
        read: or_old(&change.read, &old.read),
        write: or_old(&change.write, &old.write),
        change: or_old(&change.change, &old.change),
    })
}

impl State {
    /// Whether a principal may change settings and membership, list sessions and handles, and end sessions: whether
    /// it is the bootstrap principal, or the access control list `admin` names it.
    ///
    /// # Errors
    ///
    /// It may not.
    pub fn may_administer(&self, principal: &Principal) -> Result<(), Refusal> {
        if self.is_bootstrap(principal) || self.is_listed(principal, ADMIN) {
            return Ok(());
        }
        let cell = &self.cell;
        Err(refusal::new(
            RefusalCode::PermissionDenied,
            format!(
                "{principal} may not administer the cell {cell}: the access control list /acl/{ADMIN} does not name it"
            ),
        ))
    }

    /// Whether a principal may do something with a node, or with one that is to be made.
    pub(crate) fn check_permission(
        &self,
        principal: &Principal,
        path: &NodePath,
        acl: &AclNames,
        permission: Permission,
    ) -> Result<(), Refusal> {
        let list = permission.list(acl);
        if list == EVERYONE || self.is_listed(principal, list) {
            return Ok(());
        }
        let bootstrap = permission == Permission::ChangeAcl || is_of_lists(path);
        if bootstrap && self.is_bootstrap(principal) {
            return Ok(());
        }
        Err(refusal::permission_denied(principal, permission.verb(), path, list))
    }

    /// What a principal is told instead of `refusal`, which says something of a node by name. Of what is under a
    /// directory that it may neither read nor write it is told nothing, whether or not there is such a node, unless the
    /// node itself lets it do something.
    pub(crate) fn concealed(&self, principal: &Principal, path: &NodePath, refusal: Refusal) -> Refusal {
        if self.version < 2 {
            return refusal;
        }
        let every = [Permission::Read, Permission::Write, Permission::ChangeAcl];
        let may = |path: &NodePath, acl: &AclNames, permissions: &[Permission]| {
            permissions
                .iter()
                .any(|permission| self.check_permission(principal, path, acl, *permission).is_ok())
        };
        if self.tree.get(path).is_some_and(|node| may(path, &node.acl, &every)) {
            return refusal;
        }
        // The uppermost one hides what is under it, other directories included.
        let directories = std::iter::successors(path.parent(), NodePath::parent);
        let hidden = directories.filter(|directory| {
            let node = self.tree.get(directory);
            node.is_some_and(|node| !may(directory, &node.acl, &every[..2]))
        });
        let Some(directory) = hidden.last() else { return refusal };
        let acl = self.tree.get(&directory).expect("it was found").acl.clone();
        refusal::hidden(principal, path, &directory, &acl.read)
    }

    /// Whether a principal may open a node for these uses.
    pub(crate) fn check_uses(
        &self,
        principal: &Principal,
        path: &NodePath,
        acl: &AclNames,
        uses: Uses,
    ) -> Result<(), Refusal> {
        let wanted = [
            (uses.read, Permission::Read),
            (uses.write, Permission::Write),
            (uses.change_acl, Permission::ChangeAcl),
        ];
        let mut wanted = wanted.into_iter().filter(|(wanted, _)| *wanted);
        wanted.try_for_each(|(_, permission)| self.check_permission(principal, path, acl, permission))
    }

    /// Checks names that a node is to be given: each is a list's name, whether or not the list exists.
    pub(crate) fn check_acl_names(&self, acl: &AclNames) -> Result<(), Refusal> {
        let given = [&acl.read, &acl.write, &acl.change].into_iter();
        for name in given.filter(|name| !name.is_empty() && *name != EVERYONE) {
            if name.contains('/') {
                let name = refusal::quoting(self.version)(name);
                return Err(refusal::invalid(format!(
                    "{name} cannot name an access control list: write the name of a file in {DIRECTORY}, or {EVERYONE}"
                )));
            }
            let limits = settings::name_limits(&self.settings);
            let list = NodePath::parse(&format!("{DIRECTORY}/{name}"), &self.cell, limits)
                .map_err(|error| refusal::path(self.version, &error))?;
            if self.tree.get(&list).is_none() {
                self.check_characters("the name of an access control list", name)?;
            }
        }
        Ok(())
    }

    /// Whether a node can be made where it is to be: the directory of lists has nothing but lists, and they stay until
    /// somebody deletes them.
    pub(crate) fn check_new_list(
        &self,
        path: &NodePath,
        kind: Kind,
        ephemeral: bool,
        contents: &[u8],
    ) -> Result<(), Refusal> {
        let Some(name) = list_name(path) else { return Ok(()) };
        if kind == Kind::Directory || ephemeral {
            let message = format!("{path} cannot be: {DIRECTORY} holds permanent files only");
            return Err(refusal::invalid(message));
        }
        if name == EVERYONE {
            let message = format!("{path} cannot be: as an access control list, {EVERYONE} means everyone");
            return Err(refusal::invalid(message));
        }
        self.check_list(path, contents)
    }

    /// Whether these may be the contents of a file: if it is a list, they must be well-formed, and must not lead back
    /// to it.
    pub(crate) fn check_list(&self, path: &NodePath, contents: &[u8]) -> Result<(), Refusal> {
        let Some(name) = list_name(path) else { return Ok(()) };
        let bad = |what: String| refusal::new(RefusalCode::BadAcl, format!("{path}: {what}"));
        let text =
            std::str::from_utf8(contents).map_err(|error| bad(refusal::no_utf8(self.version, error)))?;
        for (line, entry) in entries(text) {
            let wrong = match entry {
                Entry::Everyone => None,
                Entry::Principal(text) => Principal::parse(text).err().map(|error| error.to_string()),
                Entry::Group(group) => wrong_group(group, refusal::quoting(self.version)),
            };
            if let Some(wrong) = wrong {
                return Err(bad(format!(
                    "line {line} is wrong: {wrong}; a line is {EVERYONE}, a principal, or @ and the name of another list"
                )));
            }
        }
        match self.cycle(name, text) {
            Some(cycle) => Err(bad(format!("the lists would name each other in a circle: {cycle}"))),
            None => Ok(()),
        }
    }

    pub(crate) fn is_bootstrap(&self, principal: &Principal) -> bool {
        principal.as_str() == self.settings.bootstrap_principal
    }

    /// Whether a list lets a principal in, by itself or through groups. A list that does not exist lets nobody in.
    pub(crate) fn is_listed(&self, principal: &Principal, list: &str) -> bool {
        let (mut visited, mut waiting) = (BTreeSet::from([list]), vec![list]);
        while let Some(list) = waiting.pop() {
            let Some(list) = self.list(list) else { continue };
            if list.everyone || list.principals.contains(principal.as_str()) {
                return true;
            }
            waiting.extend(list.groups.iter().map(|group| &**group).filter(|group| visited.insert(group)));
        }
        false
    }

    /// Each list that others name as a group, with those that do.
    pub(crate) fn groups(&self) -> BTreeMap<String, Vec<String>> {
        let directory = NodePath::from_canonical(DIRECTORY).expect("the directory's name is canonical");
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, node) in self.tree.children(&directory, "") {
            for group in node.list.iter().flat_map(|list| &list.groups) {
                groups.entry(group.to_string()).or_default().push(name.to_owned());
            }
        }
        groups
    }

    /// How a list would lead back to itself if it had this text: `@a -> @b -> @a`. All other lists are free of cycles.
    fn cycle(&self, name: &str, text: &str) -> Option<String> {
        // Each list that can be reached, with the one that names it.
        let mut named_by: BTreeMap<&str, &str> = BTreeMap::new();
        let groups = entries(text).filter_map(|(_, entry)| match entry {
            Entry::Group(group) => Some(group),
            Entry::Everyone | Entry::Principal(_) => None,
        });
        let mut waiting = VecDeque::from_iter(groups.map(|group| (name, group)));
        while let Some((list, group)) = waiting.pop_front() {
            if group == name {
                return Some(way(&named_by, list, name));
            }
            if !named_by.contains_key(group) {
                named_by.insert(group, list);
                let groups = self.list(group).into_iter().flat_map(|list| &list.groups);
                waiting.extend(groups.map(|next| (group, &**next)));
            }
        }
        None
    }

    /// What a list says, if there is one.
    pub(crate) fn list(&self, name: &str) -> Option<&AccessList> {
        self.tree.entry(&Place::within(DIRECTORY, name))?.1.list.as_deref()
    }

    /// Whether what is newly written to a list has only characters that names may have.
    pub(crate) fn check_list_characters(&self, path: &NodePath, contents: &[u8]) -> Result<(), Refusal> {
        let text = list_name(path).and_then(|_| std::str::from_utf8(contents).ok());
        for (line, entry) in text.into_iter().flat_map(entries) {
            let (Entry::Principal(name) | Entry::Group(name)) = entry else { continue };
            self.check_characters(&format!("line {line} of an access control list"), name)?;
        }
        Ok(())
    }

    /// Whether every list is well-formed, and none leads back to itself.
    pub(crate) fn verify_lists(&self) -> Result<(), String> {
        let directory = NodePath::from_canonical(DIRECTORY).expect("the directory's name is canonical");
        let found =
            self.tree.get(&directory).is_some_and(|node| node.kind == Kind::Directory && !node.ephemeral);
        if !found {
            return Err(format!("there is no directory {DIRECTORY}"));
        }
        for (name, node) in self.tree.children(&directory, "") {
            let checked =
                self.check_new_list(&directory.child(name), node.kind, node.ephemeral, &node.contents);
            checked.map_err(|refusal| refusal.message)?;
        }
        Ok(())
    }
}

/// What is wrong with the name of a group, if it is no name of a file.
fn wrong_group(group: &str, quote: fn(&str) -> String) -> Option<String> {
    if group == EVERYONE {
        return Some(format!("there is no list {EVERYONE}"));
    }
    if group.contains('/') {
        return Some(format!("{} has a slash", quote(group)));
    }
    NodePath::from_canonical(&format!("{DIRECTORY}/{group}")).err().map(|error| error.message(quote))
}

/// The way from a list to one that names it, in words.
fn way(named_by: &BTreeMap<&str, &str>, last: &str, name: &str) -> String {
    let (mut steps, mut at) = (vec![name], last);
    while at != name {
        steps.push(at);
        at = named_by[at];
    }
    steps.push(name);
    let steps: Vec<String> = steps.iter().rev().map(|list| format!("@{list}")).collect();
    steps.join(" -> ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Genesis, settings};

    #[test]
    fn a_list_that_is_no_text_is_refused_in_words_of_our_own() {
        let settings = settings::defaults();
        let genesis = Genesis { cell: "dev".into(), cell_id: 7, members: Vec::new(), settings };
        let path = NodePath::root().child("acl").child("staff");
        let refusal = State::genesis(genesis).check_list(&path, b"ann\n\xff").unwrap_err();
        assert_eq!(refusal.message, "/acl/staff: it is no UTF-8 text: only the first 4 bytes are");
    }

    #[test]
    fn who_is_on_a_list_is_looked_up_in_what_was_read_when_it_was_written() {
        let settings = settings::defaults();
        let genesis = Genesis { cell: "dev".into(), cell_id: 7, members: Vec::new(), settings };
        let mut state = State::genesis(genesis);
        let path = NodePath::root().child("acl").child("staff");
        let key = crate::tree::NodeKey::new(path.clone());
        let mut node = crate::node::Node::file(state.revision.next(), false, of_directory(), b"ann\n@ops\n");
        let root = Principal::parse("root").unwrap();
        let ann = Principal::parse("ann").unwrap();
        state.insert_node(&root, key.clone(), node.clone(), &mut Vec::new()).unwrap();
        assert!(state.is_listed(&ann, "staff"));
        // The text is not asked: it is not even one any more.
        node = state.tree.get(&path).unwrap().clone();
        node.contents = bytes::Bytes::from_static(b"\xff");
        *state.tree.get_mut(&key).unwrap() = node;
        assert!(state.is_listed(&ann, "staff") && !state.is_listed(&root, "staff"));
        assert!(state.verify().is_err(), "a list that does not say what it has is found");
    }
}
