//! What a greedy client does past its library: it sends more reads than that would let it, and acknowledges nothing.
//!
//! The frames are the library's own, with more in them or less. The answers to what was added are taken out again before
//! the library sees them. Invariant: requests that are added have numbers that no library comes to.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{ClientFrame, GetStat, ReadDir, Request, ServerFrame};

/// The first number of a request that was added.
const NUMBERS_FROM: u64 = 1 << 40;

/// What a client adds to its frames, and takes out of them.
#[derive(Debug, Default)]
pub(crate) struct Greed {
    /// It acknowledges no notice.
    deaf: bool,
    /// Reads that go out with the next frame.
    reads: Vec<Operation>,
    /// So many requests were added in all of its sessions.
    added: u64,
}

impl Greed {
    /// A new session begins, and is not greedy yet.
    pub(crate) fn begin(&mut self) {
        self.deaf = false;
        self.reads.clear();
    }

    /// No notice is acknowledged from now on.
    pub(crate) fn deafen(&mut self) {
        self.deaf = true;
    }

    /// Many reads go out with the next frame.
    pub(crate) fn flood(&mut self, handle: u64, times: u32, lists: bool) {
        let read = if lists {
            Operation::ReadDir(ReadDir { handle, ..ReadDir::default() })
        } else {
            Operation::GetStat(GetStat { handle })
        };
        self.reads.extend(std::iter::repeat_n(read, times as usize));
    }

    /// A frame of the library's is about to leave.
    pub(crate) fn spoil(&mut self, frame: &mut ClientFrame) {
        if self.deaf {
            frame.notices_through = 0;
        }
        // A frame that says who the client is has no place for requests yet.
        if frame.hello.is_some() {
            return;
        }
        for read in self.reads.drain(..) {
            let number = NUMBERS_FROM + self.added;
            self.added += 1;
            frame.requests.push(Request { number, operation: Some(read) });
        }
    }

    /// A frame for the library has come.
    pub(crate) fn strip(&self, mut frame: ServerFrame) -> ServerFrame {
        if self.added > 0 {
            frame.replies.retain(|reply| reply.number < NUMBERS_FROM);
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1::Reply;

    use super::*;

    #[test]
    fn what_is_added_to_a_frame_is_taken_out_of_the_answers() {
        let mut greed = Greed::default();
        greed.deafen();
        greed.flood(7, 3, true);
        let own = Request { number: 1, operation: None };
        let mut frame = ClientFrame { requests: vec![own.clone()], notices_through: 9, ..Default::default() };
        greed.spoil(&mut frame);
        assert_eq!((frame.requests.len(), frame.notices_through), (4, 0));
        let reply = |request: &Request| Reply { number: request.number, ..Reply::default() };
        let answer =
            ServerFrame { replies: frame.requests.iter().map(reply).collect(), ..Default::default() };
        assert_eq!(greed.strip(answer).replies, [reply(&own)]);
        greed.begin();
        let mut frame = ClientFrame { notices_through: 9, ..Default::default() };
        greed.spoil(&mut frame);
        assert_eq!((frame.requests.len(), frame.notices_through), (0, 9));
    }
}
