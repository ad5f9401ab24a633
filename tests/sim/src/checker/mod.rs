//! The checkers: one small file each, none of which knows how the world works.
//!
//! They are told facts, with the true time, and say what is broken. Facts about the cell come from the canonical
//! log ([`Checkers::see`]); facts about clients come from the world. Each has tests that show it fail on a
//! history that breaks it.
//!
//! Some know nothing of the log, and judge what any clients recorded, real ones too: [`beliefs`] and [`guards`] (I1),
//! [`resource`] (I2), [`histories`] with [`linear`] and [`register`] (I5), [`counters`] (I6), [`durability`] (I7), [`changes`] (I8).

pub mod answers;
pub mod beliefs;
pub mod changes;
pub mod counters;
pub mod determinism;
pub mod durability;
pub mod exactly_once;
pub mod fencing;
pub mod guards;
pub mod histories;
#[cfg(test)]
mod history;
pub mod lease_safety;
pub mod linear;
pub mod lock_delay;
pub mod mutual_exclusion;
pub mod outcomes;
pub mod past;
pub mod patience;
pub mod progress;
pub mod queue_order;
pub mod reads;
pub mod register;
pub mod resource;
pub mod room;
pub mod unary;
pub mod watch;
pub mod wishes;

use std::sync::{Arc, LazyLock};

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{EndReason, Granted, LockMode, NodeKind, Outcome, outcome};
use holdfast_proto::log::v1::command::Kind;
use holdfast_state::{Effect, State};
use holdfast_types::{HandleId, Mode, Principal, RequestNumber, Revision, Sequencer, SessionId};

use crate::canon::Step;
use crate::clock::TrueTime;
use crate::stats::Stats;
use crate::verdict::{Invariant, Violation};

/// Something that the canonical log did, once.
#[derive(Clone, Debug)]
pub enum Fact<'f> {
    /// A session was opened.
    SessionOpened {
        /// Which.
        session: SessionId,
    },
    /// A session ended.
    SessionEnded {
        /// Which.
        session: SessionId,
        /// Its lease ran out; otherwise its client closed it.
        expired: bool,
    },
    /// A request took effect, for the first time.
    Decided(Decided<'f>),
    /// A queued Acquire was granted.
    LockGranted {
        /// To whom.
        session: SessionId,
        /// And which handle.
        handle: HandleId,
        /// The Acquire.
        number: RequestNumber,
        /// The grant.
        granted: &'f Granted,
    },
    /// A lock-delay began.
    DelayStarted {
        /// On this node.
        path: &'f str,
        /// Its name there.
        loss: Revision,
        /// Its length.
        delay_ms: u32,
    },
    /// A lock-delay ended.
    DelayEnded {
        /// On this node.
        path: &'f str,
        /// Its name there.
        loss: Revision,
    },
}

/// A request that took effect.
#[derive(Clone, Debug)]
pub struct Decided<'f> {
    /// Whose.
    pub session: SessionId,
    /// Which.
    pub number: RequestNumber,
    /// What it asked for.
    pub operation: &'f Operation,
    /// What came of it: no refusal.
    pub result: &'f outcome::Result,
}

/// All that watch the canonical log.
#[derive(Debug, Default)]
pub struct Checkers {
    /// Clocks differ by more than they may: nothing is asked for that is promised by the clock.
    pub clocks_beyond: bool,
    /// I1.
    pub mutual_exclusion: mutual_exclusion::MutualExclusion,
    /// I2.
    pub fencing: fencing::Fencing,
    /// I3.
    pub lease_safety: lease_safety::LeaseSafety,
    /// I4.
    pub lock_delays: lock_delay::LockDelays,
    /// I10, for queues.
    pub queue_order: queue_order::QueueOrder,
    /// I5.
    pub reads: reads::Reads,
    /// I5: what reads are judged by.
    pub past: past::Past,
    /// I5, by search.
    pub histories: histories::Histories,
    /// I6.
    pub exactly_once: exactly_once::ExactlyOnce,
    /// I7.
    pub durability: durability::Durability,
    /// I6, as those see it who count.
    pub counters: counters::Counters,
    /// I6, for sessions.
    pub outcomes: outcomes::Outcomes,
    /// I8.
    pub watches: watch::Watches,
    /// I8, for those who hold what others want.
    pub wishes: wishes::Wishes,
    /// I10, while somebody asks for too much.
    pub patience: patience::Patience,
    /// I10, for the bytes that clients make replicas hold.
    pub room: room::Room,
    /// I10, for unary calls.
    pub unary: unary::Unary,
}

impl Checkers {
    /// Takes in a step of the canonical log. Returns the session that it ended, if it ended one.
    ///
    /// # Errors
    ///
    /// The first thing that is broken.
    pub fn see(
        &mut self,
        step: &Step<'_>,
        now: TrueTime,
        stats: &mut Stats,
    ) -> Result<Option<SessionId>, Violation> {
        let mut ended = None;
        let (mut facts, mut later) = (Vec::new(), Vec::new());
        for effect in step.effects {
            match effect {
                Effect::Replied { session, number, outcome, .. } => {
                    facts.extend(self.decided(step, *session, *number, outcome, stats)?);
                }
                Effect::SessionEnded { session, reason, .. } => {
                    ended = Some(*session);
                    stats.idle += u64::from(*reason == EndReason::Idle);
                    self.outcomes.ended(*session, *reason)?;
                    facts.push(Fact::SessionEnded {
                        session: *session,
                        expired: *reason == EndReason::Expired,
                    });
                }
                // What a departure lets happen comes after it, in whatever order the effects are.
                effect => later.extend(fact(effect)),
            }
        }
        facts.extend(later);
        self.see_command(step)?;
        for fact in &facts {
            self.see_fact(fact, now, stats)?;
            self.fencing.see(fact, step.state.revision(), |text| is_valid(step.state, text))?;
        }
        self.lock_delays.check_begun()?;
        self.reads.see(step);
        self.past.see(step.state);
        self.see_watches(step, &facts);
        self.see_wishes(step, &facts, now);
        self.mutual_exclusion.compare(|path| {
            let stat = step.state.read_stat(&onlooker(), path).ok()?;
            Some((stat.instance, stat.lock.unwrap_or_default()))
        })?;
        Ok(ended)
    }

    /// Shows the watched nodes to the checker of watches.
    fn see_watches(&mut self, step: &Step<'_>, facts: &[Fact<'_>]) {
        let state = step.state;
        if state.revision() != step.before {
            self.watches.see(state.revision(), |path, before| view_of(state, path, before));
            self.watches
                .retain(|session, handle| state.session(session).is_some_and(|open| open.has_handle(handle)));
        }
        for fact in facts {
            if let Fact::Decided(Decided { session, number, operation: Operation::Open(open), .. }) = fact
                && !open.events.is_empty()
            {
                let handle = HandleId(number.0);
                let path = state.session(*session).and_then(|open| open.handle_path(handle));
                if let Some(path) = path.map(ToString::to_string) {
                    let view = view_of(state, &path, None).unwrap_or_default();
                    self.watches.open(*session, handle, open, &path, view);
                }
            }
        }
    }

    /// Shows who is waited for to the checker of wishes.
    fn see_wishes(&mut self, step: &Step<'_>, facts: &[Fact<'_>], now: TrueTime) {
        let (mut of_locks, mut joined) = (false, None);
        for fact in facts {
            match fact {
                Fact::Decided(Decided { session, number, operation: Operation::Open(open), .. }) => {
                    self.wishes.open(*session, HandleId(number.0), open);
                }
                Fact::Decided(Decided { operation: Operation::Acquire(acquire), .. }) => {
                    (of_locks, joined) = (true, Some(acquire.mode()));
                }
                Fact::SessionEnded { session, .. } => {
                    self.wishes.end(*session);
                    of_locks = true;
                }
                Fact::Decided(Decided { operation, .. }) => {
                    of_locks |= matches!(
                        operation,
                        Operation::Release(_) | Operation::Close(_) | Operation::Cancel(_)
                    );
                }
                _ => of_locks = true,
            }
        }
        let held_by = &self.mutual_exclusion;
        if of_locks && !self.wishes.is_empty() {
            self.wishes.see(now, joined, |session, handle| {
                let (_, path) = held_by.held_by(session).find(|(held, _)| *held == handle)?;
                let lock = step.state.read_stat(&onlooker(), path).ok()?.lock?;
                Some((lock.mode(), lock.waiting))
            });
        }
    }

    fn see_fact(&mut self, fact: &Fact<'_>, now: TrueTime, stats: &mut Stats) -> Result<(), Violation> {
        match fact {
            Fact::SessionOpened { .. } => stats.sessions += 1,
            Fact::SessionEnded { expired: true, .. } => stats.expired += 1,
            Fact::DelayStarted { .. } => stats.delays += 1,
            _ => {}
        }
        if let Fact::SessionEnded { session, expired: true } = fact {
            for (handle, path) in self.mutual_exclusion.held_by(*session) {
                self.lock_delays.lost(*session, handle, path);
            }
        }
        self.queue_order.see(fact)?;
        self.mutual_exclusion.see(fact)?;
        self.lease_safety.see(fact, now);
        let in_time = self.lock_delays.see(fact, now);
        if !self.clocks_beyond {
            in_time?;
        }
        self.exactly_once.see(fact)
    }

    /// What can be said of a command before what it did is looked at.
    fn see_command(&mut self, step: &Step<'_>) -> Result<(), Violation> {
        match &step.command.kind {
            Some(Kind::OpenSession(open)) => {
                for effect in step.effects {
                    if let Effect::SessionOpened { session, repeated: false, .. } = effect {
                        self.exactly_once.opened(&open.secret, *session)?;
                    }
                }
                Ok(())
            }
            Some(Kind::ReapNode(reap))
                if step.state.revision() != step.before && self.queue_order.is_open(reap.instance) =>
            {
                let what = format!("{} was reaped while somebody had it open", reap.path);
                Err(Violation::new(Invariant::Linearizability, what))
            }
            _ => Ok(()),
        }
    }

    /// The fact that a request took effect, if it did so now.
    fn decided<'s>(
        &mut self,
        step: &Step<'s>,
        session: SessionId,
        number: RequestNumber,
        outcome: &'s Outcome,
        stats: &mut Stats,
    ) -> Result<Option<Fact<'s>>, Violation> {
        let Some(Kind::Request(request)) = &step.command.kind else { return Ok(None) };
        let Some(operation) = request.request.as_ref().and_then(|request| request.operation.as_ref()) else {
            return Ok(None);
        };
        let changed = step.state.revision() != step.before;
        if !self.exactly_once.decide(session, number, outcome, changed)? {
            stats.repeated += 1;
            return Ok(None);
        }
        Ok(match &outcome.result {
            None | Some(outcome::Result::Refusal(_)) => None,
            Some(result) => Some(Fact::Decided(Decided { session, number, operation, result })),
        })
    }
}

/// An effect as a fact, apart from those that need the command too.
fn fact(effect: &Effect) -> Option<Fact<'_>> {
    match effect {
        Effect::SessionOpened { session, repeated: false, .. } => {
            Some(Fact::SessionOpened { session: *session })
        }
        Effect::LockGranted { session, grant } => Some(Fact::LockGranted {
            session: *session,
            handle: HandleId(grant.handle),
            number: RequestNumber(grant.number),
            granted: grant.granted.as_ref()?,
        }),
        Effect::DelayStarted(delay) => {
            Some(Fact::DelayStarted { path: delay.path.as_str(), loss: delay.loss, delay_ms: delay.delay_ms })
        }
        Effect::DelayEnded { path, loss } => Some(Fact::DelayEnded { path: path.as_str(), loss: *loss }),
        _ => None,
    }
}

/// Who may read everything: every access control list of a run names it.
pub const ONLOOKER: &str = "onlooker";

pub(crate) fn onlooker() -> Principal {
    static PARSED: LazyLock<Principal> =
        LazyLock::new(|| Principal::parse(ONLOOKER).expect("a principal's name"));
    PARSED.clone()
}

/// Whether an operation changes nothing, and so is in no log.
pub(crate) fn is_read(operation: &Operation) -> bool {
    use Operation::{CheckSequencer, GetContents, GetSequencer, GetStat, ReadDir};
    matches!(operation, GetContents(_) | GetStat(_) | ReadDir(_) | GetSequencer(_) | CheckSequencer(_))
}

/// Whether a sequencer is valid at a state: by what the state shows of the node, not by its own judgement.
pub(crate) fn is_valid(state: &State, text: &str) -> bool {
    let Ok(sequencer) = text.parse::<Sequencer>() else { return false };
    let Ok(path) = state.parse_path(&sequencer.name) else { return false };
    let Ok(stat) = state.read_stat(&onlooker(), path.as_str()) else { return false };
    let held = match stat.lock.unwrap_or_default().mode() {
        LockMode::Exclusive => Some(Mode::Exclusive),
        LockMode::Shared => Some(Mode::Shared),
        LockMode::Unspecified => None,
    };
    held == Some(sequencer.mode)
        && (stat.instance, stat.lock_generation) == (sequencer.instance, sequencer.generation)
}

/// What a node is like. What it was like before saves reading its children again.
fn view_of(state: &State, path: &str, before: Option<&watch::View>) -> Option<watch::View> {
    let stat = state.read_stat(&onlooker(), path).ok()?;
    let same = |view: &&watch::View| {
        (view.stat.instance, view.stat.children_generation) == (stat.instance, stat.children_generation)
    };
    let children = match before.filter(same) {
        Some(view) => Arc::clone(&view.children),
        None if stat.kind() == NodeKind::Directory => {
            let directory = state.read_dir(&onlooker(), path, "", 0);
            Arc::new(directory.map(|directory| directory.entries).unwrap_or_default())
        }
        None => Arc::default(),
    };
    Some(watch::View { stat, children })
}
