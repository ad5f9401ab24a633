//! How a replica is set up: the file, the variables and the flags.

use std::ffi::OsString;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStringExt;

use holdfast_server::config::{Config, ConfigFlags};

use crate::Source;

/// Each key, and a value that it can have.
const KEYS: [(&str, &str); 20] = [
    ("cell", "dev"),
    ("replica", "1"),
    ("data_dir", "/data"),
    ("peer_listen", "127.0.0.1:7101"),
    ("client_listen", "127.0.0.1:7001"),
    ("peer_advertise", "127.0.0.1:7101"),
    ("client_advertise", "127.0.0.1:7001"),
    ("members", "1=127.0.0.1:7101/127.0.0.1:7001"),
    ("join", "true"),
    ("settings", "nodes_max=5,lease_ms_max=1000"),
    ("tls_certificate", "c.pem"),
    ("tls_key", "k.pem"),
    ("tls_ca", "ca.pem"),
    ("tick_ms", "50"),
    ("heartbeat_ms", "100"),
    ("election_ms", "1000"),
    ("lease_floor_ms", "5000"),
    ("snapshot_every_bytes", "64MiB"),
    ("log_format", "json"),
    ("log_level", "info"),
];
/// What is said about a value that is wrong has an excerpt of it, never all.
const ERROR_BYTES_MAX: usize = 8_192;

fn value(source: &mut Source<'_>, right: &str) -> String {
    match source.byte() % 8 {
        0 => source.text(),
        1 => source.number().to_string(),
        2 => source
            .pick(&[
                "",
                "=",
                ",,",
                "1=2=3",
                "a:b:c",
                "[::1]:1",
                "-1",
                "1e9",
                "18446744073709551616",
                "9999999GiB",
                "true",
            ])
            .to_owned(),
        3 => {
            let mut bytes = right.as_bytes().to_vec();
            let place = usize::from(source.byte()) % bytes.len();
            bytes[place] = source.byte();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => right.to_owned(),
    }
}

fn file(source: &mut Source<'_>) -> Vec<u8> {
    let mut text = String::new();
    for (key, right) in KEYS {
        let value = value(source, right);
        match source.byte() % 6 {
            0 => {}
            1 => text.push_str(&format!("{key} = {value}\n")),
            2 => text.push_str(&format!("[{key}]\nid = {value}\n")),
            3 => text.push_str(&format!("[[{key}]]\nid = {value}\npeer = {value:?}\nclient = {value:?}\n")),
            _ => text.push_str(&format!("{key} = {value:?}\n")),
        }
    }
    text.into_bytes()
}

/// All three sources.
///
/// # Panics
///
/// If a configuration comes of them that is not consistent.
pub fn configurations(data: &[u8]) {
    let source = &mut Source::new(data);
    let mut flags = ConfigFlags::default();
    let mut variables = Vec::new();
    let mut on_disk = tempfile::tempfile().expect("there is room for a file");
    match source.byte() % 4 {
        0 => on_disk.write_all(source.rest()).expect("there is room for a file"),
        1 => on_disk.write_all(&file(source)).expect("there is room for a file"),
        _ => {
            let given =
                KEYS.map(|(key, right)| (key, !source.byte().is_multiple_of(4), value(source, right)));
            for (key, is_given, value) in given {
                match (key, is_given) {
                    ("cell", true) => flags.cell = Some(value),
                    ("members", true) => flags.members = Some(value),
                    ("settings", true) => flags.settings = Some(value),
                    (key, true) => {
                        variables.push((format!("HOLDFAST_{}", key.to_uppercase()).into(), value.into()));
                    }
                    _ => {}
                }
            }
            while !source.is_empty() {
                let name = [b"HOLDFAST_".as_slice(), &source.bytes()].concat();
                variables.push((OsString::from_vec(name), OsString::from_vec(source.bytes().to_vec())));
            }
        }
    }
    on_disk.rewind().expect("it is a file");
    flags.config = Some(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&on_disk)).into());
    match Config::load(&flags, variables) {
        Ok(config) => {
            assert_ne!(config.replica.0, 0);
            assert_eq!(config.founding().is_none(), config.join);
            assert!(config.heartbeat_ticks() >= 1 && config.election_ticks() > config.heartbeat_ticks());
        }
        Err(error) => {
            let length = error.to_string().len();
            assert!(length <= ERROR_BYTES_MAX + data.len() * 8, "{length} bytes of error");
        }
    }
}
