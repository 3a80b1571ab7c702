//! Kubernetes quantities (`100Gi`, `250m`, `1e3`) as numbers: compared when an object is looked at for drift, and
//! turned into bytes for the spool and the storage nodes.

/// Billionths: the finest grain Kubernetes keeps.
const NANO: i128 = 1_000_000_000;

/// The value in billionths; `None` when the text is no quantity.
pub fn parse(text: &str) -> Option<i128> {
    let text = text.trim();
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = unsigned.len() - unsigned.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, suffix) = unsigned.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (multiplier, divisor) = scale(suffix)?;
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut value = whole.checked_mul(NANO)?.checked_mul(multiplier)?;
    if !fraction.is_empty() {
        let denominator = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        value = value.checked_add(
            fraction.parse::<i128>().ok()?.checked_mul(NANO)?.checked_mul(multiplier)?.checked_div(denominator)?,
        )?;
    }
    let value = value / divisor;
    Some(if negative { -value } else { value })
}

/// Whole bytes; `None` when the text is no quantity or negative.
pub fn bytes(text: &str) -> Option<u64> {
    u64::try_from(parse(text)? / NANO).ok()
}

/// So many bytes as a person says it: coarse, so that a message with it rests.
pub fn spoken(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => "less than 1 MB".to_owned(),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes % 1_000_000_000 / 100_000_000),
    }
}

fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, NANO),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let ten = 10_i128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (1, ten) } else { (ten, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_writes() {
        assert_eq!(bytes("2Gi"), Some(2 << 30));
        assert_eq!(bytes("1.5Ki"), Some(1536));
        assert_eq!(bytes("64M"), Some(64_000_000));
        assert_eq!(bytes("1e3"), Some(1000));
        assert_eq!(parse("1000m"), parse("1"));
        assert_eq!(parse("0.5"), parse("500m"));
        assert_ne!(parse("1G"), parse("1Gi"));
        for bad in ["", "Gi", "1x", "1.2.3", "abc", "-"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(bytes("-1"), None);
    }

    #[test]
    fn says_bytes_as_people_do() {
        for (bytes, words) in [
            (0, "less than 1 MB"),
            (999_999, "less than 1 MB"),
            (1_000_000, "1 MB"),
            (999_999_999, "999 MB"),
            (1_250_000_000, "1.2 GB"),
            (12_000_000_000, "12.0 GB"),
        ] {
            assert_eq!(spoken(bytes), words);
        }
    }
}
