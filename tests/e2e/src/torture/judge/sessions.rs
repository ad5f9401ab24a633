//! I3 from outside, and whether every session that was lost had to be.

use std::time::Duration;

use holdfast_sim::{Invariant, Violation};

use super::Evidence;
use crate::torture::clock::nanos;
use crate::torture::history::{Event, History, Record};

/// How much longer than lease and grace a client may take to notice the end of its session.
const SLACK: Duration = Duration::from_secs(5);

/// Somebody registered, and alive as he believes.
struct Registration<'h> {
    name: &'h str,
    from: u64,
    until: u64,
}

/// Whoever was registered before a listing began, and believes to be alive beyond its end, is listed.
pub(super) fn are_registered_while_they_live(evidence: &Evidence) -> Result<(), Violation> {
    let registrations: Vec<_> = evidence.histories.iter().flat_map(registrations).collect();
    for history in &evidence.histories {
        for Record { at, event } in &history.records {
            let Event::Listed { began, names } = event else { continue };
            let missing = registrations.iter().find(|registration| {
                registration.from < *began
                    && registration.until > *at
                    && !names.iter().any(|name| name == registration.name)
            });
            if let Some(Registration { name, from, until }) = missing {
                let what = format!(
                    "{} listed {names:?} from {began} to {at}, without {name}, which is there from {from} until {until}",
                    history.client
                );
                return Err(Violation::new(Invariant::LeaseSafety, what));
            }
        }
    }
    Ok(())
}

fn registrations(history: &History) -> Vec<Registration<'_>> {
    let mut found: Vec<Registration<'_>> = Vec::new();
    let mut current: Option<Registration<'_>> = None;
    for Record { at, event } in &history.records {
        match event {
            Event::Registered { name } => current = Some(Registration { name, from: *at, until: *at }),
            Event::Alive { until } => {
                current.iter_mut().for_each(|current| current.until = current.until.max(*until));
            }
            // When all is quiet, a client may close what it has.
            Event::Over { .. } | Event::Quiet => {
                let ended = current.take();
                found.extend(ended.map(|ended| Registration { until: ended.until.min(*at), ..ended }));
            }
            _ => {}
        }
    }
    found.extend(current);
    found
}

/// A session ends only if its client could not reach a master for most of a lease.
pub(super) fn are_lost_for_a_reason(evidence: &Evidence) -> Result<(), Violation> {
    let enough = evidence.lease.mul_f64(0.8);
    for history in &evidence.histories {
        for Record { at, event } in &history.records {
            let Event::Over { session, reason, closed: false } = event else { continue };
            let since = at.saturating_sub(nanos(evidence.lease + evidence.grace + SLACK));
            let longest = evidence.troubles.longest(&history.client, since, *at);
            if longest < enough {
                let what = format!(
                    "{} lost session {session} at {at} ({reason}), and was disturbed for {longest:?} at most",
                    history.client
                );
                return Err(Violation::new(Invariant::Progress, what));
            }
        }
    }
    Ok(())
}
