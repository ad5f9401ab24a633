//! The refusals: what a cell says instead of doing what it was asked.
//!
//! A refusal is replicated, so each one is a function of the state and the command alone. Its message says what
//! was wrong, with what, and what would be right. Nothing here decides anything. Invariant: from state version 2 on no message
//! has a word of the standard library's, which chooses others from release to release: replicas record the same bytes (I9).

use holdfast_proto::client::v1::refusal::Facts;
use holdfast_proto::client::v1::{
    GenerationKind, GenerationMismatch, LimitExceeded, LockConflict, Refusal, RefusalCode,
};
use holdfast_types::characters::{self, Codepoint};
use holdfast_types::{HandleId, Mode, NodePath, PathError, Principal, RequestNumber, Revision, SessionId};

/// A refusal in words of the caller's own.
#[must_use]
pub fn new(code: RefusalCode, message: impl Into<String>) -> Refusal {
    Refusal { code: code.into(), message: message.into(), ..Default::default() }
}

/// How messages quote a text in a cell of this state version: version 1 left that to the standard library.
pub(crate) fn quoting(version: u32) -> fn(&str) -> String {
    if version >= 2 { characters::quoted } else { |text| format!("{text:?}") }
}

/// What is wrong with a text that is no UTF-8, in a cell of this state version.
pub(crate) fn no_utf8(version: u32, error: std::str::Utf8Error) -> String {
    if version >= 2 {
        format!("it is no UTF-8 text: only the first {} bytes are", error.valid_up_to())
    } else {
        format!("it is no UTF-8 text: {error}")
    }
}

/// A name that is not one of a node here, as a cell of this state version says it.
#[must_use]
pub fn path(version: u32, error: &PathError) -> Refusal {
    let code = match error {
        PathError::ForeignCell { .. } => RefusalCode::ForeignCell,
        PathError::NameTooLong { .. } | PathError::PathTooLong { .. } => RefusalCode::Limit,
        _ => RefusalCode::BadPath,
    };
    let facts = match error {
        PathError::NameTooLong { bytes, bytes_max, .. } => {
            Some(limit_facts("name_bytes_max", *bytes_max as u64, *bytes as u64))
        }
        PathError::PathTooLong { bytes, bytes_max } => {
            Some(limit_facts("path_bytes_max", *bytes_max as u64, *bytes as u64))
        }
        _ => None,
    };
    Refusal { facts, ..new(code, error.message(quoting(version))) }
}

/// The facts of a refusal for a limit; `wanted` is 0 where it is not known.
#[must_use]
pub fn limit_facts(limit: &str, maximum: u64, wanted: u64) -> Facts {
    Facts::LimitExceeded(Box::new(LimitExceeded { limit: limit.to_owned(), maximum, wanted }))
}

/// A size, count or length that is beyond a setting of the cell.
#[must_use]
pub fn limit(what: &str, wanted: u64, setting: &str, max: u64) -> Refusal {
    let message = format!("{what}: {wanted}, and the cell's setting {setting} allows {max}");
    Refusal { facts: Some(limit_facts(setting, max, wanted)), ..new(RefusalCode::Limit, message) }
}

/// What is full.
#[derive(Debug)]
pub struct Full<'f> {
    /// What there would be too many of.
    pub what: &'f str,
    /// How many there would be.
    pub wanted: u64,
    /// The setting that limits them.
    pub setting: &'f str,
    /// The setting's value.
    pub max: u64,
    /// So many of `max` are kept for administrators.
    pub reserved: u64,
    /// The share that is, as the cell's setting `reserve_percent` has it.
    pub percent: u64,
}

/// The cell is full: for everybody, or but for what is kept for administrators.
#[must_use]
pub fn full(full: &Full<'_>, for_everybody: bool) -> Refusal {
    let Full { what, wanted, setting, max, reserved, percent } = full;
    let message = if for_everybody {
        format!("the cell is full: {what}: {wanted}, and the cell's setting {setting} allows {max}")
    } else {
        format!(
            "the cell is full: {what}: {wanted}, and the cell's setting {setting} allows {max}, of which {reserved} are \
             kept for administrators (setting reserve_percent: {percent})"
        )
    };
    Refusal { facts: Some(limit_facts(setting, *max, *wanted)), ..new(RefusalCode::Limit, message) }
}

/// A name with a character that names may not have.
#[must_use]
pub fn unprintable(what: &str, codepoint: Codepoint) -> Refusal {
    let message = format!(
        "{what} has the character {codepoint}: control characters, format characters and others that cannot be seen \
         are not taken"
    );
    new(if what == "a path" { RefusalCode::BadPath } else { RefusalCode::Invalid }, message)
}

/// A session that leaves too many bytes of outcomes unacknowledged.
#[must_use]
pub fn outcomes_full(bytes: usize, bytes_max: usize) -> Refusal {
    new(
        RefusalCode::Limit,
        format!(
            "the session's outcomes that are not acknowledged take {bytes} bytes, and {bytes_max} is the most: acknowledge \
             some, then send the request again"
        ),
    )
}

/// The most bytes of a message that is recorded.
const MESSAGE_BYTES_MAX: usize = 400;

/// A refusal whose message is no longer than it may be to be recorded: the middle of a longer one goes, which is the
/// long name that a client has chosen.
#[must_use]
pub fn clipped(mut refusal: Refusal) -> Refusal {
    const TAIL_BYTES_MAX: usize = 160;
    const ELLIPSIS: &str = "\u{2026}";
    let message = &refusal.message;
    if message.len() > MESSAGE_BYTES_MAX {
        let (mut head, mut tail) =
            (MESSAGE_BYTES_MAX - TAIL_BYTES_MAX - ELLIPSIS.len(), message.len() - TAIL_BYTES_MAX);
        while !message.is_char_boundary(head) {
            head -= 1;
        }
        while !message.is_char_boundary(tail) {
            tail += 1;
        }
        refusal.message = format!("{}{ELLIPSIS}{}", &message[..head], &message[tail..]);
    }
    refusal
}

/// A field with a value that it cannot have.
#[must_use]
pub fn invalid(message: impl Into<String>) -> Refusal {
    new(RefusalCode::Invalid, message)
}

/// Something that a client of this protocol does not send.
#[must_use]
pub fn protocol(message: impl Into<String>) -> Refusal {
    new(RefusalCode::Protocol, message)
}

/// A session that ended or never was.
#[must_use]
pub fn unknown_session(session: SessionId) -> Refusal {
    new(
        RefusalCode::UnknownSession,
        format!("there is no session {session}: it ended, or never was; open a new session"),
    )
}

/// A handle that the session does not have.
#[must_use]
pub fn unknown_handle(handle: HandleId) -> Refusal {
    new(
        RefusalCode::UnknownHandle,
        format!(
            "the session has no open handle {handle}: it was closed, or never opened; open the node again"
        ),
    )
}

/// A handle whose node was deleted.
#[must_use]
pub fn node_gone(handle: HandleId, path: &NodePath) -> Refusal {
    new(
        RefusalCode::NodeGone,
        format!("the node {path} that handle {handle} was opened on was deleted; close the handle"),
    )
}

/// A name that no node has, in a directory that exists.
#[must_use]
pub fn not_found(path: &NodePath) -> Refusal {
    new(RefusalCode::NotFound, format!("there is no node {path}"))
}

/// A name that no node can have, because what would be its directory is none.
#[must_use]
pub fn no_parent(path: &NodePath, parent: &NodePath, is_file: bool) -> Refusal {
    let what = if is_file { "is a file" } else { "does not exist" };
    new(
        RefusalCode::NoParent,
        format!("{path} cannot be: {parent} {what}, and the parent of a node must be a directory"),
    )
}

/// A node that is there already.
#[must_use]
pub fn already_exists(path: &NodePath) -> Refusal {
    new(RefusalCode::AlreadyExists, format!("there is a node {path} already, and it must not exist yet"))
}

/// A directory where a file was needed, or the other way round.
#[must_use]
pub fn wrong_kind(path: &NodePath, is: &str, needed: &str) -> Refusal {
    new(RefusalCode::WrongKind, format!("{path} is a {is}, and this needs a {needed}"))
}

/// A generation, or an instance, that is not the present one.
#[must_use]
pub fn generation_mismatch(path: &NodePath, kind: GenerationKind, wanted: u64, is: Revision) -> Refusal {
    let present = is.0;
    let what = match kind {
        GenerationKind::Content => "content generation",
        GenerationKind::Acl => "ACL generation",
        GenerationKind::Instance => "instance",
        GenerationKind::Unspecified => "generation",
    };
    let mismatch = GenerationMismatch { kind: kind.into(), wanted, present };
    let message =
        format!("the {what} of {path} is {present}, not {wanted}: read it again, then decide again");
    Refusal {
        facts: Some(Facts::GenerationMismatch(Box::new(mismatch))),
        ..new(RefusalCode::GenerationMismatch, message)
    }
}

/// A directory that has children.
#[must_use]
pub fn not_empty(path: &NodePath, children: u64) -> Refusal {
    new(RefusalCode::NotEmpty, format!("the directory {path} has children ({children}): delete them first"))
}

/// The root, which stays.
#[must_use]
pub fn is_root() -> Refusal {
    new(RefusalCode::IsRoot, "the root cannot be deleted")
}

/// The directory of the access control lists, which stays.
#[must_use]
pub fn is_directory_of_lists() -> Refusal {
    new(
        RefusalCode::PermissionDenied,
        "the directory /acl cannot be deleted: the cell's access control lists are in it",
    )
}

/// A lock that is not at rest.
#[must_use]
pub fn locked(path: &NodePath, why: &str, conflict: LockConflict) -> Refusal {
    let message = format!("the lock of {path} {why}: a node can be deleted when its lock is free");
    let facts = Some(Facts::LockConflict(Box::new(conflict)));
    Refusal { facts, ..new(RefusalCode::Locked, message) }
}

/// A lock that could not be had at once.
#[must_use]
pub fn lock_conflict(path: &NodePath, mode: Mode, why: &str, conflict: LockConflict) -> Refusal {
    let message = format!("the lock of {path} cannot be had at once ({mode}): it {why}");
    let facts = Some(Facts::LockConflict(Box::new(conflict)));
    Refusal { facts, ..new(RefusalCode::LockConflict, message) }
}

/// A handle that has its lock, or its place in the queue, already.
#[must_use]
pub fn already_locked(handle: HandleId, acquire: RequestNumber, waits: bool) -> Refusal {
    let what = if waits { "waits for the lock" } else { "holds the lock" };
    new(
        RefusalCode::AlreadyLocked,
        format!(
            "handle {handle} {what} already, by request {acquire}; release it first, or open another handle"
        ),
    )
}

/// A handle that has neither.
#[must_use]
pub fn not_locked(handle: HandleId) -> Refusal {
    new(RefusalCode::NotLocked, format!("handle {handle} neither holds its node's lock nor waits for it"))
}

/// A handle that does not hold its node's lock.
#[must_use]
pub fn not_held(handle: HandleId) -> Refusal {
    new(RefusalCode::NotLocked, format!("handle {handle} does not hold its node's lock: acquire it first"))
}

/// A principal whom a list does not let in.
#[must_use]
pub fn permission_denied(principal: &Principal, verb: &str, path: &NodePath, list: &str) -> Refusal {
    new(
        RefusalCode::PermissionDenied,
        format!("{principal} may not {verb} {path}: the access control list /acl/{list} does not name it"),
    )
}

/// A name under a directory that a principal may not look into. It says the same whether or not there is such a node.
#[must_use]
pub fn hidden(principal: &Principal, path: &NodePath, directory: &NodePath, list: &str) -> Refusal {
    new(
        RefusalCode::PermissionDenied,
        format!(
            "{principal} may not know what is at {path}: the access control list /acl/{list} of the directory {directory} \
             does not name it"
        ),
    )
}

/// A session that was opened by somebody else.
#[must_use]
pub fn other_principal(session: SessionId, opened_by: &Principal, principal: &Principal) -> Refusal {
    new(
        RefusalCode::PermissionDenied,
        format!(
            "session {session} was opened by {opened_by}, not by {principal}: open a session of your own"
        ),
    )
}

/// A handle that was not opened for what is asked of it.
#[must_use]
pub fn wrong_use(handle: HandleId, needed: &str) -> Refusal {
    new(
        RefusalCode::WrongUse,
        format!("handle {handle} was not opened to {needed}: open the node for that use"),
    )
}

/// A handle that depends on a sequencer which is not valid.
#[must_use]
pub fn sequencer_invalid(handle: HandleId, why: &str) -> Refusal {
    new(RefusalCode::SequencerInvalid, format!("the sequencer of handle {handle} is not valid: {why}"))
}

/// A request that was withdrawn before it was seen.
#[must_use]
pub fn cancelled(number: RequestNumber, by: RequestNumber) -> Refusal {
    new(
        RefusalCode::Cancelled,
        format!("request {number} was withdrawn by request {by} before it took effect"),
    )
}

/// A request whose outcome the client has said to know.
#[must_use]
pub fn acknowledged(number: RequestNumber) -> Refusal {
    new(
        RefusalCode::Acknowledged,
        format!(
            "request {number} was acknowledged: its outcome is no longer kept, and it is not decided again"
        ),
    )
}
