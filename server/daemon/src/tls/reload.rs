//! Files of `[tls]` that change while the replica runs.
//!
//! Contents are compared, not times, so that it does not matter how a file was replaced. A change is judged once two
//! looks in a row have seen the same, because a certificate and its key are two files and do not change at one
//! instant. What cannot be used changes nothing, and is logged once.

use std::sync::Arc;

use holdfast_types::Duration;
use slog::{Logger, error, info};
use tokio::signal::unix::Signal;

use super::material::{Contents, Material};
use super::{Tls, TlsError};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Follows the files of one replica.
pub(crate) struct Reloader {
    tls: Arc<Tls>,
    /// What is in use, unless something else was found wanting since.
    judged: Option<Contents>,
    /// What was seen last.
    seen: Option<Contents>,
    /// What went wrong last, so that it is logged once.
    problem: String,
    logger: Logger,
}

impl Reloader {
    /// Follows the files that `tls` was made of, from now on.
    pub(crate) fn new(tls: Arc<Tls>, logger: Logger) -> Self {
        let judged = Some(tls.material().contents.clone());
        Self { tls, judged, seen: None, problem: String::new(), logger }
    }

    /// Looks at the files every second and at every SIGHUP, for as long as it is polled.
    pub(crate) async fn run(mut self, mut hangups: Option<Signal>) {
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => false,
                () = next(&mut hangups) => true,
            };
            if asked {
                info!(self.logger, "SIGHUP: reading the files of [tls]");
                (self.judged, self.problem) = (None, String::new());
            }
            let tls = Arc::clone(&self.tls);
            // Only a panic could keep it from ending, and there is none to be had from reading files.
            let Ok(contents) = tokio::task::spawn_blocking(move || Contents::read(&tls.files)).await else {
                return;
            };
            self.look(contents, asked);
        }
    }

    /// Takes note of what the files hold now; `at_once` if it is to be judged though it was not seen before.
    pub(super) fn look(&mut self, contents: Result<Contents, TlsError>, at_once: bool) {
        let contents = match contents {
            Ok(contents) => contents,
            Err(error) => {
                self.seen = None;
                return self.complain(&error);
            }
        };
        let settled = at_once || self.seen.as_ref() == Some(&contents);
        self.seen = Some(contents.clone());
        if !settled {
            return;
        }
        if self.judged.as_ref() == Some(&contents) {
            return self.problem.clear();
        }
        match Material::new(&self.tls.files, contents.clone(), &self.tls.own) {
            Ok(material) => {
                self.judged = Some(contents);
                self.tls.replace(material);
                self.problem.clear();
                info!(self.logger, "new handshakes use the files of [tls] as they are now");
                self.tls.announce(&self.logger);
            }
            // Judged again at the next look: a certificate that is not valid yet will be.
            Err(error) => {
                self.judged = None;
                self.complain(&error);
            }
        }
    }

    fn complain(&mut self, error: &TlsError) {
        let problem = error.to_string();
        if problem != self.problem {
            error!(self.logger, "new handshakes use the files of [tls] as they were before: {problem}");
            self.problem = problem;
        }
    }
}

/// The next signal; never, without any.
async fn next(signals: &mut Option<Signal>) {
    match signals {
        Some(signals) => {
            signals.recv().await;
        }
        None => std::future::pending().await,
    }
}
