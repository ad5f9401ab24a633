//! Connecting to another replica, and the Hello that comes before anything else.

use std::error::Error;
use std::sync::Arc;

use holdfast_proto::log::v1::Member;
use holdfast_proto::peer::v1::peer_client::PeerClient;
use holdfast_proto::peer::v1::{HelloResponse, Identity};
use holdfast_replica::admission::check_answer;
use holdfast_types::{Duration, ReplicaId};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::PeerBook;
use crate::tls::{self, explain};

/// A replica answers a Hello at once or not at all.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A host that has died without a word is noticed this way; a process that has died, by its sockets. Both ends ask.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// A ping waits behind what is queued, which on a line that loses packets can be seconds' worth. To break a connection
/// then would only queue all of it anew; one on which nothing gets through is broken by the system before.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// The most bytes of one message between replicas: many times what one batch of raft messages comes to.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A connection to another replica.
pub(crate) type Connection = PeerClient<Channel>;

/// Connects to the replica at `address`, which must be able to prove that it is `id` if there is TLS, and asks who is
/// there. `expected_data_id` as in the message. `Err` says why that was not possible.
pub(crate) async fn greet(
    book: &PeerBook,
    id: ReplicaId,
    address: &str,
    expected_data_id: u64,
) -> Result<(Connection, HelloResponse), String> {
    let hello = book.introduction(expected_data_id);
    let greeting = async {
        let mut connection = connect(book, id, address).await?;
        let answer = connection.hello(hello).await.map_err(|status| said(&status))?;
        Ok((connection, answer.into_inner()))
    };
    match tokio::time::timeout(HELLO_TIMEOUT, greeting).await {
        Ok(greeted) => greeted,
        Err(_) => Err(format!("no answer within {} s", HELLO_TIMEOUT.as_secs())),
    }
}

async fn connect(book: &PeerBook, id: ReplicaId, address: &str) -> Result<Connection, String> {
    let address = book.route(id, address);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| format!("{address:?} is not an address: it must be host:port"))?
        .connect_timeout(HELLO_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let channel = tls::connect(book.tls(), id, &endpoint).await.map_err(|error| innermost(&error))?;
    Ok(PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// Connects to a member of the cell, and makes sure that it is the one the cell knows and that this replica is
/// welcome there. `Err` says why it cannot be talked to now.
pub(super) async fn connect_member(book: &PeerBook, member: &Member) -> Result<Connection, String> {
    let (connection, answer) =
        greet(book, ReplicaId(member.id), &member.peer_address, member.data_id).await?;
    check_answer(&book.me(), member, &answer.identity.clone().unwrap_or_default())?;
    if !answer.refused.is_empty() {
        // It is the member that the cell knows, so what it says of this replica is to be believed.
        book.stop(answer.refused.clone());
        return Err(answer.refused);
    }
    Ok(connection)
}

/// Why a call failed: what the other replica says, or why the connection broke.
fn said(status: &Status) -> String {
    let error = status.source();
    error.map_or_else(|| status.message().to_owned(), innermost)
}

/// The error that an operator can do something with: one of TLS, or the last in the chain, such as "Connection
/// refused".
fn innermost(error: &(dyn Error + 'static)) -> String {
    if let Some(why) = explain(error) {
        return why;
    }
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Asks replicas that are not members yet who they are.
pub(crate) struct Greeter(pub(crate) Arc<PeerBook>);

impl Greeter {
    /// Who waits at `address` to join as `id`, and to be found by clients at `client_address`; or why it cannot.
    pub(crate) async fn greet_joiner(
        &self,
        id: ReplicaId,
        address: &str,
        client_address: &str,
    ) -> Result<Identity, String> {
        let (_, answer) = greet(&self.0, id, address, 0).await.map_err(|reason| {
            format!(
                "{id} does not answer at {address}: {reason}. It must be running before it is added: start it with \
                 `holdfastd run --join`"
            )
        })?;
        check_joiner(&self.0.me(), id, [address, client_address], answer)
    }
}

fn check_joiner(
    me: &Identity,
    id: ReplicaId,
    [address, client_address]: [&str; 2],
    answer: HelloResponse,
) -> Result<Identity, String> {
    let joiner = answer.identity.unwrap_or_default();
    if !answer.refused.is_empty() {
        return Err(format!("{id} at {address} refuses: {}", answer.refused));
    }
    if joiner.cell != me.cell {
        return Err(format!(
            "the replica at {address} is configured for the cell {:?}, not {:?}",
            joiner.cell, me.cell
        ));
    }
    if joiner.replica != id.0 {
        return Err(format!(
            "at {address} is replica {}, not {id}: give its own id, or its own address",
            joiner.replica
        ));
    }
    if joiner.cell_id != 0 && joiner.cell_id != me.cell_id {
        return Err(format!(
            "{id} at {address} has the data of another cell: to join, it must start with an empty data directory"
        ));
    }
    if answer.founding.is_some() && joiner.cell_id == 0 {
        return Err(format!(
            "{id} at {address} is configured to found a cell: to join one, start it with --join"
        ));
    }
    // Neither can be changed once it is a member, and with a wrong one no client would find it as master.
    for (flag, key, given, own) in [
        ("--peer", "peer_advertise", address, &joiner.peer_address),
        ("--client", "client_advertise", client_address, &joiner.client_address),
    ] {
        if !own.is_empty() && own != given {
            return Err(format!(
                "{id} says that it is at {own}, and {flag} says {given}: give {flag} {own}, or set {key} on it to {given} \
                 and start it again"
            ));
        }
    }
    Ok(joiner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::peer::v1::Founding;

    fn identity(cell_id: u64, replica: u64) -> Identity {
        Identity { cell: "dev".into(), cell_id, replica, data_id: replica * 11, ..Identity::default() }
    }

    fn check(answer: HelloResponse) -> Result<u64, String> {
        check_joiner(&identity(9, 1), ReplicaId(4), ["host:1", "host:2"], answer).map(|joiner| joiner.data_id)
    }

    fn answer(identity: Identity) -> HelloResponse {
        HelloResponse { identity: Some(identity), ..HelloResponse::default() }
    }

    #[test]
    fn who_waits_to_join_is_taken_with_its_data_id() {
        assert_eq!(check(answer(identity(0, 4))), Ok(44));
        assert_eq!(check(answer(identity(9, 4))), Ok(44), "an addition may be tried again");
        let addresses =
            Identity { peer_address: "host:1".into(), client_address: "host:2".into(), ..identity(0, 4) };
        assert_eq!(check(answer(addresses)), Ok(44));
    }

    #[test]
    fn who_cannot_join_is_told_why() {
        let refused = HelloResponse { refused: "no".into(), ..answer(identity(0, 4)) };
        let founder = HelloResponse { founding: Some(Founding::default()), ..answer(identity(0, 4)) };
        let foreign = answer(Identity { cell: "prod".into(), ..identity(0, 4) });
        for (answer, words) in [
            (refused, "refuses: no"),
            (founder, "--join"),
            (foreign, "\"prod\""),
            (answer(identity(8, 4)), "another cell"),
            (answer(identity(0, 5)), "is replica 5"),
            (answer(Identity { client_address: "host:3".into(), ..identity(0, 4) }), "give --client host:3"),
            (
                answer(Identity { peer_address: "host:3".into(), ..identity(0, 4) }),
                "set peer_advertise on it to host:1",
            ),
        ] {
            let reason = check(answer).unwrap_err();
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_said_with_the_system_s_words() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let greeter = Greeter(Arc::new(PeerBook::new(identity(9, 1), None, None)));
        let reason = greeter.greet_joiner(ReplicaId(4), &address, "host:2").await.unwrap_err();
        assert!(reason.contains("refused") && reason.contains("--join"), "{reason}");
    }
}
