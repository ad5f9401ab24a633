//! A cell of one directory and a few files, for one session under test, whose other clients change things.
//!
//! It keeps the rules that a master keeps (design.md §6): what is about to change is barred, the session is asked to
//! drop it, and the change is applied when the session has acknowledged that, has attached anew, or is over. It
//! remembers nothing twice and is as plain as can be, so that it can be believed.

use holdfast_proto::client::v1::{self as wire, client_frame, outcome, request::Operation, server_frame};
use holdfast_types::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const DIRECTORY: &str = "/d";
/// Of every grant.
pub(crate) const LEASE_MS: u32 = 1_000;

/// What the other clients do to the directory's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Write(u8),
    Create(u8),
    Delete(u8),
}

#[derive(Debug)]
struct Held {
    change: Change,
    /// It waits until the notices of the present stream are acknowledged through this one; `MAX`: for another stream.
    until: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Cell {
    /// The revision of the last change.
    pub(crate) revision: u64,
    /// The files, by path: instance, and the revision of the last write.
    pub(crate) files: BTreeMap<String, (u64, u64)>,
    /// The revision of the directory's last change.
    pub(crate) directory: u64,
    pub(crate) ended: bool,
    /// What goes to the client, in order.
    pub(crate) out: Vec<wire::ServerFrame>,
    handles: BTreeMap<u64, (String, u64)>,
    /// What came of Opens and Closes, for those that are sent again.
    outcomes: BTreeMap<u64, outcome::Result>,
    /// The Opens that were answered.
    told: BTreeSet<u64>,
    may_cache: BTreeSet<String>,
    held: Vec<Held>,
    attached: bool,
    /// Another master than the last one serves: what it let the session cache is not known.
    unreturned: bool,
    notice: u64,
    unacknowledged: Vec<wire::Notice>,
    notice_at_grant: u64,
    lease_end: Time,
}

pub(crate) fn file(index: u8) -> String {
    format!("{DIRECTORY}/{index}")
}

impl Change {
    fn file(self) -> String {
        let (Self::Write(index) | Self::Create(index) | Self::Delete(index)) = self;
        file(index)
    }

    /// Every change of a file changes how its directory is listed.
    fn touches(self, path: &str) -> bool {
        path == DIRECTORY || path == self.file()
    }

    fn voids_opens(self, path: &str) -> bool {
        matches!(self, Self::Delete(_)) && path == self.file()
    }
}

impl Cell {
    /// Another client wants this.
    pub(crate) fn plan(&mut self, change: Change) {
        let mut until = 0;
        for path in [change.file(), DIRECTORY.to_owned()] {
            let has_handle = self.handles.values().any(|(opened, _)| *opened == path);
            let opens = change.voids_opens(&path);
            let concerned = self.may_cache.contains(&path) || (has_handle && (opens || self.unreturned));
            // What the session was asked to drop before, it may still have.
            let asked = self.unacknowledged.iter().flat_map(|notice| &notice.invalidations);
            let asked = asked.filter(|invalidation| invalidation.path == path).count() > 0;
            if self.ended || !(concerned || asked) {
                continue;
            }
            if self.attached {
                self.may_cache.remove(&path);
                self.notify(wire::Invalidation { path, opens });
                until = self.notice;
            } else {
                until = u64::MAX;
            }
        }
        self.held.push(Held { change, until });
        self.settle(0);
    }

    /// Whether something is about to change this node that waits for no more than these notices.
    pub(crate) fn is_about_to_change(&self, path: &str, through: u64) -> bool {
        self.held.iter().any(|held| held.until <= through && held.change.touches(path))
    }

    /// The session has acknowledged so much: what waits for no more than that takes place.
    fn settle(&mut self, through: u64) {
        self.unacknowledged.retain(|notice| notice.number > through);
        let ready = |held: &Held| held.until <= through;
        let (ready, held) = std::mem::take(&mut self.held).into_iter().partition(ready);
        self.held = held;
        let ready: Vec<Held> = ready;
        for Held { change, .. } in ready {
            self.apply(change);
        }
    }

    fn apply(&mut self, change: Change) {
        let next = self.revision + 1;
        let path = change.file();
        let changed = match change {
            Change::Write(_) => self.files.get_mut(&path).map(|(_, written)| *written = next).is_some(),
            Change::Create(_) => {
                !self.files.contains_key(&path) && {
                    self.files.insert(path, (next, next));
                    true
                }
            }
            Change::Delete(_) => self.files.remove(&path).is_some(),
        };
        if changed {
            self.revision = next;
            self.directory = next;
        }
    }

    fn notify(&mut self, invalidation: wire::Invalidation) {
        self.notice += 1;
        let notice =
            wire::Notice { number: self.notice, invalidations: vec![invalidation], events: Vec::new() };
        self.unacknowledged.push(notice.clone());
        self.out.push(wire::ServerFrame { notices: vec![notice], ..wire::ServerFrame::default() });
    }

    /// The stream is gone. The next one is perhaps another master's, who has to find out.
    pub(crate) fn broken(&mut self, fail_over: bool) {
        self.attached = false;
        self.out.clear();
        self.unreturned = fail_over || self.unreturned;
        for held in &mut self.held {
            held.until = u64::MAX;
        }
        if fail_over {
            // It starts every lease anew, and has no word of what the old one let the session cache.
            let cached = self.handles.values().map(|(path, _)| path.clone());
            self.may_cache = cached.collect();
        }
    }

    /// The session is over when its lease is, if somebody waits for that.
    pub(crate) fn pass(&mut self, now: Time) {
        if now > self.lease_end && self.lease_end > Time::ZERO {
            self.ended = true;
            self.attached = false;
            self.settle(u64::MAX);
        }
    }

    pub(crate) fn handle(&mut self, now: Time, frame: wire::ClientFrame) {
        self.pass(now);
        if let Some(hello) = &frame.hello {
            self.hello(now, hello);
        }
        if !self.attached {
            return;
        }
        self.settle(frame.notices_through);
        for request in frame.requests {
            self.request(request);
        }
        if let Some(keep_alive) = frame.keep_alive {
            self.keep_alive(now, keep_alive.number);
        }
    }

    fn hello(&mut self, now: Time, hello: &client_frame::Hello) {
        if self.ended {
            let refusal = wire::Refusal {
                code: wire::RefusalCode::UnknownSession.into(),
                message: String::new(),
                ..Default::default()
            };
            let refused = wire::StreamRefused { refusal: Some(refusal), master_address: String::new() };
            let hello = Some(server_frame::Hello::Refused(refused));
            return self.out.push(wire::ServerFrame { hello, ..wire::ServerFrame::default() });
        }
        // Whoever attaches has nothing cached.
        self.may_cache.clear();
        self.unreturned = false;
        self.settle(u64::MAX);
        (self.notice, self.notice_at_grant) = (0, 0);
        self.attached = true;
        let info = wire::CellInfo {
            name: "dev".to_owned(),
            requests_in_flight_max: 64,
            contents_bytes_max: 1 << 18,
            ..wire::CellInfo::default()
        };
        let hello = match hello {
            client_frame::Hello::Open(_) => {
                self.grant(now);
                server_frame::Hello::Opened(wire::SessionOpened {
                    session: 9,
                    lease_ms: LEASE_MS,
                    cell: Some(info),
                    ..wire::SessionOpened::default()
                })
            }
            client_frame::Hello::Attach(attach) => server_frame::Hello::Attached(wire::SessionAttached {
                attachment: attach.attachment,
                cell: Some(info),
                ..wire::SessionAttached::default()
            }),
        };
        self.out.push(wire::ServerFrame { hello: Some(hello), ..wire::ServerFrame::default() });
    }

    fn grant(&mut self, now: Time) {
        self.notice_at_grant = self.notice;
        self.lease_end = now + Duration::from_millis(u64::from(LEASE_MS));
    }

    fn keep_alive(&mut self, now: Time, number: u64) {
        let overdue = self.unacknowledged.iter().any(|notice| notice.number <= self.notice_at_grant);
        let lease_ms = if overdue { 0 } else { LEASE_MS };
        if !overdue {
            self.grant(now);
        }
        let notices = if overdue { self.unacknowledged.clone() } else { Vec::new() };
        let lease = Some(wire::LeaseGranted { number, lease_ms });
        self.out.push(wire::ServerFrame { lease, notices, ..wire::ServerFrame::default() });
    }

    fn request(&mut self, request: wire::Request) {
        let Some(operation) = request.operation else { return };
        let (result, path) = match self.outcomes.get(&request.number) {
            Some(result) => (result.clone(), None),
            None => self.decide(request.number, &operation),
        };
        // Barred, or cached by who must not know of it: not to be kept.
        let cacheable = path.as_ref().is_some_and(|path| {
            self.held.iter().all(|held| !held.change.touches(path))
                && self.unacknowledged.iter().all(|n| n.invalidations.iter().all(|i| i.path != *path))
        });
        if cacheable {
            self.may_cache.extend(path);
        }
        let outcome = Some(wire::Outcome { revision: self.revision, result: Some(result) });
        let reply = wire::Reply { number: request.number, outcome, cacheable };
        self.out.push(wire::ServerFrame { replies: vec![reply], ..wire::ServerFrame::default() });
        self.tell_of_doubt(request.number, &operation);
    }

    /// What was opened is being deleted, or was opened at an earlier time than now: that is said with the reply.
    fn tell_of_doubt(&mut self, number: u64, operation: &Operation) {
        let Operation::Open(open) = operation else { return };
        let repeated = !self.told.insert(number);
        let doubtful = self.held.iter().any(|held| held.change.voids_opens(&open.path));
        if doubtful || repeated {
            self.notify(wire::Invalidation { path: open.path.clone(), opens: true });
            let notice = self.out.pop().expect("it was just pushed");
            self.out.last_mut().expect("the reply was just pushed").notices = notice.notices;
        }
    }

    /// What comes of a request, and which node's state it tells, if the session may keep that.
    fn decide(&mut self, number: u64, operation: &Operation) -> (outcome::Result, Option<String>) {
        match operation {
            Operation::Open(open) => self.open(number, open),
            Operation::Close(close) => {
                self.closed(close.handle);
                self.record(number, outcome::Result::Closed(wire::Closed {}))
            }
            Operation::Cancel(cancel) => {
                self.closed(cancel.number);
                let refused = refused(wire::RefusalCode::Cancelled);
                self.outcomes.entry(cancel.number).or_insert(refused);
                self.record(number, outcome::Result::Cancelled(wire::Cancelled {}))
            }
            Operation::GetContents(get) => self.read(get.handle, |_, stat| {
                let contents = stat.content_generation.to_string().into_bytes().into();
                outcome::Result::Contents(Box::new(wire::Contents { stat: Some(stat), contents }))
            }),
            Operation::GetStat(get) => self.read(get.handle, |_, stat| outcome::Result::Stat(Box::new(stat))),
            Operation::ReadDir(read) => self.read(read.handle, |cell, stat| {
                let entries = cell
                    .files
                    .keys()
                    .map(|path| wire::DirectoryEntry { name: path.clone(), stat: cell.stat(path) });
                let entries = entries.collect();
                outcome::Result::Directory(Box::new(wire::Directory {
                    stat: Some(stat),
                    entries,
                    more: false,
                }))
            }),
            other => unreachable!("the test does not ask for {other:?}"),
        }
    }

    fn record(&mut self, number: u64, result: outcome::Result) -> (outcome::Result, Option<String>) {
        self.outcomes.insert(number, result.clone());
        (result, None)
    }

    fn open(&mut self, number: u64, open: &wire::Open) -> (outcome::Result, Option<String>) {
        let Some(stat) = self.stat(&open.path) else {
            let result = refused(wire::RefusalCode::NotFound);
            self.outcomes.insert(number, result.clone());
            let watched = self.handles.values().any(|(path, _)| path == DIRECTORY);
            return (result, watched.then(|| DIRECTORY.to_owned()));
        };
        self.handles.insert(number, (open.path.clone(), stat.instance));
        self.record(
            number,
            outcome::Result::Opened(Box::new(wire::Opened { created: false, stat: Some(stat) })),
        )
    }

    /// The client drops what it has of a node before it closes its last handle on it.
    fn closed(&mut self, handle: u64) {
        let Some((path, _)) = self.handles.remove(&handle) else { return };
        if self.handles.values().all(|(other, _)| *other != path) {
            self.may_cache.remove(&path);
        }
    }

    fn read(
        &self,
        handle: u64,
        tell: impl FnOnce(&Self, wire::Stat) -> outcome::Result,
    ) -> (outcome::Result, Option<String>) {
        let Some((path, instance)) = self.handles.get(&handle) else {
            return (refused(wire::RefusalCode::UnknownHandle), None);
        };
        match self.stat(path).filter(|stat| stat.instance == *instance) {
            Some(stat) => (tell(self, stat), Some(path.clone())),
            None => (refused(wire::RefusalCode::NodeGone), None),
        }
    }

    fn stat(&self, path: &str) -> Option<wire::Stat> {
        if path == DIRECTORY {
            return Some(wire::Stat {
                kind: wire::NodeKind::Directory.into(),
                instance: 1,
                children_generation: self.directory,
                ..wire::Stat::default()
            });
        }
        self.files.get(path).map(|(instance, written)| wire::Stat {
            kind: wire::NodeKind::File.into(),
            instance: *instance,
            content_generation: *written,
            ..wire::Stat::default()
        })
    }
}

fn refused(code: wire::RefusalCode) -> outcome::Result {
    outcome::Result::Refusal(wire::Refusal {
        code: code.into(),
        message: String::new(),
        ..Default::default()
    })
}
