//! Sessions of browsers: a signed cookie, so that a restart of the server logs nobody out.
//!
//! `<expiry>.<random>.<HMAC>`. What was logged out is remembered until it would have expired; that list alone is lost
//! with the process.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;

use crate::domain::token;

/// How long a login lasts.
pub(super) const LASTS: SignedDuration = SignedDuration::from_hours(12);

/// Sessions that were closed before their end.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    closed: Mutex<HashMap<String, i64>>,
}

/// A new session's cookie.
pub(super) fn open(key: &str, now: Timestamp) -> String {
    let expiry = now.as_second() + LASTS.as_secs();
    let body = format!("{expiry}.{:032x}", rand::random::<u128>());
    let mac = sign(key, &body);
    format!("{body}.{mac}")
}

impl Sessions {
    pub(super) fn knows(&self, key: &str, cookie: &str, now: Timestamp) -> bool {
        let Some((body, mac)) = cookie.rsplit_once('.') else { return false };
        if !token::matches(mac, &sign(key, body)) {
            return false;
        }
        expiry(body).is_some_and(|expiry| expiry > now.as_second())
            && !self.closed.lock().unwrap_or_else(PoisonError::into_inner).contains_key(body)
    }

    /// A cookie that nobody signed is forgotten again soon.
    pub(super) fn close(&self, cookie: &str, now: Timestamp) {
        let Some((body, _)) = cookie.rsplit_once('.') else { return };
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.retain(|_, expiry| *expiry > now.as_second());
        let latest = now.as_second() + LASTS.as_secs();
        closed.insert(body.to_owned(), expiry(body).unwrap_or_default().min(latest));
    }
}

fn expiry(body: &str) -> Option<i64> {
    body.split_once('.')?.0.parse().ok()
}

fn sign(key: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body.as_bytes());
    data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_322_800 + seconds).expect("in range")
    }

    #[test]
    fn a_session_ends_by_time_and_by_logout() {
        let sessions = Sessions::default();
        let (first, second) = (open("k", at(0)), open("k", at(0)));
        assert!(sessions.knows("k", &first, at(1)));
        assert!(!sessions.knows("k", &first, at(LASTS.as_secs())));
        sessions.close(&first, at(2));
        assert!(!sessions.knows("k", &first, at(3)));
        assert!(sessions.knows("k", &second, at(3)));
    }

    #[test]
    fn nobody_signs_for_us() {
        let sessions = Sessions::default();
        let cookie = open("k", at(0));
        let later = cookie.replacen('1', "2", 1);
        for bad in ["", ".", "..", "x", later.as_str(), &cookie[..cookie.len() - 1]] {
            assert!(!sessions.knows("k", bad, at(1)), "{bad}");
        }
        assert!(!sessions.knows("other", &cookie, at(1)));
    }

    #[test]
    fn old_sessions_are_cleaned() {
        let sessions = Sessions::default();
        sessions.close(&open("k", at(0)), at(0));
        sessions.close("9999999999999.x.y", at(0));
        sessions.close(&open("k", at(0)), at(LASTS.as_secs() + 1));
        assert!(sessions.closed.lock().expect("not poisoned").len() <= 1);
    }
}
