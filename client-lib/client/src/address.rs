//! Addresses of replicas, as people write them: `host:port`, `http://host:port` or `https://host:port`.
//!
//! Everything behind this module sees `host:port`, so that one replica has one spelling and one connection. Whether
//! there is TLS on it is the cell's to say; a scheme that says otherwise is an error.

use crate::error::ConnectError;

/// What the scheme of an address may be, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `http://`: no TLS is configured.
    Http,
    /// `https://`: TLS is configured.
    Https,
    /// Either: the address was told by a replica, or is one that only replicas use.
    Any,
}

/// Parses one address to `host:port`.
pub(crate) fn parse(text: &str, scheme: Scheme) -> Result<String, ConnectError> {
    let malformed = |what| ConnectError::Malformed { address: text.to_owned(), what };
    let bare = text.trim();
    let (said, bare) = bare.split_once("://").unwrap_or(("", bare));
    match (said, scheme) {
        ("https", Scheme::Http) => return Err(ConnectError::TlsNeeded { address: text.to_owned() }),
        ("http", Scheme::Https) => return Err(ConnectError::TlsRefused { address: text.to_owned() }),
        ("" | "http" | "https", _) => {}
        _ => return Err(malformed("its scheme is neither http nor https")),
    }
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let Some((host, port)) = bare.rsplit_once(':') else { return Err(malformed("it has no port")) };
    if host.is_empty() {
        return Err(malformed("it has no host"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(malformed("an IPv6 address needs brackets around it"));
    }
    if host.chars().any(|c| c.is_whitespace() || c.is_control() || "/@?#".contains(c)) {
        return Err(malformed("its host has a character that no host has"));
    }
    match port.parse::<u16>() {
        Ok(0) | Err(_) => Err(malformed("its port is not a number from 1 to 65535")),
        Ok(port) => Ok(format!("{host}:{port}")),
    }
}

/// Parses a list, which commas may separate too, without repetitions.
pub(crate) fn parse_all<I, A>(texts: I, scheme: Scheme) -> Result<Vec<String>, ConnectError>
where
    I: IntoIterator<Item = A>,
    A: AsRef<str>,
{
    let mut addresses = Vec::new();
    for text in texts {
        for part in text.as_ref().split(',').filter(|part| !part.trim().is_empty()) {
            let address = parse(part, scheme)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    if addresses.is_empty() { Err(ConnectError::NoAddress) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spellings_of_an_address_are_one() {
        for text in ["db1:7100", "http://db1:7100", "http://db1:7100/", " db1:7100 "] {
            assert_eq!(parse(text, Scheme::Http).unwrap(), "db1:7100", "{text}");
        }
        assert_eq!(parse("[::1]:7100", Scheme::Https).unwrap(), "[::1]:7100");
        assert_eq!(parse_all(["a:1,b:2", "a:1"], Scheme::Http).unwrap(), ["a:1", "b:2"]);
    }

    #[test]
    fn a_scheme_that_does_not_go_with_the_configuration_is_an_error() {
        assert_eq!(parse("https://db1:7100/", Scheme::Https).unwrap(), "db1:7100");
        let plain = parse("http://db1:7100", Scheme::Https).unwrap_err().to_string();
        assert!(plain.contains("https://") && plain.contains("TLS"), "{plain}");
        let tls = parse("https://db1:7100", Scheme::Http).unwrap_err().to_string();
        assert!(tls.contains("no TLS is configured"), "{tls}");
        for told in ["https://db1:7100", "http://db1:7100", "db1:7100"] {
            assert_eq!(parse(told, Scheme::Any).unwrap(), "db1:7100");
        }
    }

    #[test]
    fn a_bad_address_says_what_is_wrong() {
        for (text, what) in [
            ("db1", "no port"),
            (":7100", "no host"),
            ("db1:0", "1 to 65535"),
            ("db1:http", "1 to 65535"),
            ("::1:7100", "brackets"),
            ("ftp://db1:7100", "scheme"),
            ("db 1:7100", "character"),
        ] {
            let error = parse(text, Scheme::Http).unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
        assert_eq!(parse_all([""; 0], Scheme::Any), Err(ConnectError::NoAddress));
    }
}
