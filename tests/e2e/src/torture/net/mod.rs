//! The network of a run: hosts with addresses of their own on one bridge, and what is cut and lost between them.
//!
//! Each host is a network namespace, and the bridge is in another, the hub. The thread that makes the network moves
//! into the hub, so that nothing of a run touches the network of the machine. What does not come through is dropped
//! by nftables where it would arrive, as on a bad line: whoever sent it is told nothing.
//!
//! Where namespaces are not permitted, [`Net::loopback`] gives hosts addresses of 127.0.0.0/8 instead, and nothing can
//! be cut. Invariant: whatever is made here carries the id of this process in its name and goes with the value; what
//! is left of a run that was killed goes when the next one begins.

mod namespace;
mod rules;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, ensure};

use self::namespace::Namespace;
pub use self::rules::Rules;

/// A host of a run's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(u8);

/// Where the rig itself is: its admin calls, and the resource that clients give orders to.
pub const HUB: Host = Host(254);

/// The network. It goes when it is dropped, and the thread is back where it was; processes in it must be gone by then.
#[derive(Debug)]
pub struct Net {
    /// `None`: there are no namespaces, and all hosts are on the loopback device.
    hub: Option<Namespace>,
    hosts: BTreeMap<Host, Option<Namespace>>,
    /// What arrives at each host, as it is wanted.
    rules: BTreeMap<Host, Rules>,
    /// And as it is.
    applied: BTreeMap<Host, Rules>,
    last: u8,
}

impl Net {
    /// A network of namespaces. The thread is in its hub from now on.
    ///
    /// # Errors
    ///
    /// Why there can be none here: who is not root, or has no `ip` or `nft`, cannot make one.
    pub fn namespaces() -> anyhow::Result<Self> {
        namespace::remove_leftovers();
        let hub = Namespace::create("hub").context("cannot make a network namespace")?;
        hub.ip(&["link", "set", "lo", "up"])?;
        hub.ip(&["link", "add", "bridge", "type", "bridge"])?;
        hub.ip(&["addr", "add", &format!("{}/24", address(HUB)), "dev", "bridge"])?;
        hub.ip(&["link", "set", "bridge", "up"])?;
        hub.apply(&Rules::default()).context("cannot make rules for packets")?;
        namespace::enter(&hub.file())?;
        let mut net = Self::loopback();
        net.hub = Some(hub);
        Ok(net)
    }

    /// All hosts on the loopback device, each with an address of its own.
    #[must_use]
    pub fn loopback() -> Self {
        Self { hub: None, hosts: BTreeMap::new(), rules: BTreeMap::new(), applied: BTreeMap::new(), last: 0 }
    }

    /// Whether connections can be cut here, and packets lost.
    #[must_use]
    pub fn can_cut(&self) -> bool {
        self.hub.is_some()
    }

    /// A new host.
    ///
    /// # Errors
    ///
    /// If the system refuses it, or there are more than a hundred.
    pub fn add_host(&mut self) -> anyhow::Result<Host> {
        ensure!(self.last < 200, "a network has at most 200 hosts");
        self.last += 1;
        let host = Host(self.last);
        let namespace = self.hub.as_ref().map(|hub| connect(hub, host, self.address(host))).transpose()?;
        self.hosts.insert(host, namespace);
        Ok(host)
    }

    /// The address of a host.
    #[must_use]
    pub fn address(&self, host: Host) -> Ipv4Addr {
        if self.can_cut() { address(host) } else { loopback_address(host) }
    }

    /// Does something on a host: a socket or a process that is made in `act` is there and stays there.
    ///
    /// # Errors
    ///
    /// If the thread cannot move. What `act` returns is passed on.
    pub fn on<T>(&self, host: Host, act: impl FnOnce() -> T) -> anyhow::Result<T> {
        self.door(host).on(act)
    }

    /// What it takes to do something on a host, for a task of its own. All must be in the thread of the network.
    #[must_use]
    pub fn door(&self, host: Host) -> Door {
        let there = self.hosts.get(&host).and_then(Option::as_ref).map(Namespace::file);
        Door { there, hub: self.hub.as_ref().map(Namespace::file) }
    }

    /// From now on, `to` hears nothing of what `from` sends. Takes effect with [`Net::apply`].
    pub fn cut_one_way(&mut self, from: Host, to: Host) {
        let address = self.address(from);
        self.rules.entry(to).or_default().deaf_to.insert(address);
    }

    /// From now on, neither hears the other. Takes effect with [`Net::apply`].
    pub fn cut(&mut self, one: Host, other: Host) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// From now on, a host and all others, the hub excepted, hear nothing of each other. Takes effect with
    /// [`Net::apply`].
    pub fn isolate(&mut self, host: Host) {
        let others: Vec<Host> = self.hosts.keys().copied().filter(|other| *other != host).collect();
        others.into_iter().for_each(|other| self.cut(host, other));
    }

    /// From now on, so many in a hundred packets that reach a host are lost. Takes effect with [`Net::apply`].
    pub fn lose(&mut self, host: Host, percent: u8) {
        self.rules.entry(host).or_default().loss_percent = percent;
    }

    /// From now on, so many in a hundred of all packets are lost. Takes effect with [`Net::apply`].
    pub fn lose_everywhere(&mut self, percent: u8) {
        let hosts: Vec<Host> = self.hosts.keys().copied().chain([HUB]).collect();
        hosts.into_iter().for_each(|host| self.lose(host, percent));
    }

    /// From now on, all is well. Takes effect with [`Net::apply`].
    pub fn heal(&mut self) {
        self.rules.clear();
    }

    /// Makes the network what was said, host by host, those only that are to change.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn apply(&mut self) -> anyhow::Result<()> {
        let Some(hub) = &self.hub else { return Ok(()) };
        let everybody = self.hosts.iter().filter_map(|(host, there)| Some((*host, there.as_ref()?)));
        for (host, namespace) in everybody.chain([(HUB, hub)]) {
            let wanted = self.rules.get(&host).cloned().unwrap_or_default();
            if self.applied.get(&host).cloned().unwrap_or_default() != wanted {
                namespace.apply(&wanted)?;
                self.applied.insert(host, wanted);
            }
        }
        Ok(())
    }
}

/// Leads to a host, from the hub.
#[derive(Clone, Debug)]
pub struct Door {
    /// `None`: everybody is where this thread is already.
    there: Option<Arc<File>>,
    hub: Option<Arc<File>>,
}

impl Door {
    /// As [`Net::on`].
    ///
    /// # Errors
    ///
    /// If the thread cannot move.
    pub fn on<T>(&self, act: impl FnOnce() -> T) -> anyhow::Result<T> {
        let (Some(there), Some(hub)) = (&self.there, &self.hub) else { return Ok(act()) };
        namespace::enter(there)?;
        let done = act();
        namespace::enter(hub).context("cannot come back to the hub")?;
        Ok(done)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(hub) = &self.hub {
            hub.leave();
        }
    }
}

/// A namespace for a host, with a cable to the bridge.
fn connect(hub: &Namespace, host: Host, address: Ipv4Addr) -> anyhow::Result<Namespace> {
    let there = Namespace::create(&host.0.to_string())?;
    let port = format!("port{}", host.0);
    hub.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", there.name()])?;
    hub.ip(&["link", "set", &port, "master", "bridge", "up"])?;
    there.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
    there.ip(&["link", "set", "lo", "up"])?;
    there.ip(&["link", "set", "eth0", "up"])?;
    Ok(there)
}

fn address(host: Host) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host.0)
}

/// Two runs at once have other addresses, as long as their ids are not equal modulo 16384.
fn loopback_address(host: Host) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), low, host.0)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    /// Whether a connection from one host to another comes about.
    fn connects(net: &Net, from: Host, to: Host) -> bool {
        let listener = net.on(to, || TcpListener::bind((net.address(to), 0))).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let limit = Duration::from_millis(300);
        match net.on(from, || TcpStream::connect_timeout(&address, limit)).unwrap() {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut, "nobody is told that he is cut off");
                false
            }
        }
    }

    #[test]
    fn hosts_hear_each_other_until_they_are_cut_off_and_again_when_healed() {
        let mut net = match Net::namespaces() {
            Ok(net) => net,
            Err(error) => return println!("no namespaces here, so nothing is tested: {error:#}"),
        };
        let [a, b, c] = [(); 3].map(|()| net.add_host().unwrap());
        assert!(connects(&net, a, b) && connects(&net, a, HUB));
        net.cut_one_way(a, b);
        net.apply().unwrap();
        assert!(!connects(&net, a, b) && connects(&net, a, c));
        net.heal();
        net.isolate(a);
        net.apply().unwrap();
        assert!(!connects(&net, b, a) && connects(&net, b, c) && connects(&net, a, HUB));
        net.heal();
        net.lose(a, 100);
        net.apply().unwrap();
        assert!(!connects(&net, a, b) && connects(&net, b, c));
        net.heal();
        net.apply().unwrap();
        assert!(connects(&net, a, b) && connects(&net, b, a));
        let name = net.hosts[&a].as_ref().unwrap().name().to_owned();
        drop(net);
        assert!(!namespace::names().contains(&name), "nothing is left");
    }

    #[test]
    fn on_the_loopback_device_hosts_have_addresses_of_their_own() {
        let mut net = Net::loopback();
        let (a, b) = (net.add_host().unwrap(), net.add_host().unwrap());
        assert_ne!(net.address(a), net.address(b));
        assert!(connects(&net, a, b) && !net.can_cut());
    }
}
