//! Points in time as the host gives them.

use std::time::Duration;

/// A point on the host's monotonic clock, in nanoseconds since an origin that means nothing.
///
/// `std::time::Instant` is not used: the Wasm target has no clock behind it, and it panics when subtracted
/// the wrong way round. All arithmetic here saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The point `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is the later one.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point `by` later, or the last one that there is.
    pub const fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }
}

/// `duration` in whole nanoseconds, at most `u64::MAX` (584 years).
pub const fn nanos(duration: Duration) -> u64 {
    let all = duration.as_nanos();
    if all > u64::MAX as u128 { u64::MAX } else { all as u64 }
}

/// `duration` in whole microseconds, at most `u64::MAX`.
pub const fn micros(duration: Duration) -> u64 {
    let all = duration.as_micros();
    if all > u64::MAX as u128 { u64::MAX } else { all as u64 }
}

/// Reads a duration as Go writes it (`time.ParseDuration`): `300ms`, `1.5h`, `1m30s`, `0`. Go's are what
/// Kubernetes objects and the add-on's environment carry. `None` if it is none, negative or past 584 years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let (digits, tail) = rest.split_at_checked(number)?;
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (name, tail) = tail.split_at_checked(unit)?;
        let nanos: u64 = match name {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
        total = total.checked_add(whole.checked_mul(nanos)?)?;
        let mut place = nanos;
        for digit in fraction.bytes() {
            place = place.checked_div(10)?;
            total = total.checked_add(place.checked_mul(u64::from(digit.checked_sub(b'0')?))?)?;
        }
        rest = tail;
    }
    Some(Duration::from_nanos(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("300ms", 300),
            ("1.5s", 1_500),
            (".5s", 500),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1.5h", 5_400_000),
            ("+2s", 2_000),
            ("1500000us", 1_500),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "1", "s", "1x", "-1s", "1s2", "1.2.3s", ".s", "99999999999999999999h", "1 s", "１s"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn time_does_not_run_backwards() {
        let (early, late) = (Instant::from_nanos(5), Instant::from_nanos(9));
        assert_eq!(late.since(early), Duration::from_nanos(4));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.after(Duration::MAX), Instant::from_nanos(u64::MAX));
    }
}
