//! A client as a process of its own: one session, and handles that cache. Does what it is told, line by line, each
//! order in a task of its own, so that one that waits does not hold up the next.
//!
//! ```text
//! e2e-client ADDRESSES LEASE_MS GRACE_MS
//!
//! says   session ID
//! hears  open PATH [create] [keep]   opens the node, and keeps it open; with `keep` its lock is kept when released
//!        exists PATH                 opens the node, and closes it
//!        read PATH                   says the file's contents
//!        cached PATH                 says the file's contents if they are cached, and fails if not; never waits
//!        list PATH                   says the names of the directory's children
//!        write PATH TEXT             says the new generation
//!        lock PATH                   says the generation
//!        held PATH                   says whether the guard holds; never waits
//!        release PATH
//!        stats                       says hits, misses and invalidations
//! says   ORDER = ok ANSWER           when an order is done
//!        ORDER = failed ERROR
//! says   state STATE                 whenever the session comes into jeopardy, is safe, has failed over or ended
//! ```

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use holdfast::{Cell, Handle, Lock, Mode, OpenOptions, Session, SessionEvent};
use tokio::sync::mpsc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [addresses, lease_ms, grace_ms] = arguments.as_slice() else {
        anyhow::bail!("three arguments are needed");
    };
    let milliseconds = |text: &str| anyhow::Ok(Duration::from_millis(text.parse()?));
    let session = Cell::builder().addresses([addresses]).lock_delay(Duration::ZERO).connect()?.session();
    let session = session.lease(milliseconds(lease_ms)?).grace(milliseconds(grace_ms)?).open().await?;
    let mut events = session.events();
    println!("session {}", session.id());
    let client = Arc::new(Client { session, handles: Mutex::default(), locks: Mutex::default() });
    let mut orders = orders();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let order = order.context("nobody gives orders any more")?;
                tokio::spawn(carry_out(Arc::clone(&client), order));
            }
            Some(event) = events.next() => println!("state {}", text(&event)),
        }
    }
}

fn text(event: &SessionEvent) -> String {
    match event {
        SessionEvent::Jeopardy => "jeopardy".to_owned(),
        SessionEvent::Safe => "safe".to_owned(),
        SessionEvent::FailedOver { term } => format!("failed-over {term}"),
        SessionEvent::Ended(reason) => format!("ended {reason}"),
        other => format!("{other:?}"),
    }
}

/// The lines of standard input, read by a thread of their own.
fn orders() -> mpsc::UnboundedReceiver<String> {
    let (send, orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            // It fails when the program ends.
            let _ = send.send(line);
        }
    });
    orders
}

async fn carry_out(client: Arc<Client>, order: String) {
    match client.obey(&order).await {
        Ok(answer) => println!("{order} = ok {answer}"),
        Err(error) => println!("{order} = failed {error}"),
    }
}

struct Client {
    session: Session,
    handles: Mutex<HashMap<String, Arc<Handle>>>,
    locks: Mutex<HashMap<String, Lock>>,
}

/// Nothing panics while one of these locks is held, and none is held across an await point.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    async fn obey(&self, order: &str) -> anyhow::Result<String> {
        let (word, rest) = order.split_once(' ').unwrap_or((order, ""));
        let (path, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "open" => self.open(path, rest).await,
            "exists" => Ok(self.session.open(path, OpenOptions::new()).await?.path().to_owned()),
            "read" => text_of(&self.handle(path)?.contents().await?.bytes),
            "cached" => text_of(&self.handle(path)?.cached_contents().context("nothing is cached")?.bytes),
            "list" => {
                let entries = self.handle(path)?.read_dir().await?;
                let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
                Ok(names.join(" "))
            }
            "write" => Ok(self.handle(path)?.set_contents(rest.to_owned()).await?.to_string()),
            "lock" => {
                let guard = self.handle(path)?.acquire(Mode::Exclusive).await?;
                let generation = guard.generation();
                lock(&self.locks).insert(path.to_owned(), guard);
                Ok(generation.to_string())
            }
            "held" => Ok(lock(&self.locks).get(path).context("no such lock")?.is_held().to_string()),
            "release" => {
                let guard = lock(&self.locks).remove(path).context("no such lock")?;
                guard.release().await?;
                Ok(String::new())
            }
            "stats" => {
                let stats = self.session.cache_stats();
                Ok(format!("{} {} {}", stats.hits, stats.misses, stats.invalidations))
            }
            _ => anyhow::bail!("no such order"),
        }
    }

    async fn open(&self, path: &str, how: &str) -> anyhow::Result<String> {
        let mut options = OpenOptions::new();
        for word in how.split_whitespace() {
            options = match word {
                "create" => options.create(),
                "keep" => options.keep_lock(true),
                _ => anyhow::bail!("no such way to open"),
            };
        }
        let handle = self.session.open(path, options).await?;
        lock(&self.handles).insert(path.to_owned(), Arc::new(handle));
        Ok(String::new())
    }

    fn handle(&self, path: &str) -> anyhow::Result<Arc<Handle>> {
        lock(&self.handles).get(path).cloned().context("no such handle")
    }
}

fn text_of(bytes: &[u8]) -> anyhow::Result<String> {
    Ok(std::str::from_utf8(bytes)?.to_owned())
}
