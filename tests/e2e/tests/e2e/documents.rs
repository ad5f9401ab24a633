//! What the documentation tells people to type: the README's five minutes, typed by a test, and every other command that
//! stands anywhere, as far as that it is one. (Its Rust is compiled by `holdfast_e2e::documents`.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use holdfast_e2e::{Cluster, eventually, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::PROGRAMS;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const DOCUMENTS: [&str; 5] =
    ["README.md", "docs/cli.md", "docs/security.md", "docs/sequencers.md", "docs/testing.md"];

/// A code block of a document.
struct Block {
    language: String,
    /// Each with its number.
    lines: Vec<(usize, String)>,
}

fn blocks(document: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(Path::new(ROOT).join(document)).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (place, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block { language: language.to_owned(), lines: Vec::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => match block.lines.last_mut() {
                // A line that goes on.
                Some((_, last)) if last.ends_with('\\') => {
                    last.pop();
                    last.push_str(line.trim_start());
                }
                _ => block.lines.push((place + 1, line.trim().to_owned())),
            },
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{document} ends within a block");
    blocks
}

/// A directory in which the programs have the names that people know them by.
static NAMES: LazyLock<TempDir> = LazyLock::new(|| {
    let names = TempDir::new().unwrap();
    for (name, program) in
        [("holdfast", env!("CARGO_BIN_EXE_e2e-holdfast")), ("holdfastd", env!("CARGO_BIN_EXE_e2e-replica"))]
    {
        std::os::unix::fs::symlink(program, names.path().join(name)).unwrap();
    }
    names
});

/// A shell with the programs in its PATH and nothing set.
fn shell(line: &str, addresses: &str, dir: &Path) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut paths = vec![PathBuf::from(NAMES.path())];
    paths.extend(std::env::split_paths(&path));
    let mut shell = Command::new("bash");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDFAST_")) {
        shell.env_remove(name);
    }
    shell.args(["-c", line]).current_dir(dir).stdin(Stdio::null());
    shell.env("PATH", std::env::join_paths(paths).unwrap()).env("HOLDFAST_ADDRESSES", addresses);
    shell
}

/// The line without its comment, if it has one.
fn without_comment(line: &str) -> (&str, &str) {
    line.split_once(" #").map_or((line, ""), |(command, comment)| (command.trim_end(), comment))
}

#[tokio::test]
async fn the_five_minutes_of_the_readme_go_as_they_are_told() {
    let cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let (addresses, dir) = (cell.addresses().join(","), TempDir::new().unwrap());
    let tour = blocks("README.md").into_iter().find(|block| {
        block.language == "sh"
            && block.lines.first().is_some_and(|(_, line)| line.starts_with("holdfast status"))
    });
    let mut background = Vec::new();
    let lines = tour.expect("the README has its tour").lines;
    assert!(lines.len() > 12, "{} lines", lines.len());
    for (number, line) in lines.iter().filter(|(_, line)| !line.is_empty()) {
        let (command, comment) = without_comment(line);
        // Nobody has to wait that long here.
        let command = command.replace("sleep 20", "sleep 3");
        if let Some(command) = command.strip_suffix(" &") {
            let mut shell = shell(&format!("exec {command}"), &addresses, dir.path());
            background.push(shell.stdout(Stdio::null()).spawn().unwrap());
            if command.contains(" lock ") {
                eventually("the lock is held", async || {
                    (cell.stat("/service/leader").await.ok()?.lock.holder_count == 1).then_some(())
                })
                .await;
            }
            continue;
        }
        let mut shell = shell(&command, &addresses, dir.path());
        let ran = tokio::task::spawn_blocking(move || shell.output());
        let output = within(line, ran).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            !output.status.success(),
            comment.contains("refused"),
            "README.md:{number}: {line}: {said}"
        );
    }
    for mut child in background {
        // One of them has come to its end.
        if child.try_wait().unwrap().is_none() {
            kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
            let ended = tokio::task::spawn_blocking(move || child.wait());
            within("what ran in the background ends", ended).await.unwrap().unwrap();
        }
    }
}

/// The help of the deepest subcommand that these words begin with.
fn help(words: &[&str], known: &mut BTreeMap<String, Option<String>>) -> String {
    let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--json").collect();
    let is_name =
        |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
    let depth = 1 + words[1..].iter().take_while(is_name).take(2).count();
    for depth in (1..=depth).rev() {
        let command = words[..depth].join(" ");
        let text = known.entry(command.clone()).or_insert_with(|| {
            let output = shell(&format!("{command} --help"), "", Path::new("/")).output().unwrap();
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        });
        if let Some(text) = text {
            return text.clone();
        }
    }
    panic!("{words:?} is no command");
}

/// The commands of ours in a line.
fn commands(line: &str) -> impl Iterator<Item = &str> {
    let parts = line.split(" | ").flat_map(|part| part.split(" || ")).flat_map(|part| part.split(" && "));
    parts.map(|part| part.trim().trim_end_matches(" &")).filter(|part| {
        part.split_whitespace().next().is_some_and(|program| program == "holdfast" || program == "holdfastd")
    })
}

#[test]
fn every_command_in_the_documentation_is_one_and_has_the_options_that_it_is_given() {
    let (mut known, mut count) = (BTreeMap::new(), 0);
    let dir = TempDir::new().unwrap();
    for document in DOCUMENTS {
        let blocks = blocks(document).into_iter();
        for block in blocks.filter(|block| ["sh", "text", ""].contains(&block.language.as_str())) {
            for (number, line) in &block.lines {
                let (line, _) = without_comment(line);
                for command in commands(line) {
                    count += 1;
                    let words: Vec<&str> = command.split_whitespace().collect();
                    let help = help(&words, &mut known);
                    let own = words.iter().take_while(|word| **word != "--");
                    for option in own.filter_map(|word| word.trim_start_matches('[').strip_prefix("--")) {
                        let name: String =
                            option.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
                        assert!(
                            help.contains(&format!("--{name}")),
                            "{document}:{number}: {command}: there is no --{name}"
                        );
                    }
                    // Nobody is there, and so all that can be wrong with it is the command line.
                    if block.language == "sh" && words[0] == "holdfast" {
                        let typed = command.replacen("holdfast", "holdfast --timeout 0.05", 1);
                        let output = shell(&typed, "127.0.0.1:1", dir.path()).output().unwrap();
                        let said = String::from_utf8_lossy(&output.stderr);
                        assert_ne!(output.status.code(), Some(2), "{document}:{number}: {command}: {said}");
                    }
                }
            }
        }
    }
    assert!(count > 40, "{count} commands");
}

#[test]
fn the_python_of_the_documentation_is_python() {
    let program = "import sys; compile(sys.stdin.read(), 'a block of the documentation', 'exec')";
    let mut count = 0;
    for document in DOCUMENTS {
        for block in blocks(document).into_iter().filter(|block| block.language == "python") {
            let text: String = std::fs::read_to_string(Path::new(ROOT).join(document)).unwrap();
            let first = block.lines[0].0 - 1;
            // With its indentation.
            let code: Vec<&str> =
                text.lines().skip(first).take_while(|line| !line.starts_with("```")).collect();
            let mut python = match Command::new("python3").args(["-c", program]).stdin(Stdio::piped()).spawn()
            {
                Ok(python) => python,
                Err(error) => {
                    println!("skipped: there is no python3 here ({error})");
                    return;
                }
            };
            std::io::Write::write_all(&mut python.stdin.take().unwrap(), code.join("\n").as_bytes()).unwrap();
            assert!(python.wait().unwrap().success(), "{document}:{first}");
            count += 1;
        }
    }
    assert_eq!(count, 1);
}
