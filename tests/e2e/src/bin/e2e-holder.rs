//! A client as a process of its own: takes a lock, and then does what it is told, line by line.
//!
//! ```text
//! e2e-holder ADDRESSES PATH LEASE_MS LOCK_DELAY_MS RESOURCE
//!
//! says   holding GENERATION SEQUENCER    once it holds the lock
//! hears  validity                        says   validity MS      how long its guard is valid yet
//! hears  order TEXT                      says   order VERDICT HELD
//! hears  daemon                          says   daemon LOCK | SESSION    becomes a daemon: a child that is forked goes
//!                                        on alone, says what it believes in, and ends
//! says   lost REASON                     if it loses the lock
//! ```
//!
//! It gives its orders without asking its guard first, as a careless holder would: what protects the resource from
//! it is the sequencer alone. `HELD` is what the guard said just before.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use anyhow::Context;
use holdfast::{Cell, Lock, Mode, OpenOptions};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [addresses, path, lease_ms, lock_delay_ms, resource] = arguments.as_slice() else {
        anyhow::bail!("five arguments are needed");
    };
    let milliseconds = |text: &str| anyhow::Ok(Duration::from_millis(text.parse()?));
    let session = Cell::connect([addresses])?.session().lease(milliseconds(lease_ms)?).open().await?;
    let options = OpenOptions::new().create().lock_delay(milliseconds(lock_delay_ms)?);
    let handle = session.open(path, options).await?;
    let mut resource = BufReader::new(TcpStream::connect(resource).await?);
    let lock = handle.acquire(Mode::Exclusive).await?;
    println!("holding {} {}", lock.generation(), lock.sequencer());

    let mut orders = orders();
    let mut lost = Box::pin(lock.lost());
    let mut is_lost = false;
    loop {
        tokio::select! {
            line = orders.recv() => match line.context("nobody gives orders any more")?.split_once(' ') {
                Some(("order", text)) => order(&lock, &mut resource, text).await?,
                Some(("daemon", _)) => {
                    nix::unistd::daemon(true, true)?;
                    println!("daemon {:?} | {:?}", lock.state(), session.state());
                    // Nothing is dropped: the connections are the parent's.
                    std::process::exit(0);
                }
                _ => {
                    let valid = lock.valid_until().saturating_duration_since(Instant::now());
                    println!("validity {}", valid.as_millis());
                }
            },
            reason = &mut lost, if !is_lost => {
                is_lost = true;
                println!("lost {reason}");
            }
        }
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

async fn order(lock: &Lock, resource: &mut BufReader<TcpStream>, text: &str) -> anyhow::Result<()> {
    let held = lock.is_held();
    resource.write_all(format!("{} {text}\n", lock.generation()).as_bytes()).await?;
    let mut verdict = String::new();
    resource.read_line(&mut verdict).await?;
    println!("order {} {held}", verdict.trim());
    Ok(())
}
