//! A server outside the cell that is fenced by sequencers (design.md, I2): it remembers the greatest lock
//! generation that it has seen, and refuses orders that come with a smaller one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What came of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was carried out.
    Done,
    /// Its generation is too old.
    Refused,
}

/// The server. Ends when dropped.
#[derive(Debug)]
pub struct Resource {
    address: SocketAddr,
    register: Arc<Mutex<Register>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Register {
    /// The greatest generation seen.
    generation: u64,
    /// The orders that were carried out, in their order.
    done: Vec<String>,
}

impl Register {
    fn order(&mut self, generation: u64, order: &str) -> Verdict {
        if generation < self.generation {
            return Verdict::Refused;
        }
        self.generation = generation;
        self.done.push(order.to_owned());
        Verdict::Done
    }
}

impl Resource {
    /// Starts the server on a port of its own.
    ///
    /// # Panics
    ///
    /// If there is no port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let register = Arc::<Mutex<Register>>::default();
        let served = Arc::clone(&register);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&served)));
            }
        });
        Self { address, register, task }
    }

    /// Where it is. An order is a line, `GENERATION ORDER`; the answer is a line, `done` or `refused`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Orders something.
    pub fn order(&self, generation: u64, order: &str) -> Verdict {
        self.register().order(generation, order)
    }

    /// What was carried out.
    #[must_use]
    pub fn done(&self) -> Vec<String> {
        self.register().done.clone()
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        lock(&self.register)
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(register: &Mutex<Register>) -> MutexGuard<'_, Register> {
    register.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(stream: TcpStream, register: Arc<Mutex<Register>>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let parsed = line.split_once(' ').and_then(|(number, order)| Some((number.parse().ok()?, order)));
        let Some((generation, order)) = parsed else { return };
        let verdict = lock(&register).order(generation, order);
        let answer = if verdict == Verdict::Done { "done\n" } else { "refused\n" };
        if write.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
