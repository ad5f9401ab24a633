//! Faults that harm only in pairs, one after the other at the right moment: by chance they would hardly meet. Done by
//! themselves; what they leave behind is mended when they are over, however that was.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Field, HEALS, split};
use crate::torture::cell::until;
use crate::torture::client::MEMBERS;
use crate::torture::run::LEASE;
use crate::torture::schedule::Fault;

/// How late answers come: not so late that clients take the master for dead, which they do after a quarter of a lease.
const LATE: Duration = Duration::from_millis(450);

/// How long a deposed master and its clients have to themselves when it wakes.
const TOGETHER: Duration = Duration::from_secs(3);

/// The master is split off with some clients, stands still for longer than their leases, and wakes among them: whatever
/// it grants or answers then, somebody else is master.
pub(super) async fn sleeping_master(field: &mut Field, fault: &Fault, master: u64) -> anyhow::Result<()> {
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
    Ok(())
}

/// A holder dies; as soon as its session is over, and so its lock lost, the master dies too. The next one must not
/// grant the lock before all of its delay has passed.
pub(super) async fn kill_holder(field: &mut Field, fault: &Fault, holder: usize) -> anyhow::Result<()> {
    let name = field.crowd.name(holder).to_owned();
    field.crowd.kill(holder).await?;
    let admin = field.cell.admin().clone();
    let is_gone = async || {
        let members = admin.read_dir(MEMBERS).await.ok()?;
        members.iter().all(|entry| !entry.name.starts_with(&format!("{name}-"))).then_some(())
    };
    until(HEALS, &format!("{name} is no longer registered"), is_gone).await?;
    field.rest(fault.lasts).await;
    // Whoever is master by now.
    match field.cell.master(&field.net).await {
        Some(master) => field.kill(master).await,
        None => {
            field.say("no replica says that it is master, so that only the holder is killed");
            Ok(())
        }
    }
}

/// A client's answers come late, and then none at all: it must count its lease from when it asked.
pub(super) async fn late_answers(field: &mut Field, fault: &Fault, client: usize) -> anyhow::Result<()> {
    field.cell.replicas.values().for_each(|replica| replica.relays[0].delay_answers(LATE));
    field.rest(LEASE + fault.lasts / 3).await;
    field.net.isolate(field.crowd.host(client));
    field.net.apply()?;
    // What is on its way to it now comes nowhere; to the others it comes at once.
    field.cell.replicas.values().for_each(|replica| replica.relays[0].heal());
    field.rest(LEASE * 2).await;
    Ok(())
}
