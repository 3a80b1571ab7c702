//! How long footage is kept, and when a pin ends by itself should nobody be there to remove it.

use jiff::{SignedDuration, Timestamp};

/// The cluster's own expiry lies this far behind the end of retention: the recorder removes rows and pins together, and
/// the expiry is only the net below it.
const NET: SignedDuration = SignedDuration::from_hours(24);

fn seconds(count: u64) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(count).unwrap_or(i64::MAX))
}

/// When footage that ends at `end` may go.
pub fn ends(end: Timestamp, retention_seconds: u64) -> Timestamp {
    end.saturating_add(seconds(retention_seconds)).unwrap_or(Timestamp::MAX)
}

/// Footage that ends before this may go at `now`.
pub fn horizon(now: Timestamp, retention_seconds: u64) -> Timestamp {
    now.saturating_sub(seconds(retention_seconds)).unwrap_or(Timestamp::MIN)
}

/// `expire-at` of the pin of footage that ends at `end`.
pub fn expires(end: Timestamp, retention_seconds: u64) -> Timestamp {
    ends(end, retention_seconds).saturating_add(NET).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_behind_the_horizon_has_ended() {
        let (now, hour) = (Timestamp::from_second(1_767_323_040).expect("in range"), SignedDuration::from_hours(1));
        assert_eq!(horizon(now, 3600), now - hour);
        assert_eq!(ends(horizon(now, 3600), 3600), now);
        assert!(expires(now, 3600) > ends(now, 3600));
    }

    #[test]
    fn an_absurd_retention_means_for_ever() {
        let now = Timestamp::from_second(1_767_323_040).expect("in range");
        assert_eq!(horizon(now, u64::MAX), Timestamp::MIN);
        assert_eq!(ends(now, u64::MAX), Timestamp::MAX);
    }
}
