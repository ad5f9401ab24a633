//! What clients write down: one line of JSON for everything that happens to them, with its time.
//!
//! A client that is killed leaves what it had written, so what may take effect is written down before it is tried.
//! Knows nothing of what is right: that is for the judge. Invariant: a line is written at once and whole.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::clock;

/// Something that happened to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, by [`clock::now`].
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It has a session.
    Opened {
        /// Its id.
        session: u64,
    },
    /// Its session is in jeopardy, is safe, has failed over.
    State {
        /// In a word.
        state: String,
    },
    /// Its session is over.
    Over {
        /// Its id.
        session: u64,
        /// Why.
        reason: String,
        /// Whether the client itself closed it.
        closed: bool,
    },
    /// It has read a file.
    Read {
        /// Which.
        path: String,
        /// Of which instance.
        instance: u64,
        /// When it began.
        began: u64,
        /// What it got.
        contents: String,
        /// The generation.
        generation: u64,
        /// Whether it came from the cache.
        cached: bool,
    },
    /// It begins to write a file.
    Writing {
        /// Names the call among those of this client.
        call: u64,
        /// Which file.
        path: String,
        /// Of which instance.
        instance: u64,
        /// The new contents, which nobody else ever writes.
        contents: String,
        /// The generation that the file must have.
        if_generation: Option<u64>,
    },
    /// A write was acknowledged.
    Wrote {
        /// The call.
        call: u64,
        /// The file's new generation.
        generation: u64,
    },
    /// A write was refused: it had no effect.
    Refused {
        /// The call.
        call: u64,
    },
    /// It believes from now on that it holds a lock.
    Believes {
        /// Of which node.
        path: String,
        /// The grant's generation.
        generation: u64,
        /// Not alone.
        shared: bool,
        /// Until when, if nothing else happens.
        until: u64,
    },
    /// It begins to let a lock go.
    LetsGo {
        /// Of which node.
        path: String,
        /// The grant's generation.
        generation: u64,
    },
    /// It has asked whether the sequencer of a lock that it had is valid.
    Checked {
        /// Of which node.
        path: String,
        /// The grant's generation.
        generation: u64,
        /// When it began to ask.
        began: u64,
        /// The answer.
        valid: bool,
    },
    /// It watches a file from now on.
    Watches {
        /// Which.
        path: String,
        /// The generation that it knows of.
        generation: u64,
    },
    /// It is told that a file that it watches has changed.
    Told {
        /// Which.
        path: String,
        /// The newest generation.
        generation: u64,
    },
    /// The rig has found at the end that a file which it changes itself is at this generation.
    Changed {
        /// Which.
        path: String,
        /// The generation.
        generation: u64,
    },
    /// It is registered: it has made an ephemeral file.
    Registered {
        /// The file's name.
        name: String,
    },
    /// It believes that its session, and so what depends on it, is alive.
    Alive {
        /// Until when, if nothing else happens.
        until: u64,
    },
    /// It has listed who is registered.
    Listed {
        /// When it began.
        began: u64,
        /// The names.
        names: Vec<String>,
    },
    /// Something failed in a way that the rig did not expect.
    Failed {
        /// What, and how.
        what: String,
    },
    /// It was told to be quiet, and all its calls have ended.
    Quiet,
    /// It was told to stop, and is done.
    Stopped,
}

/// Where a client writes.
#[derive(Debug)]
pub struct Recorder {
    file: RefCell<File>,
}

impl Recorder {
    /// A new history.
    ///
    /// # Errors
    ///
    /// If the file cannot be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        Ok(Self { file: RefCell::new(file.with_context(|| format!("cannot write {}", path.display()))?) })
    }

    /// Writes down what happens now.
    ///
    /// # Panics
    ///
    /// If it cannot be written: a history with holes proves nothing.
    pub fn note(&self, event: Event) {
        self.note_at(clock::now(), event);
    }

    /// Writes down what happened at a time.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn note_at(&self, at: u64, event: Event) {
        let mut line = serde_json::to_string(&Record { at, event }).expect("a record can be written as JSON");
        line.push('\n');
        self.file.borrow_mut().write_all(line.as_bytes()).expect("the history can be written");
    }
}

/// The history of one client process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Which.
    pub client: String,
    /// What happened, in the order in which it was written down.
    pub records: Vec<Record>,
}

impl History {
    /// Reads a history. Its client is named by the file.
    ///
    /// # Errors
    ///
    /// If there is none, or a line is no record; the last line may be torn.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let client = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(client, &text)
    }

    /// A history from its text.
    ///
    /// # Errors
    ///
    /// If a line is no record; the last line may be torn.
    pub fn parse(client: String, text: &str) -> anyhow::Result<Self> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |(number, line)| {
            serde_json::from_str(line).with_context(|| format!("line {} of {client}: {line}", number + 1))
        };
        let records = whole.lines().enumerate().map(parse).collect::<anyhow::Result<_>>()?;
        Ok(Self { client, records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again_without_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c1.jsonl");
        let recorder = Recorder::create(&path).unwrap();
        recorder.note_at(5, Event::Wrote { call: 1, generation: 7 });
        recorder.note_at(6, Event::Quiet);
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{\"at\":7,\"ev").unwrap();
        let history = History::read(&path).unwrap();
        let expected = [
            Record { at: 5, event: Event::Wrote { call: 1, generation: 7 } },
            Record { at: 6, event: Event::Quiet },
        ];
        assert_eq!((history.client.as_str(), &history.records[..]), ("c1", &expected[..]));
    }

    #[test]
    fn a_line_that_is_no_record_is_refused() {
        assert!(History::parse("a".into(), "{\"at\":5,\"event\":\"quiet\"}\n").is_ok());
        let error = History::parse("a".into(), "{\"at\":5,\"event\":\"quiet\"}\nnonsense\n").unwrap_err();
        assert!(error.to_string().contains("line 2 of a"), "{error}");
    }
}
