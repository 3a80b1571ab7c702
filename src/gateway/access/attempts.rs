//! How often somebody has guessed wrong lately.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

/// Wrong ones before an address has to wait.
const ALLOWED: u32 = 10;
/// Wrong ones are forgotten after this time, which is also how long to wait.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// Addresses remembered; a flood of them must not eat the memory.
const REMEMBERED: usize = 10_000;

/// Wrong attempts by address.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    wrong: Mutex<HashMap<IpAddr, (u32, Timestamp)>>,
}

impl Attempts {
    /// Seconds to wait, if the address must.
    pub(super) fn blocked(&self, from: IpAddr, now: Timestamp) -> Option<u32> {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = *wrong.get(&from)?;
        let left = WINDOW - now.duration_since(last);
        if left <= SignedDuration::ZERO {
            wrong.remove(&from);
            return None;
        }
        (count >= ALLOWED).then(|| u32::try_from(left.as_secs() + 1).unwrap_or(u32::MAX))
    }

    pub(super) fn failed(&self, from: IpAddr, now: Timestamp) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= REMEMBERED {
            wrong.retain(|_, (_, last)| now.duration_since(*last) < WINDOW);
            if wrong.len() >= REMEMBERED {
                wrong.clear();
            }
        }
        let entry = wrong.entry(from).or_insert((0, now));
        *entry = (entry.0.saturating_add(1), now);
    }

    pub(super) fn succeeded(&self, from: IpAddr) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).remove(&from);
    }
}
