//! Faults that are done by themselves, from beginning to end.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use holdfast::WriteOptions;
use holdfast_sim::{Invariant, Violation};
use nix::sys::signal::Signal;
use tokio::time::{Instant, timeout};

use super::{Field, HEALS, pairs};
use crate::torture::clock;
use crate::torture::disk::SmallDisk;
use crate::torture::schedule::{Fault, Kind};

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
pub(super) async fn perform(field: &mut Field, fault: &Fault) -> anyhow::Result<()> {
    let ids: Vec<u64> = field.cell.replicas.keys().copied().collect();
    let small = field.cell.replicas.values().find(|replica| replica.disk.is_some()).map(|replica| replica.id);
    // Who has the small disk keeps it: whoever came in its place would have none that can be filled.
    let large: Vec<u64> = ids.iter().copied().filter(|id| Some(*id) != small).collect();
    let drawn = large[usize::try_from(fault.draw % large.len().max(1) as u64).unwrap_or(0)];
    let whom = match fault.kind {
        Kind::Wipe if !field.cell.has_spare() => return Ok(()),
        Kind::Wipe => Some(drawn),
        Kind::FullDisk => match small {
            Some(id) => Some(id),
            None => return Ok(()),
        },
        _ => None,
    };
    let name = match fault.kind {
        Kind::SleepingMaster | Kind::KillHolder | Kind::LateAnswers => {
            match pairs::name(field, fault).await {
                Some(name) => name,
                None => return Ok(()),
            }
        }
        _ => whom.map_or_else(|| "all".to_owned(), |id| format!("replica {id}")),
    };
    field.say(&format!("{} ({name})", fault.kind));
    let place = field.troubles.begin(fault.kind, name, clock::now());
    let done = match fault.kind {
        Kind::Rolling => rolling(field, &ids).await,
        Kind::SleepingMaster => pairs::sleeping_master(field, fault).await,
        Kind::KillHolder => pairs::kill_holder(field, fault).await,
        Kind::LateAnswers => pairs::late_answers(field, fault).await,
        Kind::Wipe => wipe(field, drawn).await,
        Kind::FullDisk => full_disk(field, small.unwrap_or_default(), fault.lasts).await,
        _ => kill_all(field, fault.lasts).await,
    };
    if let Err(error) = done {
        // What the replicas were expected to do and did not.
        let what = format!("{}: {error:#}", fault.kind);
        field.say(&what);
        field.violations.push(Violation::new(Invariant::Progress, what));
    }
    for replica in field.cell.replicas.values_mut() {
        replica.start(&field.net)?;
    }
    field.expect_service(&format!("after a {}", fault.kind)).await;
    field.troubles.end(place, clock::now());
    Ok(())
}

async fn rolling(field: &mut Field, ids: &[u64]) -> anyhow::Result<()> {
    for id in ids {
        let Some(replica) = field.cell.replicas.get_mut(id) else { continue };
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
        field.violations.push(Violation::new(Invariant::Durability, what));
        return Ok(());
    }
    let new = field.cell.replace(&field.net, id, HEALS).await?;
    field.say(&format!("replica {id} refused to come back, and is replaced by replica {new}"));
    Ok(())
}

/// A replica whose disk is full goes on for as long as its log's newest file has room, which is right; and then must
/// abort (design.md §8). So the cell is made to write more than that, and the disk kept full meanwhile: log that the
/// replica needs no longer gives room again.
async fn full_disk(field: &mut Field, id: u64, lasts: Duration) -> anyhow::Result<()> {
    let admin = field.cell.admin().clone();
    let Some(replica) = field.cell.replicas.get_mut(&id) else { return Ok(()) };
    let deadline = Instant::now() + STOPS;
    let mut written = 0;
    let ended = loop {
        replica.disk.as_ref().map(SmallDisk::fill).transpose()?;
        let bulk = admin.set_contents(BULK, vec![0; BULK_BYTES], WriteOptions::new().create());
        if let Ok(Ok(_)) = timeout(BULK_WAIT, bulk).await {
            written += BULK_BYTES;
        }
        match replica.ended(BULK_WAIT).await {
            Ok(ended) => break ended,
            Err(_)
                if Instant::now() < deadline
                    || written < BULK_ENOUGH && Instant::now() < deadline + HEALS => {}
            Err(_) => {
                replica.signal(Signal::SIGKILL);
                replica.ended(STOPS).await?;
                break None;
            }
        }
    };
    replica.disk.as_ref().map(SmallDisk::free).transpose()?;
    let violation = match ended {
        Some(status) if status.signal() == Some(Signal::SIGABRT as i32) => None,
        Some(status) => {
            Some(format!("replica {id} on a full disk ended, {status}: {}", replica.last_words()))
        }
        None if written < BULK_ENOUGH => {
            anyhow::bail!("the cell has taken {written} bytes only in {:?}", STOPS + HEALS)
        }
        None => Some(format!(
            "replica {id} has a full disk, and has not ended although the cell has written {written} bytes, for which \
             its log has no room; it was killed: {}",
            replica.last_words()
        )),
    };
    if let Some(what) = violation {
        field.say(&what);
        field.violations.push(Violation::new(Invariant::Survival, what));
    }
    field.rest(lasts).await;
    Ok(())
}
