//! Durations as Go writes and reads them: `1m30s`, `1.5s`, `871.2µs`.

use std::time::Duration;

const NANOS_PER_MICRO: u64 = 1_000;
const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The longest duration that Go can hold, about 292 years.
const NANOS_MAX: u64 = i64::MAX.unsigned_abs();

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: {0:?} (write it as 5s, 1m30s or 500ms)")]
pub(crate) struct NotADuration(String);

/// Reads a duration that is not negative: numbers with units `h m s ms us µs ns`, or a bare `0`.
pub(crate) fn parse(text: &str) -> Result<Duration, NotADuration> {
    let refused = || NotADuration(text.to_owned());
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = unsigned;
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let (part, after) = parse_part(rest).ok_or_else(refused)?;
        nanos = nanos.checked_add(part).filter(|sum| *sum <= NANOS_MAX).ok_or_else(refused)?;
        rest = after;
    }
    if unsigned.is_empty() { Err(refused()) } else { Ok(Duration::from_nanos(nanos)) }
}

/// Reads one number and its unit; returns nanoseconds and what follows.
fn parse_part(text: &str) -> Option<(u64, &str)> {
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(number_len);
    let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_len);
    Some((scaled(number, unit_nanos(unit)?)?, rest))
}

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => NANOS_PER_MICRO,
        "ms" => NANOS_PER_MILLI,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3600 * NANOS_PER_SECOND,
        _ => return None,
    })
}

/// A decimal number times `unit`; what is below a nanosecond is dropped.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    // Past 15 places even of an hour nothing is left to count, and the product fits 128 bits.
    let fraction = &fraction[..fraction.len().min(15)];
    let parsed = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse().ok() };
    let whole: u128 = parsed(whole)?;
    let part: u128 = parsed(fraction)?;
    let below = part * u128::from(unit) / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    u64::try_from(whole.checked_mul(u128::from(unit))?.checked_add(below)?).ok()
}

/// Writes a duration as Go prints it: the largest fitting unit below a second, else hours, minutes
/// and seconds; no trailing zeros.
pub(crate) fn format(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(NANOS_MAX);
    match nanos {
        0 => "0s".to_owned(),
        1..NANOS_PER_MICRO => format!("{nanos}ns"),
        NANOS_PER_MICRO..NANOS_PER_MILLI => decimal(nanos, NANOS_PER_MICRO) + "µs",
        NANOS_PER_MILLI..NANOS_PER_SECOND => decimal(nanos, NANOS_PER_MILLI) + "ms",
        _ => clock(nanos),
    }
}

fn clock(nanos: u64) -> String {
    let seconds = nanos / NANOS_PER_SECOND;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = decimal(nanos % (60 * NANOS_PER_SECOND), NANOS_PER_SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// `nanos / unit` with as many decimals as it needs.
fn decimal(nanos: u64, unit: u64) -> String {
    let places = usize::try_from(unit.ilog10()).expect("at most 9");
    let (whole, part) = (nanos / unit, nanos % unit);
    let digits = format!("{part:0places$}");
    match digits.trim_end_matches('0') {
        "" => whole.to_string(),
        fraction => format!("{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{format, parse};
    use std::time::Duration;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("+2us", 2_000),
            ("3µs4ns", 3_004),
            ("1h0.000000000001h", 3_600_000_000_003),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in ["", "5", "s", ".s", "-5s", "5 s", "1.2.3s", "5x", "+", "300000000h", "1s5"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5µs"),
            (871_234, "871.234µs"),
            (12_345_678, "12.345678ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)), text);
        }
    }
}
