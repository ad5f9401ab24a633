//! What the tests of storage share: small cells, entries, and what a crash leaves.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_proto::log::v1::{Command, Member, OpenSession, command};
use holdfast_proto::peer::v1::FoundingMember;
use holdfast_replica::{Persist, StateAt, raftpb};
use holdfast_state::{Genesis, State};
use holdfast_types::{ReplicaId, Term};
use slog::{Logger, o};
use tempfile::TempDir;

use super::log::LogOptions;
use crate::config::Config;
use crate::identity::DataDir;

pub(super) const REPLICA: ReplicaId = ReplicaId(1);
pub(super) const CELL_ID: u64 = 0xce11;

pub(super) fn logger() -> Logger {
    Logger::root(slog::Discard, o!())
}

pub(super) fn entry(index: u64, term: u64) -> raftpb::Entry {
    let data = format!("entry {index} of term {term}").into_bytes();
    raftpb::Entry { index, term, data: data.into(), ..Default::default() }
}

pub(super) fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Vec<raftpb::Entry> {
    indexes.map(|index| entry(index, term)).collect()
}

pub(super) fn hard_state(term: u64, vote: u64, commit: u64) -> raftpb::HardState {
    raftpb::HardState { term, vote, commit, ..Default::default() }
}

/// Something to write that must be durable.
pub(super) fn persist(number: u64, entries: Vec<raftpb::Entry>) -> Persist {
    let hard_state = entries.last().map(|last| hard_state(last.term, 1, last.index - 1));
    Persist { number, snapshot: None, hard_state, entries, sync: true, compact_to: None }
}

pub(super) fn log_options(dir: &Path) -> LogOptions {
    LogOptions { dir: dir.to_owned(), replica: REPLICA, data_id: 7, may_be_new: true, live_bytes: 1 << 20 }
}

/// A cell's state with as many sessions as asked for, as if it stood at this place in the log.
pub(super) fn state_at(index: u64, term: u64, sessions: u64) -> StateAt {
    let settings = holdfast_state::settings::defaults();
    let genesis = Genesis { cell: "dev".to_owned(), cell_id: CELL_ID, members: Vec::new(), settings };
    let mut state = State::genesis(genesis);
    for session in 0..sessions {
        let secret = session.to_le_bytes().repeat(4).into();
        let open =
            OpenSession { secret, lease_ms: 12_000, client: "test".repeat(50), principal: String::new() };
        let command = Command { kind: Some(command::Kind::OpenSession(open)), ..Command::default() };
        state.apply(command, &mut Vec::new()).expect("an opening applies");
    }
    StateAt { index, term: Term(term), voters: vec![1, 2, 3], learners: vec![4], state }
}

/// The configuration of replica 1 of a cell of three, in this directory.
pub(crate) fn config(dir: &Path) -> Config {
    let member = |id: u64| FoundingMember {
        id,
        peer_address: format!("127.0.0.1:{}", 7100 + id),
        client_address: format!("127.0.0.1:{}", 7000 + id),
    };
    Config::new("dev", REPLICA, dir.to_owned(), (1..=3).map(member).collect())
}

/// The data directory of a replica whose cell has just been founded.
pub(crate) fn founded(config: &Config) -> DataDir {
    let mut dir = DataDir::open(config).expect("a new directory");
    let data_id = dir.identity().data_id;
    let member = |member: &FoundingMember| Member {
        id: member.id,
        data_id: if member.id == REPLICA.0 { data_id } else { 1_000 + member.id },
        peer_address: member.peer_address.clone(),
        client_address: member.client_address.clone(),
        learner: false,
    };
    dir.found(config.members.iter().map(member).collect(), config.settings.clone())
        .expect("the founding is written");
    dir
}

/// What is on disk at this moment: what a process that is killed now leaves to its successor.
pub(super) fn crash_image(dir: &Path) -> TempDir {
    let image = tempfile::tempdir().expect("a temporary directory");
    copy(dir, image.path());
    image
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir(&target).expect("a new directory");
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a file is copied");
        }
    }
}

/// The files of a directory with this extension, in order.
pub(super) fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    paths.sort();
    paths
}

/// Changes a file's bytes.
pub(crate) fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("a file");
    change(&mut bytes);
    fs::write(path, bytes).expect("the file is written");
}
