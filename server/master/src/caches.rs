//! Who may be caching what, and who has been asked to stop (design.md §6, I5; ADR 0007).
//!
//! A session may cache a node if this master said so in a reply, or if an earlier master may have said so: until it
//! has come back in this term, or ended, it counts as caching every node on which it has a caching handle. Asked to
//! drop something, it may keep it until it acknowledges the notice, re-attaches, or its end is decided. This file knows
//! what is asked of whom and which changes wait for the answer; it sends nothing. Invariant: while a session has not
//! answered for a node, it is not told anew that it may cache that node.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_types::{NodePath, SessionId, Time, planted};

use crate::held::HeldId;

/// What a session is asked to drop.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Copies {
    /// What it keeps of a node.
    Data(NodePath),
    /// That, and that the node can be opened as it was.
    Opens(NodePath),
    /// That nodes can be opened as they were.
    AllOpens,
}

/// A session has been asked, and has not answered.
#[derive(Debug)]
struct Asked {
    /// The notice that asks. None was sent to a session without a stream: it answers by coming back.
    notice: Option<u64>,
    /// When, by the time for which the master was awake.
    at: Time,
    /// The changes that wait for the answer.
    waiting: Vec<HeldId>,
}

/// A session has answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answered {
    /// The changes that waited for that, once for each answer.
    pub(crate) waited: Vec<HeldId>,
    /// When the oldest of what is answered was asked. `None` if nothing was, or if the session had yet to come back to
    /// this master: it may not have known.
    pub(crate) asked_at: Option<Time>,
}

impl Answered {
    fn add(&mut self, asked: Asked) {
        self.waited.extend(asked.waiting);
        self.asked_at = Some(self.asked_at.map_or(asked.at, |at| at.min(asked.at)));
    }
}

/// All sessions' caches, as far as a master must know.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    /// The sessions that were told that they may keep something of a node.
    keepers: BTreeMap<NodePath, BTreeSet<SessionId>>,
    /// The same, by session.
    kept: BTreeMap<SessionId, BTreeSet<NodePath>>,
    /// Sessions that an earlier master had opened, that have caching handles, and that have not come back.
    unreturned: BTreeSet<SessionId>,
    /// What is asked and not answered.
    asked: BTreeMap<SessionId, Questions>,
}

/// What one session is asked and has not answered.
#[derive(Debug, Default)]
struct Questions {
    /// By what it is asked to drop.
    asked: BTreeMap<Copies, Asked>,
    /// What each notice asks for. Of what the session has closed since, it is here still.
    by_notice: BTreeMap<u64, Vec<Copies>>,
}

impl Caches {
    /// A session was opened under an earlier master, and has caching handles.
    pub(crate) fn inherit(&mut self, session: SessionId) {
        if planted!(CachesForgotten) {
            return;
        }
        self.unreturned.insert(session);
    }

    /// Whether any session may cache what this master knows nothing of.
    pub(crate) fn has_unreturned(&self) -> bool {
        !self.unreturned.is_empty()
    }

    /// Whether the session has yet to come back in this term.
    pub(crate) fn is_unreturned(&self, session: SessionId) -> bool {
        self.unreturned.contains(&session)
    }

    /// The sessions that this master told that they may cache the node.
    pub(crate) fn keepers(&self, path: &NodePath) -> impl Iterator<Item = SessionId> {
        self.keepers.get(path).into_iter().flatten().copied()
    }

    /// Notes that the session is being told that it may cache the node. False, and then it must not be told, if it
    /// has yet to answer for that node, or counts as caching `nodes_max` others.
    pub(crate) fn keep(&mut self, session: SessionId, path: &NodePath, nodes_max: usize) -> bool {
        if let Some(Questions { asked, .. }) = self.asked.get(&session)
            && [Copies::Data(path.clone()), Copies::Opens(path.clone())].iter().any(|c| asked.contains_key(c))
        {
            return false;
        }
        let kept = self.kept.get(&session);
        if kept.is_some_and(|paths| paths.contains(path)) {
            return true;
        }
        if kept.map_or(0, BTreeSet::len) >= nodes_max {
            return false;
        }
        self.kept.entry(session).or_default().insert(path.clone());
        self.keepers.entry(path.clone()).or_default().insert(session);
        true
    }

    /// Lets `held` wait for an answer that is awaited already. False if the session has not been asked for that.
    pub(crate) fn join(&mut self, session: SessionId, copies: &Copies, held: HeldId) -> bool {
        let Some(Questions { asked: all, .. }) = self.asked.get_mut(&session) else { return false };
        // Who drops the opens of a node drops its data too.
        let more = match copies {
            Copies::Data(path) => Some(Copies::Opens(path.clone())),
            Copies::Opens(_) | Copies::AllOpens => None,
        };
        let found = if all.contains_key(copies) { Some(copies) } else { more.as_ref() };
        let Some(asked) = found.and_then(|copies| all.get_mut(copies)) else { return false };
        asked.waiting.push(held);
        true
    }

    /// Notes that the session is being asked, by that notice, and that `held` waits for the answer.
    pub(crate) fn ask(
        &mut self,
        at: Time,
        session: SessionId,
        copies: Copies,
        notice: Option<u64>,
        held: HeldId,
    ) {
        let questions = self.asked.entry(session).or_default();
        if let Some(notice) = notice {
            questions.by_notice.entry(notice).or_default().push(copies.clone());
        }
        questions.asked.insert(copies, Asked { notice, at, waiting: vec![held] });
    }

    /// The session has acted on its notices up to this one.
    pub(crate) fn acknowledged(&mut self, session: SessionId, through: u64) -> Answered {
        let Some(questions) = self.asked.get_mut(&session) else { return Answered::default() };
        let (mut answered, mut dropped) = (Answered::default(), Vec::new());
        while let Some(first) = questions.by_notice.first_entry().filter(|first| *first.key() <= through) {
            let (notice, asked_for) = first.remove_entry();
            for copies in asked_for {
                // The session may have answered by a Close, and have been asked anew.
                if questions.asked.get(&copies).is_some_and(|asked| asked.notice == Some(notice)) {
                    questions.asked.remove(&copies).into_iter().for_each(|asked| answered.add(asked));
                    dropped.push(copies);
                }
            }
        }
        if questions.asked.is_empty() {
            self.asked.remove(&session);
        }
        for copies in dropped {
            if let Copies::Data(path) | Copies::Opens(path) = copies {
                self.forget(session, &path);
            }
        }
        answered
    }

    /// The session caches nothing any more of the node: its last caching handle on it is closed, which it had dropped
    /// everything for.
    pub(crate) fn closed(&mut self, session: SessionId, path: &NodePath) -> Answered {
        self.forget(session, path);
        let Some(questions) = self.asked.get_mut(&session) else { return Answered::default() };
        let mut answered = Answered::default();
        for copies in [Copies::Data(path.clone()), Copies::Opens(path.clone())] {
            questions.asked.remove(&copies).into_iter().for_each(|asked| answered.add(asked));
        }
        if questions.asked.is_empty() {
            self.asked.remove(&session);
        }
        answered
    }

    /// The session caches nothing at all any more: it has re-attached, or it is over.
    pub(crate) fn emptied(&mut self, session: SessionId) -> Answered {
        let was_unreturned = self.unreturned.remove(&session);
        for path in self.kept.remove(&session).into_iter().flatten() {
            self.remove_keeper(session, &path);
        }
        let mut answered = Answered::default();
        for asked in self.asked.remove(&session).unwrap_or_default().asked.into_values() {
            answered.add(asked);
        }
        if was_unreturned {
            answered.asked_at = None;
        }
        answered
    }

    fn forget(&mut self, session: SessionId, path: &NodePath) {
        let Some(paths) = self.kept.get_mut(&session) else { return };
        if paths.remove(path) {
            if paths.is_empty() {
                self.kept.remove(&session);
            }
            self.remove_keeper(session, path);
        }
    }

    fn remove_keeper(&mut self, session: SessionId, path: &NodePath) {
        let Some(sessions) = self.keepers.get_mut(path) else { return };
        sessions.remove(&session);
        if sessions.is_empty() {
            self.keepers.remove(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: SessionId = SessionId(1);
    const T: SessionId = SessionId(2);
    const AT: Time = Time::from_millis(5);

    fn path(text: &str) -> NodePath {
        NodePath::from_canonical(text).unwrap()
    }

    fn data(text: &str) -> Copies {
        Copies::Data(path(text))
    }

    #[test]
    fn an_answer_frees_all_who_share_it_and_what_was_kept_is_forgotten() {
        let mut caches = Caches::default();
        assert!(caches.keep(S, &path("/a"), 1) && caches.keep(T, &path("/a"), 1));
        caches.ask(AT, S, data("/a"), Some(3), HeldId(1));
        assert!(caches.join(S, &data("/a"), HeldId(2)));
        assert!(!caches.join(S, &data("/b"), HeldId(2)), "nobody asked for that");
        assert!(!caches.keep(S, &path("/a"), 1), "it has not answered yet");
        assert_eq!(caches.acknowledged(S, 2).waited, []);
        assert_eq!(caches.acknowledged(S, 3).waited, [HeldId(1), HeldId(2)]);
        assert_eq!(caches.keepers(&path("/a")).collect::<Vec<_>>(), [T]);
        assert!(caches.keep(S, &path("/a"), 1));
    }

    #[test]
    fn a_session_keeps_of_no_more_nodes_than_it_may() {
        let mut caches = Caches::default();
        assert!(caches.keep(S, &path("/a"), 2) && caches.keep(S, &path("/b"), 2));
        assert!(!caches.keep(S, &path("/c"), 2));
        assert!(caches.keep(S, &path("/a"), 2), "it keeps that already");
        assert_eq!(caches.closed(S, &path("/a")).waited, []);
        assert!(caches.keep(S, &path("/c"), 2));
        assert!(!caches.keep(T, &path("/a"), 0));
    }

    #[test]
    fn who_drops_the_opens_of_a_node_drops_its_data_and_not_the_other_way_round() {
        let mut caches = Caches::default();
        caches.ask(AT, S, Copies::Opens(path("/a")), Some(1), HeldId(1));
        assert!(caches.join(S, &data("/a"), HeldId(2)));
        caches.ask(AT, S, data("/b"), Some(2), HeldId(3));
        assert!(!caches.join(S, &Copies::Opens(path("/b")), HeldId(4)));
        assert!(!caches.join(S, &Copies::AllOpens, HeldId(4)));
    }

    #[test]
    fn a_session_without_a_stream_answers_by_coming_back() {
        let mut caches = Caches::default();
        caches.inherit(S);
        caches.ask(AT, S, data("/a"), None, HeldId(1));
        assert_eq!(caches.acknowledged(S, u64::MAX), Answered::default());
        let unknowing = Answered { waited: vec![HeldId(1)], asked_at: None };
        assert_eq!(caches.emptied(S), unknowing, "it did not know of this master");
        caches.ask(AT, S, data("/a"), None, HeldId(2));
        assert_eq!(caches.emptied(S), Answered { waited: vec![HeldId(2)], asked_at: Some(AT) });
        assert!(!caches.has_unreturned());
    }

    #[test]
    fn closing_the_last_caching_handle_is_an_answer() {
        let mut caches = Caches::default();
        assert!(caches.keep(S, &path("/a"), 1));
        caches.ask(AT, S, data("/a"), Some(1), HeldId(1));
        assert_eq!(caches.closed(S, &path("/a")).waited, [HeldId(1)]);
        assert_eq!(caches.keepers(&path("/a")).next(), None);
        assert_eq!(caches.acknowledged(S, 1).waited, []);
    }
}
