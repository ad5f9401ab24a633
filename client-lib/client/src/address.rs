//! Addresses of replicas, as people write them: `host:port` or `http://host:port`.
//!
//! Everything behind this module sees `host:port`, so that one replica has one spelling and one connection.

use crate::error::AddressError;

/// Parses one address to `host:port`.
pub(crate) fn parse(text: &str) -> Result<String, AddressError> {
    let malformed = |what| AddressError::Malformed { address: text.to_owned(), what };
    let bare = text.trim();
    let bare = bare.strip_prefix("http://").unwrap_or(bare);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    if bare.contains("://") {
        return Err(malformed("its scheme is not http"));
    }
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
pub(crate) fn parse_all<I, A>(texts: I) -> Result<Vec<String>, AddressError>
where
    I: IntoIterator<Item = A>,
    A: AsRef<str>,
{
    let mut addresses = Vec::new();
    for text in texts {
        for part in text.as_ref().split(',').filter(|part| !part.trim().is_empty()) {
            let address = parse(part)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    if addresses.is_empty() { Err(AddressError::None) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spellings_of_an_address_are_one() {
        for text in ["db1:7100", "http://db1:7100", "http://db1:7100/", " db1:7100 "] {
            assert_eq!(parse(text).unwrap(), "db1:7100", "{text}");
        }
        assert_eq!(parse("[::1]:7100").unwrap(), "[::1]:7100");
        assert_eq!(parse_all(["a:1,b:2", "a:1"]).unwrap(), ["a:1", "b:2"]);
    }

    #[test]
    fn a_bad_address_says_what_is_wrong() {
        for (text, what) in [
            ("db1", "no port"),
            (":7100", "no host"),
            ("db1:0", "1 to 65535"),
            ("db1:http", "1 to 65535"),
            ("::1:7100", "brackets"),
            ("https://db1:7100", "scheme"),
            ("db 1:7100", "character"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
        assert_eq!(parse_all([""; 0]), Err(AddressError::None));
    }
}
