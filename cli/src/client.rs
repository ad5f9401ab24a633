//! What every subcommand has in hand: the cell, the form of the output, and how long to wait.

use std::time::Duration;

use anyhow::{Context as _, Result};
use holdfast::Cell;

use crate::arguments::Common;
use crate::failure::Kind;
use crate::name::Name;
use crate::output::Output;

/// Where `holdfastd dev --port-base 7101` serves.
const ADDRESSES_DEFAULT: &str = "127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103";

/// The cell, and how to talk about it.
#[derive(Debug)]
pub(crate) struct Client {
    /// The cell at the given addresses.
    pub(crate) cell: Cell,
    /// Where results go.
    pub(crate) output: Output,
    /// The longest that a subcommand looks for a master and waits for its answer.
    pub(crate) timeout: Duration,
    /// The name that the cell must have.
    cell_name: Option<String>,
    /// Nobody said where the cell is.
    addresses_are_default: bool,
}

impl Client {
    /// A client of the cell that the command line means. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// If an address is malformed.
    pub(crate) fn new(common: &Common) -> Result<Self> {
        let addresses = common.addresses.as_deref().unwrap_or(ADDRESSES_DEFAULT);
        let cell = Cell::builder()
            .addresses([addresses])
            .name(common.cell.clone().unwrap_or_default())
            .timeout(common.timeout)
            .connect()
            .context("--addresses or HOLDFAST_ADDRESSES")?;
        Ok(Self {
            cell,
            output: Output::new(common.json),
            timeout: common.timeout,
            cell_name: common.cell.clone(),
            addresses_are_default: common.addresses.is_none(),
        })
    }

    /// The name to send for a node: one that another cell will refuse, if `--cell` was given.
    pub(crate) fn path(&self, name: &Name) -> String {
        let text = name.as_str();
        match &self.cell_name {
            Some(cell) if text == "/" => format!("/ls/{cell}"),
            Some(cell) if !text.starts_with("/ls/") => format!("/ls/{cell}{text}"),
            _ => text.to_owned(),
        }
    }

    /// Makes sure that the cell is the one that `--cell` names, for requests that name no node.
    ///
    /// # Errors
    ///
    /// If it is another one, or no replica answers.
    pub(crate) async fn check_cell(&self) -> Result<()> {
        let Some(wanted) = &self.cell_name else { return Ok(()) };
        let found = self.cell.status().await?.cell;
        anyhow::ensure!(
            found == *wanted,
            "the cell at {} is called {found:?}, and --cell says {wanted:?}",
            self.cell.addresses().join(",")
        );
        Ok(())
    }

    /// The name that the cell must have, if one was given.
    pub(crate) fn wanted_cell(&self) -> Option<&str> {
        self.cell_name.as_deref()
    }

    /// Adds what only this program knows to an error.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        if self.addresses_are_default && Kind::of(&error) == Kind::Unreachable {
            let advice =
                "no address was given (set --addresses or HOLDFAST_ADDRESSES), and at the default ones";
            return error.context(advice);
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    /// What is sent for the path of `line`'s `ls`.
    fn sent(line: &str) -> String {
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        let Command::Ls(ls) = arguments.command else { panic!("{line} is an ls") };
        Client::new(&arguments.common).unwrap().path(&ls.path)
    }

    #[test]
    fn a_path_without_a_cell_means_the_cell_that_was_named() {
        assert_eq!(sent("holdfast ls /a"), "/a");
        assert_eq!(sent("holdfast ls --cell dev /a"), "/ls/dev/a");
        assert_eq!(sent("holdfast ls --cell dev /"), "/ls/dev");
        assert_eq!(sent("holdfast ls --cell dev /ls/other/a"), "/ls/other/a");
    }

    #[test]
    fn a_malformed_address_is_told_with_where_it_came_from() {
        let arguments = Arguments::try_parse_from(["holdfast", "--addresses", "here", "ls"]).unwrap();
        let error = format!("{:#}", Client::new(&arguments.common).unwrap_err());
        assert!(error.contains("--addresses") && error.contains("no port"), "{error}");
    }
}
