//! Spans of time and sizes as people write and read them.
//!
//! Owns both directions and nothing else. What it prints is for people: programs read `--json`, where spans are
//! milliseconds and sizes bytes.

use std::time::Duration;

/// What a span is.
const SPAN: &str = "a span of time is a number of seconds, such as 10 or 1.5, or has a unit behind it (ms, s, m or h): 250ms, 2m";

/// Parses an id.
///
/// # Errors
///
/// A sentence for clap to print after the flag's name.
pub(crate) fn parse_id(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("an id is a number from 1 on".to_owned()),
        Ok(id) => Ok(id),
    }
}

/// Parses the generation or instance of a node.
///
/// # Errors
///
/// A sentence for clap to print after the flag's name.
pub(crate) fn parse_generation(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| "generations and instances are whole numbers, as 'holdfast stat' tells them".to_owned())
}

/// Parses a number of things.
///
/// # Errors
///
/// A sentence for clap to print after the flag's name.
pub(crate) fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "write a whole number from 1 on".to_owned())
}

/// Parses a span: `10` and `10s` are ten seconds, `1.5` is one and a half, and `250ms`, `2m` and `1h` say it
/// themselves.
///
/// # Errors
///
/// A sentence for clap to print after the flag's name.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(SPAN.to_owned());
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds_per_unit = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is no unit of time: write ms, s, m or h, or nothing for seconds")),
    };
    let number: f64 = number.parse().map_err(|_| SPAN.to_owned())?;
    // A span beyond a century would overflow arithmetic with clocks, and nobody means it.
    let seconds = number * seconds_per_unit;
    if seconds > 100.0 * 365.0 * 86_400.0 {
        return Err("that is longer than a century".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A span for people, with as many digits as say something: `250 ms`, `1.5 s`, `2 min`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    if seconds < 1.0 {
        format!("{} ms", trimmed(seconds * 1000.0))
    } else if seconds < 120.0 {
        format!("{} s", trimmed(seconds))
    } else {
        format!("{} min", trimmed(seconds / 60.0))
    }
}

/// A size for people: `512 B`, `1.5 KiB`, `256 KiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // Rounding must not print "1024 KiB".
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", trimmed(value), UNITS[unit])
}

/// Parses a count or a size: `4096`, `4KiB`, `1MiB`.
///
/// # Errors
///
/// A sentence that says what would be right.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("{text:?} is no whole number: write it in digits, or with KiB or MiB")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("{text:?} is no whole number that fits into 64 bits"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} does not fit into 64 bits"))
}

/// One digit after the point, unless it is a zero.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_in_seconds_unless_they_say_otherwise() {
        for (text, millis) in [
            ("10", 10_000),
            ("10s", 10_000),
            ("1.5", 1_500),
            ("0", 0),
            (".5", 500),
            ("250ms", 250),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(parse_span(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused_with_what_would_be_right() {
        for text in ["", "s", "-1", "1.2.3", "10 s", "ten", "1e9", "99999999h", "inf", "nan"] {
            let error = parse_span(text).unwrap_err();
            assert!(
                ["write", "a span of time is", "century"].iter().any(|said| error.contains(said)),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn spans_and_sizes_are_printed_with_the_digits_that_say_something() {
        for (millis, text) in
            [(0, "0 ms"), (250, "250 ms"), (1500, "1.5 s"), (12_000, "12 s"), (150_000, "2.5 min")]
        {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (262_144, "256 KiB"),
            (1_048_575, "1 MiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn counts_may_be_sizes() {
        assert_eq!(parse_count("4096"), Ok(4096));
        assert_eq!(parse_count("256KiB"), Ok(262_144));
        for text in ["", "-1", "1.5", "4 KiB", "1kb", "99999999999999999999", "18446744073709551615KiB"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }
}
