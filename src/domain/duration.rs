//! GEP-2257 durations, as Gateway API and `kubectl --timeout` users write them: `720h`, `1h30m`, `90s`, `250ms`.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a duration: write hours, minutes and seconds, e.g. 720h for 30 days or 1h30m")]
pub struct Invalid(String);

/// Parses one to four parts of up to five digits and a unit (`h`, `m`, `s`, `ms`).
pub fn parse(text: &str) -> Result<Duration, Invalid> {
    let invalid = || Invalid(text.to_owned());
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 || digits > 5 || parts == 4 {
            return Err(invalid());
        }
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let (unit_ms, after) = if let Some(after) = tail.strip_prefix("ms") {
            (1, after)
        } else if let Some(after) = tail.strip_prefix('h') {
            (3_600_000, after)
        } else if let Some(after) = tail.strip_prefix('m') {
            (60_000, after)
        } else if let Some(after) = tail.strip_prefix('s') {
            (1_000, after)
        } else {
            return Err(invalid());
        };
        total += Duration::from_millis(number * unit_ms);
        rest = after;
        parts += 1;
    }
    if parts == 0 { Err(invalid()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_gep_2257() {
        assert_eq!(parse("720h"), Ok(Duration::from_secs(720 * 3600)));
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("1s250ms"), Ok(Duration::from_millis(1250)));
        for bad in ["", "30d", "h", "1.5h", "123456s", "1h1h1h1h1h", "-1h", "1 h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
