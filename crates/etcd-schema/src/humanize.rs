//! Sizes for people: `20 kB`, `7.3 MB`, in powers of 1000.

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// What is needed and what is free, where there is too little: rounded, and to the byte.
pub fn shortage(needed: u64, available: u64) -> String {
    let (free, wanted) = (humanize_bytes(available), humanize_bytes(needed));
    format!("{free} are free ({available} bytes), but {wanted} are needed ({needed} bytes)")
}

/// A size as etcdctl prints it: two significant digits below 10 units, whole units above.
///
/// The unit is chosen before rounding, so 999,950 bytes are `1000 kB`; etcdctl says the same.
pub fn humanize_bytes(bytes: u64) -> String {
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let exponent = bytes.ilog(1000);
    let unit = UNITS[usize::try_from(exponent).expect("a u64 is below 1000^7")];
    let power = 1000_u64.pow(exponent);
    let tenths = tenths_rounded(bytes, power);
    if tenths < 100 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", whole_rounded_to_even(tenths))
    }
}

/// `bytes / power` in tenths, half up.
fn tenths_rounded(bytes: u64, power: u64) -> u64 {
    let doubled = u128::from(bytes) * 20 + u128::from(power);
    u64::try_from(doubled / (2 * u128::from(power))).expect("at most 10 times the input")
}

/// Tenths to whole units. Go rounds an exact half to the even neighbour when it prints.
fn whole_rounded_to_even(tenths: u64) -> u64 {
    let (whole, rest) = (tenths / 10, tenths % 10);
    whole + u64::from(rest > 5 || (rest == 5 && whole % 2 == 1))
}

#[cfg(test)]
mod tests {
    use super::humanize_bytes;

    /// Expected texts come from the Go library that etcdctl uses.
    #[test]
    fn sizes_are_written_as_etcdctl_writes_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20_480, "20 kB"),
            (12_500, "12 kB"),
            (13_500, "14 kB"),
            (9_949, "9.9 kB"),
            (9_950, "10 kB"),
            (999_949, "1000 kB"),
            (1_000_000, "1.0 MB"),
            (7_340_032, "7.3 MB"),
            (999_999_999, "1000 MB"),
            (1_000_000_000, "1.0 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(humanize_bytes(bytes), text, "{bytes}");
        }
    }
}
