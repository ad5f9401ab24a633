//! What messages and documents name of the client library exists: `Type::name` in every document for users, and in every
//! text that the library or the command may show.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace's root")
}

/// All files below a directory whose names end so.
fn files(below: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).expect("the directory can be read") {
        let path = entry.expect("its entries can be read").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            files(&path, ending, found);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The word that a text begins with.
fn word(text: &str) -> &str {
    text.split(|letter| !is_word(letter)).next().unwrap_or_default()
}

/// `Type::name` wherever it stands in a text.
fn named(text: &str) -> Vec<(String, String)> {
    let pairs = text.match_indices("::").filter_map(|(at, _)| {
        let before = &text[..at];
        let owner = &before[before.rfind(|letter| !is_word(letter)).map_or(0, |at| at + 1)..];
        let name = word(&text[at + 2..]);
        let is_type = owner.starts_with(|letter: char| letter.is_ascii_uppercase());
        (is_type && !name.is_empty()).then(|| (owner.to_owned(), name.to_owned()))
    });
    pairs.collect()
}

/// What each type of a source file has: functions, variants and fields. Items begin in the first column, as rustfmt has it.
fn members(source: &str, types: &mut BTreeMap<String, BTreeSet<String>>) {
    let mut owner = None;
    for line in source.lines() {
        let item = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        for kind in ["enum ", "struct ", "trait "] {
            if let Some(rest) = item.strip_prefix(kind) {
                owner = Some(word(rest).to_owned());
            }
        }
        if let Some(rest) = item.strip_prefix("impl") {
            let of_trait = rest.rsplit_once(" for ").map(|(_, rest)| rest);
            let rest = of_trait.or_else(|| rest.split_once(' ').map(|(_, rest)| rest)).unwrap_or_default();
            owner = Some(word(rest).to_owned());
        }
        if line == "}" {
            owner = None;
        }
        let (Some(owner), Some(inner)) = (&owner, line.strip_prefix("    ")) else { continue };
        let inner = inner.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        let inner = inner.trim_start_matches("const ").trim_start_matches("async ");
        let name = word(inner.trim_start_matches("fn "));
        types.entry(owner.clone()).or_default().insert(name.to_owned());
    }
}

/// What stands between quotes in a source file, its comments and tests left out.
fn texts(source: &str) -> String {
    let product = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = product.lines().filter(|line| !line.trim_start().starts_with("//"));
    let quoted = code.flat_map(|line| line.split('"').skip(1).step_by(2));
    quoted.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_messages_and_documents_name_of_the_library_exists() {
    let root = root();
    let mut sources = Vec::new();
    for crates in ["client-lib", "proto", "server", "cli", "tests"] {
        files(&root.join(crates), ".rs", &mut sources);
    }
    let mut types = BTreeMap::new();
    for source in &sources {
        members(&fs::read_to_string(source).expect("sources can be read"), &mut types);
    }
    let mut checked = 0;
    let mut check = |file: &Path, text: &str| {
        for (owner, name) in named(text) {
            let Some(members) = types.get(&owner) else { continue };
            checked += 1;
            assert!(
                members.contains(&name),
                "{} names {owner}::{name}, which does not exist",
                file.display()
            );
        }
    };
    let is_product = |source: &&PathBuf| !source.components().any(|part| part.as_os_str() == "tests");
    for source in sources.iter().filter(is_product) {
        check(source, &texts(&fs::read_to_string(source).expect("sources can be read")));
    }
    let mut documents = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    files(&root.join("docs"), ".md", &mut documents);
    for document in &documents {
        check(document, &fs::read_to_string(document).expect("documents can be read"));
    }
    assert!(checked > 20, "only {checked} names were found: is the test reading them?");
}

#[test]
fn a_name_that_does_not_exist_is_found() {
    let mut types = BTreeMap::new();
    members(
        "impl Lock {\n    pub async fn release(self) {\n    }\n}\npub enum Lost {\n    Released,\n}\n",
        &mut types,
    );
    members("impl<T> Drop for Handle<T> {\n    fn drop(&mut self) {}\n}\n", &mut types);
    assert!(types["Lock"].contains("release") && types["Lost"].contains("Released"));
    assert!(types["Handle"].contains("drop") && !types["Handle"].contains("release"));
    assert_eq!(named("call `Handle::release`, or a::b"), [("Handle".to_owned(), "release".to_owned())]);
    assert_eq!(texts("// \"A::b\"\nlet text = \"C::d\";\n"), "C::d");
}
