//! Access control by principals, as certificates name them (P§2.3).

use holdfast::{AclNames, Error, OpenOptions, RefusalCode, Session, Settings, Uses, WriteOptions};
use holdfast_e2e::{Certs, Cluster, eventually};

use crate::PROGRAMS;

fn is_denied<T>(result: Result<T, Error>) -> bool {
    result.is_err_and(|error| error.refusal() == Some(RefusalCode::PermissionDenied))
}

/// Opens the file for reading, and closes it.
async fn open(session: &Session) -> Result<(), Error> {
    session.open("/file", OpenOptions::new().read_only()).await.map(drop)
}

/// Opens the file until that costs no message.
async fn open_from_cache(session: &Session) {
    eventually("the open handle is used again", async || {
        let before = session.cache_stats().misses;
        open(session).await.unwrap();
        (session.cache_stats().misses == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_may_do_what_is_decided_by_certificate_and_changes_count_at_once_for_cached_opens_too() {
    let certs = Certs::make(PROGRAMS, &["admin", "alice", "bob"]);
    let mut cluster = Cluster::start_tls(PROGRAMS, &certs).await;
    let admin = cluster.cell();
    let acl_file = async |name: &str, text: &str| {
        let options = WriteOptions::new().create();
        admin.set_contents(&format!("/acl/{name}"), text.to_owned(), options).await
    };
    acl_file("friends", "bob\n").await.unwrap();
    acl_file("team", "# alice and her friends\nalice\n@friends\n").await.unwrap();
    admin.set_contents("/file", "text", WriteOptions::new().create()).await.unwrap();
    admin.set_acl("/file", AclNames::new().read("team").write("alices")).await.unwrap();
    acl_file("alices", "alice\n").await.unwrap();
    let session =
        async |name| certs.cell(&cluster, &certs.tls(name)).unwrap().session().open().await.unwrap();
    let (alice, bob) = (session("alice").await, session("bob").await);

    alice.open("/file", OpenOptions::new()).await.unwrap().set_contents("hers").await.unwrap();
    assert!(is_denied(bob.open("/file", OpenOptions::new()).await), "he may not write");
    open_from_cache(&bob).await;
    let read_only = bob.open("/file", OpenOptions::new().read_only()).await.unwrap();
    let misused = read_only.set_contents("his").await.unwrap_err();
    assert_eq!(misused.refusal(), Some(RefusalCode::WrongUse));

    // By the file of a group in a group, by the list's own file, and by the node's names.
    acl_file("friends", "# nobody\n").await.unwrap();
    assert!(is_denied(open(&bob).await), "a handle that he has closed lets him in no more");
    assert!(read_only.contents().await.is_ok(), "one that he has open is not taken away (P§2.3)");
    acl_file("friends", "bob\n").await.unwrap();
    open_from_cache(&bob).await;
    acl_file("team", "alice\n").await.unwrap();
    assert!(is_denied(open(&bob).await));
    acl_file("team", "*\n").await.unwrap();
    open_from_cache(&bob).await;
    admin.set_acl("/file", AclNames::new().read("alices")).await.unwrap();
    assert!(is_denied(open(&bob).await));

    // Through a fail-over alike: every replica decides the same.
    let master = cluster.master().await;
    cluster[master].kill().await;
    cluster.master().await;
    assert!(is_denied(open(&bob).await));
    open(&alice).await.unwrap();
}

#[tokio::test]
async fn the_bootstrap_principal_mends_what_locks_everybody_out_and_looks_after_the_cell() {
    let certs = Certs::make(PROGRAMS, &["admin", "alice"]);
    let cluster = Cluster::start_tls(PROGRAMS, &certs).await;
    let admin = cluster.cell();
    let alice = certs.cell(&cluster, &certs.tls("alice")).unwrap();
    alice.set_contents("/file", "hers", WriteOptions::new().create()).await.unwrap();
    admin.set_contents("/acl/team", "alice", WriteOptions::new().create()).await.unwrap();
    admin.set_acl("/file", AclNames::new().change("team")).await.unwrap();
    let nobody = AclNames::new().read("none").write("none").change("none");
    let error = alice.set_acl("/file", nobody.clone()).await.unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalCode::WouldLockOut), "{error}");
    alice.forced().set_acl("/file", nobody).await.unwrap();
    assert!(is_denied(alice.contents("/file").await));
    assert!(is_denied(alice.set_acl("/file", AclNames::new().read("team")).await));
    assert!(is_denied(admin.contents("/file").await), "he may change lists, not read everything");
    let session = admin.session().open().await.unwrap();
    assert_eq!(&*session.principal(), "admin");
    let change = Uses { read: false, write: false, change_acl: true };
    let handle = session.open("/file", OpenOptions::new().uses(change)).await.unwrap();
    handle.set_acl(AclNames::new().read("team")).await.unwrap();
    assert_eq!(alice.contents("/file").await.unwrap().bytes, "hers");

    // Lists of lists that come back to themselves are refused, and so is nonsense.
    for (list, text) in [("/acl/team", "@team"), ("/acl/team", "alice and bob")] {
        let error = admin.set_contents(list, text, WriteOptions::new()).await.unwrap_err();
        assert_eq!(error.refusal(), Some(RefusalCode::BadAcl), "{error}");
    }
    assert!(is_denied(alice.set_contents("/acl/team", "mallory", WriteOptions::new()).await));

    let settings = Settings { nodes_max: 1_000_000, ..Settings::default() };
    assert!(is_denied(alice.change_settings(settings.clone()).await));
    assert!(is_denied(alice.list_sessions().await));
    assert!(is_denied(alice.list_handles(None, None).await));
    assert!(is_denied(alice.kill_session(session.id(), std::time::Duration::from_secs(5)).await));
    assert!(is_denied(alice.remove_member(3).await));
    admin.set_contents("/acl/admin", "alice", WriteOptions::new().create()).await.unwrap();
    assert_eq!(alice.change_settings(settings).await.unwrap().nodes_max, 1_000_000);
    assert!(alice.list_sessions().await.unwrap().iter().any(|info| info.principal == "admin"));
}
