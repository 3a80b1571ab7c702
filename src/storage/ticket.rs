//! Tickets of `POST /v1/publish`: a promise of room, signed so that the agent need not remember it.

use jiff::{SignedDuration, Timestamp};

use crate::domain::token::{self, MasterKey, Purpose};

/// Longest time that room is promised for, seconds.
pub const MAX_TTL: u64 = 3600;

/// A promise: `<expiry>.<bytes>.<signature>`.
pub fn issue(key: &str, bytes: u64, ttl: u64, now: Timestamp) -> String {
    let ttl = i64::try_from(ttl.min(MAX_TTL)).unwrap_or_default();
    let expiry = (now + SignedDuration::from_secs(ttl)).as_second();
    format!("{expiry}.{bytes}.{}", sign(key, expiry, bytes))
}

/// Does the ticket cover `bytes` now?
pub fn covers(key: &str, ticket: &str, bytes: u64, now: Timestamp) -> bool {
    let mut parts = ticket.splitn(3, '.');
    let (Some(Ok(expiry)), Some(Ok(promised)), Some(signature)) =
        (parts.next().map(str::parse::<i64>), parts.next().map(str::parse::<u64>), parts.next())
    else {
        return false;
    };
    token::matches(signature, &sign(key, expiry, promised)) && expiry >= now.as_second() && bytes <= promised
}

fn sign(key: &str, expiry: i64, bytes: u64) -> String {
    MasterKey::new(key).derive(Purpose::Upload, &format!("ticket/{expiry}/{bytes}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_covers_what_it_says_as_long_as_it_says() {
        let now = Timestamp::UNIX_EPOCH;
        let ticket = issue("key", 100, 60, now);
        assert!(covers("key", &ticket, 100, now));
        assert!(!covers("key", &ticket, 101, now), "more than promised");
        assert!(!covers("key", &ticket, 100, now + SignedDuration::from_secs(61)), "too late");
        assert!(!covers("other", &ticket, 100, now), "another group's");
        assert!(!covers("key", &ticket.replace(".100.", ".900."), 100, now), "forged");
        assert!(!covers("key", "", 0, now));
    }
}
