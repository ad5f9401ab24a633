//! What Holdfast is built from: the bill of materials is up to date, every licence and source is one that `deny.toml`
//! allows, and no crate has unsafe code.
//!
//! All of it works without a network. Only advisories need one: `.ci/run` has cargo-deny look for them where it can.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// What is handed out: the programs, and the crates that others build on.
const SHIPPED: [&str; 4] = ["holdfast", "holdfast-cli", "holdfast-server", "holdfast-testkit"];
/// The bill of materials, from the root.
const BILL: &str = "docs/sbom.cdx.json";
/// The registry, as cargo names it.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// The one target of which unsafe code is a part: a counting allocator, for the fuzz tests' limit on memory.
const WITH_UNSAFE: &str = "tests/fuzz/tests/targets.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace's root")
}

fn table(file: &str) -> toml::Table {
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.parse().unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What cargo says of all crates, for one platform, so that every machine sees the same.
fn metadata() -> Value {
    let ask = |offline: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["metadata", "--format-version", "1", "--locked"]);
        cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]).args(offline);
        cargo.current_dir(root()).output().expect("cargo runs")
    };
    let mut output = ask(&["--offline"]);
    if !output.status.success() {
        // A machine of another kind has not fetched all of this platform's crates.
        output = ask(&[]);
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

fn list<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value[field].as_array().into_iter().flatten()
}

/// The ids of all that the shipped crates need: to run, and, if `building`, to be built.
fn needed(metadata: &Value, building: bool) -> BTreeSet<&str> {
    let packages = list(metadata, "packages").filter(|package| SHIPPED.contains(&text(package, "name")));
    let mut waiting: Vec<&str> = packages.map(|package| text(package, "id")).collect();
    assert_eq!(waiting.len(), SHIPPED.len(), "every shipped crate is there");
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"], "nodes").map(|node| (text(node, "id"), node)).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !found.insert(id) {
            continue;
        }
        let counts = |dependency: &&Value| {
            list(dependency, "dep_kinds")
                .any(|how| how["kind"].is_null() || building && how["kind"] == "build")
        };
        waiting.extend(list(nodes[id], "deps").filter(counts).map(|dependency| text(dependency, "pkg")));
    }
    found
}

/// The checksums of the lock file, by name and version.
fn checksums() -> BTreeMap<(String, String), String> {
    let lock = table("Cargo.lock");
    let packages = lock["package"].as_array().expect("packages").iter();
    let field = |package: &toml::Value, name: &str| package.get(name)?.as_str().map(str::to_owned);
    let checksum =
        |package| Some(((field(package, "name")?, field(package, "version")?), field(package, "checksum")?));
    packages.filter_map(checksum).collect()
}

/// The bill of materials, in CycloneDX's format: what is needed to run, and (`excluded`) to build.
fn bill(metadata: &Value) -> Value {
    let (all, running) = (needed(metadata, true), needed(metadata, false));
    let checksums = checksums();
    let mut packages: Vec<&Value> =
        list(metadata, "packages").filter(|package| all.contains(text(package, "id"))).collect();
    packages.sort_by_key(|package| (text(package, "name"), text(package, "version")));
    let component = |package: &&Value| {
        let (name, version) = (text(package, "name"), text(package, "version"));
        let scope = if running.contains(text(package, "id")) { "required" } else { "excluded" };
        let mut component = json!({
            "type": "library",
            "name": name,
            "version": version,
            "scope": scope,
            "purl": format!("pkg:cargo/{name}@{version}"),
            "licenses": [{ "expression": expression(text(package, "license")) }],
        });
        if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        component
    };
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "application", "name": "holdfast" } },
        "components": packages.iter().map(component).collect::<Vec<_>>(),
    })
}

/// A licence as SPDX writes it: cargo once took a slash for "or", and a plus for "or later".
fn expression(license: &str) -> String {
    license.replace(" / ", "/").replace('/', " OR ").replace("MPL-2.0+", "MPL-2.0")
}

/// Whether an expression can be met by what is allowed.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.trim();
    for (word, any) in [(" OR ", true), (" AND ", false)] {
        let parts = split(expression, word);
        if parts.len() > 1 {
            let mut parts = parts.into_iter().map(|part| is_allowed(part, allowed));
            return if any { parts.any(|met| met) } else { parts.all(|met| met) };
        }
    }
    match expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => is_allowed(inner, allowed),
        None => allowed.contains(expression),
    }
}

/// The parts of an expression between words that stand in no parentheses.
fn split<'e>(expression: &'e str, word: &str) -> Vec<&'e str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (place, character) in expression.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && place >= from && expression[place..].starts_with(word) => {
                parts.push(&expression[from..place]);
                from = place + word.len();
            }
            _ => {}
        }
    }
    parts.push(&expression[from..]);
    parts
}

#[test]
fn the_bill_of_materials_is_what_cargo_would_build() {
    let made = bill(&metadata());
    let path = root().join(BILL);
    if std::env::var_os("UPDATE_SBOM").is_some() {
        fs::write(&path, format!("{made:#}\n")).expect("the bill can be written");
    }
    let kept = fs::read_to_string(&path).expect("there is a bill of materials");
    let same = serde_json::from_str::<Value>(&kept).is_ok_and(|kept| kept == made);
    assert!(same, "{BILL} is not up to date: run this test with UPDATE_SBOM=1, and look at the diff");
    assert!(kept.contains("pkg:cargo/raft@") && !kept.contains("pkg:cargo/proptest@"));
}

#[test]
fn every_crate_has_an_allowed_licence_and_source_and_is_not_banned() {
    let deny = table("deny.toml");
    let allowed = deny["licenses"]["allow"].as_array().expect("licences").iter();
    let allowed: BTreeSet<String> = allowed.filter_map(|name| name.as_str().map(str::to_owned)).collect();
    let banned = deny["bans"]["deny"].as_array().expect("bans").iter();
    let banned: BTreeSet<&str> = banned.filter_map(|ban| ban["crate"].as_str()).collect();
    for package in list(&metadata(), "packages") {
        let (name, license) = (text(package, "name"), text(package, "license"));
        assert!(is_allowed(&expression(license), &allowed), "{name} has the licence {license:?}");
        assert!(package["source"].is_null() || package["source"] == REGISTRY, "{name} is from elsewhere");
    }
    // The lock file has the crates of all platforms.
    for package in table("Cargo.lock")["package"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        assert!(!banned.contains(name), "{name} is banned");
    }
}

#[test]
fn licence_expressions_are_read_with_their_parentheses() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "Unicode-3.0".to_owned()]);
    for (license, met) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0", false),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(GPL-3.0 OR Apache-2.0) AND Unicode-3.0", false),
    ] {
        assert_eq!(is_allowed(&expression(license), &allowed), met, "{license}");
    }
}

#[test]
fn no_crate_has_unsafe_code() {
    let forbidden = |lints: &toml::Table| lints["rust"]["unsafe_code"].as_str() == Some("forbid");
    let workspace = table("Cargo.toml");
    assert!(
        forbidden(workspace["workspace"]["lints"].as_table().expect("lints")),
        "the workspace forbids it"
    );
    for member in workspace["workspace"]["members"].as_array().expect("members") {
        let member = member.as_str().expect("a path");
        let manifest = table(&format!("{member}/Cargo.toml"));
        let lints = manifest["lints"].as_table().expect("every crate has lints");
        let inherits = lints.get("workspace").and_then(toml::Value::as_bool) == Some(true);
        // What a crate's own tests need must not hold for what it is.
        assert!(inherits || forbidden(lints) || member == "tests/fuzz", "{member} forbids unsafe code");
        for file in roots(&root().join(member)) {
            let name = file.strip_prefix(root()).expect("a file of ours").display().to_string();
            let source = fs::read_to_string(&file).expect("a source is text");
            let says = source.lines().any(|line| line == "#![forbid(unsafe_code)]");
            let is_test = name.contains("/tests/") && !name.starts_with("tests/fuzz/");
            assert!(says || is_test || name == WITH_UNSAFE, "{name} does not say #![forbid(unsafe_code)]");
        }
    }
}

/// The files with which the targets of a crate begin.
fn roots(member: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        ["src/lib.rs", "src/main.rs", "build.rs"].map(|name| member.join(name)).into();
    for directory in ["src/bin", "tests", "examples", "benches"] {
        let entries = fs::read_dir(member.join(directory)).into_iter().flatten();
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            found.push(path.join("main.rs"));
            if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.retain(|path| path.is_file());
    found
}
