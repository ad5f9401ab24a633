//! What is the replica's own part: office, persistence, snapshots, membership; with three of them on a table.
//!
//! The simulator attacks the same machines with faults.

mod caching;
mod disks;
mod large_writes;
mod table;
mod turns;
mod versions;

use std::collections::BTreeSet;

use bytes::Bytes;
use holdfast_proto::client::v1::{self as client, RefusalCode, client_frame, outcome, server_frame};
use holdfast_replica::{CallAnswer, CallRequest, Config, Input, Output, raftpb};
use holdfast_types::ledger::{Ledger, LedgerLimits};
use holdfast_types::{ConnectionId, Duration, Principal, ReplicaId};

use table::{Cell, Disk, defaults, eager_snapshots, joiner, open_frame};

#[test]
fn a_cell_elects_a_master_which_writes_to_all() {
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    cell.put(master, 1, "/a", "hello".into());
    assert!(matches!(cell.answer(master, 1), Some(Ok(CallAnswer::SetContents(_)))));
    cell.pass(Duration::from_millis(300));
    let hashes: BTreeSet<u64> = cell.hosts.values().map(|host| host.replica.state().hash()).collect();
    assert_eq!(hashes.len(), 1, "all replicas have the same state");
    assert!(cell.host(master).replica.state().read_contents(&Principal::anonymous(), "/a").is_ok());
}

#[test]
fn what_is_not_on_a_quorums_disks_is_not_acknowledged() {
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    for other in cell.others(master) {
        cell.host_mut(other).slow = true;
    }
    cell.put(master, 1, "/a", "hello".into());
    assert_eq!(cell.answer(master, 1), None, "the master's own disk is no quorum");
    let other = cell.others(master)[0];
    cell.host_mut(other).slow = false;
    cell.settle();
    assert!(matches!(cell.answer(master, 1), Some(Ok(_))));
}

#[test]
fn a_dead_masters_connections_are_enough_to_replace_it_within_milliseconds() {
    let mut cell = Cell::new(defaults);
    let old = cell.elect();
    let began = cell.now;
    cell.crash(old);
    let new = cell.elect();
    assert_ne!(new, old);
    let gap = cell.now.since(began);
    assert!(gap <= Duration::from_millis(30), "virtual time, so this is exact: {gap:?}");
}

#[test]
fn a_disk_slower_than_the_pause_between_campaigns_does_not_keep_a_dead_master_from_being_replaced() {
    for sync_ms in [5, 15, 30, 60] {
        let mut cell = Cell::new(defaults);
        cell.sync = Duration::from_millis(sync_ms);
        let old = cell.elect();
        cell.pass(Duration::from_secs(1));
        let began = cell.now;
        cell.crash(old);
        let new = cell.elect();
        assert_ne!(new, old);
        let gap = cell.now.since(began);
        assert!(gap <= Duration::from_millis(800), "syncs of {sync_ms} ms: {gap:?}");
    }
}

#[test]
fn a_reset_without_a_death_deposes_nobody() {
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    let term = cell.host(master).replica.term();
    let other = cell.others(master)[0];
    cell.input(other, Input::PeerReset { peer: master });
    cell.pass(Duration::from_millis(500));
    assert!(cell.host(master).replica.is_master());
    assert_eq!(cell.host(master).replica.term(), term);
}

#[test]
fn a_leader_that_asks_for_votes_is_forgotten_by_those_that_followed_it() {
    use protobuf::Message as _;
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    cell.pass(Duration::from_millis(500));
    let (follower, stranger) = (cell.others(master)[0], cell.others(master)[1]);
    let term = cell.host(master).replica.term();
    for (from, is_forgotten) in [(stranger, false), (master, true)] {
        let mut ask = raftpb::Message::default();
        ask.set_msg_type(raftpb::MessageType::MsgRequestPreVote);
        (ask.from, ask.to, ask.term) = (from.0, follower.0, term.0 + 1);
        (ask.index, ask.log_term) = (cell.host(follower).replica.applied_index() + 1, term.0);
        let messages = vec![ask.write_to_bytes().expect("encodes").into()];
        cell.input(follower, Input::Peer { from, messages });
        let known = cell.host(follower).replica.status().master;
        assert_eq!(known == 0, is_forgotten, "{from} asks, and {known} is known");
    }
}

#[test]
fn a_master_that_is_cut_off_grants_no_lease_and_its_calls_have_no_outcome() {
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    let connection = ConnectionId(1);
    cell.frame(master, connection, open_frame("s"));
    cell.settle();
    cell.host_mut(master).frames.clear();
    cell.isolate(master);
    let keep_alive = Some(client::KeepAlive { number: 1 });
    let frame = client::ClientFrame { keep_alive, ..client::ClientFrame::default() };
    cell.frame(master, connection, frame);
    cell.put(master, 1, "/a", "lost?".into());
    cell.call(master, 2, CallRequest::GetSettings);
    // The others elect one of theirs, and the old master steps down for want of a quorum.
    cell.pass(Duration::from_secs(5));
    assert!(!cell.host(master).replica.is_master());
    let frames = &cell.host(master).frames;
    assert!(frames.iter().all(|(_, frame)| frame.lease.is_none()), "no lease without a round");
    let refused = frames.iter().any(|(_, f)| matches!(f.hello, Some(server_frame::Hello::Refused(_))));
    assert!(refused, "the stream is told to go elsewhere");
    assert_eq!(cell.answer(master, 1), Some(Err(RefusalCode::OutcomeUnknown)));
    assert_eq!(cell.answer(master, 2), Some(Err(RefusalCode::NotMaster)));
    let new = cell.elect();
    assert_ne!(new, master);
    // Back again, its write was never committed by its successor.
    cell.cut.clear();
    cell.pass(Duration::from_secs(1));
    for host in cell.hosts.values() {
        assert!(host.replica.state().read_contents(&Principal::anonymous(), "/a").is_err());
    }
}

#[test]
fn what_comes_while_no_master_is_known_waits_for_one() {
    let mut cell = Cell::new(defaults);
    let connection = ConnectionId(9);
    for id in 1..=3 {
        cell.frame(ReplicaId(id), connection, open_frame("s"));
        cell.call(ReplicaId(id), 1, CallRequest::GetSettings);
        assert_eq!(cell.answer(ReplicaId(id), 1), None);
    }
    let master = cell.elect();
    cell.pass(Duration::from_millis(300));
    for id in (1..=3).map(ReplicaId) {
        let hello = cell.host(id).frames.iter().find_map(|(_, frame)| frame.hello.clone());
        if id == master {
            assert!(matches!(hello, Some(server_frame::Hello::Opened(_))), "{hello:?}");
            assert!(matches!(cell.answer(id, 1), Some(Ok(CallAnswer::Settings(_)))));
        } else {
            let Some(server_frame::Hello::Refused(refused)) = hello else { panic!("{hello:?}") };
            assert_eq!(refused.master_address, format!("c{}:1", master.0));
            assert_eq!(cell.answer(id, 1), Some(Err(RefusalCode::NotMaster)));
        }
    }
}

#[test]
fn a_call_that_waits_for_a_master_in_vain_is_refused_and_never_done() {
    let mut cell = Cell::new(defaults);
    let id = ReplicaId(1);
    cell.isolate(id);
    cell.put(id, 1, "/late", "x".into());
    cell.pass(Duration::from_secs(9));
    assert_eq!(cell.answer(id, 1), None);
    cell.pass(Duration::from_secs(2));
    assert_eq!(cell.answer(id, 1), Some(Err(RefusalCode::NotMaster)));
    cell.cut.clear();
    let master = cell.elect();
    assert!(cell.host(master).replica.state().read_contents(&Principal::anonymous(), "/late").is_err());
}

#[test]
fn all_replicas_come_back_with_everything_acknowledged() {
    let mut cell = Cell::new(eager_snapshots);
    let master = cell.elect();
    for call in 0..50 {
        cell.put(master, call, &format!("/f{call}"), vec![7; 100].into());
        assert!(matches!(cell.answer(master, call), Some(Ok(_))));
    }
    assert!(cell.host(master).snapshots_written > 0, "snapshots were due");
    let hash = cell.host(master).replica.state().hash();
    let disks: Vec<_> = (1..=3).map(|id| cell.crash(ReplicaId(id))).collect();
    for (id, disk) in (1..=3).zip(disks) {
        cell.start(ReplicaId(id), disk);
    }
    let master = cell.elect();
    assert_eq!(cell.host(master).replica.state().hash(), hash);
}

/// Writes more than the log is kept for under [`eager_snapshots`].
fn put_many(cell: &mut Cell, master: ReplicaId) {
    for call in 0..100 {
        cell.put(master, call, &format!("/f{call}"), vec![7; 100].into());
    }
}

#[test]
fn a_replica_that_was_away_longer_than_the_log_is_kept_catches_up_by_snapshot() {
    let mut cell = Cell::new(eager_snapshots);
    let master = cell.elect();
    let away = cell.others(master)[0];
    let disk = cell.crash(away);
    put_many(&mut cell, master);
    cell.start(away, disk);
    cell.pass(Duration::from_secs(2));
    assert!(cell.host(master).snapshots_sent > 0);
    let hash = cell.host(master).replica.state().hash();
    assert_eq!(cell.host(away).replica.state().hash(), hash);
}

#[test]
fn what_became_of_an_earlier_transfer_says_nothing_of_the_present_one() {
    let mut cell = Cell::new(eager_snapshots);
    let master = cell.elect();
    let to = cell.others(master)[0];
    let disk = cell.crash(to);
    put_many(&mut cell, master);
    cell.host_mut(master).on_its_way = Some(0);
    cell.start(to, disk);
    cell.pass(Duration::from_secs(1));
    assert_eq!(cell.host(master).snapshots_sent, 1);
    let index = cell.host(master).on_its_way.expect("it stays on its way");
    cell.input(master, Input::SnapshotSent { to, index: index - 1, ok: false });
    cell.pass(Duration::from_secs(1));
    assert_eq!(cell.host(master).snapshots_sent, 1, "one is on its way");
    cell.host_mut(master).on_its_way = None;
    cell.input(master, Input::SnapshotSent { to, index, ok: false });
    cell.pass(Duration::from_secs(1));
    assert_eq!(cell.host(master).snapshots_sent, 2);
    let hash = cell.host(master).replica.state().hash();
    assert_eq!(cell.host(to).replica.state().hash(), hash);
}

#[test]
fn a_replica_that_has_just_installed_a_snapshot_can_campaign() {
    let mut cell = Cell::new(eager_snapshots);
    let master = cell.elect();
    let away = cell.others(master)[0];
    let disk = cell.crash(away);
    put_many(&mut cell, master);
    cell.start(away, disk);
    // The master dies while the snapshot is on its way to the disk, and nothing has been applied after it.
    cell.host_mut(away).slow = true;
    cell.pass(Duration::from_secs(1));
    assert!(cell.host(master).snapshots_sent > 0);
    let hash = cell.host(master).replica.state().hash();
    cell.crash(master);
    cell.pass(Duration::from_secs(3));
    cell.host_mut(away).slow = false;
    let new = cell.elect();
    assert_eq!(cell.host(new).replica.state().hash(), hash);
    assert_eq!(cell.host(away).replica.state().hash(), hash);
}

#[test]
fn a_replica_whose_disk_is_not_done_with_a_snapshot_takes_no_other_one_meanwhile() {
    let mut cell = Cell::new(eager_snapshots);
    let master = cell.elect();
    let away = cell.others(master)[0];
    let disk = cell.crash(away);
    put_many(&mut cell, master);
    cell.start(away, disk);
    cell.host_mut(away).slow = true;
    cell.pass(Duration::from_secs(1));
    for call in 100..1_000 {
        cell.put(master, call, "/f0", vec![8; 100].into());
    }
    cell.pass(Duration::from_secs(5));
    assert!(cell.host(master).snapshots_sent > 1, "the master sends what is newer");
    assert_eq!(cell.host(away).installs, 1);
    cell.host_mut(away).slow = false;
    cell.pass(Duration::from_secs(5));
    let hash = cell.host(master).replica.state().hash();
    assert_eq!(cell.host(away).replica.state().hash(), hash, "and it catches up in the end");
}

#[test]
fn a_stop_in_the_normal_way_hands_over_first() {
    let mut cell = Cell::new(defaults);
    let old = cell.elect();
    let began = cell.now;
    cell.input(old, Input::HandOver);
    cell.settle();
    assert!(cell.host(old).handed_over);
    assert!(!cell.host(old).replica.is_master());
    let new = cell.elect();
    assert_ne!(new, old);
    assert!(cell.now.since(began) <= Duration::from_millis(20), "nobody had to time out");
}

#[test]
fn a_stop_hands_over_even_when_raft_has_just_forgotten_whom_it_heard() {
    for stop_ms in (0..1100).step_by(10) {
        let mut cell = Cell::new(defaults);
        let old = cell.elect();
        cell.pass(Duration::from_millis(stop_ms));
        // What the others answer to the last heartbeats is lost.
        for other in cell.others(old) {
            cell.cut.insert((other, old));
        }
        cell.pass(Duration::from_millis(60));
        cell.cut.clear();
        cell.input(old, Input::HandOver);
        cell.pass(Duration::from_millis(1));
        assert!(cell.host(old).handed_over && !cell.host(old).replica.is_master(), "after {stop_ms} ms");
    }
}

#[test]
fn a_learner_that_has_died_is_not_promoted() {
    let mut cell = Cell::new(eager_snapshots);
    let master = cell.elect();
    cell.call(master, 1, CallRequest::AddMember(joiner(4)));
    cell.start(ReplicaId(4), Disk::default());
    cell.pass(Duration::from_secs(3));
    cell.crash(ReplicaId(4));
    cell.pass(Duration::from_millis(2500));
    let other = cell.others(master)[0];
    cell.crash(other);
    cell.call(master, 2, CallRequest::PromoteMember(ReplicaId(4)));
    assert_eq!(cell.answer(master, 2), Some(Err(RefusalCode::Membership)));
    // Two of three still agree; two of four could not.
    cell.put(master, 3, "/a", "x".into());
    assert!(matches!(cell.answer(master, 3), Some(Ok(_))));
}

#[test]
fn what_waits_for_a_master_is_kept_in_the_ledger_empty_frames_too_and_refused_beyond() {
    const ROOM: usize = 64 << 10;
    let mut cell = Cell::new(defaults);
    cell.ledger = Ledger::new(LedgerLimits { total_bytes_max: ROOM, ..LedgerLimits::NONE });
    let (id, connection) = (ReplicaId(1), ConnectionId(1));
    cell.frame(id, connection, open_frame("s"));
    let mut most = 0;
    for _ in 0..1_000 {
        cell.frame(id, connection, client::ClientFrame::default());
        most = most.max(cell.ledger.kept());
    }
    // Each frame has an account of its own here, and so keeps little.
    assert!((ROOM / 2..=ROOM / 4 * 3).contains(&most), "{most} bytes");
    assert_eq!((cell.ledger.held(), cell.ledger.kept()), (0, 0), "the stream has ended");
    let refused = std::iter::from_fn(|| cell.next_output(id)).find_map(|output| match output {
        Output::Frame { frame, .. } => frame.hello,
        _ => None,
    });
    let Some(server_frame::Hello::Refused(refused)) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.refusal.expect("says why").code(), RefusalCode::Overloaded);
}

#[test]
fn a_lost_replica_is_replaced_under_a_new_id_while_the_cell_works() {
    let mut cell = Cell::new(eager_snapshots);
    let master = cell.elect();
    for call in 0..20 {
        cell.put(master, call, &format!("/f{call}"), vec![7; 100].into());
    }
    let lost = cell.others(master)[0];
    cell.crash(lost);
    let refused = |cell: &Cell, call| cell.answer(master, call) == Some(Err(RefusalCode::Membership));
    cell.call(master, 100, CallRequest::AddMember(joiner(lost.0)));
    assert!(refused(&cell, 100), "an id that is in use");
    let newcomer = ReplicaId(4);
    cell.call(master, 101, CallRequest::AddMember(joiner(4)));
    assert_eq!(cell.answer(master, 101), Some(Ok(CallAnswer::Membership)));
    cell.call(master, 102, CallRequest::PromoteMember(newcomer));
    assert!(refused(&cell, 102), "it has not caught up");
    cell.start(newcomer, Disk::default());
    cell.pass(Duration::from_secs(3));
    cell.call(master, 103, CallRequest::PromoteMember(newcomer));
    assert_eq!(cell.answer(master, 103), Some(Ok(CallAnswer::Membership)));
    cell.call(master, 104, CallRequest::RemoveMember(lost));
    assert_eq!(cell.answer(master, 104), Some(Ok(CallAnswer::Membership)));
    cell.call(master, 105, CallRequest::AddMember(joiner(lost.0)));
    assert!(refused(&cell, 105), "a removed id is never used again");
    // The newcomer's vote counts: with one of the first three gone it is needed.
    let other = cell.others(master).into_iter().find(|id| *id != newcomer).expect("one is left");
    cell.crash(other);
    cell.put(master, 106, "/after", "x".into());
    assert!(matches!(cell.answer(master, 106), Some(Ok(_))));
    // Taking one more away would leave nobody to agree with.
    cell.pass(Duration::from_millis(1500));
    cell.call(master, 107, CallRequest::RemoveMember(newcomer));
    assert!(refused(&cell, 107), "{:?}", cell.answer(master, 107));
    let hash = cell.host(master).replica.state().hash();
    assert_eq!(cell.host(newcomer).replica.state().hash(), hash);
}

#[test]
fn a_master_that_is_to_be_removed_hands_over_and_its_successor_removes_it() {
    let mut cell = Cell::new(defaults);
    let old = cell.elect();
    cell.pass(Duration::from_millis(300));
    cell.call(old, 1, CallRequest::RemoveMember(old));
    assert_eq!(cell.answer(old, 1), Some(Err(RefusalCode::NotMaster)));
    assert_eq!(cell.host(old).master_address, "", "it is not sent back here");
    let new = cell.elect();
    assert_ne!(new, old);
    cell.call(new, 2, CallRequest::RemoveMember(old));
    assert_eq!(cell.answer(new, 2), Some(Ok(CallAnswer::Membership)));
    cell.crash(old);
    cell.put(new, 3, "/a", "x".into());
    assert!(matches!(cell.answer(new, 3), Some(Ok(_))));
}

#[test]
fn forwarded_proposals_and_reads_of_other_replicas_are_dropped() {
    use protobuf::Message as _;
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    let other = cell.others(master)[0];
    let revision = cell.host(master).replica.state().revision();
    let applied = cell.host(master).replica.applied_index();
    for kind in [raftpb::MessageType::MsgPropose, raftpb::MessageType::MsgReadIndex] {
        let mut message = raftpb::Message::default();
        message.set_msg_type(kind);
        (message.from, message.to) = (other.0, master.0);
        message.set_entries(vec![raftpb::Entry { data: "junk".into(), ..raftpb::Entry::default() }].into());
        let bytes: Bytes = message.write_to_bytes().expect("encodes").into();
        let garbage = Bytes::from_static(b"\xff\xff not raft");
        cell.input(master, Input::Peer { from: other, messages: vec![bytes, garbage] });
        cell.settle();
    }
    assert_eq!(cell.host(master).replica.applied_index(), applied);
    assert_eq!(cell.host(master).replica.state().revision(), revision);
}

#[test]
fn what_comes_under_another_s_name_stops_nobody() {
    use protobuf::Message as _;
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    let others = cell.others(master);
    // From the master itself, it would say that this replica has lost what it had.
    let mut heartbeat = raftpb::Message::default();
    heartbeat.set_msg_type(raftpb::MessageType::MsgHeartbeat);
    (heartbeat.from, heartbeat.to) = (master.0, others[0].0);
    (heartbeat.term, heartbeat.commit) = (cell.host(master).replica.term().0, 1_000);
    let messages = vec![heartbeat.write_to_bytes().expect("encodes").into()];
    cell.input(others[0], Input::Peer { from: others[1], messages });
    cell.put(master, 1, "/a", "hello".into());
    assert!(matches!(cell.answer(master, 1), Some(Ok(_))));
}

#[test]
fn a_master_deposed_by_a_candidate_that_cannot_win_is_replaced_without_a_time_out() {
    use protobuf::Message as _;
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    // One of the others misses an entry, and campaigns all the same.
    let behind = cell.others(master)[0];
    cell.cut.insert((master, behind));
    cell.put(master, 1, "/a", "hello".into());
    let mut campaign = raftpb::Message::default();
    campaign.set_msg_type(raftpb::MessageType::MsgTimeoutNow);
    (campaign.from, campaign.to, campaign.term) = (master.0, behind.0, cell.host(master).replica.term().0);
    let began = cell.now;
    let messages = vec![campaign.write_to_bytes().expect("encodes").into()];
    cell.input(behind, Input::Peer { from: master, messages });
    cell.settle();
    assert!(
        !cell.hosts.values().any(|host| host.replica.is_master()),
        "it is deposed, and nobody is elected"
    );
    cell.cut.clear();
    cell.elect();
    let gap = cell.now.since(began);
    assert!(gap <= Duration::from_millis(200), "virtual time, so this is exact: {gap:?}");
}

#[test]
fn a_session_lives_through_its_masters_death_and_its_retry_takes_effect_once() {
    let mut cell = Cell::new(defaults);
    let old = cell.elect();
    let connection = ConnectionId(1);
    cell.frame(old, connection, open_frame("s"));
    cell.settle();
    let opened = cell.host(old).frames.iter().find_map(|(_, frame)| match &frame.hello {
        Some(server_frame::Hello::Opened(opened)) => Some(opened.session),
        _ => None,
    });
    let session = opened.expect("the session is open");
    let create = client::Open {
        path: "/once".to_owned(),
        creation: client::Creation::Must.into(),
        ..client::Open::default()
    };
    let operation = Some(client::request::Operation::Open(Box::new(create)));
    let request = client::Request { number: 1, operation };
    let frame = client::ClientFrame { requests: vec![request.clone()], ..client::ClientFrame::default() };
    cell.frame(old, connection, frame);
    cell.settle();
    cell.crash(old);
    let new = cell.elect();
    let attach = client::AttachSession {
        cell: "dev".to_owned(),
        session,
        secret: "s".repeat(16).into(),
        attachment: 2,
        ..client::AttachSession::default()
    };
    let frame = client::ClientFrame {
        hello: Some(client_frame::Hello::Attach(attach)),
        requests: vec![request],
        ..client::ClientFrame::default()
    };
    cell.frame(new, ConnectionId(2), frame);
    cell.settle();
    let reply = cell.host(new).frames.iter().flat_map(|(_, frame)| &frame.replies).next();
    let result = reply.and_then(|reply| reply.outcome.clone()).and_then(|outcome| outcome.result);
    let Some(outcome::Result::Opened(opened)) = result else { panic!("{result:?}") };
    assert!(opened.created, "the recorded outcome, not a second try's");
}

#[test]
fn only_those_who_may_administer_the_cell_change_its_membership() {
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    let bootstrap_principal = "root".to_owned();
    let settings = Some(client::Settings { bootstrap_principal, ..client::Settings::default() });
    let change = client::ChangeSettingsRequest { settings, force: true };
    cell.call(master, 1, CallRequest::ChangeSettings(change));
    cell.call(master, 2, CallRequest::AddMember(joiner(4)));
    assert_eq!(cell.answer(master, 2), Some(Err(RefusalCode::PermissionDenied)));
    let root = Principal::parse("root").expect("a name");
    cell.call_as(root, master, 3, CallRequest::AddMember(joiner(4)));
    assert_eq!(cell.answer(master, 3), Some(Ok(CallAnswer::Membership)));
}

/// Three replicas whose bootstrap principal nobody can be, started anew, each with what `config` makes of its set-up.
fn locked_out(config: fn(Config) -> Config) -> Cell {
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    let bootstrap_principal = "typo".to_owned();
    let settings = Some(client::Settings { bootstrap_principal, ..client::Settings::default() });
    let change = client::ChangeSettingsRequest { settings, force: true };
    cell.call(master, 1, CallRequest::ChangeSettings(change));
    cell.pass(Duration::from_millis(300));
    cell.config = config;
    let ids: Vec<_> = cell.hosts.keys().copied().collect();
    let disks: Vec<_> = ids.into_iter().map(|id| (id, cell.crash(id))).collect();
    for (id, disk) in disks {
        cell.start(id, disk);
    }
    cell
}

fn bootstrap(cell: &Cell, id: ReplicaId) -> String {
    cell.host(id).replica.state().settings().bootstrap_principal.clone()
}

fn override_with_root(config: Config) -> Config {
    let override_bootstrap_principal = Some(Principal::parse("root").expect("a name"));
    Config { override_bootstrap_principal, ..config }
}

fn override_on_the_third(config: Config) -> Config {
    if config.id == ReplicaId(3) { override_with_root(config) } else { config }
}

#[test]
fn the_first_master_that_was_started_so_has_the_log_name_another_bootstrap_principal_once() {
    let mut cell = locked_out(override_with_root);
    let master = cell.elect();
    cell.pass(Duration::from_millis(300));
    for id in 1..=3 {
        assert_eq!(bootstrap(&cell, ReplicaId(id)), "root", "by the log, so on every replica");
    }
    // The administrator is back in, and names another one: that stays, for as long as this master's process lives.
    let settings =
        Some(client::Settings { bootstrap_principal: "ops".into(), ..client::Settings::default() });
    let change = client::ChangeSettingsRequest { settings, force: true };
    cell.call_as(Principal::parse("root").expect("a name"), master, 2, CallRequest::ChangeSettings(change));
    cell.pass(Duration::from_millis(300));
    assert_eq!(bootstrap(&cell, master), "ops");
    cell.put(master, 3, "/a", "another entry".into());
    cell.pass(Duration::from_millis(300));
    assert_eq!(bootstrap(&cell, master), "ops", "once");
}

#[test]
fn a_replica_that_is_not_master_overrides_nothing_and_forgets_it_after_a_while() {
    let mut cell = locked_out(override_on_the_third);
    // Cut off, it cannot become master, nor change anything by itself.
    cell.isolate(ReplicaId(3));
    let master = cell.elect();
    assert_ne!(master, ReplicaId(3));
    cell.pass(Duration::from_millis(300));
    assert_eq!(bootstrap(&cell, master), "typo");
    assert_ne!(bootstrap(&cell, ReplicaId(3)), "root", "its own state is the log's, as far as it knows that");
    cell.pass(holdfast_replica::OVERRIDE_FOR);
    cell.cut.clear();
    cell.pass(Duration::from_secs(3));
    // Only the second is left to be master beside it, and hands over.
    cell.isolate(ReplicaId(1));
    for _ in 0..40 {
        cell.input(ReplicaId(2), Input::HandOver);
        cell.pass(Duration::from_secs(1));
        if cell.host(ReplicaId(3)).replica.is_master() {
            break;
        }
    }
    assert!(cell.host(ReplicaId(3)).replica.is_master(), "of the two, it is");
    assert_eq!(bootstrap(&cell, ReplicaId(3)), "typo", "too late");
}
