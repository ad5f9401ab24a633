//! Faults that are done by themselves, from beginning to end.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use holdfast::WriteOptions;
use holdfast_sim::Invariant;
use nix::sys::signal::Signal;
use tokio::time::{Instant, timeout};

use super::target::Target;
use super::{Field, HEALS, pairs};
use crate::torture::disk::SmallDisk;
use crate::torture::schedule::{Fault, Kind};
use crate::torture::unmet::Unmet;

/// How long a replica may take to stop as asked, or to notice what is wrong with its disk.
const STOPS: Duration = Duration::from_secs(20);

/// What is written while a disk is full: where, how much at a time, and how long a write may take then. A file of the
/// replicas' logs has 80 KiB.
const BULK: &str = "/torture/bulk";
const BULK_BYTES: usize = 64 << 10;
const BULK_WAIT: Duration = Duration::from_millis(500);
/// So much finds no room in any case.
const BULK_ENOUGH: usize = 8 * BULK_BYTES;

/// The exit status of a replica that must not come back.
const FINAL: i32 = 3;

/// Does such a fault. The cell serves before it, and must afterwards.
pub(super) async fn perform(field: &mut Field, fault: &Fault, target: Target) -> anyhow::Result<()> {
    let done = act(field, fault, target).await;
    // What was not as it should have been, and what the rig could not do, leave a fault half done.
    let mended = mend(field, fault.kind, target);
    field.judge(&fault.kind.to_string(), done)?;
    mended?;
    field.expect_service(&format!("after a {}", fault.kind)).await
}

async fn act(field: &mut Field, fault: &Fault, target: Target) -> anyhow::Result<()> {
    match (fault.kind, target) {
        (Kind::Rolling, _) => rolling(field).await,
        (Kind::SleepingMaster, Target::Replica(master)) => pairs::sleeping_master(field, fault, master).await,
        (Kind::KillHolder, Target::Client(holder)) => pairs::kill_holder(field, fault, holder).await,
        (Kind::LateAnswers, Target::Client(client)) => pairs::late_answers(field, fault, client).await,
        (Kind::Wipe, Target::Replica(id)) => wipe(field, id).await,
        (Kind::FullDisk, Target::Replica(id)) => full_disk(field, id, fault.lasts).await,
        _ => kill_all(field, fault.lasts).await,
    }
}

/// Undoes whatever such a fault leaves behind, however far it came.
fn mend(field: &mut Field, kind: Kind, target: Target) -> anyhow::Result<()> {
    for replica in field.cell.replicas.values_mut() {
        replica.signal(Signal::SIGCONT);
        replica.relays.iter().for_each(|relay| relay.heal());
        replica.disk.as_ref().map(SmallDisk::free).transpose()?;
        replica.start(&field.net)?;
    }
    if let (Kind::KillHolder, Target::Client(place)) = (kind, target)
        && !field.crowd.is_taken(place)
    {
        field.crowd.seat(&field.net, place)?;
    }
    field.net.heal();
    field.net.apply()
}

async fn rolling(field: &mut Field) -> anyhow::Result<()> {
    let ids: Vec<u64> = field.cell.replicas.keys().copied().collect();
    for id in ids {
        let Some(replica) = field.cell.replicas.get_mut(&id) else { continue };
        replica.stop(Signal::SIGTERM, STOPS).await?;
        replica.start(&field.net)?;
        field.cell.serving(&field.net, HEALS).await?;
    }
    Ok(())
}

async fn kill_all(field: &mut Field, lasts: Duration) -> anyhow::Result<()> {
    field.cell.replicas.values().for_each(|replica| replica.signal(Signal::SIGKILL));
    for replica in field.cell.replicas.values_mut() {
        replica.stop(Signal::SIGKILL, STOPS).await?;
    }
    field.rest(lasts).await;
    Ok(())
}

async fn wipe(field: &mut Field, id: u64) -> anyhow::Result<()> {
    let Some(replica) = field.cell.replicas.get_mut(&id) else { return Ok(()) };
    replica.stop(Signal::SIGKILL, STOPS).await?;
    replica.wipe()?;
    replica.start(&field.net)?;
    let status = replica.ended(STOPS).await?.and_then(|status| status.code());
    if status != Some(FINAL) {
        let what = format!("wiped replica {id} ended with {status:?}: {}", replica.last_words());
        return Err(Unmet::new(Invariant::Durability, what).into());
    }
    let new = field.cell.replace(&field.net, id, HEALS).await?;
    field.say(&format!("replica {id} refused to come back, and is replaced by replica {new}"));
    Ok(())
}

/// A replica whose disk is full goes on for as long as its log's newest file has room, which is right; and then must
/// abort (design.md §8). So the cell is made to write more than that.
async fn full_disk(field: &mut Field, id: u64, lasts: Duration) -> anyhow::Result<()> {
    let (ended, written) = starve(field, id).await?;
    if let Some(unmet) = unmet_on_full_disk(ended, written) {
        let words = field.cell.replicas.get(&id).map(super::super::cell::Replica::last_words);
        let what = format!("replica {id} {unmet}: {}", words.unwrap_or_default());
        return Err(Unmet::new(Invariant::Survival, what).into());
    }
    field.rest(lasts).await;
    Ok(())
}

/// Keeps a replica's disk full while the cell writes, until the replica has ended, or has had every reason to and is
/// killed. The disk is filled again and again: log that the replica needs no longer gives room. Says how the replica has
/// ended by itself, and how much the cell has written.
async fn starve(field: &mut Field, id: u64) -> anyhow::Result<(Option<ExitStatus>, usize)> {
    let admin = field.cell.admin().clone();
    let Some(replica) = field.cell.replicas.get_mut(&id) else { return Ok((None, 0)) };
    let (began, mut written) = (Instant::now(), 0);
    while began.elapsed() < if written < BULK_ENOUGH { STOPS + HEALS } else { STOPS } {
        replica.disk.as_ref().map(SmallDisk::fill).transpose()?;
        let bulk = admin.set_contents(BULK, vec![0; BULK_BYTES], WriteOptions::new().create());
        if let Ok(Ok(_)) = timeout(BULK_WAIT, bulk).await {
            written += BULK_BYTES;
        }
        if let Ok(ended) = replica.ended(BULK_WAIT).await {
            return Ok((ended, written));
        }
    }
    replica.signal(Signal::SIGKILL);
    let killed = |status: &ExitStatus| status.signal() == Some(Signal::SIGKILL as i32);
    let ended = replica.ended(STOPS).await?.filter(|status| !killed(status));
    let what = format!("the cell has taken {written} bytes only in {:?}", began.elapsed());
    anyhow::ensure!(ended.is_some() || written >= BULK_ENOUGH, Unmet::new(Invariant::Progress, what));
    Ok((ended, written))
}

/// What is wrong with how a replica has ended by itself on a full disk, if it has, after the cell has written so much.
fn unmet_on_full_disk(ended: Option<ExitStatus>, written: usize) -> Option<String> {
    match ended {
        Some(status) if status.signal() == Some(Signal::SIGABRT as i32) => None,
        Some(status) => Some(format!("on a full disk ended, {status}")),
        None => Some(format!(
            "has a full disk, and has not ended although the cell has written {written} bytes, for which its log has \
             no room; it was killed"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_full_disk_only_an_abort_is_right() {
        let ended = |status| unmet_on_full_disk(Some(ExitStatus::from_raw(status)), BULK_ENOUGH);
        assert_eq!(ended(Signal::SIGABRT as i32), None);
        assert!(ended(0).unwrap().contains("ended, exit status: 0"));
        assert!(ended(Signal::SIGSEGV as i32).unwrap().contains("signal: 11"));
        assert!(unmet_on_full_disk(None, BULK_ENOUGH).unwrap().contains("has not ended"));
    }
}
