//! Files that are watched for changes of their contents.

use holdfast::{Error, EventKind, OpenOptions};

use super::{COUNTERS, REGISTERS, Work};
use crate::torture::history::Event;

impl Work {
    /// Watches all files that are written, until it is to stop.
    pub(super) async fn watch(&self) {
        let registers = (0..REGISTERS).map(|number| Self::path("register", number));
        let counters = (0..COUNTERS).map(|number| Self::path("counter", number));
        let rarely = (0..self.orders.rarely).map(|number| Self::path("rarely", number));
        let watches = registers.chain(counters).chain(rarely).map(|path| self.watch_file(path));
        tokio::select! {
            worked = futures::future::join_all(watches) => {
                worked.into_iter().for_each(|worked| self.judge("watching", worked));
            }
            () = self.stopped() => {}
        }
    }

    async fn watch_file(&self, path: String) -> Result<(), Error> {
        let options = OpenOptions::new().read_only().events(EventKind::ContentsModified);
        let handle = self.session.open(&path, options).await?;
        let mut events = handle.events()?;
        let generation = match handle.stat_at_open() {
            Some(stat) => stat.content_generation,
            None => handle.stat().await?.content_generation,
        };
        // The name that the handle has, as those use it who read and write.
        let path = handle.path().to_owned();
        self.recorder.note(Event::Watches { path: path.clone(), generation });
        while let Some(Ok(event)) = events.next().await {
            if event.kinds.contains(EventKind::ContentsModified) {
                self.recorder.note(Event::Told { path: path.clone(), generation: event.content_generation });
            }
        }
        Ok(())
    }
}
