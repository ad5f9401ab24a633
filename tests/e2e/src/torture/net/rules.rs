//! What arrives at a host, as rules for nftables.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

/// What a host does not hear. By default it hears everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Nothing that these send arrives.
    pub deaf_to: BTreeSet<Ipv4Addr>,
    /// So many in a hundred packets are lost, whoever sent them.
    pub loss_percent: u8,
}

/// The whole table, in the place of whatever there was, in one transaction. Only what arrives is looked at: a sender
/// whose packet is dropped on the way out would be told.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "table inet holdfast\ndelete table inet holdfast\ntable inet holdfast {{\nchain arriving {{"
        )?;
        writeln!(f, "type filter hook input priority 0; policy accept;\niif lo accept")?;
        for address in &self.deaf_to {
            writeln!(f, "ip saddr {address} drop")?;
        }
        match self.loss_percent {
            0 => {}
            percent @ 1..100 => writeln!(f, "numgen random mod 100 < {percent} drop")?,
            100.. => writeln!(f, "drop")?,
        }
        f.write_str("}\n}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_what_is_dropped_and_nothing_else() {
        let none = Rules::default().to_string();
        assert!(!none.contains("drop") && none.contains("policy accept"));
        let some = Rules { deaf_to: [Ipv4Addr::new(10, 77, 0, 3)].into(), loss_percent: 20 }.to_string();
        assert!(some.contains("ip saddr 10.77.0.3 drop") && some.contains("mod 100 < 20 drop"), "{some}");
        assert!(some.find("delete table") < some.find("chain"), "it replaces what there was");
    }
}
