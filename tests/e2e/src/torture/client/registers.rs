//! Files that are read, from the cache where possible, and written.

use holdfast::{Contents, Error, Handle, OpenOptions};

use super::{COUNTERS, REGISTERS, Stage, Work};
use crate::torture::clock;
use crate::torture::history::Event;

impl Work {
    /// Reads and writes files.
    pub(super) async fn read_and_write(&self) {
        let worked = self.use_registers().await;
        self.judge("reading and writing", worked);
    }

    async fn use_registers(&self) -> Result<(), Error> {
        let mut handles = Vec::new();
        for number in 0..REGISTERS {
            handles.push(self.session.open(&Self::path("register", number), OpenOptions::new()).await?);
        }
        let (used, _) = tokio::join!(self.use_all(&handles), self.peek(&handles));
        used
    }

    /// Reads what is cached, and never asks: whoever waits for an answer sees nothing of a cache that is stale meanwhile.
    async fn peek(&self, handles: &[Handle]) {
        while self.is(Stage::Working) {
            self.pause(5..60).await;
            for handle in handles {
                let began = clock::now();
                if let Some(contents) = handle.cached_contents() {
                    self.note_read(handle, began, &contents, true);
                }
            }
        }
    }

    async fn use_all(&self, handles: &[Handle]) -> Result<(), Error> {
        while self.is(Stage::Working) {
            self.pause(2..40).await;
            let which = self.draw(0..u64::from(REGISTERS));
            let Some(handle) =
                handles.iter().zip(0..).find_map(|(handle, at)| (at == which).then_some(handle))
            else {
                continue;
            };
            if self.draw(0..5) > 0 {
                self.read(handle).await?;
            } else {
                self.write(handle, self.next_contents(), None).await?;
            }
        }
        Ok(())
    }

    /// Reads the counters, and never from the cache: whoever writes waits for answers, and so sees little of a master
    /// that answers and should not.
    pub(super) async fn look_on(&self) {
        let worked = self.read_counters().await;
        self.judge("looking on", worked);
    }

    async fn read_counters(&self) -> Result<(), Error> {
        let mut handles = Vec::new();
        for number in 0..COUNTERS {
            let options = OpenOptions::new().read_only().caching(false);
            handles.push(self.session.open(&Self::path("counter", number), options).await?);
        }
        while self.is(Stage::Working) {
            for handle in &handles {
                self.pause(5..60).await;
                let began = clock::now();
                let contents = handle.contents().await?;
                self.note_read(handle, began, &contents, false);
            }
        }
        Ok(())
    }

    async fn read(&self, handle: &Handle) -> Result<(), Error> {
        let began = clock::now();
        match handle.cached_contents() {
            Some(contents) => self.note_read(handle, began, &contents, true),
            None => {
                let contents = handle.contents().await?;
                self.note_read(handle, began, &contents, false);
            }
        }
        Ok(())
    }

    pub(super) fn note_read(&self, handle: &Handle, began: u64, contents: &Contents, cached: bool) {
        self.recorder.note(Event::Read {
            path: handle.path().to_owned(),
            instance: handle.instance(),
            began,
            contents: String::from_utf8_lossy(&contents.bytes).into_owned(),
            generation: contents.stat.content_generation,
            cached,
        });
    }
}
