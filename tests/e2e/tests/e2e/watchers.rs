//! A fail-over under 200 clients that cache and watch: none reads what is old (I5), none misses that something changed
//! (I8), and none loses its session.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use holdfast::{Cell, EventKind, Handle, OpenOptions, Session, SessionState};
use holdfast_e2e::{Cluster, eventually, within};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::PROGRAMS;

const CLIENTS: usize = 200;
/// Ten clients watch each file, and all of the rest of them the directory.
const FILES: usize = 18;
const WATCHERS: usize = 10;
/// They share so many connections.
const CONNECTIONS: usize = 8;
const WRITERS: usize = 3;
const LEASE: Duration = Duration::from_secs(4);
/// How often a client reads what it watches, whether it has heard of anything or not.
const READ_EVERY: Duration = Duration::from_millis(20);

/// What the writers tell the others behind the cell's back.
#[derive(Default)]
struct Board {
    /// The generation of the last acknowledged write of each file.
    acknowledged: [AtomicU64; FILES],
    /// So many children the directory has had at the least.
    made: AtomicUsize,
}

fn path(file: usize) -> String {
    format!("/watched/file-{file:02}")
}

/// Writes its files by turns until it is stopped.
async fn write(session: Session, writer: usize, board: Arc<Board>, stop: watch::Receiver<bool>) {
    let mut files = Vec::new();
    for file in (writer..FILES).step_by(WRITERS) {
        let options = OpenOptions::new().caching(false);
        files.push((file, session.open(&path(file), options).await.unwrap()));
    }
    for turn in 0.. {
        for (file, handle) in &files {
            let generation = handle.set_contents(format!("{turn}")).await.unwrap();
            board.acknowledged[*file].store(generation, Ordering::SeqCst);
        }
        if *stop.borrow() {
            return;
        }
    }
}

/// Creates children of the directory until it is stopped; gives their names.
async fn create(session: Session, board: Arc<Board>, stop: watch::Receiver<bool>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    while !*stop.borrow() {
        let name = format!("child-{:04}", names.len());
        let options = OpenOptions::new().create_new().caching(false);
        session.open(&format!("/watched/dir/{name}"), options).await.unwrap();
        names.insert(name);
        board.made.store(names.len(), Ordering::SeqCst);
    }
    names
}

/// What a client knows in the end.
struct Watched {
    session: Session,
    /// The greatest generation that an event has told of: of the contents, or of the children.
    told: watch::Receiver<u64>,
    /// The file that it watches; none if it watches the directory.
    file: Option<usize>,
}

/// One client: its session, and what it watches.
async fn client(cell: &Cell, number: usize) -> (Watched, watch::Sender<u64>, Handle) {
    let session = cell.session().lease(LEASE).client_name(format!("client-{number}")).open().await.unwrap();
    let file = Some(number / WATCHERS).filter(|file| *file < FILES);
    let path = file.map_or("/watched/dir".to_owned(), path);
    let kinds = [EventKind::ContentsModified, EventKind::ChildAdded];
    let handle = session.open(&path, OpenOptions::new().events(kinds)).await.unwrap();
    let (tell, told) = watch::channel(0);
    (Watched { session, told, file }, tell, handle)
}

/// Hears of changes, and reads, for as long as the test lasts. A read is never older than what was acknowledged to a
/// writer before it began, nor than what an event has told of.
async fn listen(handle: Handle, file: Option<usize>, board: Arc<Board>, told: watch::Sender<u64>) {
    let mut events = handle.events().unwrap();
    let mut ticks = interval(READ_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = 0;
    loop {
        tokio::select! {
            event = events.next() => {
                let event = event.expect("the handle is open").expect("the session lives on");
                heard = heard.max(event.content_generation).max(event.children_generation);
            }
            _ = ticks.tick() => {}
        }
        let generation = match file {
            Some(file) => {
                let acknowledged = board.acknowledged[file].load(Ordering::SeqCst);
                let read = handle.contents().await.unwrap().stat.content_generation;
                assert!(read >= acknowledged, "{} at {read}, written at {acknowledged}", handle.path());
                read
            }
            None => {
                let made = board.made.load(Ordering::SeqCst);
                let read = handle.read_dir().await.unwrap();
                assert!(read.len() >= made, "{} of {made} children", read.len());
                handle.stat().await.unwrap().children_generation
            }
        };
        assert!(generation >= heard, "{} at {generation}, heard of {heard}", handle.path());
        told.send_replace(heard);
    }
}

#[tokio::test]
async fn two_hundred_clients_that_cache_and_watch_are_told_of_every_change_through_a_fail_over() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let root = cell.session().open().await.unwrap();
    for dir in ["/watched", "/watched/dir"] {
        root.open(dir, OpenOptions::new().create_new().directory()).await.unwrap();
    }
    for file in 0..FILES {
        root.open(&path(file), OpenOptions::new().create_new()).await.unwrap();
    }
    let cells: Vec<_> = (0..CONNECTIONS).map(|_| Cell::connect(cell.addresses()).unwrap()).collect();
    let board = Arc::<Board>::default();
    let mut clients = Vec::new();
    let mut listeners = JoinSet::new();
    for number in 0..CLIENTS {
        let (watched, tell, handle) = client(&cells[number % CONNECTIONS], number).await;
        listeners.spawn(listen(handle, watched.file, Arc::clone(&board), tell));
        clients.push(watched);
    }
    let (stop, stopped) = watch::channel(false);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let session = cell.session().open().await.unwrap();
        writers.spawn(write(session, writer, Arc::clone(&board), stopped.clone()));
    }
    let session = cell.session().open().await.unwrap();
    let creator = tokio::spawn(create(session, Arc::clone(&board), stopped));

    // Every client hears of something; then the master dies, and every client hears of something later.
    all_written(&board, &mut listeners).await;
    heard(&mut clients, &cell, &board).await;
    let master = cluster.master().await;
    cluster[master].kill().await;
    all_written(&board, &mut listeners).await;
    stop.send_replace(true);
    within("the writers end", writers.join_all()).await;
    let names = within("the creator ends", creator).await.unwrap();

    heard(&mut clients, &cell, &board).await;
    assert!(listeners.try_join_next().is_none(), "nobody has stopped listening");
    let hits: u64 = clients.iter().map(|client| client.session.cache_stats().hits).sum();
    assert!(hits > CLIENTS as u64, "the cache was in use: {hits} hits");
    for client in &clients {
        assert_eq!(client.session.state(), SessionState::Safe);
    }
    let children = cell.read_dir("/watched/dir").await.unwrap();
    assert_eq!(children.into_iter().map(|entry| entry.name).collect::<BTreeSet<_>>(), names);
}

/// Waits until every file was written, and a child created, twice more: the second of these writes began after this was
/// called.
async fn all_written(board: &Board, listeners: &mut JoinSet<()>) {
    let generations = || board.acknowledged.each_ref().map(|file| file.load(Ordering::SeqCst));
    for _ in 0..2 {
        let (before, made) = (generations(), board.made.load(Ordering::SeqCst));
        eventually("every file is written once more", async || {
            // A listener ends only by panicking.
            assert!(listeners.try_join_next().is_none(), "a client has read or heard what is wrong");
            let all = generations().iter().zip(before).all(|(now, before)| *now > before);
            (all && board.made.load(Ordering::SeqCst) > made).then_some(())
        })
        .await;
    }
}

/// Waits until every client was told of the last change there has been by now of what it watches.
async fn heard(clients: &mut [Watched], cell: &Cell, board: &Board) {
    let generations = board.acknowledged.each_ref().map(|file| file.load(Ordering::SeqCst));
    let children = cell.stat("/watched/dir").await.unwrap().stat.children_generation;
    for client in clients {
        let least = client.file.map_or(children, |file| generations[file]);
        let told = client.told.wait_for(|told| *told >= least);
        within(&format!("{:?} hears of generation {least}", client.session), told).await.unwrap();
    }
}
