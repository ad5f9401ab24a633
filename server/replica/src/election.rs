//! When to campaign: after silence, by raft's own timer made deterministic; after a reset or a start, at once
//! (design.md §5, §9).
//!
//! A process that dies resets its connections, and its followers know within a millisecond. Each then forgets
//! it, campaigns after a stagger by rank, and again until somebody leads. Those who still hear the leader refuse
//! the pre-vote, so that a connection which broke by itself does no harm.
//!
//! An election may take longer than the stagger of one rank, on slow machines for example. A replica that has voted for
//! another therefore gives that candidate the time of a candidacy before it campaigns itself; otherwise it would depose the
//! leader that it has just helped to elect. And if a leader is deposed all the same, and campaigns again, its followers hear
//! from its own mouth that it leads no more, and do not wait for its silence.
//!
//! A vote is synced to two disks, one after the other. Where that takes longer than the time between candidacies, each throws
//! away the votes for the one before, and there is no leader, ever. So candidacies grow apart: each round of them that brings
//! no leader doubles the time-outs of all, who see the terms rise alike, until votes can be synced in time.

use holdfast_types::{Duration, ReplicaId, Term, Time};
use raft::StateRole;

use crate::raftpb::{Message, MessageType};
use crate::{Config, Replica};

/// The first campaign after a reset, or a start, comes this soon, plus a stagger by rank.
const STAGGER_BASE: Duration = Duration::from_micros(500);
/// The stagger of one rank: longer than an election takes.
const STAGGER_RANK: Duration = Duration::from_millis(8);
/// A campaign that brought nothing is repeated after this at least.
const REPEAT_MIN: Duration = Duration::from_millis(8);
/// And this much more at most.
const REPEAT_SPREAD_MICROS: u64 = 12_000;
/// The pause doubles with each candidacy that brought no leader, so often at most. A vote is synced to two disks, one
/// after the other; who campaigns again before that throws away the votes that are on their way.
const DOUBLINGS_MAX: u32 = 5;
/// After so long without a leader the quorum is gone, and raft's own slower timer is enough.
const EAGER_MAX: Duration = Duration::from_secs(3);

/// Raft's own time-outs double with each round of candidacies that brings no leader, until they are so many times as long.
pub(crate) const PATIENCE_MAX: usize = 32;

/// Campaigns that are called for by a reset, and how far those that are called for by silence lie apart.
#[derive(Debug)]
pub(crate) struct Election {
    id: ReplicaId,
    seed: u64,
    /// How many times we have drawn.
    drawn: u64,
    /// When to campaign next, while eager.
    next: Option<Time>,
    /// When to stop being eager.
    until: Time,
    /// Raft's term at the last campaign since the leader was lost.
    term: Option<Term>,
    /// How often the term had risen by the next one: a pre-vote had been won, and the vote not.
    candidacies: u32,
    /// The last vote that is known: raft's term, and for whom.
    vote: (Term, u64),
    rounds: Rounds,
}

/// Rounds of candidacies, anybody's, that have brought no leader.
#[derive(Debug, Default)]
struct Rounds {
    /// So many. The candidacies of one election time-out are one round: those that are eager follow fast on each other.
    count: u32,
    /// When the last one was counted.
    at: Time,
    /// Raft's term then, or later.
    term: Term,
}

impl Election {
    pub(crate) fn new(id: ReplicaId, seed: u64) -> Self {
        Self {
            id,
            seed,
            drawn: 0,
            next: None,
            until: Time::ZERO,
            term: None,
            candidacies: 0,
            vote: (Term(0), raft::INVALID_ID),
            rounds: Rounds::default(),
        }
    }

    /// The leader's process seems to have died, or ours has just started. `rank` is our place among the voters
    /// that remain.
    pub(crate) fn no_leader(&mut self, now: Time, rank: usize) {
        let rank = u32::try_from(rank).unwrap_or(u32::MAX).min(16);
        self.next = Some(now + STAGGER_BASE + STAGGER_RANK * rank);
        self.until = now + EAGER_MAX;
        (self.term, self.candidacies) = (None, 0);
    }

    /// Somebody leads.
    pub(crate) fn leader_found(&mut self) {
        self.next = None;
    }

    /// Whether to campaign now, raft being in `term`. If so, the next time is set.
    pub(crate) fn due(&mut self, now: Time, term: Term) -> bool {
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        if self.term.replace(term).is_some_and(|last| term > last) {
            self.candidacies += 1;
        }
        let next = now + self.draw_pause();
        self.next = (next < self.until).then_some(next);
        true
    }

    /// Raft has voted for that replica in its present term. If that is another one, it may win: this replica then campaigns no
    /// sooner than after the pause of a candidacy.
    pub(crate) fn note_vote(&mut self, now: Time, term: Term, replica: u64) {
        let before = std::mem::replace(&mut self.vote, (term, replica));
        let is_anothers = ![raft::INVALID_ID, self.id.0].contains(&replica);
        if self.vote != before && is_anothers && self.next.is_some() {
            let next = now + self.draw_pause();
            self.next = self.next.max(Some(next));
        }
    }

    /// The time that a candidacy is given.
    fn draw_pause(&mut self) -> Duration {
        self.drawn += 1;
        let spread = mix(&[self.seed, self.id.0, self.drawn]) % REPEAT_SPREAD_MICROS;
        (REPEAT_MIN + Duration::from_micros(spread)) * (1 << self.candidacies.min(DOUBLINGS_MAX))
    }

    /// By how much raft's time-outs are longer than `election`, raft being in `term`.
    pub(crate) fn patience(&mut self, now: Time, term: Term, leads: bool, election: Duration) -> usize {
        let rounds = &mut self.rounds;
        if leads {
            rounds.count = 0;
        } else if term > rounds.term && (rounds.count == 0 || now.since(rounds.at) >= election) {
            rounds.count += 1;
            rounds.at = now;
        }
        rounds.term = rounds.term.max(term);
        1_usize
            .checked_shl(rounds.count.saturating_sub(1))
            .map_or(PATIENCE_MAX, |times| times.min(PATIENCE_MAX))
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.next
    }
}

impl Replica {
    /// A connection to `peer` broke. If it led, it may be dead: forget it and campaign. All followers must, or
    /// those that still remember it ignore whoever campaigns (design.md §5).
    pub(crate) fn handle_peer_reset(&mut self, peer: ReplicaId) {
        let raft = &mut self.raw.raft;
        if raft.leader_id != peer.0 || raft.state != StateRole::Follower || peer == self.config.id {
            return;
        }
        let term = raft.term;
        raft.become_follower(term, raft::INVALID_ID);
        self.set_election_timeout();
        self.campaign_eagerly(peer.0, Duration::ZERO);
    }

    /// The leader that this replica follows asks for votes in a later term: it leads no more, and this replica need not wait
    /// until it has been silent for long enough. Until then the replicas that follow it would refuse their votes to every candidate.
    pub(crate) fn forget_deposed(&mut self, message: &Message) {
        let asks_for_votes =
            matches!(message.get_msg_type(), MessageType::MsgRequestPreVote | MessageType::MsgRequestVote);
        let raft = &mut self.raw.raft;
        let is_leaders = raft.leader_id == message.from && raft.state == StateRole::Follower;
        if asks_for_votes && is_leaders && message.term > raft.term {
            let term = raft.term;
            raft.become_follower(term, raft::INVALID_ID);
            self.set_election_timeout();
        }
    }

    /// Campaigns after `wait`, and again until somebody leads; staggered by our rank among the voters without
    /// `lost`.
    pub(crate) fn campaign_eagerly(&mut self, lost: u64, wait: Duration) {
        let mut voters = self.raw.store().conf_state().get_voters().to_vec();
        voters.retain(|voter| *voter != lost);
        voters.sort_unstable();
        if let Some(rank) = voters.iter().position(|voter| *voter == self.config.id.0) {
            self.election.no_leader(self.now + wait, rank);
        }
    }

    /// To be called after whatever may have had raft draw a time-out by chance.
    pub(crate) fn set_election_timeout(&mut self) {
        let Config { seed, id, election_ticks, tick_ms, .. } = self.config;
        let (term, leads) = (Term(self.raw.raft.term), self.raw.raft.leader_id != raft::INVALID_ID);
        self.election.note_vote(self.now, term, self.raw.raft.vote);
        let election = Duration::from_millis(tick_ms * election_ticks as u64);
        let patience = self.election.patience(self.now, term, leads, election);
        let ticks = timeout_ticks(seed, id, term.0, election_ticks * patience);
        self.raw.raft.set_randomized_election_timeout(ticks);
    }
}

/// Raft's election time-out in ticks, from `ticks` to twice that. It must be set after whatever may have drawn
/// one by chance, or runs of one seed differ.
fn timeout_ticks(seed: u64, id: ReplicaId, term: u64, ticks: usize) -> usize {
    let spread = mix(&[seed, id.0, term]) % ticks as u64;
    ticks + usize::try_from(spread).expect("less than ticks")
}

/// SplitMix64 over several numbers: well spread, and the same everywhere.
fn mix(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0x9E37_79B9_7F4A_7C15, |state, number| {
        let mut z = (state ^ number).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_in_rank_campaigns_first_and_again_until_a_leader_is_found() {
        let mut election = Election::new(ReplicaId(2), 7);
        election.no_leader(Time::ZERO, 1);
        assert_eq!(election.next(), Some(Time::from_nanos(8_500_000)));
        assert!(!election.due(Time::from_millis(8), Term(1)));
        assert!(election.due(Time::from_millis(9), Term(1)));
        let again = election.next().unwrap();
        assert!(again >= Time::from_millis(17) && again < Time::from_millis(29), "{again}");
        election.leader_found();
        assert!(!election.due(again, Term(1)));
    }

    #[test]
    fn who_has_voted_for_another_gives_it_the_time_of_a_candidacy() {
        let mut election = Election::new(ReplicaId(2), 7);
        election.note_vote(Time::from_millis(1), Term(1), 1);
        assert_eq!(election.next(), None, "who knows of a leader does not campaign because it has voted");
        election.no_leader(Time::ZERO, 1);
        let first = election.next();
        election.note_vote(Time::from_millis(2), Term(1), 1);
        election.note_vote(Time::from_millis(2), Term(2), raft::INVALID_ID);
        election.note_vote(Time::from_millis(2), Term(2), 2);
        assert_eq!(election.next(), first, "known already, nobody's, and its own");
        election.note_vote(Time::from_millis(7), Term(3), 1);
        let next = election.next().unwrap();
        assert!(next >= Time::from_millis(15) && next < Time::from_millis(27), "{next}");
        election.no_leader(Time::ZERO, 16);
        let later = election.next();
        election.note_vote(Time::from_millis(7), Term(4), 1);
        assert_eq!(election.next(), later, "and it never campaigns sooner for it");
    }

    #[test]
    fn eagerness_ends_when_nobody_can_be_elected() {
        let mut election = Election::new(ReplicaId(2), 7);
        election.no_leader(Time::ZERO, 0);
        let mut campaigns = 0;
        while let Some(next) = election.next() {
            assert!(election.due(next, Term(1)));
            campaigns += 1;
        }
        assert!((100..400).contains(&campaigns), "{campaigns}");
    }

    #[test]
    fn candidacies_that_bring_no_leader_grow_apart_until_one_does() {
        let mut election = Election::new(ReplicaId(2), 7);
        let second = Duration::from_secs(1);
        let mut patience =
            |millis, term, leads| election.patience(Time::from_millis(millis), Term(term), leads, second);
        assert_eq!(patience(0, 5, true), 1);
        assert_eq!(patience(100, 5, false), 1, "the leader is lost");
        assert_eq!(
            [patience(110, 6, false), patience(120, 7, false), patience(900, 9, false)],
            [1; 3],
            "one round"
        );
        assert_eq!(patience(1_500, 9, false), 1, "nobody was a candidate");
        assert_eq!(patience(1_600, 10, false), 2);
        assert_eq!(patience(1_700, 11, false), 2);
        assert_eq!(patience(3_000, 12, false), 4);
        assert_eq!(
            [patience(9_000, 13, false), patience(20_000, 14, false), patience(50_000, 15, false)],
            [8, 16, 32]
        );
        assert_eq!(patience(900_000, 16, false), 32, "at most");
        assert_eq!(patience(900_001, 16, true), 1, "somebody leads");
        assert_eq!(patience(900_002, 17, false), 1, "and is lost");
    }

    #[test]
    fn time_outs_are_in_range_and_differ_between_replicas() {
        let all: Vec<_> = (1..=5).map(|id| timeout_ticks(1, ReplicaId(id), 3, 20)).collect();
        assert!(all.iter().all(|ticks| (20..40).contains(ticks)), "{all:?}");
        assert!(all.iter().any(|ticks| *ticks != all[0]), "{all:?}");
    }
}
