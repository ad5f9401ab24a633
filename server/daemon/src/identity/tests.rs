//! That a data directory is one replica's, stays it over a restart, and never lets a replica in that lost its data.

use std::collections::BTreeSet;

use holdfast_proto::peer::v1::FoundingMember;
use holdfast_replica::admission::ReplaceAdvice;
use tempfile::TempDir;

use super::*;

fn new_dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The configuration of replica 1 of a cell of three whose data are in this directory.
fn config(dir: &Path) -> Config {
    let member = |id: u64| FoundingMember {
        id,
        peer_address: format!("127.0.0.1:{}", 7200 + id),
        client_address: format!("127.0.0.1:{}", 7100 + id),
    };
    Config::new("dev", ReplicaId(1), dir.to_owned(), (1..=3).map(member).collect())
}

/// The founders in falling order, which is not the one they are kept in.
fn founders(config: &Config, own_data_id: u64) -> Vec<Member> {
    let member = |member: &FoundingMember| Member {
        id: member.id,
        data_id: if member.id == config.replica.0 { own_data_id } else { 100 + member.id },
        peer_address: member.peer_address.clone(),
        client_address: member.client_address.clone(),
        learner: false,
    };
    config.members.iter().rev().map(member).collect()
}

/// Founds the cell in this directory, and closes it.
fn found(config: &Config) -> Identity {
    let mut dir = DataDir::open(config).expect("a new directory");
    let members = founders(config, dir.identity().data_id);
    dir.found(members, config.settings.clone()).expect("the founding is written");
    dir.identity().clone()
}

fn refusal(config: &Config) -> IdentityError {
    DataDir::open(config).expect_err("the directory is refused")
}

#[track_caller]
fn assert_says(error: &IdentityError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// The error says how to replace replica 1.
#[track_caller]
fn assert_advises(error: &IdentityError) {
    assert_says(error, &[&ReplaceAdvice(ReplicaId(1)).to_string()]);
    assert_says(error, &["new id", "--join", "member add", "member promote", "member remove 1"]);
}

#[test]
fn a_new_directory_gets_an_identity_that_survives_reopening() {
    let parent = new_dir();
    let config = config(&parent.path().join("made/on/the/way"));
    let first = DataDir::open(&config).expect("a new directory").identity().clone();
    assert_eq!((&*first.cell, first.replica, &first.stage), ("dev", ReplicaId(1), &Stage::Fresh));
    assert_ne!(first.data_id, 0);
    assert_eq!(first.cell_id(), 0, "it belongs to no cell yet");
    assert_eq!(DataDir::open(&config).expect("the same replica's").identity(), &first);
}

#[test]
fn no_two_directories_have_one_data_id() {
    let dirs: Vec<TempDir> = (0..4).map(|_| new_dir()).collect();
    let open =
        |dir: &TempDir| DataDir::open(&config(dir.path())).expect("a new directory").identity().data_id;
    assert_eq!(dirs.iter().map(open).collect::<BTreeSet<_>>().len(), dirs.len());
}

#[test]
fn a_directory_is_used_by_one_process_at_a_time() {
    let dir = new_dir();
    let config = config(dir.path());
    let first = DataDir::open(&config).expect("a new directory");
    let error = refusal(&config);
    assert!(matches!(error, IdentityError::InUse { .. }), "{error}");
    assert_says(
        &error,
        &[&dir.path().display().to_string(), "in use by another process", "data_dir of its own"],
    );
    drop(first);
    DataDir::open(&config).expect("the lock went with the first");
}

#[test]
fn another_cells_directory_is_refused() {
    let dir = new_dir();
    let mut config = config(dir.path());
    found(&config);
    config.cell = "prod".to_owned();
    let error = refusal(&config);
    assert!(matches!(error, IdentityError::OtherCell { .. }), "{error}");
    assert_says(&error, &["the cell \"dev\"", "the cell \"prod\"", "correct `cell` or `data_dir`"]);
}

#[test]
fn another_replicas_directory_is_refused() {
    let dir = new_dir();
    let mut config = config(dir.path());
    found(&config);
    config.replica = ReplicaId(2);
    let error = refusal(&config);
    assert!(matches!(error, IdentityError::OtherReplica { .. }), "{error}");
    assert_says(&error, &["belongs to replica 1", "as replica 2", "correct `replica` or `data_dir`"]);
}

#[test]
fn a_refusal_leaves_the_directory_as_it_was() {
    let dir = new_dir();
    let config = config(dir.path());
    let identity = found(&config);
    refusal(&Config { cell: "prod".to_owned(), ..config.clone() });
    refusal(&Config { replica: ReplicaId(2), ..config.clone() });
    assert_eq!(DataDir::open(&config).expect("its own replica").identity(), &identity);
}

#[test]
fn a_damaged_identity_is_refused_wherever_the_damage_is() {
    let dir = new_dir();
    let config = config(dir.path());
    found(&config);
    let path = dir.path().join(file::NAME);
    let whole = fs::read(&path).expect("the identity file");
    let flipped = (0..whole.len()).map(|place| {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        bytes
    });
    let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
    for bytes in flipped.chain(cut) {
        fs::write(&path, &bytes).expect("the damage is written");
        let error = refusal(&config);
        assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
        assert_advises(&error);
    }
    fs::write(&path, &whole).expect("the file is written back");
    DataDir::open(&config).expect("the whole file is right");
}

#[test]
fn a_newer_versions_identity_is_not_misread() {
    let dir = new_dir();
    let config = config(dir.path());
    found(&config);
    let path = dir.path().join(file::NAME);
    let text = fs::read_to_string(&path).expect("the identity file");
    fs::write(&path, text.replacen("identity 1,", "identity 2,", 1)).expect("the file is written");
    assert_says(&refusal(&config), &["is it a newer version's?"]);
}

#[test]
fn a_founder_whose_data_are_gone_is_told_how_to_be_replaced() {
    for lost in ["log", "snapshots"] {
        let dir = new_dir();
        let config = config(dir.path());
        found(&config);
        fs::remove_dir_all(dir.path().join(lost)).expect("it was there");
        let error = refusal(&config);
        assert!(matches!(error, IdentityError::DataGone { .. }), "{error}");
        let missing = dir.path().join(lost);
        assert_says(&error, &["the data of replica 1 are gone", &missing.display().to_string()]);
        assert_advises(&error);
        assert!(!missing.exists(), "nothing is made in place of what was lost");
    }
}

#[test]
fn one_that_joined_and_whose_data_are_gone_is_refused_too() {
    let dir = new_dir();
    let config = config(dir.path());
    DataDir::open(&config).expect("a new directory").join(0xce11).expect("the joining is written");
    fs::remove_dir_all(dir.path().join("log")).expect("it was there");
    assert_advises(&refusal(&config));
}

#[test]
fn a_replica_that_belongs_to_no_cell_begins_its_log_again() {
    let dir = new_dir();
    let config = config(dir.path());
    let first = DataDir::open(&config).expect("a new directory").identity().clone();
    fs::remove_dir_all(dir.path().join("log")).expect("it was there");
    let again = DataDir::open(&config).expect("it has acknowledged nothing");
    assert_eq!(again.identity(), &first);
    assert!(again.log_dir().is_dir());
}

#[test]
fn a_directory_with_files_and_no_identity_is_refused() {
    let dir = new_dir();
    let config = config(dir.path());
    found(&config);
    fs::remove_file(dir.path().join(file::NAME)).expect("it was there");
    fs::remove_dir_all(dir.path().join("snapshots")).expect("it was there");
    let error = refusal(&config);
    assert!(matches!(error, IdentityError::NoIdentity { .. }), "{error}");
    assert_says(&error, &["is not empty", "(log is there)", "choose an empty or a new directory"]);
    assert_advises(&error);
    assert!(!dir.path().join(file::NAME).exists(), "it gets no identity by being refused");
}

#[test]
fn what_a_crash_leaves_before_the_first_identity_is_no_hindrance() {
    let dir = new_dir();
    fs::write(dir.path().join(LOCK), "").expect("a lock");
    fs::write(dir.path().join(file::TEMPORARY_NAME), "# holdfast ident").expect("half an identity");
    fs::create_dir(dir.path().join("lost+found")).expect("a file system's own");
    DataDir::open(&config(dir.path())).expect("a directory that is as good as new");
}

#[test]
fn what_a_crash_leaves_before_the_next_stage_is_no_hindrance() {
    let dir = new_dir();
    let config = config(dir.path());
    let identity = found(&config);
    fs::write(dir.path().join(file::TEMPORARY_NAME), "# holdfast ident").expect("half an identity");
    assert_eq!(DataDir::open(&config).expect("the old one is whole").identity(), &identity);
}

#[test]
fn a_founding_is_on_disk_when_it_returns() {
    let dir = new_dir();
    let config = config(dir.path());
    let mut data_dir = DataDir::open(&config).expect("a new directory");
    let members = founders(&config, data_dir.identity().data_id);
    let founded = data_dir.found(members, config.settings.clone()).expect("the founding is written").clone();
    // Read beside the open directory: what a process that is killed now leaves.
    let read = file::read(&dir.path().join(file::NAME), config.replica).expect("readable").expect("there");
    assert_eq!(read.stage, Stage::Founded(founded.clone()));
    assert!(!dir.path().join(file::TEMPORARY_NAME).exists());
    drop(data_dir);

    let reopened = DataDir::open(&config).expect("the same replica's");
    assert_eq!(reopened.identity().cell_id(), founded.cell_id);
    assert_eq!(reopened.identity(), &read);
    assert_eq!(founded.settings, config.settings.clone());
    assert_eq!(founded.members.iter().map(|member| member.id).collect::<Vec<_>>(), [1, 2, 3]);
    let data_id = reopened.identity().data_id;
    assert_eq!(founded.cell_id, cell_id("dev", [(1, data_id), (2, 102), (3, 103)].map(pair)));
}

#[test]
fn a_joining_is_on_disk_when_it_returns() {
    let dir = new_dir();
    let config = config(dir.path());
    DataDir::open(&config).expect("a new directory").join(u64::MAX).expect("the joining is written");
    let reopened = DataDir::open(&config).expect("the same replica's");
    assert_eq!(reopened.identity().stage, Stage::Joined { cell_id: u64::MAX });
}

#[test]
#[should_panic(expected = "a replica comes to a cell once")]
fn a_replica_comes_to_a_cell_once() {
    let dir = new_dir();
    let config = config(dir.path());
    found(&config);
    let _ = DataDir::open(&config).expect("the same replica's").join(1);
}

fn pair((id, data_id): (u64, u64)) -> (ReplicaId, u64) {
    (ReplicaId(id), data_id)
}

#[test]
fn a_cells_id_depends_on_its_name_and_every_replica_and_data_id() {
    let pairs = [(1, 11), (2, 12), (3, 13)];
    let mut ids = BTreeSet::from([
        cell_id("dev", pairs.map(pair)),
        cell_id("prod", pairs.map(pair)),
        cell_id("dev", pairs[..2].iter().copied().map(pair)),
    ]);
    for changed in 0..pairs.len() {
        let mut other_data = pairs;
        other_data[changed].1 += 100;
        let mut other_id = pairs;
        other_id[changed].0 += 100;
        ids.extend([cell_id("dev", other_data.map(pair)), cell_id("dev", other_id.map(pair))]);
    }
    assert_eq!(ids.len(), 3 + 2 * pairs.len());
    assert!(!ids.contains(&0), "0 means no cell");
}

#[test]
fn a_cells_id_does_not_depend_on_the_order() {
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]]
        .map(|ids| ids.map(|id| pair((id, id + 10))));
    let ids: BTreeSet<u64> = orders.into_iter().map(|order| cell_id("dev", order)).collect();
    assert_eq!(ids.len(), 1);
}
