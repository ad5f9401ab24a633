//! Faults that harm only in pairs, one after the other at the right moment: by chance they would hardly meet. Done by
//! themselves, from beginning to end.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Field, HEALS, split};
use crate::torture::cell::until;
use crate::torture::client::{LOCKS, MEMBERS, ROOT};
use crate::torture::history::Event;
use crate::torture::run::LEASE;
use crate::torture::schedule::{Fault, Kind};

/// How late answers come: not so late that clients take the master for dead, which they do after a quarter of a lease.
const LATE: Duration = Duration::from_millis(450);

/// How long a deposed master and its clients have to themselves when it wakes.
const TOGETHER: Duration = Duration::from_secs(3);

/// How long it may take until somebody holds the lock that most want.
const HOLDS: Duration = Duration::from_secs(10);

/// Whom such a fault hits, in words. `None` if nobody is there for it now.
pub(super) async fn name(field: &Field, fault: &Fault) -> Option<String> {
    match fault.kind {
        Kind::SleepingMaster => Some(field.split_name(field.cell.master(&field.net).await?, fault.draw)),
        Kind::KillHolder => {
            let place = until(HOLDS, "somebody holds the lock", async || holder(field)).await.ok()?;
            Some(field.crowd.name(place).to_owned())
        }
        _ => Some(field.crowd.name(client(field, fault)).to_owned()),
    }
}

fn client(field: &Field, fault: &Fault) -> usize {
    usize::try_from(fault.draw % field.crowd.len().max(1) as u64).unwrap_or(0)
}

/// The client that believes to hold the lock that is held for long.
fn holder(field: &Field) -> Option<usize> {
    let histories = field.crowd.histories_of_present().ok()?;
    let holds = |client: &str| {
        let history = histories.iter().find(|history| history.client == client)?;
        let lock = format!("{ROOT}/lock-{}", LOCKS - 1);
        let last = history.records.iter().rev().find_map(|record| match &record.event {
            Event::Believes { path, .. } if path.ends_with(&lock) => Some(true),
            Event::LetsGo { path, .. } if path.ends_with(&lock) => Some(false),
            Event::Over { .. } => Some(false),
            _ => None,
        });
        last.filter(|holds| *holds)
    };
    (0..field.crowd.len()).find(|place| holds(field.crowd.name(*place)).is_some())
}

/// The master is split off with some clients, stands still for longer than their leases, and wakes among them: whatever
/// it grants or answers then, somebody else is master.
pub(super) async fn sleeping_master(field: &mut Field, fault: &Fault) -> anyhow::Result<()> {
    let Some(master) = field.cell.master(&field.net).await else { return Ok(()) };
    let with = field.split(fault.draw).into_iter().map(|place| field.crowd.host(place));
    let inside: Vec<_> = with.chain(field.cell.replicas.get(&master).map(|replica| replica.host)).collect();
    let replicas = field.cell.replicas.values().map(|replica| replica.host);
    let clients = (0..field.crowd.len()).map(|place| field.crowd.host(place));
    split(&mut field.net, &inside, &replicas.chain(clients).collect::<Vec<_>>());
    field.net.apply()?;
    field.signal(master, Signal::SIGSTOP);
    field.rest(LEASE + fault.lasts / 3).await;
    field.signal(master, Signal::SIGCONT);
    field.rest(TOGETHER).await;
    field.net.heal();
    field.net.apply()
}

/// A holder dies; as soon as its session is over, and so its lock lost, the master dies too. The next one must not
/// grant the lock before all of its delay has passed.
pub(super) async fn kill_holder(field: &mut Field, fault: &Fault) -> anyhow::Result<()> {
    let Some(place) = holder(field) else { return Ok(()) };
    let name = field.crowd.name(place).to_owned();
    field.crowd.kill(place).await?;
    let admin = field.cell.admin().clone();
    let is_gone = async || {
        let members = admin.read_dir(MEMBERS).await.ok()?;
        members.iter().all(|entry| !entry.name.starts_with(&format!("{name}-"))).then_some(())
    };
    until(HEALS, &format!("{name} is no longer registered"), is_gone).await?;
    field.rest(fault.lasts).await;
    if let Some(master) = field.cell.master(&field.net).await {
        field.kill(master).await?;
    }
    field.crowd.seat(&field.net, place)
}

/// A client's answers come late, and then none at all: it must count its lease from when it asked.
pub(super) async fn late_answers(field: &mut Field, fault: &Fault) -> anyhow::Result<()> {
    field.cell.replicas.values().for_each(|replica| replica.relays[0].delay_answers(LATE));
    field.rest(LEASE + fault.lasts / 3).await;
    field.net.isolate(field.crowd.host(client(field, fault)));
    field.net.apply()?;
    // What is on its way to it now comes nowhere; to the others it comes at once.
    field.cell.replicas.values().for_each(|replica| replica.relays[0].heal());
    field.rest(LEASE * 2).await;
    field.net.heal();
    field.net.apply()
}
