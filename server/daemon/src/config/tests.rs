use std::path::Path;

use clap::{Args as _, FromArgMatches as _};
use tempfile::TempDir;

use super::flags::KEYS;
use super::source::{file_name, flag_name, variable_name};
use super::*;

/// All that a founding replica must be told, as a file.
const FILE: &str = r#"
    cell = "dev"
    replica = 1
    data_dir = "data"
    peer_listen = "127.0.0.1:7101"
    client_listen = "127.0.0.1:7001"
    members = [{ id = 2, peer = "127.0.0.1:7102", client = "127.0.0.1:7002" }, { id = 1, peer = "127.0.0.1:7101", client = "127.0.0.1:7001" }]
"#;

/// Loads a file with this text, under these variables and flags.
fn load(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, file);
    let flags = parse_flags(&[flags, &["--config", path.to_str().unwrap()]].concat());
    Config::load(&flags, variables.iter().map(|(name, value)| (name.into(), value.into())))
}

fn write(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("holdfastd.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn parse_flags(flags: &[&str]) -> ConfigFlags {
    let command = ConfigFlags::augment_args(clap::Command::new("run").no_binary_name(true));
    ConfigFlags::from_arg_matches(&command.try_get_matches_from(flags).unwrap()).unwrap()
}

/// Replaces the line of a key in [`FILE`], or adds one.
fn file_with(key: &str, value: &str) -> String {
    let line = |line: &&str| !line.trim_start().starts_with(&format!("{key} ="));
    let rest: Vec<&str> = FILE.lines().filter(line).collect();
    format!("{key} = {value}\n{}", rest.join("\n"))
}

#[track_caller]
fn assert_wrong(outcome: Result<Config, ConfigError>, parts: &[&str]) {
    let error = outcome.expect_err("the configuration is refused").to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} in {error}");
    }
}

fn members() -> Vec<FoundingMember> {
    let member = |id: u64| FoundingMember {
        id,
        peer_address: format!("127.0.0.1:{}", 7100 + id),
        client_address: format!("127.0.0.1:{}", 7000 + id),
    };
    vec![member(1), member(2)]
}

#[test]
fn what_a_file_leaves_out_has_its_default() {
    let config = load(FILE, &[], &[]).unwrap();
    assert_eq!(config, Config::new("dev", ReplicaId(1), "data".into(), members()));
    assert_eq!((config.heartbeat_ticks(), config.election_ticks()), (2, 20));
    assert_eq!(config.founding().unwrap().members, members());
}

#[test]
fn flags_outweigh_variables_and_variables_outweigh_the_file() {
    let file = file_with("tick_ms", "10");
    assert_eq!(load(&file, &[], &[]).unwrap().tick_ms, 10);
    let variables = [("HOLDFAST_TICK_MS", "20")];
    assert_eq!(load(&file, &variables, &[]).unwrap().tick_ms, 20);
    assert_eq!(load(&file, &variables, &["--tick-ms", "25"]).unwrap().tick_ms, 25);
}

#[test]
fn variables_and_flags_alone_can_say_everything() {
    let variables: Vec<(OsString, OsString)> = [
        ("HOLDFAST_CELL", "dev"),
        ("HOLDFAST_DATA_DIR", "data"),
        ("HOLDFAST_MEMBERS", "1=127.0.0.1:7101/127.0.0.1:7001, 2=127.0.0.1:7102/127.0.0.1:7002"),
        ("HOLDFAST_SETTINGS", "sessions_max=9,nodes_max=18446744073709551615"),
        ("HOLDFAST_LOG_TAIL_BYTES", "1MiB"),
        ("PATH", "/bin"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    let flags = [
        "--replica=1",
        "--peer-listen=127.0.0.1:7101",
        "--client-listen=127.0.0.1:7001",
        "--log-level=debug",
    ];
    let config = Config::load(&parse_flags(&flags), variables).unwrap();
    let mut expected = Config::new("dev", ReplicaId(1), "data".into(), members());
    expected.settings.sessions_max = 9;
    expected.settings.nodes_max = u64::MAX;
    expected.log_tail_bytes = 1 << 20;
    expected.log_level = LogLevel::Debug;
    assert_eq!(config, expected);
}

/// [`FILE`] with a `[tls]` table.
fn file_with_tls(keys: &str) -> String {
    format!("{FILE}\n[tls]\n{keys}")
}

const TLS: &str = "certificate = \"c.pem\"\nkey = \"k.pem\"\nca = \"ca.pem\"\n";

#[test]
fn tls_is_given_whole_or_not_at_all() {
    let config = load(&file_with_tls(TLS), &[], &[]).unwrap();
    let expected = TlsConfig {
        certificate: "c.pem".into(),
        key: "k.pem".into(),
        ca: "ca.pem".into(),
        client_certificates: ClientCertificates::Required,
    };
    assert_eq!(config.tls, Some(expected.clone()));
    let changed = load(
        &file_with_tls(TLS),
        &[("HOLDFAST_TLS_KEY", "other.pem")],
        &["--tls-client-certificates=optional"],
    );
    let expected =
        TlsConfig { key: "other.pem".into(), client_certificates: ClientCertificates::Optional, ..expected };
    assert_eq!(changed.unwrap().tls, Some(expected));
    let missing = load(&file_with_tls("key = \"k.pem\""), &[], &[]);
    assert_wrong(missing, &["tls.certificate is not given", "HOLDFAST_TLS_CERTIFICATE", "--tls-certificate"]);
    assert_wrong(load(FILE, &[("HOLDFAST_TLS_CLIENT_CERTIFICATES", "optional")], &[]), &["tls.certificate"]);
}

#[test]
fn a_wrong_key_or_value_of_tls_says_what_would_be_right() {
    assert_wrong(load(&file_with_tls("cert = \"x\""), &[], &[]), &["key tls.cert", "is tls.key"]);
    assert_wrong(load(&file_with("tls_key", "\"x\""), &[], &[]), &["key tls_key", "is tls.key"]);
    let whether = format!("{TLS}client_certificates = \"maybe\"");
    assert_wrong(
        load(&file_with_tls(&whether), &[], &[]),
        &["tls.client_certificates", "required nor optional"],
    );
}

#[test]
fn whoever_looks_after_a_cell_is_admin_where_that_can_be_proved_and_everybody_elsewhere() {
    let bootstrap = |file: &str| load(file, &[], &[]).unwrap().settings.bootstrap_principal;
    assert_eq!(bootstrap(FILE), "anonymous");
    assert_eq!(bootstrap(&file_with_tls(TLS)), "admin");
    let given = "\n[settings]\nbootstrap_principal = \"root@eu\"\nlease_ms_max = 30000\n";
    let config = load(&(file_with_tls(TLS) + given), &[], &[]).unwrap();
    assert_eq!(
        (config.settings.bootstrap_principal.as_str(), config.settings.lease_ms_max),
        ("root@eu", 30_000)
    );
    let wrong = file_with("settings", "{ bootstrap_principal = \"@ops\" }");
    assert_wrong(load(&wrong, &[], &[]), &["bootstrap_principal", "group"]);
    for unseen in ["ro\\u200bot", "ro\\u202eot", "ro\\u00adot"] {
        let wrong = file_with("settings", &format!("{{ bootstrap_principal = \"{unseen}\" }}"));
        assert_wrong(load(&wrong, &[], &[]), &["bootstrap_principal", "not seen"]);
    }
    let wrong = file_with("settings", "\"bootstrap_principal=ro\u{2066}ot\"");
    assert_wrong(load(&wrong, &[], &[]), &["bootstrap_principal", "not seen"]);
}

#[test]
fn the_file_can_be_named_by_a_variable_and_a_flag_outweighs_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, FILE);
    let variables = [(OsString::from("HOLDFAST_CONFIG"), path.clone().into_os_string())];
    assert_eq!(Config::load(&ConfigFlags::default(), variables).unwrap().cell, "dev");

    let variables = [(OsString::from("HOLDFAST_CONFIG"), OsString::from("no/such/file"))];
    let flags = ConfigFlags { config: Some(path), ..ConfigFlags::default() };
    assert_eq!(Config::load(&flags, variables.clone()).unwrap().cell, "dev");
    assert_wrong(Config::load(&ConfigFlags::default(), variables), &["cannot read", "no/such/file"]);
}

#[test]
fn an_unknown_key_names_the_source_and_the_nearest_key() {
    assert_wrong(
        load(&file_with("dat_dir", "\"x\""), &[], &[]),
        &["holdfastd.toml, key dat_dir", "is data_dir"],
    );
    assert_wrong(
        load(&file_with("settings", "{ node_max = 1 }"), &[], &[]),
        &["settings.node_max", "is nodes_max"],
    );
    let members = "[{ id = 1, peers = \"a:1\", client = \"a:2\" }]";
    assert_wrong(load(&file_with("members", members), &[], &[]), &["members.peers", "is peer"]);
}

#[test]
fn variables_of_clients_and_tests_are_no_keys() {
    let foreign = [
        ("HOLDFAST_ADDRESSES", "x"),
        ("HOLDFAST_CA", "w"),
        ("HOLDFAST_SEQUENCER", "y"),
        ("HOLDFAST_TEST_SEED", "z"),
    ];
    load(FILE, &foreign, &[]).unwrap();
    for variable in KEYS.map(variable_name) {
        assert!(source::own_name(variable.as_ref()).is_some(), "{variable} is a server's");
    }
}

#[test]
fn a_variable_that_sets_nothing_is_passed_over_and_named_where_what_it_meant_is_missing() {
    let variables =
        [("HOLDFAST_PORT", "tcp://10.96.4.7:7101"), ("HOLDFAST_TICKS_MS", "9"), ("HOLDFAST_TICK_MS", "20")];
    let config = load(FILE, &variables, &[]).unwrap();
    assert_eq!(config.tick_ms, 20);
    let passed_over: Vec<_> =
        config.passed_over.iter().map(|it| (it.variable.as_str(), it.nearest.as_deref())).collect();
    assert_eq!(passed_over, [("HOLDFAST_PORT", None), ("HOLDFAST_TICKS_MS", Some("HOLDFAST_TICK_MS"))]);
    let misspelt = Config::load(&ConfigFlags::default(), [("HOLDFAST_CEL".into(), "dev".into())]);
    assert_wrong(misspelt, &["cell is not given", "HOLDFAST_CEL is set, and sets nothing"]);
}

#[test]
fn a_variable_that_is_set_to_nothing_is_not_set() {
    let nothing: Vec<_> = variables().map(|variable| (variable, String::new())).collect();
    let nothing: Vec<_> = nothing.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let config = load(FILE, &[&nothing[..], &[("HOLDFAST_TICKS_MS", "")]].concat(), &[]).unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", load(FILE, &[], &[]).unwrap()));
    let cell = Config::load(&ConfigFlags::default(), [("HOLDFAST_CELL".into(), OsString::new())]);
    assert_wrong(cell, &["cell is not given"]);
}

#[test]
fn what_listens_at_ipv4_only_is_not_reached_by_ipv6() {
    let members = "1=[::1]:7101/[::1]:7001,2=[::1]:7102/[::1]:7002";
    let listen = |peer: &str| {
        let variables = [
            ("HOLDFAST_MEMBERS", members),
            ("HOLDFAST_PEER_LISTEN", peer),
            ("HOLDFAST_CLIENT_LISTEN", "[::]:7001"),
        ];
        load(FILE, &variables, &[])
    };
    assert_wrong(listen("0.0.0.0:7101"), &["HOLDFAST_PEER_LISTEN", "no other", "[::1]:7101", "[::]:7101"]);
    assert_eq!(listen("[::]:7101").unwrap().peer_advertise, "[::1]:7101");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_refused_only_if_it_is_ours() {
    use std::os::unix::ffi::OsStringExt as _;
    let bad = || OsString::from_vec(vec![0xff]);
    let flags = ConfigFlags::default();
    assert_wrong(Config::load(&flags, [("HOLDFAST_CELL".into(), bad())]), &["HOLDFAST_CELL", "not UTF-8"]);
    assert_wrong(Config::load(&flags, [("OTHER".into(), bad())]), &["cell is not given"]);
}

#[test]
fn what_is_missing_is_named_with_every_way_to_give_it() {
    for key in ["cell", "replica", "data_dir", "peer_listen", "client_listen", "members"] {
        let text = file_with(key, "0").replacen(&format!("{key} = 0"), "", 1);
        let (variable, flag) = (variable_name(key), flag_name(key));
        assert_wrong(load(&text, &[], &[]), &[&format!("{key} is not given"), &variable, &flag]);
    }
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_the_place() {
    assert_wrong(load("cell = \n", &[], &[]), &["is not TOML", "line 1"]);
    assert_wrong(load("cell = \"a\"\ncell = \"b\"\n", &[], &[]), &["is not TOML", "line 2"]);
}

#[test]
fn a_file_that_is_far_too_long_is_not_read_to_its_end() {
    let longest = 1 << 20;
    let file = format!("{FILE}\n{}", "#".repeat(longest - FILE.len() - 1));
    load(&file, &[], &[]).unwrap();
    assert_wrong(load(&format!("{file}#"), &[], &[]), &["cannot read", "holdfastd.toml", "more than 1 MiB"]);
}

#[test]
fn each_wrong_value_says_where_it_is_what_is_wrong_and_what_would_be_right() {
    let wrong: [(&str, &str, &[&str]); 21] = [
        ("cell", "\"Dev\"", &["key cell", "not well-formed", "a-z"]),
        ("cell", "7", &["key cell", "quotation marks"]),
        ("replica", "0", &["key replica", "0 is out of bounds", "1 to"]),
        ("replica", "\"1\"", &["key replica", "not a whole number"]),
        ("replica", "-1", &["key replica", "not a whole number"]),
        ("data_dir", "\"\"", &["key data_dir", "empty"]),
        ("peer_listen", "\"127.0.0.1\"", &["no port", "127.0.0.1:7101"]),
        ("peer_listen", "\"127.0.0.1:0\"", &["port 0", "1 to 65535"]),
        ("peer_listen", "\"127.0.0.1:99999\"", &["\"99999\"", "1 to 65535"]),
        ("peer_listen", "\"::1:7101\"", &["no host that can be", "[::1]:7101"]),
        ("peer_listen", "\"127.0.0.1:7001\"", &["peer_listen", "`members` says", "127.0.0.1:7101"]),
        ("join", "\"yes\"", &["neither true nor false"]),
        ("join", "true", &["leave them out"]),
        ("tick_ms", "0", &["0 is out of bounds", "1 to 1000"]),
        ("tick_ms", "30", &["heartbeat_ms (its default)", "multiple of a tick of 30 ms"]),
        ("heartbeat_ms", "50", &["key heartbeat_ms"]),
        ("election_ms", "350", &["key election_ms", "at least 400 ms"]),
        ("snapshot_every_bytes", "\"64 MB\"", &["number of bytes", "1MiB"]),
        ("log_format", "\"xml\"", &["auto, text or json"]),
        ("log_level", "\"verbose\"", &["critical, error, warning"]),
        ("settings", "{ contents_bytes_max = 2000000 }", &["key settings", "contents_bytes_max", "1048576"]),
    ];
    for (key, value, parts) in wrong {
        if (key, value) == ("heartbeat_ms", "50") {
            // As often as there is a tick is allowed; more often is not.
            assert_eq!(load(&file_with(key, value), &[], &[]).unwrap().heartbeat_ticks(), 1);
            assert_wrong(load(&file_with(key, "25"), &[], &[]), parts);
            continue;
        }
        assert_wrong(load(&file_with(key, value), &[], &[]), parts);
    }
}

#[test]
fn members_must_be_distinct_and_hold_this_replica() {
    let members = |list: &str| load(FILE, &[("HOLDFAST_MEMBERS", list)], &[]);
    assert_wrong(members("1=a:1/a:2,1=b:1/b:2"), &["HOLDFAST_MEMBERS", "two members have the id 1"]);
    assert_wrong(members("1=a:1/a:2,2=a:1/b:2"), &["the address a:1 is there twice", "members 1 and 2"]);
    assert_wrong(members("1=a:1/a:1"), &["the address a:1 is there twice"]);
    assert_wrong(members("2=a:1/a:2,3=b:1/b:2"), &["own id, 1,", "(2, 3)", "--join"]);
    assert_wrong(members("1=a:1"), &["two addresses", "ID=PEER_ADDRESS/CLIENT_ADDRESS"]);
    assert_wrong(members("0=a:1/a:2"), &["no id from 1 upwards"]);
}

#[test]
fn a_configuration_that_was_copied_from_another_replica_is_noticed() {
    let copied = FILE.replace("replica = 1", "replica = 2");
    assert_wrong(load(&copied, &[], &[]), &["another replica's configuration", "127.0.0.1:7102"]);
}

#[test]
fn a_replica_that_listens_everywhere_is_where_its_members_entry_says() {
    let everywhere = [("HOLDFAST_PEER_LISTEN", "0.0.0.0:7101"), ("HOLDFAST_CLIENT_LISTEN", "[::]:7001")];
    let config = load(FILE, &everywhere, &[]).unwrap();
    assert_eq!((config.peer_listen.as_str(), config.client_listen.as_str()), ("0.0.0.0:7101", "[::]:7001"));
    assert_eq!(
        (config.peer_advertise, config.client_advertise),
        ("127.0.0.1:7101".into(), "127.0.0.1:7001".into())
    );
    assert_wrong(load(FILE, &[("HOLDFAST_PEER_ADVERTISE", "0.0.0.0:7101")], &[]), &["no address that"]);
}

#[test]
fn a_replica_that_joins_needs_no_members_but_an_address() {
    let joining = |peer_listen: &str, more: &[&str]| {
        let listen = [peer_listen, "--client-listen=127.0.0.1:7009"];
        let flags = ["--join", "--cell=dev", "--replica=9", "--data-dir=d"];
        Config::load(&parse_flags(&[&flags[..], &listen, more].concat()), [])
    };
    let config = joining("--peer-listen=127.0.0.1:7109", &[]).unwrap();
    assert_eq!((config.join, config.members.len(), config.founding()), (true, 0, None));
    assert_wrong(joining("--peer-listen=0.0.0.0:7109", &[]), &["--peer-listen", "set peer_advertise"]);
    joining("--peer-listen=0.0.0.0:7109", &["--peer-advertise=host9:7109"]).unwrap();
    assert_wrong(joining("--peer-listen=127.0.0.1:7009", &[]), &["--client-listen", "one address"]);
}

#[test]
fn every_key_is_a_flag_of_its_own() {
    let command = ConfigFlags::augment_args(clap::Command::new("run"));
    let mut flags: Vec<String> =
        command.get_arguments().filter_map(|flag| flag.get_long()).map(String::from).collect();
    flags.retain(|flag| flag != "config");
    let keys: Vec<String> =
        KEYS.iter().map(|key| flag_name(key).trim_start_matches('-').to_owned()).collect();
    assert_eq!(flags, keys);

    // Each flag lands at its own key.
    for (position, flag) in flags.iter().enumerate() {
        let given = parse_flags(&[&format!("--{flag}=given")]);
        let set: Vec<usize> = (0..KEYS.len()).filter(|key| given.given()[*key].is_some()).collect();
        assert_eq!(set, [position], "{flag}");
    }
}

/// The example, with every line that is commented out as `#key = value` taken in.
fn example(uncomment: bool) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("holdfastd.example.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let take_in = |line: &str| match line.strip_prefix('#') {
        Some(rest) if uncomment && rest.starts_with(|first: char| first.is_ascii_lowercase()) => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    text.lines().map(take_in).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_file_names_every_key_and_claims_the_defaults_there_are() {
    let config = load(&example(false), &[], &[]).unwrap();
    let defaults = Config::new("prod", ReplicaId(1), "/var/lib/holdfast".into(), config.members.clone());
    assert_eq!(config, defaults);
    let with_tls = load(&example(true), &[], &[]).unwrap();
    let tls = with_tls.tls.clone().expect("[tls] is taken in");
    assert_eq!(tls.client_certificates, ClientCertificates::Required);
    // There is no number to claim for a limit that the system sets.
    let client_connections_max = with_tls.client_connections_max;
    assert!(client_connections_max.is_some());
    assert_eq!(with_tls, Config { tls: Some(tls), client_connections_max, ..defaults });

    let all: toml::Table = toml::from_str(&example(true)).unwrap();
    let tls = all["tls"].as_table().unwrap().keys().map(|key| format!("tls.{key}"));
    let mut named: Vec<String> = all.keys().filter(|key| *key != "tls").cloned().chain(tls).collect();
    let mut keys = KEYS.map(file_name).to_vec();
    named.sort_unstable();
    keys.sort_unstable();
    assert_eq!(named, keys);
    let settings = all["settings"].as_table().unwrap();
    assert_eq!(settings.len(), 13, "every setting is named: {settings:?}");
}
