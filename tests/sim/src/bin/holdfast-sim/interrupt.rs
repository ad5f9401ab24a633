//! Lets an interrupted program finish what it is at: the first Ctrl-C asks it to end, the second ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

/// From now on says whether the program was asked to end. To be called before there are other threads, because they
/// take over from this one that signals are waited for and not acted upon.
pub(crate) fn watch() -> impl Fn() -> bool + Sync {
    let asked = Arc::new(AtomicBool::new(false));
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    let told = Arc::clone(&asked);
    // Where signals cannot be waited for they end the program, as ever.
    if signals.thread_block().is_ok() {
        std::thread::spawn(move || {
            while signals.wait().is_ok() {
                if told.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
                println!("what has begun is finished; once more to end at once");
            }
        });
    }
    move || asked.load(Ordering::Relaxed)
}
