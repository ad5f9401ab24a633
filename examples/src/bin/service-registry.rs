//! Servers that register themselves, and a client that always knows which of them are alive.
//!
//! `cargo run --release --bin service-registry` starts a cell, three servers and a client, and kills one of the servers.
//! What to copy is [`register`] and [`follow`]. A server's entry is an ephemeral file: it goes when the server closes
//! it, or when its session ends because the server died; nobody has to clean up.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use holdfast::{Cell, EventKind, Handle, OpenOptions, Session};
use holdfast_examples::{Addresses, Stage, claim};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

const SERVICE: &str = "/ls/local/web";
/// A server that dies is gone after so long. Services ask for 12 s, the default; this is short so that you need not
/// wait for the show.
const LEASE: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(15);

/// Shows servers that come and go, and who knows of them. Exits with status 1 if anything that it claims does not hold.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    addresses: Addresses,
}

/// The servers that are alive: names and addresses.
type Servers = BTreeMap<String, String>;

/// Registers a server. It is found for as long as the handle that is returned is open and the session lives.
async fn register(session: &Session, name: &str, address: &str) -> Result<Handle> {
    let service = session.open(SERVICE, OpenOptions::new().create().directory()).await?;
    // Of a server that died and was started again at once, the earlier entry may still be there: its name and address
    // are taken over.
    let entry = service.open(name, OpenOptions::new().create().ephemeral()).await?;
    entry.set_contents(address.to_owned()).await?;
    Ok(entry)
}

/// Tells which servers there are, now and after every change, for as long as the session lasts.
async fn follow(session: &Session, mut tell: impl FnMut(Servers)) -> Result<()> {
    let changes = [EventKind::ChildAdded, EventKind::ChildRemoved, EventKind::ChildModified];
    let options = OpenOptions::new().create().directory().events(changes);
    let service = session.open(SERVICE, options).await?;
    let mut events = service.events()?;
    loop {
        tell(servers(&service).await?);
        let Some(event) = events.next().await else { return Ok(()) };
        event?;
    }
}

async fn servers(service: &Handle) -> Result<Servers> {
    let mut servers = Servers::new();
    for entry in service.read_dir().await? {
        // One that has gone meanwhile is announced as a change of its own.
        let Ok(server) = service.open(&entry.name, OpenOptions::new().read_only()).await else { continue };
        let Ok(contents) = server.contents().await else { continue };
        servers.insert(entry.name, String::from_utf8_lossy(&contents.bytes).into_owned());
    }
    Ok(servers)
}

#[tokio::main]
async fn main() -> Result<()> {
    let stage = Stage::set(&Arguments::parse().addresses).await?;
    let shown = show(&stage.cell).await;
    stage.strike().await?;
    shown
}

async fn show(cell: &Cell) -> Result<()> {
    let session = cell.session().client_name("client").open().await?;
    let (told, mut known) = watch::channel(Servers::new());
    let tell = |servers: Servers| {
        println!("        the client knows of {:?}", servers.keys().collect::<Vec<_>>());
        told.send_replace(servers);
    };
    let play = async {
        let ada = server("ada", cell.addresses())?;
        let bob = server("bob", cell.addresses())?;
        let cy = server("cy", cell.addresses())?;
        until(&mut known, &["ada", "bob", "cy"]).await?;
        let address = known.borrow().get("bob").cloned();
        claim(
            "all three servers are known, by name and address",
            address.as_deref() == Some("bob.example:80"),
        )?;

        println!("        bob dies");
        let _ = bob.crash.send(());
        until(&mut known, &["ada", "cy"]).await?;
        claim("bob was forgotten without anybody's doing, once his lease had run out", true)?;

        println!("        ada stops in good order");
        let _ = ada.stop.send(());
        until(&mut known, &["cy"]).await?;
        claim("ada was forgotten at once", true)?;
        let _ = cy.stop.send(());
        until(&mut known, &[]).await
    };
    tokio::select! {
        followed = follow(&session, tell) => followed.context("the client stopped following"),
        played = play => played,
    }?;
    session.close().await;
    println!("All claims hold.");
    Ok(())
}

/// Waits until exactly these servers are known.
async fn until(known: &mut watch::Receiver<Servers>, names: &[&str]) -> Result<()> {
    let are_these = |servers: &Servers| servers.keys().eq(names);
    timeout(LIMIT, known.wait_for(are_these)).await.context("waited in vain for a change")??;
    Ok(())
}

/// A server of the show, on a thread and a runtime of its own, so that it can die like a process.
struct Server {
    /// Stops it as it stands.
    crash: oneshot::Sender<()>,
    /// Has it close its session.
    stop: oneshot::Sender<()>,
}

fn server(name: &'static str, addresses: Vec<String>) -> Result<Server> {
    let (crash, crashed) = oneshot::channel();
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        let ended: Result<()> = runtime.block_on(async {
            let session = Cell::connect(addresses)?.session().lease(LEASE).client_name(name).open().await?;
            let _entry = register(&session, name, &format!("{name}.example:80")).await?;
            tokio::select! {
                // The runtime stops here and now, and says no goodbye, like a process that is killed.
                _ = crashed => {}
                _ = stopped => drop(session.close().await),
            }
            Ok(())
        });
        if let Err(error) = ended {
            println!("        {name} failed: {error:#}");
        }
    });
    Ok(Server { crash, stop })
}
