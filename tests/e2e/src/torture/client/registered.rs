//! An ephemeral file for each client, and lists of them: who is alive is listed.

use std::time::Duration;

use holdfast::{Error, OpenOptions};
use tokio::time::sleep;

use super::{ROOT, Stage, Work};
use crate::torture::clock;
use crate::torture::history::Event;

/// How often a client writes down that it believes to be alive.
const BELIEVES_EVERY: Duration = Duration::from_millis(100);

impl Work {
    /// Is registered until it is to stop.
    pub(super) async fn stay_registered(&self) {
        let worked = self.register().await;
        self.judge("registering", worked);
    }

    async fn register(&self) -> Result<(), Error> {
        let name = format!("{}-{}", self.orders.name, self.session.id());
        let options = OpenOptions::new().create_new().ephemeral();
        let handle = self.session.open(&format!("{ROOT}/members/{name}"), options).await?;
        self.recorder.note(Event::Registered { name });
        // Over and over, as calls may hang for as long as it believes.
        let believing = async {
            loop {
                self.believe();
                sleep(BELIEVES_EVERY).await;
            }
        };
        tokio::select! {
            () = believing => {}
            () = self.stopped() => {}
        }
        drop(handle);
        Ok(())
    }

    /// Lists who is registered, over and over.
    pub(super) async fn list(&self) {
        let worked = self.list_members().await;
        self.judge("listing", worked);
    }

    async fn list_members(&self) -> Result<(), Error> {
        let options = OpenOptions::new().directory().read_only();
        let directory = self.session.open(&format!("{ROOT}/members"), options).await?;
        while self.is(Stage::Working) {
            self.pause(20..400).await;
            let began = clock::now();
            let names = directory.read_dir().await?.into_iter().map(|entry| entry.name).collect();
            self.recorder.note(Event::Listed { began, names });
        }
        Ok(())
    }
}
