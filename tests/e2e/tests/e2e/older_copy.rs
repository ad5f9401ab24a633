//! A data directory is put back from an older copy: the replica must not come back with it.

use std::fs;
use std::path::Path;

use holdfast::WriteOptions;
use holdfast_e2e::Cluster;

use crate::PROGRAMS;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_directory_put_back_from_an_older_copy_is_found_out_and_never_used_again() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let write = async |contents: &'static str| {
        cell.set_contents("/file", contents, WriteOptions::new().create()).await.unwrap();
    };
    write("before").await;
    let victim = cluster.follower().await;
    cluster.caught_up(victim).await;
    cluster[victim].terminate();
    assert_eq!(cluster[victim].end().await.code(), Some(0));
    let (data, backup) = (cluster[victim].data_dir().to_owned(), cluster.dir().join("backup"));
    copy(&data, &backup);

    cluster[victim].start();
    for contents in ["a", "b", "c"] {
        write(contents).await;
    }
    cluster.caught_up(victim).await;
    // Read first, so that the master knows what the victim has acknowledged.
    assert_eq!(cell.contents("/file").await.unwrap().bytes, "c");
    cluster[victim].terminate();
    assert_eq!(cluster[victim].end().await.code(), Some(0));
    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);

    for _ in 0..2 {
        cluster[victim].start();
        let status = cluster[victim].end().await;
        let words = cluster[victim].last_words();
        assert_eq!(status.code(), Some(3), "{status}: {words}");
        for part in [
            format!("the data of replica {victim} are older than what it has acknowledged"),
            "--join".to_owned(),
            format!("member remove {victim}"),
            "majority".to_owned(),
        ] {
            assert!(words.contains(&part), "{part:?} in {words}");
        }
    }
    assert!(data.join("STALE").exists(), "under another master it might not be noticed");
    write("the cell goes on").await;
}
