//! How a failure is told: an exit status for scripts, a sentence for people, one JSON object for programs.
//!
//! The only place that knows exit statuses. `docs/cli.md` and `--help` repeat them; they never change meaning.

use std::fmt;

use holdfast::{Ended, Error, GenerationKind, Mode, RefusalCode, RefusalFacts};
use holdfast_types::{escaped, escaped_json};
use serde_json::json;

/// What `--help` says of exit statuses.
pub(crate) const HELP: &str = "\
Exit status:
  0  done
  1  refused or failed, for a reason that is none of these
  2  the command line is wrong
  3  no such node, list or session
  4  conflict: another generation, exists already, has children, or its lock is held
  5  the cell could not be reached, or did not answer in time
  6  unknown: the request may or may not have taken effect
  7  the sequencer is not valid (check-sequencer)
  8  the access control lists do not allow it

'holdfast lock' passes on the exit status of its command, 128 + n if signal n killed it. Its own are:
  111, 113 to 116  as 1 and 3 to 6 above; the command was not started
  117  the lock was not obtained (--try, --wait)
  118  the lock was lost, and the command stopped
  119  as 8 above; the command was not started
  126, 127  the command could not be run; there is no such command";

/// Why `holdfast` did not do what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any other reason.
    Failed,
    /// What the command line says is no such thing.
    Usage,
    /// No such node.
    NotFound,
    /// The node is not as the request would have it.
    Conflict,
    /// No master answered in time.
    Unreachable,
    /// The request may have taken effect.
    Unknown,
    /// A sequencer is not valid.
    Invalid,
    /// The access control lists do not allow it.
    Denied,
    /// `lock`: somebody else has the lock.
    NotObtained,
    /// `lock`: the lock was lost while the command ran.
    Lost,
    /// `lock`: the command exists and cannot be run.
    CannotRun,
    /// `lock`: there is no such command.
    NoCommand,
}

impl Kind {
    /// What programs read.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Unreachable => "unreachable",
            Self::Unknown => "outcome_unknown",
            Self::Invalid => "invalid_sequencer",
            Self::Denied => "denied",
            Self::NotObtained => "lock_not_obtained",
            Self::Lost => "lock_lost",
            Self::CannotRun => "cannot_run",
            Self::NoCommand => "no_command",
        }
    }

    /// The exit status. `around_a_command`: of a subcommand that otherwise passes a command's on.
    pub(crate) fn exit_status(self, around_a_command: bool) -> u8 {
        let own = match self {
            Self::Failed => 1,
            // As clap's own, around a command, too.
            Self::Usage => return 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Unreachable => 5,
            Self::Unknown => 6,
            Self::Invalid => 7,
            // 118 was taken when there were no access control lists yet.
            Self::Denied if around_a_command => return 119,
            Self::Denied => 8,
            Self::NotObtained => return 117,
            Self::Lost => return 118,
            Self::CannotRun => return 126,
            Self::NoCommand => return 127,
        };
        if around_a_command { 110 + own } else { own }
    }

    /// The kind of an error that came from anywhere.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        for cause in error.chain() {
            if let Some(failure) = cause.downcast_ref::<Failure>() {
                return failure.kind;
            }
            if let Some(error) = cause.downcast_ref::<Error>() {
                return Self::of_library(error);
            }
        }
        Self::Failed
    }

    fn of_library(error: &Error) -> Self {
        match error {
            _ if error.is_outcome_unknown() => Self::Unknown,
            Error::Refused { code, .. } => Self::of_refusal(*code),
            Error::Unavailable { .. } | Error::TimedOut { .. } => Self::Unreachable,
            Error::SessionEnded { ended, .. } => Self::of_end(ended),
            _ => Self::Failed,
        }
    }

    /// The kind of a session's end.
    pub(crate) fn of_end(ended: &Ended) -> Self {
        match ended {
            Ended::Unreachable { .. } | Ended::GraceOver { .. } | Ended::Expired => Self::Unreachable,
            _ => Self::Failed,
        }
    }

    fn of_refusal(code: RefusalCode) -> Self {
        match code {
            RefusalCode::NotFound
            | RefusalCode::NoParent
            | RefusalCode::NodeGone
            | RefusalCode::UnknownSession => Self::NotFound,
            RefusalCode::GenerationMismatch
            | RefusalCode::AlreadyExists
            | RefusalCode::NotEmpty
            | RefusalCode::Locked => Self::Conflict,
            RefusalCode::LockConflict => Self::NotObtained,
            RefusalCode::NotMaster | RefusalCode::Overloaded => Self::Unreachable,
            RefusalCode::OutcomeUnknown => Self::Unknown,
            RefusalCode::SequencerInvalid => Self::Invalid,
            RefusalCode::PermissionDenied => Self::Denied,
            _ => Self::Failed,
        }
    }
}

/// A failure that this program found itself.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
}

impl Failure {
    /// A failure for [`anyhow`], from which [`Kind::of`] finds its kind again.
    pub(crate) fn error(kind: Kind, message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self { kind, message: message.into() })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The line for standard error.
pub(crate) fn describe(error: &anyhow::Error, as_json: bool, around_a_command: bool) -> String {
    let kind = Kind::of(error);
    // `{:#}` adds the causes, each after a colon.
    let message = format!("{error:#}");
    if as_json {
        let status = kind.exit_status(around_a_command);
        let mut fields = json!({ "kind": kind.name(), "message": message, "exit_status": status });
        let refused = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
        if let Some(code) = refused.and_then(Error::refusal) {
            fields["refusal"] = json!(code.as_str_name().trim_start_matches("REFUSAL_CODE_"));
        }
        if let Some(facts) = refused.and_then(Error::facts).and_then(facts_json) {
            fields["facts"] = facts;
        }
        escaped_json(&json!({ "error": fields }).to_string()).into_owned()
    } else {
        format!("holdfast: {}", escaped(&message))
    }
}

/// The facts of a refusal, for programs. `None` for those that this program does not know.
fn facts_json(facts: &RefusalFacts) -> Option<serde_json::Value> {
    match facts {
        RefusalFacts::GenerationMismatch { kind, wanted, present, .. } => {
            let kind = match kind {
                GenerationKind::Content => "content",
                GenerationKind::Acl => "acl",
                GenerationKind::Instance => "instance",
                _ => return None,
            };
            Some(json!({ "generation": kind, "wanted": wanted, "present": present }))
        }
        RefusalFacts::LockConflict { held, holders, waiting, delayed, .. } => {
            let held = held.map(|mode| if mode == Mode::Shared { "shared" } else { "exclusive" });
            Some(json!({ "held": held, "holders": holders, "waiting": waiting, "delayed": delayed }))
        }
        RefusalFacts::LimitExceeded { limit, maximum, wanted, .. } => {
            Some(json!({ "limit": limit, "maximum": maximum, "wanted": wanted }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_kind_is_found_under_any_context() {
        let error = Failure::error(Kind::Lost, "the lock is lost");
        let error = Err::<(), _>(error).context("outer").unwrap_err();
        assert_eq!(Kind::of(&error), Kind::Lost);
        assert_eq!(describe(&error, false, true), "holdfast: outer: the lock is lost");
        assert_eq!(Kind::of(&anyhow::anyhow!("something else")), Kind::Failed);
    }

    #[test]
    fn a_failure_around_a_command_is_not_mistaken_for_the_commands_own() {
        assert_eq!(Kind::NotFound.exit_status(false), 3);
        assert_eq!(Kind::NotFound.exit_status(true), 113);
        for kind in [Kind::NotObtained, Kind::Lost, Kind::NoCommand] {
            assert_eq!(kind.exit_status(false), kind.exit_status(true));
        }
        assert_eq!((Kind::Denied.exit_status(false), Kind::Denied.exit_status(true)), (8, 119));
    }

    #[test]
    fn the_documentation_lists_every_kind_with_its_status() {
        let document = include_str!("../../docs/cli.md");
        for kind in [
            Kind::Failed,
            Kind::Usage,
            Kind::NotFound,
            Kind::Conflict,
            Kind::Unreachable,
            Kind::Unknown,
            Kind::Denied,
            Kind::NotObtained,
            Kind::Lost,
            Kind::CannotRun,
            Kind::NoCommand,
        ] {
            let row = format!("| {} | `{}` |", kind.exit_status(false), kind.name());
            assert!(document.contains(&row), "{row}");
        }
    }

    #[test]
    fn programs_get_one_object_with_the_kind() {
        let error = Failure::error(Kind::Conflict, "it exists\nalready");
        let line = describe(&error, true, false);
        let document: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(document["error"]["kind"], "conflict");
        assert_eq!(document["error"]["exit_status"], 4);
        assert_eq!(line.lines().count(), 1);
    }
}
