//! Files that hold a number, which is raised by compare and set.

use holdfast::{Error, OpenOptions};

use super::{COUNTERS, Stage, Work};
use crate::torture::clock;

impl Work {
    /// Counts.
    pub(super) async fn count(&self) {
        let counters = (0..COUNTERS).map(|number| self.count_up(Self::path("counter", number)));
        for worked in futures::future::join_all(counters).await {
            self.judge("counting", worked);
        }
    }

    async fn count_up(&self, path: String) -> Result<(), Error> {
        let handle = self.session.open(&path, OpenOptions::new().caching(false)).await?;
        while self.is(Stage::Working) {
            self.pause(10..120).await;
            let began = clock::now();
            let contents = handle.contents().await?;
            self.note_read(&handle, began, &contents, false);
            let next = number(&String::from_utf8_lossy(&contents.bytes)) + 1;
            let contents_next = format!("{next} {}", self.next_contents());
            self.write(&handle, contents_next, Some(contents.stat.content_generation)).await?;
        }
        Ok(())
    }
}

/// The number that a counter's contents begin with; 0 if they are none.
#[must_use]
pub fn number(contents: &str) -> u64 {
    contents.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
