//! Whether somebody would lock himself out: by another bootstrap principal, by an access control list, or by a node's names.
//!
//! A typing error there once took the administration of a cell from everybody, without a word. So the state refuses what
//! the caller could not undo himself, unless he says that he means it (`force`). Decided in apply, by the lists as they are
//! at that place in the log. Invariant: a state of a version before [`GUARDED`] refuses nothing of it, as it was.

use std::collections::BTreeSet;

use holdfast_proto::client::v1::{AclNames, Refusal, RefusalCode, Settings};
use holdfast_types::{NodePath, Principal};

use crate::acl::{self, AccessList, Permission};
use crate::{State, refusal};

/// The state version from which on it is refused.
const GUARDED: u32 = 2;

impl State {
    /// The settings after a change by somebody who administers the cell.
    pub(crate) fn check_settings_lock_out(
        &self,
        principal: &Principal,
        settings: &Settings,
        force: bool,
    ) -> Result<(), Refusal> {
        let named = &settings.bootstrap_principal;
        let stays = *named == principal.as_str();
        if stays || !self.is_guarded(force) || self.is_listed(principal, acl::ADMIN) {
            return Ok(());
        }
        Err(would_lock_out(format!(
            "{principal} administers the cell as its bootstrap principal, and would not any more with bootstrap_principal={named}: \
             add {principal} to {}/{} first, or say that you mean it (force)",
            acl::DIRECTORY,
            acl::ADMIN
        )))
    }

    /// New contents of a file, or none if it is to be deleted: if it is a list, the caller may administer the cell by it.
    pub(crate) fn check_list_lock_out(
        &self,
        principal: &Principal,
        path: &NodePath,
        contents: &[u8],
        force: bool,
    ) -> Result<(), Refusal> {
        let Some(list) = acl::list_name(path).filter(|_| self.is_guarded(force)) else { return Ok(()) };
        if self.is_bootstrap(principal) || !self.is_listed(principal, acl::ADMIN) {
            return Ok(());
        }
        let text = String::from_utf8_lossy(contents);
        if self.is_listed_after(principal, acl::ADMIN, (list, &text)) {
            return Ok(());
        }
        Err(would_lock_out(format!(
            "{principal} administers the cell by the list {}/{}, and would not any more after this change of {path}: say that \
             you mean it (force)",
            acl::DIRECTORY,
            acl::ADMIN
        )))
    }

    /// New names of a node's lists: the caller could not change them back.
    pub(crate) fn check_names_lock_out(
        &self,
        principal: &Principal,
        path: &NodePath,
        names: &AclNames,
        force: bool,
    ) -> Result<(), Refusal> {
        let Some(node) = self.tree.get(path).filter(|_| self.is_guarded(force)) else { return Ok(()) };
        let may =
            |names: &AclNames| self.check_permission(principal, path, names, Permission::ChangeAcl).is_ok();
        let after = acl::changed(&node.acl, names);
        if after == node.acl || !may(&node.acl) || may(&after) {
            return Ok(());
        }
        Err(would_lock_out(format!(
            "{principal} could not change the access control names of {path} back: the list {}/{} does not name it; say that you \
             mean it (force)",
            acl::DIRECTORY,
            after.change
        )))
    }

    fn is_guarded(&self, force: bool) -> bool {
        self.version >= GUARDED && !force
    }

    /// Whether a list would let a principal in if one list had another text.
    fn is_listed_after(&self, principal: &Principal, list: &str, replaced: (&str, &str)) -> bool {
        let after = AccessList::parse(replaced.1);
        let (mut visited, mut waiting) = (BTreeSet::from([list]), vec![list]);
        while let Some(name) = waiting.pop() {
            let found = if name == replaced.0 { Some(&after) } else { self.list(name) };
            let Some(list) = found else { continue };
            if list.everyone || list.principals.contains(principal.as_str()) {
                return true;
            }
            waiting.extend(list.groups.iter().map(|group| &**group).filter(|group| visited.insert(group)));
        }
        false
    }
}

fn would_lock_out(message: String) -> Refusal {
    refusal::new(RefusalCode::WouldLockOut, message)
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1::{DeleteRequest, SetAclRequest, SetContentsRequest, outcome};
    use holdfast_proto::log::v1::{Command, RaiseVersion, command::Kind};

    use super::*;
    use crate::{Effect, Genesis, settings};

    /// A cell of which `root` is the bootstrap principal, and `ann`, `bob` and the list `ops` are administrators.
    fn cell(version: u32) -> State {
        let given = Settings { bootstrap_principal: "root".into(), ..Settings::default() };
        let settings = settings::complete_at(version, given).unwrap();
        let genesis = Genesis { cell: "dev".into(), cell_id: 1, members: Vec::new(), settings };
        let mut state = State::genesis_at(version, genesis);
        assert_eq!(write(&mut state, "root", "/acl/ops", "cyd", false), None);
        assert_eq!(write(&mut state, "root", "/acl/admin", "ann\nbob\n@ops", false), None);
        state
    }

    /// What a command is refused for; `None` if it is done.
    fn refused(state: &mut State, by: &str, kind: Kind, force: bool) -> Option<RefusalCode> {
        let command = Command { tag: 1, kind: Some(kind), principal: by.to_owned(), force };
        let mut effects = Vec::new();
        state.apply(command, &mut effects).unwrap();
        state.check_invariants();
        effects.iter().find_map(|effect| match effect {
            Effect::Decided { outcome, .. } => match &outcome.result {
                Some(outcome::Result::Refusal(refusal)) => Some(refusal.code()),
                _ => None,
            },
            _ => None,
        })
    }

    fn write(state: &mut State, by: &str, path: &str, list: &str, force: bool) -> Option<RefusalCode> {
        let contents = list.as_bytes().to_vec().into();
        let write =
            SetContentsRequest { path: path.into(), contents, create: true, force, ..Default::default() };
        refused(state, by, Kind::SetContents(write), false)
    }

    fn delete(state: &mut State, by: &str, path: &str, force: bool) -> Option<RefusalCode> {
        refused(
            state,
            by,
            Kind::Delete(DeleteRequest { path: path.into(), force, ..Default::default() }),
            false,
        )
    }

    fn names(state: &mut State, by: &str, path: &str, change: &str, force: bool) -> Option<RefusalCode> {
        let acl = Some(AclNames { change: change.into(), ..AclNames::default() });
        let set = SetAclRequest { path: path.into(), acl, force, ..Default::default() };
        refused(state, by, Kind::SetAcl(set), false)
    }

    fn bootstrap(state: &mut State, by: &str, name: &str, force: bool) -> Option<RefusalCode> {
        let change = Settings { bootstrap_principal: name.into(), ..Settings::default() };
        refused(state, by, Kind::ChangeSettings(change), force)
    }

    const LOCK_OUT: Option<RefusalCode> = Some(RefusalCode::WouldLockOut);

    #[test]
    fn a_bootstrap_principal_does_not_name_another_by_mistake() {
        let mut state = cell(2);
        assert_eq!(bootstrap(&mut state, "root", "typo", false), LOCK_OUT);
        assert_eq!(state.settings.bootstrap_principal, "root");
        assert_eq!(bootstrap(&mut state, "root", "root", false), None, "itself");
        assert_eq!(
            bootstrap(&mut state, "ann", "typo", false),
            None,
            "an administrator by the list stays one"
        );
        assert_eq!(bootstrap(&mut state, "typo", "root", true), None, "who means it may");
        assert_eq!(write(&mut state, "root", "/acl/admin", "root", false), None);
        assert_eq!(bootstrap(&mut state, "root", "other", false), None, "named by the list, it stays in");
    }

    #[test]
    fn nobody_is_written_out_of_administration_by_mistake() {
        let mut state = cell(2);
        for list in ["bob", "", "# ann\nann2", "@ops", "@nolist"] {
            assert_eq!(write(&mut state, "ann", "/acl/admin", list, false), LOCK_OUT, "{list}");
        }
        assert_eq!(write(&mut state, "cyd", "/acl/ops", "dan", false), LOCK_OUT, "a group that let it in");
        assert_eq!(delete(&mut state, "cyd", "/acl/ops", false), LOCK_OUT);
        assert_eq!(delete(&mut state, "ann", "/acl/admin", false), LOCK_OUT);
        assert_eq!(write(&mut state, "ann", "/acl/ops", "dan", false), None, "others may be");
        assert_eq!(write(&mut state, "ann", "/acl/admin", "*", false), None);
        assert_eq!(write(&mut state, "ann", "/acl/admin", "bob", true), None);
        assert_eq!(
            write(&mut state, "root", "/acl/admin", "", false),
            None,
            "the bootstrap principal is no list's"
        );
    }

    #[test]
    fn nobody_gives_the_names_of_a_node_away_by_mistake() {
        let mut state = cell(2);
        assert_eq!(write(&mut state, "ann", "/a", "x", false), None);
        assert_eq!(names(&mut state, "ann", "/a", "nolist", false), LOCK_OUT);
        assert_eq!(names(&mut state, "ann", "/a", "ops", false), LOCK_OUT);
        assert_eq!(names(&mut state, "ann", "/a", "*", false), None);
        assert_eq!(names(&mut state, "ann", "/a", "ops", true), None);
        assert_eq!(names(&mut state, "root", "/a", "nolist", false), None, "it may always change them back");
        assert_eq!(names(&mut state, "ann", "/a", "admin", true), Some(RefusalCode::PermissionDenied));
    }

    #[test]
    fn a_principal_that_looks_like_another_is_named_by_no_new_list() {
        let mut state = cell(2);
        assert_eq!(write(&mut state, "root", "/acl/team", "an\u{200b}n", false), Some(RefusalCode::Invalid));
        assert_eq!(bootstrap(&mut state, "root", "roo\u{202e}t", true), Some(RefusalCode::Invalid));
        let mut old = cell(1);
        assert_eq!(write(&mut old, "root", "/acl/team", "an\u{200b}n", false), None);
        let raise = Kind::RaiseVersion(RaiseVersion { version: 2 });
        assert_eq!(refused(&mut old, "", raise, false), None);
        assert!(old.is_listed(&Principal::parse("an\u{200b}n").unwrap(), "team"), "what was written counts");
    }

    #[test]
    fn a_state_of_version_1_decides_as_it_did() {
        let mut state = cell(1);
        assert_eq!(names(&mut state, "ann", "/", "nolist", false), None);
        assert_eq!(write(&mut state, "ann", "/acl/admin", "bob", false), None);
        assert_eq!(bootstrap(&mut state, "root", "typo", false), None);
    }
}
